// The inputs of the operators of 8-bit integers: which a form has, and how they are read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "byte_weight.h"
#include "ort/api.h"
#include "ort/operands.h"
#include "ort/refuse.h"
#include "quantized.h"
#include "refusal.h"

namespace onnxprune {

// Every input that there is, as sparse/quantized_functions.py names them.
enum class Part {
  kX,
  kXScale,
  kXZero,
  kValues,
  kGaps,
  kShape,
  kWeightScale,
  kWeightZero,
  kYScale,
  kYZero,
  kBias,
  kBiasScale
};

// A form of an operator: its inputs in their order, and its output. x without a zero point is floats.
struct QuantizedForm {
  std::vector<Part> inputs;
  Output output;

  bool has(Part part) const { return std::find(inputs.begin(), inputs.end(), part) != inputs.end(); }
  // The index of an input that the form has.
  size_t index(Part part) const {
    return static_cast<size_t>(std::find(inputs.begin(), inputs.end(), part) - inputs.begin());
  }
  bool is_dynamic() const { return !has(Part::kXZero); }
};

constexpr ONNXTensorElementDataType kInt8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
constexpr ONNXTensorElementDataType kUint8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

// Zero points, u8 or s8.
inline ZeroPoints zero_points(const OrtValue* value) {
  const Tensor tensor = tensor_of(value);
  if (tensor.element_type == kInt8) {
    const auto* const zeros = static_cast<const int8_t*>(tensor.data);
    return {zeros, zeros + tensor.elements};
  }
  if (tensor.element_type != kUint8) throw Refusal("its zero points are neither int8 nor uint8");
  const auto* const zeros = static_cast<const uint8_t*>(tensor.data);
  return {zeros, zeros + tensor.elements};
}

inline int32_t only_zero_point(const OrtValue* value) {
  const ZeroPoints zeros = zero_points(value);
  if (zeros.size() != 1) throw Refusal("it has " + std::to_string(zeros.size()) + " zero points where one belongs");
  return zeros.front();
}

inline std::vector<float> scales_of(const OrtValue* value) {
  const Tensor tensor = tensor_of(value);
  const auto* const data = static_cast<const float*>(tensor.data);
  return {data, data + tensor.elements};
}

inline float only_scale(const OrtValue* value) {
  const std::vector<float> found = scales_of(value);
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

}  // namespace onnxprune
