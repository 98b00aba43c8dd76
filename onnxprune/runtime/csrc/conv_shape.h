// A convolution over an input of a given shape.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace onnxprune {

// One spatial axis; `begin` is the padding before it.
struct ConvAxis {
  int64_t input;
  int64_t output;
  int64_t kernel;
  int64_t stride;
  int64_t dilation;
  int64_t begin;

  // Whether output i reads input i and no other.
  bool is_plain() const { return kernel == 1 && stride == 1 && begin == 0 && input == output; }
  int64_t place(int64_t at, int64_t tap) const { return at * stride + tap * dilation - begin; }
};

struct ConvShape {
  int64_t images;
  int64_t input_channels;
  int64_t output_channels;
  std::vector<ConvAxis> axes;
  // Floats from one image to the next, where their channels are not contiguous.
  std::optional<int64_t> input_image = std::nullopt;
  std::optional<int64_t> output_image = std::nullopt;

  int64_t input_pixels() const { return product(&ConvAxis::input, 0); }
  int64_t output_pixels() const { return product(&ConvAxis::output, 0); }
  int64_t taps() const { return product(&ConvAxis::kernel, 0); }
  // Over all axes except the last `but`.
  int64_t product(int64_t ConvAxis::* size, size_t but) const {
    int64_t all = 1;
    for (size_t i = 0; i + but < axes.size(); ++i) all *= axes[i].*size;
    return all;
  }
};

// The same convolution with plain axes at the end merged into one, and at least two axes.
ConvShape simplified(ConvShape shape);

}  // namespace onnxprune
