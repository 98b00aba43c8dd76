#include "ort/ops.h"

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "float16.h"
#include "ort/between_ops.h"
#include "ort/conv_op.h"
#include "ort/custom_op.h"
#include "ort/forms.h"
#include "ort/gemm_matmul_ops.h"
#include "ort/operands.h"
#include "ort/quantized_ops.h"
#include "ort/refuse.h"
#include "refusal.h"
#include "sparse_weight.h"

namespace onnxprune {
namespace {

ValueType value_type(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return ValueType::kFloat;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return ValueType::kFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return ValueType::kDouble;
    default: throw Refusal("its values have an element type that no kernel reads");
  }
}

// The weight of a node, with its values rounded to T, as the function in the model file does.
template <class T>
SparseWeight weight_of(const OrtValue* values_input, const OrtValue* gaps_input, const OrtValue* shape_input) {
  const Tensor values = list_of(values_input, "values");
  const Tensor gaps = list_of(gaps_input, "gaps");
  const Tensor shape = list_of(shape_input, "shape");
  if (values.elements != gaps.elements) {
    throw Refusal("it has " + std::to_string(values.elements) + " values but " + std::to_string(gaps.elements) +
                  " gaps");
  }
  const auto* const sizes = static_cast<const int64_t*>(shape.data);
  SparseWeight weight = decode(values.data, value_type(values.element_type), static_cast<const uint8_t*>(gaps.data),
                               gaps.elements, {sizes, sizes + shape.elements});
  if (std::is_same_v<T, Half>) {
    for (double& value : weight.values) value = half_to_float(float_to_half(static_cast<float>(value)));
  }
  return weight;
}

// The state of a node, which onnxruntime owns.
template <template <class> class Kernel, class T>
class Node {
 public:
  Node(std::string name, const Form& form, const OrtKernelInfo* info)
      : name_(std::move(name)), form_(form), attributes_(info), constants_(form.constants) {
    constants_.slope = attribute(info, "slope", static_cast<float>(constants_.slope));
    constants_.offset = attribute(info, "offset", static_cast<float>(constants_.offset));
    const OrtValue* const values = constant_input(info, kValues);
    const OrtValue* const gaps = constant_input(info, kGaps);
    const OrtValue* const shape = constant_input(info, kShape);
    if (values != nullptr && gaps != nullptr && shape != nullptr) {
      packed_.emplace(attributes_, weight_of<T>(values, gaps, shape));
    }
  }

  void compute(OrtKernelContext* kernel_context) {
    const Context context(kernel_context, thread_count_);
    const Arguments<T> arguments(context, form_, constants_);
    if (packed_) return packed_->compute(context, arguments);
    // A weight that is not known to be constant is packed in every run: one that the graph computes, or one of an outer
    // graph, which onnxruntime does not show to kernels in a subgraph (seen in 1.18).
    Kernel<T> kernel(attributes_, weight_of<T>(context.input(kValues), context.input(kGaps), context.input(kShape)));
    kernel.compute(context, arguments);
  }

  const std::string& name() const { return name_; }

 private:
  std::string name_;
  const Form& form_;
  typename Kernel<T>::Attributes attributes_;
  Constants constants_;
  std::optional<Kernel<T>> packed_;
  ThreadCount thread_count_;
};

template <template <class> class Kernel, class T>
struct Op : CustomOp<Op<Kernel, T>, Node<Kernel, T>> {
  Op(const std::string& base_name, const Form& op_form, bool may_have_bias)
      : CustomOp<Op, Node<Kernel, T>>(base_name + op_form.name, bias_index(op_form) + may_have_bias), form(op_form) {}

  // The bias comes last.
  static size_t bias_index(const Form& form) {
    return kFirstOfForm + (form.has_addend ? 1 : 0) + form.scalars.size();
  }

  bool is_optional(size_t index) const { return index == bias_index(form); }
  ONNXTensorElementDataType output_type() const { return kElementType<T>; }
  ONNXTensorElementDataType input_type(size_t index) const {
    switch (index) {
      case kValues: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // any: they are cast to `dtype`
      case kGaps: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
      case kShape: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
      default: return kElementType<T>;
    }
  }
  Node<Kernel, T>* make_node(const std::string& node_text, const OrtKernelInfo* info) const {
    return new Node<Kernel, T>(node_text, form, info);
  }

  const Form& form;
};

template <template <class> class Kernel, class... Types>
void add_forms(const std::string& name, bool may_have_bias, std::vector<const OrtCustomOp*>& ops) {
  for (const Form& form : forms()) (ops.push_back(new Op<Kernel, Types>(name, form, may_have_bias)), ...);
}

std::vector<const OrtCustomOp*> custom_ops() {
  std::vector<const OrtCustomOp*> ops;
  add_forms<GemmOp, float, Half, double>("SparseGemm", true, ops);
  add_forms<MatMulOp, float, Half, double>("SparseMatMul", false, ops);
  // Not in double: onnxruntime has no Conv for it either.
  add_forms<ConvOp, float, Half>("SparseConv", true, ops);
  add_forms<ConvOp, float, Half>("SparseConvNoBias", false, ops);
  add_quantized_ops(ops);
  add_between_ops(ops);
  return ops;
}

}  // namespace

OrtCustomOpDomain* custom_op_domain() {
  // Neither it nor the operators are ever released, as sessions keep pointers to them.
  static OrtCustomOpDomain* const domain = [] {
    OrtCustomOpDomain* made = nullptr;
    check(g_ort->CreateCustomOpDomain("onnxprune", &made));
    for (const OrtCustomOp* const op : custom_ops()) check(g_ort->CustomOpDomain_Add(made, op));
    return made;
  }();
  return domain;
}

}  // namespace onnxprune
