#include "ort/between_ops.h"

#include <cstdint>
#include <string>
#include <utility>

#include "between.h"
#include "cpu.h"
#include "ort/custom_op.h"
#include "ort/operands.h"
#include "ort/quantized_inputs.h"
#include "refusal.h"

namespace onnxprune {
namespace {

ByteScale step_of(const Context& context, size_t scale, size_t zero_point) {
  return {only_scale(context.input(scale)), only_zero_point(context.input(zero_point))};
}

// Names of the inputs, in their order, are those of sparse/between.py.
class Sum {
 public:
  static constexpr const char* kName = "QLinearAdd";
  static constexpr size_t kInputs = 8;
  static constexpr bool kSigned = true;

  explicit Sum(const OrtKernelInfo*) : kernels_(choose_byte_kernels()) {}

  void compute(const Context& context) const {
    const Tensor a = tensor_of(context.input(0));
    const Tensor b = tensor_of(context.input(3));
    const Tensor y = context.output(broadcast(a.shape, b.shape));
    add(kernels_, {static_cast<const uint8_t*>(a.data), a.shape, step_of(context, 1, 2)},
        {static_cast<const uint8_t*>(b.data), b.shape, step_of(context, 4, 5)}, step_of(context, 6, 7),
        a.element_type == kInt8, static_cast<uint8_t*>(y.data), context.threads());
  }

  static bool is_scale(size_t index) { return index == 1 || index == 4 || index == 6; }

 private:
  const ByteKernels& kernels_;
};

class Softmax {
 public:
  static constexpr const char* kName = "QLinearSoftmax";
  static constexpr size_t kInputs = 5;
  static constexpr bool kSigned = false;

  explicit Softmax(const OrtKernelInfo* info)
      : kernels_(choose_byte_kernels()), axis_(attribute(info, "axis", int64_t{-1})) {}

  void compute(const Context& context) const {
    const Tensor x = tensor_of(context.input(0));
    const Tensor y = context.output(x.shape);
    softmax(kernels_, {static_cast<const uint8_t*>(x.data), x.shape, step_of(context, 1, 2)}, axis_,
            step_of(context, 3, 4), static_cast<uint8_t*>(y.data), context.threads());
  }

  static bool is_scale(size_t index) { return index == 1 || index == 3; }

 private:
  const ByteKernels& kernels_;
  int64_t axis_;
};

class Pool {
 public:
  static constexpr const char* kName = "MaxPool";
  static constexpr size_t kInputs = 1;
  static constexpr bool kSigned = true;

  explicit Pool(const OrtKernelInfo* info)
      : pool_(attribute(info, "kernel_shape", Sizes{}), attribute(info, "strides", Sizes{}),
              attribute(info, "pads", Sizes{})) {}

  void compute(const Context& context) const {
    const Tensor x = tensor_of(context.input(0));
    const Tensor y = context.output(pool_.output_shape(x.shape));
    pool_.run(static_cast<const uint8_t*>(x.data), x.shape, x.element_type == kInt8, static_cast<uint8_t*>(y.data),
              context.threads());
  }

  static bool is_scale(size_t) { return false; }

 private:
  BytePool pool_;
};

// The state of a node, which onnxruntime owns.
template <class Kernel>
class BetweenNode {
 public:
  BetweenNode(std::string name, const OrtKernelInfo* info) : name_(std::move(name)), kernel_(info) {}

  void compute(OrtKernelContext* context) { kernel_.compute(Context(context, thread_count_)); }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  Kernel kernel_;
  ThreadCount thread_count_;
};

template <class Kernel>
struct BetweenOp : CustomOp<BetweenOp<Kernel>, BetweenNode<Kernel>> {
  explicit BetweenOp(ONNXTensorElementDataType op_type)
      : CustomOp<BetweenOp, BetweenNode<Kernel>>(Kernel::kName, Kernel::kInputs), type(op_type) {}

  bool is_optional(size_t) const { return false; }
  ONNXTensorElementDataType output_type() const { return type; }
  ONNXTensorElementDataType input_type(size_t index) const {
    return Kernel::is_scale(index) ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : type;
  }
  BetweenNode<Kernel>* make_node(const std::string& node_text, const OrtKernelInfo* info) const {
    return new BetweenNode<Kernel>(node_text, info);
  }

  const ONNXTensorElementDataType type;
};

template <class Kernel>
void add_op(std::vector<const OrtCustomOp*>& ops) {
  ops.push_back(new BetweenOp<Kernel>(kUint8));
  if (Kernel::kSigned) ops.push_back(new BetweenOp<Kernel>(kInt8));
}

}  // namespace

void add_between_ops(std::vector<const OrtCustomOp*>& ops) {
  add_op<Sum>(ops);
  add_op<Softmax>(ops);
  add_op<Pool>(ops);
}

}  // namespace onnxprune
