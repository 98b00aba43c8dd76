// Convolution with a sparse weight, of any number of spatial axes; knows nothing of onnxruntime.
//
// The weight is one matrix, output channels x (input channels * taps), which multiplies panels of the input
// (conv_tiles.h). With groups it is block-diagonal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "conv_shape.h"
#include "csr_matrix.h"
#include "kernels/kernels.h"
#include "threads.h"

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

class SparseConv {
 public:
  // Throws Refusal if weight and attributes do not match.
  SparseConv(const Kernels& kernels, const SparseWeight& weight, ConvAttributes attributes);

  // Throws Refusal if x does not match the weight.
  std::vector<int64_t> output_shape(const std::vector<int64_t>& x_shape) const;
  size_t output_channels() const { return output_channels_; }

  // Safe to call from several threads at once. `bias` has a float for each output channel, or is null.
  void run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y, const Threads& threads,
           const Epilogue& epilogue);

 private:
  struct Prepared;

  std::shared_ptr<const Prepared> prepared(const std::vector<int64_t>& x_shape);
  ConvShape resolve(const std::vector<int64_t>& x_shape) const;

  const Kernels& kernels_;
  ConvAttributes attributes_;
  size_t output_channels_;
  size_t input_channels_;
  CsrMatrix matrix_;
  std::mutex mutex_;
  std::shared_ptr<const Prepared> latest_;
};

}  // namespace onnxprune
