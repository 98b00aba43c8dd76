// The attributes of a convolution and the shape of its weight: what a convolution of an input looks like.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "conv_shape.h"

namespace onnxprune {

// The attributes of Conv; vectors are empty where the attribute is absent.
struct ConvAttributes {
  std::string auto_pad = "NOTSET";
  std::vector<int64_t> dilations;
  int64_t group = 1;
  std::vector<int64_t> kernel_shape;
  std::vector<int64_t> pads;
  std::vector<int64_t> strides;
};

// The product of sizes.
int64_t volume(const std::vector<int64_t>& sizes);

class ConvGeometry {
 public:
  // Throws Refusal if a weight of this shape and the attributes do not match.
  ConvGeometry(const std::vector<int64_t>& weight_shape, ConvAttributes attributes);

  // Throws Refusal if x does not match the weight.
  ConvShape resolve(const std::vector<int64_t>& x_shape) const;
  std::vector<int64_t> output_shape(const std::vector<int64_t>& x_shape) const;

  size_t groups() const { return static_cast<size_t>(attributes_.group); }
  size_t output_channels() const { return output_channels_; }
  size_t input_channels() const { return input_channels_; }

 private:
  ConvAttributes attributes_;
  size_t output_channels_;
  size_t input_channels_;
};

}  // namespace onnxprune
