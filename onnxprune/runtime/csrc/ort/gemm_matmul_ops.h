// The Gemm and MatMul operators as onnxruntime calls them: attributes and inputs, checked and handed to SparseGemm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu.h"
#include "ort/operands.h"
#include "refusal.h"
#include "sparse_gemm.h"
#include "sparse_gemm_f64.h"

namespace onnxprune {

template <class Number>
using SparseGemmOf = std::conditional_t<std::is_same_v<Number, double>, SparseGemmF64, SparseGemm>;

// A SparseGemm for each matrix of a weight.
template <class Number>
std::vector<std::unique_ptr<SparseGemmOf<Number>>> make_gemms(const SparseWeight& weight, const MatrixLayout& layout,
                                                              double scale) {
  std::vector<std::unique_ptr<SparseGemmOf<Number>>> gemms;
  if constexpr (std::is_same_v<Number, double>) {
    for (size_t i = 0; i < layout.count; ++i) {
      gemms.push_back(std::make_unique<SparseGemmF64>(weight, layout, i, scale));
    }
  } else {
    for (CsrMatrix& matrix : to_csr_matrices(weight, layout, scale)) {
      gemms.push_back(std::make_unique<SparseGemm>(choose_kernels(), std::move(matrix)));
    }
  }
  return gemms;
}

inline void finish(const Epilogue& epilogue, size_t first, size_t count, float* sums) {
  if (epilogue.any()) choose_kernels().finish(epilogue, first, count, sums);
}

template <class T>
class GemmOp {
 public:
  struct Attributes {
    // Of what has attributes: an OrtKernelInfo*, or a Node of a graph.
    template <class Source>
    explicit Attributes(const Source& source)
        : x_transposed(attribute(source, "transA", int64_t{0}) != 0),
          weight_transposed(attribute(source, "transB", int64_t{0}) != 0),
          alpha(attribute(source, "alpha", 1.0f)),
          beta(attribute(source, "beta", 1.0f)) {}

    bool x_transposed;
    bool weight_transposed;
    float alpha;
    float beta;
  };

  GemmOp(const Attributes& attributes, const SparseWeight& weight)
      : x_transposed_(attributes.x_transposed), beta_(attributes.beta) {
    if (weight.shape.size() != 2) throw Refusal("its shape " + to_string(weight.shape) + " is not that of a matrix");
    outputs_ = size_at(weight.shape, attributes.weight_transposed ? 0 : 1);
    inputs_ = size_at(weight.shape, attributes.weight_transposed ? 1 : 0);
    const MatrixLayout layout{1, outputs_, inputs_, !attributes.weight_transposed};
    gemm_ = std::move(make_gemms<Number>(weight, layout, attributes.alpha).front());
  }

  void compute(const Context& context, const Arguments<T>& arguments) {
    const Operand<T>& x = arguments.x;
    if (x.shape().size() != 2 || size_at(x.shape(), x_transposed_ ? 0 : 1) != inputs_) {
      throw Refusal("its input has shape " + to_string(x.shape()) + ", but its weight wants " +
                    std::to_string(inputs_) + " columns");
    }
    const size_t count = size_at(x.shape(), x_transposed_ ? 1 : 0);
    const std::vector<int64_t> y_shape{static_cast<int64_t>(count), static_cast<int64_t>(outputs_)};
    Result<T> y(context, y_shape);
    const EpilogueOf<Number> epilogue = arguments.epilogue_for(y_shape);
    const std::optional<Operand<T>>& bias = arguments.bias;
    const DenseRows<Number> rows{x.data(), count, size_at(x.shape(), 1), x_transposed_};
    if (!bias || (beta_ == 1.0f && is_row(bias->shape()))) {
      gemm_->run(rows, bias ? bias->data() : nullptr, y.data(), context.threads(), epilogue);
    } else {
      gemm_->run(rows, nullptr, y.data(), context.threads(), {});
      add(*bias, count, y.data());
      finish(epilogue, 0, count * outputs_, y.data());
    }
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
  std::unique_ptr<SparseGemmOf<Number>> gemm_;
};

template <class T>
class MatMulOp {
 public:
  struct Attributes {
    template <class Source>
    explicit Attributes(const Source&) {}
  };

  MatMulOp(const Attributes&, const SparseWeight& weight) {
    const std::vector<int64_t>& shape = weight.shape;
    if (shape.size() < 2) throw Refusal("its shape " + to_string(shape) + " is not that of a matrix");
    outputs_ = size_at(shape, shape.size() - 1);
    inputs_ = size_at(shape, shape.size() - 2);
    batch_.assign(shape.begin(), shape.end() - 2);
    size_t count = 1;
    for (const int64_t size : batch_) count *= static_cast<size_t>(size);
    gemms_ = make_gemms<Number>(weight, {count, outputs_, inputs_, true}, 1.0);
  }

  void compute(const Context& context, const Arguments<T>& arguments) {
    const Operand<T>& x = arguments.x;
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
    // An addend of one row can be the bias.
    const bool biased = arguments.addend && arguments.addend->shape() == std::vector<int64_t>{y_shape.back()};
    const Number* const bias = biased ? arguments.addend->data() : nullptr;
    EpilogueOf<Number> epilogue = biased ? arguments.epilogue : arguments.epilogue_for(y_shape);
    if (batch_.empty()) {
      for (const int64_t size : x_batch) rows *= static_cast<size_t>(size);
      x_batch.clear();
    }
    const std::vector<int64_t> batch = broadcast(x_batch);
    size_t count = 1;
    for (const int64_t size : batch) count *= static_cast<size_t>(size);
    for (size_t i = 0; i < count; ++i) {
      const Number* const from = x.data() + index_in(x_batch, batch, i) * rows * inputs_;
      gemms_[index_in(batch_, batch, i)]->run({from, rows, inputs_, false}, bias, y.data() + i * rows * outputs_,
                                              context.threads(), epilogue);
      if (epilogue.addend != nullptr) epilogue.addend += rows * outputs_;
    }
    y.finish();
  }

 private:
  using Number = typename Operand<T>::Number;

  // The leading axes of the output, for those of the input.
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
  std::vector<std::unique_ptr<SparseGemmOf<Number>>> gemms_;
};

}  // namespace onnxprune
