// Conv with a sparse weight, of any number of spatial axes.
//
// The product of the weight (output channels x input channels * taps) and the image's columns (im2col), of which
// each tile packs the rows that a block of the weight needs, straight into the first cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "matrix.h"
#include "parallel.h"

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

class Convolution {
 public:
  // Throws Refusal where weight and attributes do not fit.
  Convolution(const Kernels& kernels, const Entries& weight, ConvAttributes attributes);

  // Throws Refusal where x does not fit the weight.
  std::vector<int64_t> output_shape(const std::vector<int64_t>& x_shape) const;
  size_t output_channels() const { return output_channels_; }

  // Safe to call from several threads at once. `bias` has a float for each output channel, or is null.
  void run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y, const Threads& threads);

 private:
  struct Geometry;

  std::shared_ptr<const Geometry> geometry(const std::vector<int64_t>& x_shape);
  std::shared_ptr<const Geometry> make_geometry(const std::vector<int64_t>& x_shape) const;
  // Padding at the beginning of each spatial axis, and the output's size along it.
  void resolve(const std::vector<int64_t>& x_shape, std::vector<int64_t>& begin, std::vector<int64_t>& size) const;

  const Kernels& kernels_;
  ConvAttributes attributes_;
  size_t output_channels_;
  size_t channels_per_group_;
  size_t taps_;
  std::vector<PanelMatrix> groups_;
  std::mutex mutex_;
  std::shared_ptr<const Geometry> latest_;
};

}  // namespace onnxprune
