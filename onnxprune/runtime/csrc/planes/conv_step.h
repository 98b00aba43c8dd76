// What the steps of convolutions have in common.
#pragma once

#include <vector>

#include "planes/step.h"

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

}  // namespace onnxprune
