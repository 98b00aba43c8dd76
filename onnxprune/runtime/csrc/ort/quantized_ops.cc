#include "ort/quantized_ops.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "byte_weight.h"
#include "cpu.h"
#include "ort/conv_op.h"
#include "ort/custom_op.h"
#include "ort/operands.h"
#include "ort/refuse.h"
#include "quantized.h"
#include "quantized_conv.h"
#include "quantized_gemm.h"
#include "refusal.h"

namespace onnxprune {
namespace {

// The inputs, as sparse/quantized_functions.py has them.
enum QuantizedInput : size_t {
  kInput,
  kInputScale,
  kInputZero,
  kBlocks,
  kBlockGaps,
  kWeightShape,
  kWeightScale,
  kWeightZero,
  kOutputScale,
  kOutputZero,
  kBias,
  kBiasScale
};

constexpr ONNXTensorElementDataType kInt8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
constexpr ONNXTensorElementDataType kUint8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

// Zero points, u8 or s8.
ZeroPoints zero_points(const OrtValue* value) {
  const Tensor tensor = tensor_of(value);
  if (tensor.element_type == kInt8) {
    const auto* const zeros = static_cast<const int8_t*>(tensor.data);
    return {zeros, zeros + tensor.elements};
  }
  if (tensor.element_type != kUint8) throw Refusal("its zero points are neither int8 nor uint8");
  const auto* const zeros = static_cast<const uint8_t*>(tensor.data);
  return {zeros, zeros + tensor.elements};
}

int32_t only_zero_point(const OrtValue* value) {
  const ZeroPoints zeros = zero_points(value);
  if (zeros.size() != 1) throw Refusal("it has " + std::to_string(zeros.size()) + " zero points where one belongs");
  return zeros.front();
}

std::vector<float> scales(const OrtValue* value) {
  const Tensor tensor = tensor_of(value);
  const auto* const data = static_cast<const float*>(tensor.data);
  return {data, data + tensor.elements};
}

float only_scale(const OrtValue* value) {
  const std::vector<float> found = scales(value);
  if (found.size() != 1) throw Refusal("it has " + std::to_string(found.size()) + " scales where one belongs");
  return found.front();
}

// The constants of a weight.
struct WeightParts {
  const OrtValue* values;
  const OrtValue* gaps;
  const OrtValue* shape;
  const OrtValue* zeros;
};

// `decode_as(stored, shape, zeros)` makes the weight.
template <class DecodeAs>
ByteWeight weight_of(const WeightParts& parts, const DecodeAs& decode_as) {
  const Tensor values = tensor_of(parts.values);
  const Tensor gaps = list_of(parts.gaps, "gaps");
  const Tensor shape = list_of(parts.shape, "shape");
  if (values.element_type != kInt8 && values.element_type != kUint8) {
    throw Refusal("its values are neither int8 nor uint8");
  }
  if (values.shape.size() != 2) throw Refusal("its values are not in blocks");
  if (size_at(values.shape, 0) != gaps.elements) {
    throw Refusal("it has " + std::to_string(values.shape[0]) + " blocks but " + std::to_string(gaps.elements) +
                  " gaps");
  }
  if (values.element_type != tensor_of(parts.zeros).element_type) {
    throw Refusal("its values and their zero points have different types");
  }
  const StoredBytes stored{values.data, values.element_type == kInt8, size_at(values.shape, 1),
                           static_cast<const uint8_t*>(gaps.data), gaps.elements};
  const auto* const sizes = static_cast<const int64_t*>(shape.data);
  return decode_as(stored, std::vector<int64_t>{sizes, sizes + shape.elements}, zero_points(parts.zeros));
}

class QuantizedConvOp {
 public:
  using Attributes = ConvOp<float>::Attributes;

  QuantizedConvOp(const Attributes& attributes, const WeightParts& parts)
      : conv_(choose_byte_kernels(), weight_of(parts, decode_conv), attributes) {}

  size_t outputs() const { return conv_.output_channels(); }

  void compute(const Context& context, const Tensor& x, const Quantized& numbers) {
    const Tensor y = context.output(conv_.output_shape(x.shape));
    conv_.run(static_cast<const uint8_t*>(x.data), x.shape, numbers, static_cast<uint8_t*>(y.data), context.threads());
  }

 private:
  static ByteWeight decode_conv(const StoredBytes& stored, std::vector<int64_t> shape, ZeroPoints zeros) {
    for (const int32_t zero : zeros) {
      if (zero != zeros.front()) throw Refusal("its outputs have different zero points");
    }
    zeros.resize(1);
    return decode(stored, std::move(shape), 1, zeros);
  }

  QuantizedConv conv_;
};

// Of a matrix whose inputs are along `kInputAxis`.
template <size_t kInputAxis>
class QuantizedMatrixOp {
 public:
  struct Attributes {
    explicit Attributes(const OrtKernelInfo*) {}
  };

  QuantizedMatrixOp(const Attributes&, const WeightParts& parts)
      : gemm_(choose_byte_kernels(), weight_of(parts, decode_matrix)) {}

  size_t outputs() const { return gemm_.outputs(); }

  void compute(const Context& context, const Tensor& x, const Quantized& numbers) {
    std::vector<int64_t> shape = x.shape;
    if (shape.empty() || size_at(shape, shape.size() - 1) != gemm_.inputs()) {
      throw Refusal("its input has shape " + to_string(shape) + ", but its weight wants " +
                    std::to_string(gemm_.inputs()) + " columns");
    }
    shape.back() = static_cast<int64_t>(gemm_.outputs());
    const Tensor y = context.output(shape);
    gemm_.run(static_cast<const uint8_t*>(x.data), y.elements / gemm_.outputs(), numbers,
              static_cast<uint8_t*>(y.data), context.threads());
  }

 private:
  static ByteWeight decode_matrix(const StoredBytes& stored, std::vector<int64_t> shape, const ZeroPoints& zeros) {
    if (shape.size() != 2) throw Refusal("its shape " + to_string(shape) + " is not that of a matrix");
    return decode(stored, std::move(shape), kInputAxis, zeros);
  }

  QuantizedGemm gemm_;
};

// The state of a node, which onnxruntime owns.
template <class Kernel>
class QuantizedNode {
 public:
  QuantizedNode(std::string name, const OrtKernelInfo* info) : name_(std::move(name)), attributes_(info) {
    const WeightParts parts{constant_input(info, kBlocks), constant_input(info, kBlockGaps),
                            constant_input(info, kWeightShape), constant_input(info, kWeightZero)};
    if (parts.values != nullptr && parts.gaps != nullptr && parts.shape != nullptr && parts.zeros != nullptr) {
      packed_.emplace(attributes_, parts);
    }
  }

  void compute(OrtKernelContext* kernel_context) {
    const Context context(kernel_context, thread_count_);
    if (packed_) return compute_with(*packed_, context);
    // A weight that is not known to be constant is packed in every run, as that of floats (ops.cc).
    Kernel kernel(attributes_, {context.input(kBlocks), context.input(kBlockGaps), context.input(kWeightShape),
                                context.input(kWeightZero)});
    compute_with(kernel, context);
  }

  const std::string& name() const { return name_; }

 private:
  static void compute_with(Kernel& kernel, const Context& context) {
    const Tensor x = tensor_of(context.input(kInput));
    Quantized numbers{x.element_type == kInt8, only_zero_point(context.input(kInputZero)),
                      only_zero_point(context.input(kOutputZero)), scales(context.input(kWeightScale)), nullptr};
    if (numbers.scales.size() != 1 && numbers.scales.size() != kernel.outputs()) {
      throw Refusal("it has " + std::to_string(numbers.scales.size()) + " scales for " +
                    std::to_string(kernel.outputs()) + " outputs");
    }
    const float x_scale = only_scale(context.input(kInputScale));
    const float y_scale = only_scale(context.input(kOutputScale));
    // In this order, so that they are rounded as onnxruntime rounds them.
    for (float& scale : numbers.scales) scale = x_scale * scale / y_scale;
    if (const OrtValue* const value = context.input(kBias)) {
      const Tensor bias = list_of(value, "biases");
      if (bias.elements != kernel.outputs()) throw Refusal("its bias has shape " + to_string(bias.shape));
      numbers.bias = static_cast<const int32_t*>(bias.data);
    }
    kernel.compute(context, x, numbers);
  }

  std::string name_;
  typename Kernel::Attributes attributes_;
  std::optional<Kernel> packed_;
  ThreadCount thread_count_;
};

template <class Kernel>
struct QuantizedOp : CustomOp<QuantizedOp<Kernel>, QuantizedNode<Kernel>> {
  QuantizedOp(std::string op_name, ONNXTensorElementDataType op_type, size_t inputs)
      : CustomOp<QuantizedOp, QuantizedNode<Kernel>>(std::move(op_name), inputs), type(op_type) {}

  bool is_optional(size_t) const { return false; }
  ONNXTensorElementDataType output_type() const { return type; }
  ONNXTensorElementDataType input_type(size_t index) const {
    switch (index) {
      case kInputScale:
      case kWeightScale:
      case kOutputScale:
      case kBiasScale: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      case kBlocks:
      case kWeightZero: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // int8 or uint8, whatever x is
      case kBlockGaps: return kUint8;
      case kWeightShape: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
      case kBias: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
      default: return type;
    }
  }
  QuantizedNode<Kernel>* make_node(const std::string& node_text, const OrtKernelInfo* info) const {
    return new QuantizedNode<Kernel>(node_text, info);
  }

  const ONNXTensorElementDataType type;
};

template <class Kernel>
void add(const std::string& name, size_t inputs, std::vector<const OrtCustomOp*>& ops) {
  for (const ONNXTensorElementDataType type : {kUint8, kInt8}) {
    ops.push_back(new QuantizedOp<Kernel>(name, type, inputs));
  }
}

// With and without a bias, for the QLinear operator and for the QDQ form, in which a bias has a scale: it is that of x
// times that of the weight, and not read.
template <class Kernel>
void add_both(const std::string& q_linear, const std::string& qdq, std::vector<const OrtCustomOp*>& ops) {
  add<Kernel>("Sparse" + q_linear, kBias + 1, ops);
  add<Kernel>("Sparse" + q_linear + "NoBias", kBias, ops);
  add<Kernel>("Sparse" + qdq, kBiasScale + 1, ops);
  add<Kernel>("Sparse" + qdq + "NoBias", kBias, ops);
}

}  // namespace

void add_quantized_ops(std::vector<const OrtCustomOp*>& ops) {
  add_both<QuantizedConvOp>("QLinearConv", "QDQConv", ops);
  add_both<QuantizedMatrixOp<0>>("QGemm", "QDQGemm", ops);
  add_both<QuantizedMatrixOp<1>>("QGemmTransB", "QDQGemmTransB", ops);
  add<QuantizedMatrixOp<0>>("SparseQLinearMatMul", kBias, ops);
  add<QuantizedMatrixOp<0>>("SparseQDQMatMul", kBias, ops);
}

}  // namespace onnxprune
