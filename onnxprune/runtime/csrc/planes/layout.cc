#include "planes/layout.h"

#include <algorithm>

namespace onnxprune {
namespace {

constexpr size_t kLineFloats = 16;

size_t pitch_of(const Kernels& kernels, size_t floats) {
  const size_t unit = std::max(kernels.lanes, kLineFloats);
  const size_t pitch = (floats + unit - 1) / unit * unit;
  return is_clashing(pitch) ? pitch + unit : pitch;
}

}  // namespace

PlaneLayout::PlaneLayout(const Kernels& kernels, const Shape& shape)
    : images(static_cast<size_t>(shape[0])),
      channels(static_cast<size_t>(shape[1])),
      pixels(static_cast<size_t>(volume({shape.begin() + 2, shape.end()}))),
      pitch(pitch_of(kernels, images * pixels)) {}

void bring_in(const PlaneLayout& layout, const float* from, float* to) {
  for (size_t image = 0; image < layout.images; ++image) {
    for (size_t channel = 0; channel < layout.channels; ++channel, from += layout.pixels) {
      std::copy_n(from, layout.pixels, to + channel * layout.pitch + image * layout.pixels);
    }
  }
}

void bring_out(const PlaneLayout& layout, const float* from, float* to) {
  for (size_t image = 0; image < layout.images; ++image) {
    for (size_t channel = 0; channel < layout.channels; ++channel, to += layout.pixels) {
      std::copy_n(from + channel * layout.pitch + image * layout.pixels, layout.pixels, to);
    }
  }
}

}  // namespace onnxprune
