// Windows that move over planes, for the kernels that pad rows.
#pragma once

#include <cstddef>

#include "conv_shape.h"
#include "kernels/kernels.h"

namespace onnxprune {

// Of a convolution or a pooling over two axes.
Window window_of(const ConvShape& shape);

// The layout of padded rows that vectors of the kernels need.
PaddedRows padded_rows(const Kernels& kernels, const Window& window);

// Floats of memory for `rows` of them, with what may be read behind them; a multiple of 16.
size_t padded_floats(const Kernels& kernels, const Window& window, const PaddedRows& padded, size_t rows);

}  // namespace onnxprune
