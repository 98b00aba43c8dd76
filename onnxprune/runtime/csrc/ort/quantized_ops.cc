#include "ort/quantized_ops.h"

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "aligned_floats.h"
#include "cpu.h"
#include "dynamic_quantization.h"
#include "ort/custom_op.h"
#include "ort/operands.h"
#include "ort/quantized_inputs.h"
#include "ort/quantized_kernels.h"
#include "quantized.h"
#include "refusal.h"

namespace onnxprune {
namespace {

// The state of a node, which onnxruntime owns.
template <class Kernel>
class QuantizedNode {
 public:
  QuantizedNode(std::string name, const QuantizedForm& form, const OrtKernelInfo* info)
      : name_(std::move(name)), form_(form), kernels_(choose_byte_kernels()), attributes_(info) {
    const auto constant = [&](Part part) { return constant_input(info, form.index(part)); };
    const WeightParts parts{constant(Part::kValues), constant(Part::kGaps), constant(Part::kShape),
                            constant(Part::kWeightZero)};
    if (parts.values != nullptr && parts.gaps != nullptr && parts.shape != nullptr && parts.zeros != nullptr) {
      packed_.emplace(attributes_, parts);
    }
  }

  void compute(OrtKernelContext* kernel_context) {
    const Context context(kernel_context, thread_count_);
    if (packed_) return compute_with(*packed_, context);
    // A weight that is not known to be constant is packed in every run, as that of floats (ops.cc).
    Kernel kernel(attributes_, {input(context, Part::kValues), input(context, Part::kGaps),
                                input(context, Part::kShape), input(context, Part::kWeightZero)});
    compute_with(kernel, context);
  }

  const std::string& name() const { return name_; }

 private:
  const OrtValue* input(const Context& context, Part part) const { return context.input(form_.index(part)); }

  void compute_with(Kernel& kernel, const Context& context) const {
    Tensor x = tensor_of(input(context, Part::kX));
    Quantized numbers;
    numbers.output = form_.output;
    float x_scale = 1;
    static thread_local AlignedFloats memory;
    if (form_.is_dynamic()) {
      auto* const bytes = reinterpret_cast<uint8_t*>(memory.at_least(x.elements / sizeof(float) + 1));
      const DynamicScale found = quantize_dynamically(kernels_, static_cast<const float*>(x.data), x.elements, bytes,
                                                      context.threads());
      x_scale = found.scale;
      numbers.x_zero_point = found.zero_point;
      x.data = bytes;
    } else {
      numbers.is_signed = x.element_type == kInt8;
      numbers.x_zero_point = only_zero_point(input(context, Part::kXZero));
      if (form_.has(Part::kXScale)) x_scale = only_scale(input(context, Part::kXScale));
    }
    if (form_.has(Part::kYZero)) numbers.y_zero_point = only_zero_point(input(context, Part::kYZero));
    read_scales(kernel, context, x_scale, numbers);
    read_bias(kernel, context, numbers);
    kernel.compute(context, x, numbers);
  }

  void read_scales(const Kernel& kernel, const Context& context, float x_scale, Quantized& numbers) const {
    if (!form_.has(Part::kWeightScale)) return;
    numbers.scales = scales_of(input(context, Part::kWeightScale));
    if (numbers.scales.size() != 1 && numbers.scales.size() != kernel.outputs()) {
      throw Refusal("it has " + std::to_string(numbers.scales.size()) + " scales for " +
                    std::to_string(kernel.outputs()) + " outputs");
    }
    // In this order, so that they are rounded as onnxruntime rounds them.
    for (float& scale : numbers.scales) scale = x_scale * scale;
    if (!form_.has(Part::kYScale)) return;
    const float y_scale = only_scale(input(context, Part::kYScale));
    for (float& scale : numbers.scales) scale /= y_scale;
  }

  void read_bias(const Kernel& kernel, const Context& context, Quantized& numbers) const {
    if (!form_.has(Part::kBias)) return;
    const Tensor bias = list_of(input(context, Part::kBias), "biases");
    if (bias.elements != kernel.outputs()) throw Refusal("its bias has shape " + to_string(bias.shape));
    if (form_.output == Output::kBytes) {
      numbers.bias = static_cast<const int32_t*>(bias.data);
    } else {
      numbers.float_bias = static_cast<const float*>(bias.data);
    }
  }

  std::string name_;
  const QuantizedForm& form_;
  const ByteKernels& kernels_;
  typename Kernel::Attributes attributes_;
  std::optional<Kernel> packed_;
  ThreadCount thread_count_;
};

template <class Kernel>
struct QuantizedOp : CustomOp<QuantizedOp<Kernel>, QuantizedNode<Kernel>> {
  // `op_type` is that of x.
  QuantizedOp(std::string op_name, QuantizedForm op_form, ONNXTensorElementDataType op_type)
      : CustomOp<QuantizedOp, QuantizedNode<Kernel>>(std::move(op_name), op_form.inputs.size()),
        form(std::move(op_form)),
        type(op_type) {}

  bool is_optional(size_t) const { return false; }
  ONNXTensorElementDataType output_type() const {
    switch (form.output) {
      case Output::kFloats: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      case Output::kSums: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
      default: return type;
    }
  }
  ONNXTensorElementDataType input_type(size_t index) const {
    switch (form.inputs[index]) {
      case Part::kXScale:
      case Part::kWeightScale:
      case Part::kYScale:
      case Part::kBiasScale: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      case Part::kValues:
      case Part::kWeightZero: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // int8 or uint8, whatever x is
      case Part::kGaps: return kUint8;
      case Part::kShape: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
      case Part::kBias:
        return form.output == Output::kBytes ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32
                                             : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      default: return type;
    }
  }
  QuantizedNode<Kernel>* make_node(const std::string& node_text, const OrtKernelInfo* info) const {
    return new QuantizedNode<Kernel>(node_text, form, info);
  }

  const QuantizedForm form;
  const ONNXTensorElementDataType type;
};

using Ops = std::vector<const OrtCustomOp*>;

template <class Kernel>
void add(const std::string& name, const QuantizedForm& form, Ops& ops) {
  if (form.is_dynamic()) {
    ops.push_back(new QuantizedOp<Kernel>(name, form, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
    return;
  }
  for (const ONNXTensorElementDataType type : {kUint8, kInt8}) {
    ops.push_back(new QuantizedOp<Kernel>(name, form, type));
  }
}

QuantizedForm with(QuantizedForm form, std::initializer_list<Part> more) {
  form.inputs.insert(form.inputs.end(), more);
  return form;
}

const QuantizedForm& to_bytes() {
  static const QuantizedForm form{{Part::kX, Part::kXScale, Part::kXZero, Part::kValues, Part::kGaps, Part::kShape,
                                   Part::kWeightScale, Part::kWeightZero, Part::kYScale, Part::kYZero},
                                  Output::kBytes};
  return form;
}

// With and without a bias, for the QLinear operator and for the QDQ form, in which a bias has a scale: it is that of x
// times that of the weight, and not read.
template <class Kernel>
void add_both(const std::string& q_linear, const std::string& qdq, Ops& ops) {
  add<Kernel>("Sparse" + q_linear, with(to_bytes(), {Part::kBias}), ops);
  add<Kernel>("Sparse" + q_linear + "NoBias", to_bytes(), ops);
  add<Kernel>("Sparse" + qdq, with(to_bytes(), {Part::kBias, Part::kBiasScale}), ops);
  add<Kernel>("Sparse" + qdq + "NoBias", to_bytes(), ops);
}

// Those whose x has a scale that the graph computes.
void add_dynamic_ops(Ops& ops) {
  const QuantizedForm sums{{Part::kX, Part::kXZero, Part::kValues, Part::kGaps, Part::kShape, Part::kWeightZero},
                           Output::kSums};
  add<QuantizedMatrixOp<0>>("SparseMatMulInteger", sums, ops);
  add<QuantizedConvOp>("SparseConvInteger", sums, ops);
  const QuantizedForm floats{{Part::kX, Part::kXScale, Part::kXZero, Part::kValues, Part::kGaps, Part::kShape,
                              Part::kWeightScale, Part::kWeightZero},
                             Output::kFloats};
  add<QuantizedMatrixOp<0>>("SparseMatMulIntegerCastMul", floats, ops);
  add<QuantizedMatrixOp<0>>("SparseMatMulIntegerCastMulAdd", with(floats, {Part::kBias}), ops);
  add<QuantizedMatrixOp<0>>("SparseMatMulIntegerToFloatNoBias", floats, ops);
  add<QuantizedMatrixOp<0>>("SparseMatMulIntegerToFloat", with(floats, {Part::kBias}), ops);
  add<QuantizedConvOp>("SparseConvIntegerCastMul", floats, ops);
  const QuantizedForm dynamic{
      {Part::kX, Part::kValues, Part::kGaps, Part::kShape, Part::kWeightScale, Part::kWeightZero}, Output::kFloats};
  add<QuantizedMatrixOp<0>>("SparseDynamicQuantizeMatMulNoBias", dynamic, ops);
  add<QuantizedMatrixOp<0>>("SparseDynamicQuantizeMatMul", with(dynamic, {Part::kBias}), ops);
}

}  // namespace

void add_quantized_ops(Ops& ops) {
  add_both<QuantizedConvOp>("QLinearConv", "QDQConv", ops);
  add_both<QuantizedMatrixOp<0>>("QGemm", "QDQGemm", ops);
  add_both<QuantizedMatrixOp<1>>("QGemmTransB", "QDQGemmTransB", ops);
  add<QuantizedMatrixOp<0>>("SparseQLinearMatMul", to_bytes(), ops);
  add<QuantizedMatrixOp<0>>("SparseQDQMatMul", to_bytes(), ops);
  add_dynamic_ops(ops);
}

}  // namespace onnxprune
