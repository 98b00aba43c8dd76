#include "ep/fused_node.h"

#include <algorithm>

#include "ort/conv_op.h"
#include "ort/gemm_matmul_ops.h"
#include "sparse_weight.h"

namespace onnxprune {
namespace {

SparseWeight nonzeros(const Tensor& tensor) {
  SparseWeight weight{tensor.shape, {}, {}};
  const auto* const values = static_cast<const float*>(tensor.data);
  const auto count = tensor.elements - static_cast<size_t>(std::count(values, values + tensor.elements, 0.0f));
  weight.positions.reserve(count);
  weight.values.reserve(count);
  for (size_t i = 0; i < tensor.elements; ++i) {
    if (values[i] == 0) continue;
    weight.positions.push_back(i);
    weight.values.push_back(values[i]);
  }
  return weight;
}

}  // namespace

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
