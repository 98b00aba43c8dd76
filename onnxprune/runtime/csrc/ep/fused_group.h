// A group of several products as onnxruntime runs it, by an executor with a layout of its own.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "ep/compiled.h"
#include "ep/units.h"
#include "planes/executor.h"

namespace onnxprune {

class FusedGroup : public Compiled {
 public:
  // `inputs` and `outputs` are the names of those that a run passes, and wants.
  FusedGroup(const std::vector<Node>& nodes, const std::vector<std::string>& inputs,
             const std::vector<std::string>& outputs);

  void compute(OrtKernelContext* context) override;
  OrtStatus* refusal(const char* why) const noexcept override;

 private:
  // The places, among those that a run passes, of the executor's inputs.
  std::vector<size_t> inputs_;
  std::unique_ptr<Executor> executor_;
  ThreadCount thread_count_;
};

}  // namespace onnxprune
