#include "planes/windows.h"

#include <algorithm>

namespace onnxprune {
namespace {

// Floats of a cache line.
constexpr size_t kAligned = 16;

size_t rounded_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Window window_of(const ConvShape& shape) {
  const ConvAxis& row = shape.axes[0];
  const ConvAxis& column = shape.axes[1];
  const auto size = [](int64_t value) { return static_cast<size_t>(value); };
  return {size(row.input),    size(column.input), size(row.output),    size(column.output), size(row.kernel),
          size(column.kernel), size(row.stride),   size(column.stride), size(row.begin),     size(column.begin)};
}

PaddedRows padded_rows(const Kernels& kernels, const Window& window) {
  const size_t parts = window.column_stride == 2 ? 2 : 1;
  const size_t filled = window.begin_column + window.columns;
  const size_t behind = window.reach() > filled ? window.reach() - filled : 0;
  const size_t gap = rounded_up(std::max(window.begin_column, behind), kernels.lanes);
  const size_t part = gap + rounded_up((window.columns + parts - 1) / parts, kernels.lanes);
  PaddedRows padded{parts, gap, part, parts * part, {}};
  for (size_t i = 0; i < parts; ++i) {
    const size_t where = (i + window.begin_column) % parts;
    padded.place[i] = where * part + gap - (window.begin_column + where - i) / parts;
  }
  return padded;
}

size_t padded_floats(const Kernels& kernels, const Window& window, const PaddedRows& padded, size_t rows) {
  const size_t floats = rows * padded.pitch + padded.gap + rounded_up(window.width, kernels.lanes) + kernels.lanes;
  return rounded_up(floats, kAligned);
}

}  // namespace onnxprune
