// The layout of tensors inside a group: channel after channel, each with the pixels of all images side by side and then
// some room, so that vectors of a channel are aligned, also where a plane is small.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "sparse_conv.h"

namespace onnxprune {

// Images, channels, and sizes of the spatial axes.
using Shape = std::vector<int64_t>;

struct PlaneLayout {
  PlaneLayout(const Kernels& kernels, const Shape& shape);

  size_t images;
  size_t channels;
  // Of one image.
  size_t pixels;
  // Floats from one channel to the next.
  size_t pitch;

  size_t floats() const { return channels * pitch; }
  Strides strides() const { return {pitch, pixels, pitch, true}; }
  // Whether a contiguous tensor has the same layout.
  bool is_contiguous() const { return images == 1 && pitch == pixels; }
};

// Copies a contiguous tensor into the layout, and out of it.
void bring_in(const PlaneLayout& layout, const float* from, float* to);
void bring_out(const PlaneLayout& layout, const float* from, float* to);

}  // namespace onnxprune
