// What goes into and comes out of one run of a node.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "entries.h"
#include "ort.h"
#include "parallel.h"

namespace onnxprune {

// The inputs of every operator: X, values, gaps, shape, and perhaps a bias.
enum Input : size_t { kX, kValues, kGaps, kShape, kBias };

// The other element types have names in C++.
struct Half {
  uint16_t bits;
};

template <class T>
inline constexpr ONNXTensorElementDataType kElementType = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
template <>
inline constexpr ONNXTensorElementDataType kElementType<Half> = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
template <>
inline constexpr ONNXTensorElementDataType kElementType<double> = ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;

// One run of a node.
class Context {
 public:
  explicit Context(OrtKernelContext* context) : context_(context) {}

  // Input `input`; nothing where it is absent.
  const OrtValue* input(Input input) const {
    size_t count = 0;
    check(g_ort->KernelContext_GetInputCount(context_, &count));
    const OrtValue* value = nullptr;
    if (input < count) check(g_ort->KernelContext_GetInput(context_, input, &value));
    return value;
  }

  Tensor output(const std::vector<int64_t>& shape) const {
    OrtValue* value = nullptr;
    check(g_ort->KernelContext_GetOutput(context_, 0, shape.data(), shape.size(), &value));
    return tensor_of(value);
  }

  // onnxruntime's own threads.
  Threads threads() const {
    return [context = context_](size_t count, const std::function<void(size_t)>& task) {
      if (count == 1) return task(0);
      const auto call = [](void* data, size_t index) {
        (*static_cast<const std::function<void(size_t)>*>(data))(index);
      };
      check(g_ort->KernelContext_ParallelFor(context, call, count, 0, const_cast<std::function<void(size_t)>*>(&task)));
    };
  }

 private:
  OrtKernelContext* context_;
};

// An input read as T; float16 goes through a copy, since the kernels compute in float.
template <class T>
class Operand {
 public:
  using Number = std::conditional_t<std::is_same_v<T, double>, double, float>;

  explicit Operand(const OrtValue* value) {
    Tensor tensor = tensor_of(value);
    shape_ = std::move(tensor.shape);
    if constexpr (std::is_same_v<T, Half>) {
      const auto* const halves = static_cast<const Half*>(tensor.data);
      copy_.resize(tensor.elements);
      std::transform(halves, halves + tensor.elements, copy_.begin(),
                     [](Half half) { return half_to_float(half.bits); });
      data_ = copy_.data();
    } else {
      data_ = static_cast<const Number*>(tensor.data);
    }
  }

  const Number* data() const { return data_; }
  const std::vector<int64_t>& shape() const { return shape_; }

 private:
  std::vector<int64_t> shape_;
  std::vector<Number> copy_;
  const Number* data_;
};

// The operator's output, written as T; float16 by way of a float buffer.
template <class T>
class Result {
 public:
  using Number = typename Operand<T>::Number;

  Result(const Context& context, const std::vector<int64_t>& shape) : tensor_(context.output(shape)) {
    if constexpr (std::is_same_v<T, Half>) {
      buffer_.resize(tensor_.elements);
      data_ = buffer_.data();
    } else {
      data_ = static_cast<Number*>(tensor_.data);
    }
  }

  Number* data() const { return data_; }
  void finish() {
    if constexpr (std::is_same_v<T, Half>) {
      auto* const halves = static_cast<Half*>(tensor_.data);
      std::transform(buffer_.begin(), buffer_.end(), halves, [](float value) { return Half{float_to_half(value)}; });
    }
  }

 private:
  Tensor tensor_;
  std::vector<Number> buffer_;
  Number* data_ = nullptr;
};

template <class T>
std::optional<Operand<T>> bias_of(const Context& context) {
  const OrtValue* const value = context.input(kBias);
  if (value == nullptr) return std::nullopt;
  return std::optional<Operand<T>>(std::in_place, value);
}

}  // namespace onnxprune
