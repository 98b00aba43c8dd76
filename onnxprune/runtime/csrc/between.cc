#include "between.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <string>

#include "aligned_floats.h"
#include "refusal.h"

namespace onnxprune {
namespace {

// Bytes of a task; fewer do not pay for waking a thread.
constexpr size_t kTaskBytes = 1 << 15;
// Larger values could overflow sums of attributes and sizes.
constexpr int64_t kMaxAttribute = int64_t{1} << 26;

size_t product(Sizes::const_iterator begin, Sizes::const_iterator end) {
  size_t found = 1;
  for (; begin != end; ++begin) found *= static_cast<size_t>(*begin);
  return found;
}

// Calls work(first, last) for parts of `count` units of so many bytes each.
template <class Work>
void in_parts(size_t count, size_t unit_bytes, const Threads& threads, const Work& work) {
  const size_t parts = std::clamp<size_t>(count * std::max<size_t>(unit_bytes, 1) / kTaskBytes, 1, count);
  threads.run(parts, [&](size_t part) { work(count * part / parts, count * (part + 1) / parts); });
}

// Where the row of an operand begins that a row of the sum reads, the last axis being along rows.
size_t row_begin(const Sizes& shape, const Sizes& whole, size_t row) {
  if (shape.size() < 2) return 0;
  const size_t missing = whole.size() - shape.size();
  size_t begin = 0;
  auto stride = static_cast<size_t>(shape.back());
  for (size_t axis = whole.size() - 1; axis-- > 0;) {
    const size_t place = row % static_cast<size_t>(whole[axis]);
    row /= static_cast<size_t>(whole[axis]);
    if (axis < missing) continue;
    const auto size = static_cast<size_t>(shape[axis - missing]);
    if (size > 1) begin += place * stride;
    stride *= size;
  }
  return begin;
}

// A number that is repeated along the rows of a sum is written out.
const uint8_t* row_of(const Operand8& operand, const Sizes& whole, size_t row, std::vector<uint8_t>& memory) {
  const auto count = static_cast<size_t>(whole.back());
  if (operand.shape == whole) return operand.data + row * count;
  const uint8_t* const begin = operand.data + row_begin(operand.shape, whole, row);
  if (!operand.shape.empty() && operand.shape.back() == whole.back()) return begin;
  memory.assign(count, *begin);
  return memory.data();
}

// The powers of bytes, the largest last: large enough to be exact, and so small that the sum of `count` is finite.
std::array<float, 256> powers(float scale, size_t count) {
  const auto most = static_cast<double>(std::numeric_limits<float>::max() / static_cast<float>(count));
  const double shift = std::max(0.0, std::log(most) - 5) / static_cast<double>(scale);
  std::array<float, 256> table;
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<float>(std::exp((static_cast<double>(i) - 255 + shift) * static_cast<double>(scale)));
  }
  return table;
}

std::array<int64_t, 2> pair_of(const Sizes& given, size_t first, int64_t absent, int64_t least, const char* name) {
  if (given.empty()) return {absent, absent};
  const auto wrong = [least](int64_t value) { return value < least || value > kMaxAttribute; };
  if (given.size() < first + 2 || std::any_of(given.begin(), given.end(), wrong)) {
    throw Refusal("its " + std::string(name) + " are " + to_string(given));
  }
  return {given[first], given[first + 1]};
}

// The largest of each column of some rows, with `begin` and `end` columns of the lowest number around them; then the
// largest of each window of columns.
template <class Number>
void pool_row(const Number* x, size_t width, size_t rows, const PoolWindow& window, Number* columns, size_t outputs,
              Number* y) {
  const auto begin = static_cast<size_t>(window.begins[1]);
  Number* const inner = columns + begin;
  std::copy_n(x, width, inner);
  for (size_t row = 1; row < rows; ++row) {
    const Number* const from = x + row * width;
    for (size_t i = 0; i < width; ++i) inner[i] = std::max(inner[i], from[i]);
  }
  const auto stride = static_cast<size_t>(window.strides[1]);
  for (size_t i = 0; i < outputs; ++i) y[i] = columns[i * stride];
  for (size_t column = 1; column < static_cast<size_t>(window.kernel[1]); ++column) {
    const Number* const from = columns + column;
    if (stride == 2) {
      for (size_t i = 0; i < outputs; ++i) y[i] = std::max(y[i], from[2 * i]);
    } else {
      for (size_t i = 0; i < outputs; ++i) y[i] = std::max(y[i], from[i * stride]);
    }
  }
}

template <class Number>
void pool(const Number* x, const Sizes& x_shape, const Sizes& y_shape, const PoolWindow& window, Number* y,
          const Threads& threads) {
  const auto planes = static_cast<size_t>(y_shape[0] * y_shape[1]);
  const int64_t height = x_shape[2];
  const auto width = static_cast<size_t>(x_shape[3]);
  const auto outputs = static_cast<size_t>(y_shape[3]);
  const auto x_plane = static_cast<size_t>(height) * width;
  const auto y_plane = static_cast<size_t>(y_shape[2]) * outputs;
  in_parts(planes, x_plane, threads, [&](size_t first, size_t last) {
    std::vector<Number> columns(static_cast<size_t>(window.begins[1] + window.ends[1]) + width,
                                std::numeric_limits<Number>::lowest());
    for (size_t plane = first; plane < last; ++plane) {
      for (int64_t row = 0; row < y_shape[2]; ++row) {
        const int64_t place = row * window.strides[0] - window.begins[0];
        const int64_t top = std::max<int64_t>(place, 0);
        const int64_t bottom = std::min(place + window.kernel[0], height);
        assert(top < bottom);
        pool_row(x + plane * x_plane + static_cast<size_t>(top) * width, width, static_cast<size_t>(bottom - top),
                 window, columns.data(), outputs, y + plane * y_plane + static_cast<size_t>(row) * outputs);
      }
    }
  });
}

}  // namespace

Sizes broadcast(const Sizes& a, const Sizes& b) {
  const Sizes& longer = a.size() < b.size() ? b : a;
  const Sizes& shorter = a.size() < b.size() ? a : b;
  Sizes found = longer;
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t& size = found[found.size() - shorter.size() + i];
    if (size != shorter[i] && size != 1 && shorter[i] != 1) {
      throw Refusal("its inputs have shapes " + to_string(a) + " and " + to_string(b));
    }
    if (size == 1) size = shorter[i];
  }
  return found;
}

void add(const ByteKernels& kernels, const Operand8& a, const Operand8& b, ByteScale step, bool is_signed, uint8_t* to,
         const Threads& threads) {
  const float a_ratio = a.step.scale / step.scale;
  const float b_ratio = b.step.scale / step.scale;
  // In this order, so that it is rounded as onnxruntime rounds it.
  const float zeros = std::fma(a_ratio, static_cast<float>(a.step.zero_point),
                               b_ratio * static_cast<float>(b.step.zero_point));
  const ByteSum sum{a_ratio, b_ratio, static_cast<float>(step.zero_point) - zeros, is_signed ? -128 : 0,
                    is_signed ? 127 : 255};
  const Sizes shape = broadcast(a.shape, b.shape);
  const size_t count = product(shape.begin(), shape.end());
  if (count == 0) return;
  if (a.shape == b.shape) {
    return in_parts(count, 1, threads, [&](size_t first, size_t last) {
      kernels.add_bytes(sum, a.data + first, b.data + first, last - first, to + first);
    });
  }
  const auto width = static_cast<size_t>(shape.back());
  in_parts(count / width, width, threads, [&](size_t first, size_t last) {
    std::vector<uint8_t> a_memory;
    std::vector<uint8_t> b_memory;
    for (size_t row = first; row < last; ++row) {
      kernels.add_bytes(sum, row_of(a, shape, row, a_memory), row_of(b, shape, row, b_memory), width, to + row * width);
    }
  });
}

void softmax(const ByteKernels& kernels, const Operand8& x, int64_t axis, ByteScale step, uint8_t* to,
             const Threads& threads) {
  const auto rank = static_cast<int64_t>(x.shape.size());
  if (axis < -rank || axis >= rank) {
    throw Refusal("its input of shape " + to_string(x.shape) + " has no axis " + std::to_string(axis));
  }
  const auto place = x.shape.begin() + (axis < 0 ? axis + rank : axis);
  const auto count = static_cast<size_t>(*place);
  const size_t outer = product(x.shape.begin(), place);
  const size_t inner = product(place + 1, x.shape.end());
  if (count * outer * inner == 0) return;
  const std::array<float, 256> table = powers(x.step.scale, count);
  // Rows begin anywhere in the table; places beyond its end are never read.
  const ByteSoftmax made{table.data(), std::floor(1.0f / step.scale), step.zero_point};
  in_parts(outer, count * inner, threads, [&](size_t first, size_t last) {
    static thread_local AlignedFloats memory;
    float* const floats = memory.at_least(count * kSoftmaxRows);
    if (inner == 1) {
      return kernels.softmax_bytes(made, x.data + first * count, last - first, count, floats, to + first * count);
    }
    std::vector<uint8_t> row(count);
    for (size_t i = first * inner; i < last * inner; ++i) {
      const size_t begin = i / inner * count * inner + i % inner;
      for (size_t k = 0; k < count; ++k) row[k] = x.data[begin + k * inner];
      kernels.softmax_bytes(made, row.data(), 1, count, floats, row.data());
      for (size_t k = 0; k < count; ++k) to[begin + k * inner] = row[k];
    }
  });
}

BytePool::BytePool(const Sizes& kernel, const Sizes& strides, const Sizes& pads)
    : window_{pair_of(kernel, 0, 0, 1, "kernel_shape"), pair_of(strides, 0, 1, 1, "strides"),
              pair_of(pads, 0, 0, 0, "pads"), pair_of(pads, 2, 0, 0, "pads")} {
  for (size_t axis = 0; axis < 2; ++axis) {
    // So that no window lies beyond x.
    if (std::max(window_.begins[axis], window_.ends[axis]) >= window_.kernel[axis] || kernel.size() != 2) {
      throw Refusal("its kernel_shape " + to_string(kernel) + " and pads " + to_string(pads) + " are no window");
    }
  }
}

Sizes BytePool::output_shape(const Sizes& x_shape) const {
  if (x_shape.size() != 4) throw Refusal("its input has shape " + to_string(x_shape) + ", not that of images");
  Sizes shape{x_shape[0], x_shape[1]};
  for (size_t axis = 0; axis < 2; ++axis) {
    const int64_t room = x_shape[axis + 2] + window_.begins[axis] + window_.ends[axis] - window_.kernel[axis];
    if (room < 0) throw Refusal("its window is larger than its padded input of shape " + to_string(x_shape));
    shape.push_back(room / window_.strides[axis] + 1);
  }
  return shape;
}

void BytePool::run(const uint8_t* x, const Sizes& x_shape, bool is_signed, uint8_t* y, const Threads& threads) const {
  const Sizes y_shape = output_shape(x_shape);
  if (product(y_shape.begin(), y_shape.end()) == 0) return;
  if (!is_signed) return pool(x, x_shape, y_shape, window_, y, threads);
  pool(reinterpret_cast<const int8_t*>(x), x_shape, y_shape, window_, reinterpret_cast<int8_t*>(y), threads);
}

}  // namespace onnxprune
