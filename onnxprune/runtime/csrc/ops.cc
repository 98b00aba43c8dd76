#include "ops.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "convolution.h"
#include "cpu.h"
#include "entries.h"
#include "operands.h"
#include "product.h"
#include "wide.h"

namespace onnxprune {
namespace {

OrtStatus* refuse(const std::string& node, const char* what) noexcept {
  try {
    return g_ort->CreateStatus(ORT_INVALID_ARGUMENT, (node + " cannot run: " + what).c_str());
  } catch (...) {
    return g_ort->CreateStatus(ORT_FAIL, "out of memory");
  }
}

Tensor list_of(const OrtValue* value, const char* name) {
  Tensor tensor = tensor_of(value);
  if (tensor.shape.size() != 1) throw Refusal("its " + std::string(name) + " are not one-dimensional");
  return tensor;
}

ValueType value_type(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return ValueType::kFloat;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return ValueType::kFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return ValueType::kDouble;
    default: throw Refusal("its values have an element type that no kernel reads");
  }
}

// The weight of a node, its values cast to T as the function in the file casts them.
template <class T>
Entries weight_of(const OrtValue* values_input, const OrtValue* gaps_input, const OrtValue* shape_input) {
  const Tensor values = list_of(values_input, "values");
  const Tensor gaps = list_of(gaps_input, "gaps");
  const Tensor shape = list_of(shape_input, "shape");
  if (values.elements != gaps.elements) {
    throw Refusal("it has " + std::to_string(values.elements) + " values but " + std::to_string(gaps.elements) +
                  " gaps");
  }
  const auto* const sizes = static_cast<const int64_t*>(shape.data);
  Entries entries = decode(values.data, value_type(values.element_type), static_cast<const uint8_t*>(gaps.data),
                           gaps.elements, {sizes, sizes + shape.elements});
  if (std::is_same_v<T, Half>) {
    for (double& value : entries.values) value = half_to_float(float_to_half(static_cast<float>(value)));
  }
  return entries;
}

template <class Number>
using ProductOf = std::conditional_t<std::is_same_v<Number, double>, WideProduct, Product>;

// One product for each matrix of a weight.
template <class Number>
std::vector<std::unique_ptr<ProductOf<Number>>> make_products(const Entries& weight, const MatrixLayout& layout,
                                                              double scale) {
  std::vector<std::unique_ptr<ProductOf<Number>>> products;
  if constexpr (std::is_same_v<Number, double>) {
    for (size_t i = 0; i < layout.count; ++i) {
      products.push_back(std::make_unique<WideProduct>(weight, layout, i, scale));
    }
  } else {
    for (RowMatrix& matrix : to_row_matrices(weight, layout, scale)) {
      products.push_back(std::make_unique<Product>(choose_kernels(), std::move(matrix)));
    }
  }
  return products;
}

size_t size_at(const std::vector<int64_t>& shape, size_t axis) { return static_cast<size_t>(shape[axis]); }

template <class T>
class GemmKernel {
 public:
  static constexpr const char* kName = "SparseGemm";
  static constexpr size_t kInputs = 5;

  struct Attributes {
    explicit Attributes(const OrtKernelInfo* info)
        : x_transposed(attribute(info, "transA", int64_t{0}) != 0),
          weight_transposed(attribute(info, "transB", int64_t{0}) != 0),
          alpha(attribute(info, "alpha", 1.0f)),
          beta(attribute(info, "beta", 1.0f)) {}

    bool x_transposed;
    bool weight_transposed;
    float alpha;
    float beta;
  };

  GemmKernel(const Attributes& attributes, const Entries& weight)
      : x_transposed_(attributes.x_transposed), beta_(attributes.beta) {
    if (weight.shape.size() != 2) throw Refusal("its shape " + to_string(weight.shape) + " is none of a matrix");
    outputs_ = size_at(weight.shape, attributes.weight_transposed ? 0 : 1);
    inputs_ = size_at(weight.shape, attributes.weight_transposed ? 1 : 0);
    const MatrixLayout layout{1, outputs_, inputs_, !attributes.weight_transposed};
    product_ = std::move(make_products<Number>(weight, layout, attributes.alpha).front());
  }

  void compute(const Context& context) {
    const Operand<T> x(context.input(kX));
    if (x.shape().size() != 2 || size_at(x.shape(), x_transposed_ ? 0 : 1) != inputs_) {
      throw Refusal("its input has shape " + to_string(x.shape()) + ", but its weight wants " +
                    std::to_string(inputs_) + " columns");
    }
    const size_t count = size_at(x.shape(), x_transposed_ ? 1 : 0);
    Result<T> y(context, {static_cast<int64_t>(count), static_cast<int64_t>(outputs_)});
    const std::optional<Operand<T>> bias = bias_of<T>(context);
    const bool row_bias = bias && beta_ == 1.0f && is_row(bias->shape());
    const DenseRows<Number> rows{x.data(), count, size_at(x.shape(), 1), x_transposed_};
    product_->run(rows, row_bias ? bias->data() : nullptr, y.data(), context.threads());
    if (bias && !row_bias) add(*bias, count, y.data());
    y.finish();
  }

 private:
  using Number = typename Operand<T>::Number;

  bool is_row(const std::vector<int64_t>& shape) const {
    return !shape.empty() && size_at(shape, shape.size() - 1) == outputs_ && (shape.size() == 1 || shape[0] == 1);
  }

  // y += beta * bias, broadcast.
  void add(const Operand<T>& bias, size_t count, Number* y) const {
    std::vector<int64_t> shape = bias.shape();
    while (shape.size() < 2) shape.insert(shape.begin(), 1);
    const bool fits = shape.size() == 2 && (shape[0] == 1 || size_at(shape, 0) == count) &&
                      (shape[1] == 1 || size_at(shape, 1) == outputs_);
    if (!fits) throw Refusal("its bias of shape " + to_string(bias.shape()) + " does not fit its output");
    const size_t row_step = shape[0] == 1 ? 0 : size_at(shape, 1);
    const size_t column_step = shape[1] == 1 ? 0 : 1;
    for (size_t n = 0; n < count; ++n) {
      const Number* const row = bias.data() + n * row_step;
      for (size_t m = 0; m < outputs_; ++m) y[n * outputs_ + m] += beta_ * row[m * column_step];
    }
  }

  bool x_transposed_;
  float beta_;
  size_t outputs_;
  size_t inputs_;
  std::unique_ptr<ProductOf<Number>> product_;
};

template <class T>
class MatMulKernel {
 public:
  static constexpr const char* kName = "SparseMatMul";
  static constexpr size_t kInputs = 4;

  struct Attributes {
    explicit Attributes(const OrtKernelInfo*) {}
  };

  MatMulKernel(const Attributes&, const Entries& weight) {
    const std::vector<int64_t>& shape = weight.shape;
    if (shape.size() < 2) throw Refusal("its shape " + to_string(shape) + " is none of a matrix");
    outputs_ = size_at(shape, shape.size() - 1);
    inputs_ = size_at(shape, shape.size() - 2);
    batch_.assign(shape.begin(), shape.end() - 2);
    size_t count = 1;
    for (const int64_t size : batch_) count *= static_cast<size_t>(size);
    products_ = make_products<Number>(weight, {count, outputs_, inputs_, true}, 1.0);
  }

  void compute(const Context& context) {
    const Operand<T> x(context.input(kX));
    std::vector<int64_t> shape = x.shape();
    if (shape.empty() || size_at(shape, shape.size() - 1) != inputs_) {
      throw Refusal("its input has shape " + to_string(shape) + ", but its weight wants " + std::to_string(inputs_) +
                    " columns");
    }
    const bool vector = shape.size() == 1;
    if (vector) shape.insert(shape.begin(), 1);
    size_t rows = size_at(shape, shape.size() - 2);
    std::vector<int64_t> x_batch(shape.begin(), shape.end() - 2);
    std::vector<int64_t> y_shape = broadcast(x_batch);
    if (!vector) y_shape.push_back(static_cast<int64_t>(rows));
    y_shape.push_back(static_cast<int64_t>(outputs_));
    Result<T> y(context, y_shape);
    if (batch_.empty()) {
      for (const int64_t size : x_batch) rows *= static_cast<size_t>(size);
      x_batch.clear();
    }
    const std::vector<int64_t> batch = broadcast(x_batch);
    size_t count = 1;
    for (const int64_t size : batch) count *= static_cast<size_t>(size);
    for (size_t i = 0; i < count; ++i) {
      const Number* const from = x.data() + index_in(x_batch, batch, i) * rows * inputs_;
      products_[index_in(batch_, batch, i)]->run({from, rows, inputs_, false}, nullptr, y.data() + i * rows * outputs_,
                                                 context.threads());
    }
    y.finish();
  }

 private:
  using Number = typename Operand<T>::Number;

  // The leading axes of the output, for these of the input.
  std::vector<int64_t> broadcast(const std::vector<int64_t>& x_batch) const {
    std::vector<int64_t> longer = x_batch.size() < batch_.size() ? batch_ : x_batch;
    const std::vector<int64_t>& shorter = x_batch.size() < batch_.size() ? x_batch : batch_;
    const size_t lead = longer.size() - shorter.size();
    for (size_t axis = 0; axis < shorter.size(); ++axis) {
      int64_t& size = longer[lead + axis];
      if (size != shorter[axis] && size != 1 && shorter[axis] != 1) {
        throw Refusal("its input's leading axes " + to_string(x_batch) + " do not broadcast with " + to_string(batch_));
      }
      if (size == 1) size = shorter[axis];
    }
    return longer;
  }

  // Where element `index` of `whole` lies in `part`, which broadcasts to it.
  static size_t index_in(const std::vector<int64_t>& part, const std::vector<int64_t>& whole, size_t index) {
    size_t place = 0;
    size_t step = 1;
    for (size_t axis = whole.size(); axis-- > whole.size() - part.size();) {
      const size_t part_size = size_at(part, axis - (whole.size() - part.size()));
      if (part_size != 1) place += index % size_at(whole, axis) * step;
      step *= part_size;
      index /= size_at(whole, axis);
    }
    return place;
  }

  size_t outputs_;
  size_t inputs_;
  std::vector<int64_t> batch_;
  std::vector<std::unique_ptr<ProductOf<Number>>> products_;
};

template <class T>
class ConvNoBiasKernel {
 public:
  static constexpr const char* kName = "SparseConvNoBias";
  static constexpr size_t kInputs = 4;

  struct Attributes : ConvAttributes {
    explicit Attributes(const OrtKernelInfo* info) {
      auto_pad = attribute(info, "auto_pad", auto_pad);
      dilations = attribute(info, "dilations", dilations);
      group = attribute(info, "group", group);
      kernel_shape = attribute(info, "kernel_shape", kernel_shape);
      pads = attribute(info, "pads", pads);
      strides = attribute(info, "strides", strides);
    }
  };

  ConvNoBiasKernel(const Attributes& attributes, const Entries& weight)
      : convolution_(choose_kernels(), weight, attributes) {}

  void compute(const Context& context) {
    const Operand<T> x(context.input(kX));
    const std::optional<Operand<T>> bias = bias_of<T>(context);
    if (bias && (bias->shape().size() != 1 || size_at(bias->shape(), 0) != convolution_.output_channels())) {
      throw Refusal("its bias has shape " + to_string(bias->shape()));
    }
    Result<T> y(context, convolution_.output_shape(x.shape()));
    convolution_.run(x.data(), x.shape(), bias ? bias->data() : nullptr, y.data(), context.threads());
    y.finish();
  }

 private:
  Convolution convolution_;
};

template <class T>
class ConvKernel : public ConvNoBiasKernel<T> {
 public:
  static constexpr const char* kName = "SparseConv";
  static constexpr size_t kInputs = 5;
  using ConvNoBiasKernel<T>::ConvNoBiasKernel;
};

// What onnxruntime holds for a node.
template <template <class> class Kernel, class T>
class Node {
 public:
  Node(std::string name, const OrtKernelInfo* info) : name_(std::move(name)), attributes_(info) {
    const OrtValue* const values = constant_input(info, kValues);
    const OrtValue* const gaps = constant_input(info, kGaps);
    const OrtValue* const shape = constant_input(info, kShape);
    if (values != nullptr && gaps != nullptr && shape != nullptr) {
      packed_.emplace(attributes_, weight_of<T>(values, gaps, shape));
    }
  }

  void compute(const Context& context) {
    if (packed_) return packed_->compute(context);
    // A weight that is not known to be constant is read at every run: one that the graph computes, or one of the graph
    // around a subgraph, which onnxruntime (seen in 1.18) does not show to kernels.
    Kernel<T> kernel(attributes_, weight_of<T>(context.input(kValues), context.input(kGaps), context.input(kShape)));
    kernel.compute(context);
  }

  const std::string& name() const { return name_; }

 private:
  std::string name_;
  typename Kernel<T>::Attributes attributes_;
  std::optional<Kernel<T>> packed_;
};

// The operator of `Kernel<T>`. No exception leaves its functions, and its errors name the node.
template <template <class> class Kernel, class T>
struct Op : OrtCustomOp {
  Op() : OrtCustomOp{} {
    version = kOrtApiVersion;
    GetName = [](const OrtCustomOp*) { return Kernel<T>::kName; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
    GetInputTypeCount = [](const OrtCustomOp*) { return Kernel<T>::kInputs; };
    GetInputType = [](const OrtCustomOp*, size_t index) { return input_type(index); };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return index == kBias ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
    };
    GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
    GetOutputType = [](const OrtCustomOp*, size_t) { return kElementType<T>; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
    CreateKernelV2 = create;
    KernelComputeV2 = compute;
    KernelDestroy = [](void* node) { delete static_cast<Node<Kernel, T>*>(node); };
  }

  static ONNXTensorElementDataType input_type(size_t index) {
    switch (index) {
      case kValues: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // any: they are cast to `dtype`
      case kGaps: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
      case kShape: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
      default: return kElementType<T>;
    }
  }

  static OrtStatus* ORT_API_CALL create(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                                        void** node) noexcept {
    std::string name = Kernel<T>::kName;
    try {
      name += " node '" + node_name(info) + "'";
      *node = new Node<Kernel, T>(name, info);
      return nullptr;
    } catch (const std::exception& error) {
      return refuse(name, error.what());
    }
  }

  static OrtStatus* ORT_API_CALL compute(void* op_kernel, OrtKernelContext* context) noexcept {
    auto* const node = static_cast<Node<Kernel, T>*>(op_kernel);
    try {
      node->compute(Context(context));
      return nullptr;
    } catch (const std::exception& error) {
      return refuse(node->name(), error.what());
    }
  }
};

}  // namespace

const std::vector<const OrtCustomOp*>& custom_ops() {
  // Conv has no kernel for double in onnxruntime either.
  static const Op<GemmKernel, float> gemm;
  static const Op<GemmKernel, Half> half_gemm;
  static const Op<GemmKernel, double> double_gemm;
  static const Op<MatMulKernel, float> matmul;
  static const Op<MatMulKernel, Half> half_matmul;
  static const Op<MatMulKernel, double> double_matmul;
  static const Op<ConvKernel, float> conv;
  static const Op<ConvKernel, Half> half_conv;
  static const Op<ConvNoBiasKernel, float> conv_no_bias;
  static const Op<ConvNoBiasKernel, Half> half_conv_no_bias;
  static const std::vector<const OrtCustomOp*> all{
      &gemm,          &half_gemm, &double_gemm, &matmul,       &half_matmul,
      &double_matmul, &conv,      &half_conv,   &conv_no_bias, &half_conv_no_bias,
  };
  return all;
}

}  // namespace onnxprune
