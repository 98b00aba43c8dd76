#include "ep/fused_node.h"

#include <algorithm>

#include "ort/conv_op.h"
#include "ort/gemm_matmul_ops.h"
#include "ort/refuse.h"

namespace onnxprune {
template <class Op>
class FusedNode::KernelOf : public Kernel {
 public:
  explicit KernelOf(const Group& group)
      : op_(typename Op::Attributes(group.nodes.front()), nonzeros(group.weight.initializer())) {}
  void compute(const Context& context, const Arguments<float>& arguments) override { op_.compute(context, arguments); }

 private:
  Op op_;
};

FusedNode::FusedNode(const Group& group, const std::vector<std::string>& inputs)
    : text_(group.nodes.front().text()), x_(source_of(group.x, inputs)), kernel_(make_kernel(group)) {
  if (group.bias) bias_ = source_of(group.bias, inputs);
  if (group.addend) addend_ = source_of(group.addend, inputs);
  epilogue_.activation = group.activation;
  epilogue_.constants = group.constants;
}

void FusedNode::compute(OrtKernelContext* kernel_context) {
  const Context context(kernel_context, thread_count_);
  Arguments<float> arguments(x_.operand(context));
  if (bias_) arguments.bias = bias_->operand(context);
  if (addend_) arguments.addend = addend_->operand(context);
  arguments.epilogue = epilogue_;
  kernel_->compute(context, arguments);
}

OrtStatus* FusedNode::refusal(const char* why) const noexcept { return refuse(text_, why); }

Operand<float> FusedNode::Source::operand(const Context& context) const {
  return input ? Operand<float>(context.input(*input)) : Operand<float>(shape, numbers);
}

FusedNode::Source FusedNode::source_of(const Value& value, const std::vector<std::string>& inputs) {
  const auto found = std::find(inputs.begin(), inputs.end(), value.name());
  if (found != inputs.end()) return {static_cast<size_t>(found - inputs.begin()), {}, {}};
  if (!value.is_constant()) throw Refusal("onnxruntime does not pass its input '" + value.name() + "'");
  const Tensor tensor = value.initializer();
  const auto* const numbers = static_cast<const float*>(tensor.data);
  return {std::nullopt, tensor.shape, {numbers, numbers + tensor.elements}};
}

std::unique_ptr<FusedNode::Kernel> FusedNode::make_kernel(const Group& group) {
  switch (group.op) {
    case Operator::kConv: return std::make_unique<KernelOf<ConvOp<float>>>(group);
    case Operator::kGemm: return std::make_unique<KernelOf<GemmOp<float>>>(group);
    case Operator::kMatMul: return std::make_unique<KernelOf<MatMulOp<float>>>(group);
  }
  return nullptr;
}

}  // namespace onnxprune
