// The inputs and the output of one run of a node.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "float16.h"
#include "kernels/epilogue.h"
#include "ort/api.h"
#include "ort/forms.h"
#include "refusal.h"
#include "threads.h"

namespace onnxprune {

// The inputs that every operator has. Those of its form follow, and last a bias, which is optional.
enum Input : size_t { kX, kValues, kGaps, kShape, kFirstOfForm };

inline size_t size_at(const std::vector<int64_t>& shape, size_t axis) { return static_cast<size_t>(shape[axis]); }

// The element type float16; the others are C++ types.
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
  // `thread_count` is the node's.
  Context(OrtKernelContext* context, ThreadCount& thread_count) : context_(context), thread_count_(thread_count) {}

  // Input `index`, or null if it is absent.
  const OrtValue* input(size_t index) const {
    size_t count = 0;
    check(g_ort->KernelContext_GetInputCount(context_, &count));
    const OrtValue* value = nullptr;
    if (index < count) check(g_ort->KernelContext_GetInput(context_, index, &value));
    return value;
  }

  Tensor output(const std::vector<int64_t>& shape, size_t index = 0) const {
    OrtValue* value = nullptr;
    check(g_ort->KernelContext_GetOutput(context_, index, shape.data(), shape.size(), &value));
    if (value == nullptr) throw Refusal("nothing needs its output " + std::to_string(index));
    return tensor_of(value);
  }

  // The intra-op threads of the session.
  Threads threads() const {
    const auto parallel_for = [context = context_](size_t count, const std::function<void(size_t)>& task) {
      if (count == 1) return task(0);
      const auto call = [](void* data, size_t index) {
        (*static_cast<const std::function<void(size_t)>*>(data))(index);
      };
      check(g_ort->KernelContext_ParallelFor(context, call, count, 0, const_cast<std::function<void(size_t)>*>(&task)));
    };
    return {parallel_for, thread_count_};
  }

 private:
  OrtKernelContext* context_;
  ThreadCount& thread_count_;
};

// An input of element type T. float16 is copied to float, in which the kernels compute.
template <class T>
class Operand {
 public:
  using Number = std::conditional_t<std::is_same_v<T, double>, double, float>;

  explicit Operand(const OrtValue* value) {
    Tensor tensor = tensor_of(value);
    shape_ = std::move(tensor.shape);
    elements_ = tensor.elements;
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

  // Of numbers that the caller keeps.
  Operand(std::vector<int64_t> shape, const std::vector<Number>& numbers)
      : shape_(std::move(shape)), elements_(numbers.size()), data_(numbers.data()) {}

  const Number* data() const { return data_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  size_t elements() const { return elements_; }

 private:
  std::vector<int64_t> shape_;
  size_t elements_;
  std::vector<Number> copy_;
  const Number* data_;
};

// The output, of element type T. float16 is computed in a float buffer, which finish() converts.
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

// The inputs of a run other than the weight.
template <class T>
struct Arguments {
  using Number = typename Operand<T>::Number;

  explicit Arguments(Operand<T> x_operand) : x(std::move(x_operand)) {}

  // `constants` come from the form and the attributes; those that are inputs are read here.
  Arguments(const Context& context, const Form& form, const Constants& constants) : x(context.input(kX)) {
    size_t index = kFirstOfForm;
    if (form.has_addend) addend.emplace(context.input(index++));
    epilogue.activation = form.activation;
    epilogue.constants = constants;
    for (double Constants::* const scalar : form.scalars) {
      const Operand<T> operand(context.input(index));
      if (operand.elements() != 1) {
        throw Refusal("its input " + std::to_string(index) + " has shape " + to_string(operand.shape()) +
                      ", not that of one number");
      }
      epilogue.constants.*scalar = *operand.data();
      ++index;
    }
    if (const OrtValue* const value = context.input(index)) bias.emplace(value);
  }

  // The epilogue with the addend, which must have the shape of y.
  EpilogueOf<Number> epilogue_for(const std::vector<int64_t>& y_shape) const {
    EpilogueOf<Number> made = epilogue;
    if (addend) {
      if (addend->shape() != y_shape) {
        throw Refusal("its addend has shape " + to_string(addend->shape()) + ", its output " + to_string(y_shape));
      }
      made.addend = addend->data();
    }
    return made;
  }

  Operand<T> x;
  std::optional<Operand<T>> bias;
  std::optional<Operand<T>> addend;
  // The epilogue without the addend.
  EpilogueOf<Number> epilogue;
};

}  // namespace onnxprune
