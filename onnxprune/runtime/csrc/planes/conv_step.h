// What the steps of convolutions have in common.
#pragma once

#include <vector>

#include "planes/step.h"
#include "planes/windows.h"

namespace onnxprune {

// Floats of padded rows that stay in the L1 cache.
constexpr size_t kPaddedFloats = 6144;

// Throws Refusal where a second input, the addend, has not the shape of the output.
void check_addend(const std::vector<Shape>& inputs, const Shape& output);
// Throws Refusal unless there is a number for each channel.
void check_bias(const std::vector<float>& bias, size_t channels);

Epilogue with_addend(Epilogue epilogue, const std::vector<const float*>& inputs);

// Whether what the kernel of a plane can bound is all that the epilogue does.
bool only_clips(const Epilogue& epilogue);

// Whether the kernels of padded rows have these strides, dilations and pads.
bool pads_rows(const ConvAttributes& attributes);

// A convolution by the kernels of padded rows.
class PaddedConvStep : public Step {
 public:
  PaddedConvStep(const Kernels& kernels, const Shape& weight_shape, const ConvAttributes& attributes,
                 const Epilogue& epilogue)
      : kernels_(kernels), geometry_(weight_shape, attributes), epilogue_(epilogue) {}

  Shape output_shape(const std::vector<Shape>& inputs) const override;

 protected:
  struct Prepared : StepRun {
    Prepared(const PaddedConvStep& step, const Shape& x_shape);

    // Padded rows that so many rows of results read.
    size_t rows_read(size_t rows) const { return (rows - 1) * window.row_stride + window.height; }
    // Rows of results that so many padded rows suffice for.
    size_t rows_of(size_t read) const {
      return read < window.height ? 0 : (read - window.height) / window.row_stride + 1;
    }

    const Window window;
    const PaddedRows padded;
    const PlaneLayout x;
    const PlaneLayout y;
  };

  const Kernels& kernels_;
  const ConvGeometry geometry_;
  const Epilogue epilogue_;
};

}  // namespace onnxprune
