// The operators of a group, each on tensors in the layout of planes/layout.h.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "planes/layout.h"
#include "threads.h"

namespace onnxprune {

// An operator prepared for inputs of given shapes.
class StepRun {
 public:
  virtual ~StepRun() = default;
  // Safe to call from several threads at once.
  virtual void run(const std::vector<const float*>& inputs, float* output, const Threads& threads) const = 0;
};

class Step {
 public:
  virtual ~Step() = default;
  // Throws Refusal if the inputs do not fit.
  virtual Shape output_shape(const std::vector<Shape>& inputs) const = 0;
  // For an output that is not empty.
  virtual std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const = 0;
  // Whether the output is the inputs' channels one behind the other, so that they can be made where they belong.
  virtual bool is_concat() const { return false; }
};

// Inputs: x, and the addend where there is one. `bias` may be empty.
std::unique_ptr<Step> sparse_conv_step(const Kernels& kernels, const SparseWeight& weight,
                                       const ConvAttributes& attributes, std::vector<float> bias,
                                       const Epilogue& epilogue);

// A convolution of each channel with one filter, over two spatial axes; inputs like those of a sparse one.
std::unique_ptr<Step> depthwise_step(const Kernels& kernels, std::vector<float> weight, const Shape& weight_shape,
                                     const ConvAttributes& attributes, std::vector<float> bias,
                                     const Epilogue& epilogue);
// Whether a convolution is one that depthwise_step() takes.
bool is_depthwise(const Shape& weight_shape, const ConvAttributes& attributes);

// A convolution of the few channels of images by a weight that is dense, over two spatial axes; inputs like those of a
// sparse one.
std::unique_ptr<Step> stem_step(const Kernels& kernels, const std::vector<float>& weight, const Shape& weight_shape,
                                const ConvAttributes& attributes, const std::vector<float>& bias,
                                const Epilogue& epilogue);
// Whether a convolution is one that stem_step() takes.
bool is_stem(const Shape& weight_shape, const ConvAttributes& attributes);

// Pooling over two spatial axes; the attributes are those that pooling shares with Conv.
std::unique_ptr<Step> pool_step(const Kernels& kernels, Pooling pooling, ConvAttributes attributes);
// The mean over all pixels.
std::unique_ptr<Step> global_mean_step(const Kernels& kernels);

// The sum of two inputs of the same shape, or one input, and an activation.
std::unique_ptr<Step> sum_step(const Kernels& kernels, const Epilogue& epilogue);

// Along the channels.
std::unique_ptr<Step> concat_step(const Kernels& kernels);

}  // namespace onnxprune
