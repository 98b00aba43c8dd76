// The convolution and the product of 8-bit integers as nodes have them: made of constants, and called with tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "byte_weight.h"
#include "cpu.h"
#include "ort/conv_op.h"
#include "ort/operands.h"
#include "ort/quantized_inputs.h"
#include "quantized.h"
#include "quantized_conv.h"
#include "quantized_gemm.h"
#include "refusal.h"

namespace onnxprune {

class QuantizedConvOp {
 public:
  using Attributes = ConvOp<float>::Attributes;

  QuantizedConvOp(const Attributes& attributes, const WeightParts& parts)
      : conv_(choose_byte_kernels(), weight_of(parts, decode_conv), attributes) {}

  size_t outputs() const { return conv_.output_channels(); }

  void compute(const Context& context, const Tensor& x, const Quantized& numbers) {
    const Tensor y = context.output(conv_.output_shape(x.shape));
    conv_.run(static_cast<const uint8_t*>(x.data), x.shape, numbers, y.data, context.threads());
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
    gemm_.run(static_cast<const uint8_t*>(x.data), y.elements / gemm_.outputs(), numbers, y.data, context.threads());
  }

 private:
  static ByteWeight decode_matrix(const StoredBytes& stored, std::vector<int64_t> shape, const ZeroPoints& zeros) {
    if (shape.size() != 2) throw Refusal("its shape " + to_string(shape) + " is not that of a matrix");
    return decode(stored, std::move(shape), kInputAxis, zeros);
  }

  QuantizedGemm gemm_;
};

}  // namespace onnxprune
