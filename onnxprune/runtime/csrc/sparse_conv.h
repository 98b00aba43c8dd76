// Convolution with a sparse weight, of any number of spatial axes; knows nothing of onnxruntime.
//
// The weight is one matrix, output channels x (input channels * taps), which multiplies panels of the input
// (conv_tiles.h), or the input itself (pointwise.h). With groups it is block-diagonal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "conv_geometry.h"
#include "conv_plans.h"
#include "csr_matrix.h"
#include "kernels/kernels.h"
#include "pointwise.h"
#include "threads.h"

namespace onnxprune {

// Floats from one channel of a tensor to the next, and from one image to the next.
struct Strides {
  size_t channel;
  size_t image;
  // Floats that each channel of all images has room for.
  size_t room;
  // Whether every channel begins at a multiple of 64 bytes.
  bool is_aligned;
};

// A convolution prepared for inputs of one shape and layout.
class PreparedConv {
 public:
  PreparedConv(const Kernels& kernels, const ConvPlans& plans, ConvShape shape, const Strides& x, const Strides& y);

  // Safe to call from several threads at once. `bias` has a float for each output channel, or is null.
  void run(const float* x, const float* bias, float* y, const Threads& threads, const Epilogue& epilogue) const;

 private:
  void run_tiles(const float* x, const float* bias, float* y, const Threads& threads, const Epilogue& epilogue) const;

  const Kernels& kernels_;
  size_t x_channel_;
  size_t y_channel_;
  // One of the two.
  std::optional<Pointwise> pointwise_;
  std::optional<ConvPlan> plan_;
};

class SparseConv {
 public:
  // Throws Refusal if weight and attributes do not match.
  SparseConv(const Kernels& kernels, const SparseWeight& weight, ConvAttributes attributes);

  // Throws Refusal if x does not match the weight.
  std::vector<int64_t> output_shape(const std::vector<int64_t>& x_shape) const {
    return geometry_.output_shape(x_shape);
  }
  size_t output_channels() const { return geometry_.output_channels(); }

  // For outputs that are not empty.
  std::unique_ptr<const PreparedConv> prepare(const std::vector<int64_t>& x_shape, const Strides& x,
                                              const Strides& y) const;

  // Of contiguous tensors. Safe to call from several threads at once. `bias` has a float for each output channel, or is
  // null.
  void run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y, const Threads& threads,
           const Epilogue& epilogue);

 private:
  static CsrMatrix matrix_of(const SparseWeight& weight, const ConvGeometry& geometry);
  std::shared_ptr<const PreparedConv> latest(const std::vector<int64_t>& x_shape);

  const Kernels& kernels_;
  ConvGeometry geometry_;
  ConvPlans plans_;
  std::mutex mutex_;
  std::vector<int64_t> latest_shape_;
  std::shared_ptr<const PreparedConv> latest_;
};

}  // namespace onnxprune
