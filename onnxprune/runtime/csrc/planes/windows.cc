#include "planes/windows.h"

#include <algorithm>

namespace onnxprune {
namespace {

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
  return {parts, gap, part, parts * part};
}

size_t padded_floats(const Kernels& kernels, const Window& window, const PaddedRows& padded, size_t rows) {
  return rows * padded.pitch + padded.gap + rounded_up(window.width, kernels.lanes) + kernels.lanes;
}

}  // namespace onnxprune
