// A group as onnxruntime runs it: a product by a sparse kernel, its weight packed once, with what follows it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ep/compiled.h"
#include "ep/groups.h"
#include "kernels/epilogue.h"
#include "ort/operands.h"
#include "threads.h"

namespace onnxprune {

class FusedNode : public Compiled {
 public:
  // `inputs` are the names of those that a run passes; constants are copied.
  FusedNode(const Group& group, const std::vector<std::string>& inputs);

  void compute(OrtKernelContext* context) override;
  OrtStatus* refusal(const char* why) const noexcept override;

 private:
  // An operand that a run passes, or a constant.
  struct Source {
    std::optional<size_t> input;
    std::vector<int64_t> shape;
    std::vector<float> numbers;

    Operand<float> operand(const Context& context) const;
  };
  class Kernel {
   public:
    virtual ~Kernel() = default;
    virtual void compute(const Context& context, const Arguments<float>& arguments) = 0;
  };
  template <class Op>
  class KernelOf;

  static Source source_of(const Value& value, const std::vector<std::string>& inputs);
  static std::unique_ptr<Kernel> make_kernel(const Group& group);

  // For messages.
  std::string text_;
  Source x_;
  std::optional<Source> bias_;
  std::optional<Source> addend_;
  Epilogue epilogue_;
  std::unique_ptr<Kernel> kernel_;
  ThreadCount thread_count_;
};

}  // namespace onnxprune
