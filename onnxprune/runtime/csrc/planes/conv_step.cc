#include "planes/conv_step.h"

#include <algorithm>
#include <string>

#include "refusal.h"

namespace onnxprune {
namespace {

bool all_are(const std::vector<int64_t>& values, int64_t least, int64_t most) {
  return std::all_of(values.begin(), values.end(), [&](int64_t value) { return least <= value && value <= most; });
}

}  // namespace

void check_addend(const std::vector<Shape>& inputs, const Shape& output) {
  if (inputs.size() > 1 && inputs[1] != output) {
    throw Refusal("its addend has shape " + to_string(inputs[1]) + ", its output " + to_string(output));
  }
}

Epilogue with_addend(Epilogue epilogue, const std::vector<const float*>& inputs) {
  epilogue.addend = inputs.size() > 1 ? inputs[1] : nullptr;
  return epilogue;
}

void check_bias(const std::vector<float>& bias, size_t channels) {
  if (bias.size() != channels) {
    throw Refusal("its bias has " + std::to_string(bias.size()) + " numbers for " + std::to_string(channels) +
                  " output channels");
  }
}

bool only_clips(const Epilogue& epilogue) {
  return epilogue.activation == Activation::kClip && epilogue.addend == nullptr;
}

bool pads_rows(const ConvAttributes& attributes) {
  constexpr int64_t kLargestPad = 64;
  return all_are(attributes.strides, 1, 2) && all_are(attributes.dilations, 1, 1) &&
         all_are(attributes.pads, 0, kLargestPad);
}

Shape PaddedConvStep::output_shape(const std::vector<Shape>& inputs) const {
  Shape shape = geometry_.output_shape(inputs[0]);
  check_addend(inputs, shape);
  return shape;
}

PaddedConvStep::Prepared::Prepared(const PaddedConvStep& step, const Shape& x_shape)
    : window(window_of(step.geometry_.resolve(x_shape))),
      padded(padded_rows(step.kernels_, window)),
      x(step.kernels_, x_shape),
      y(step.kernels_, step.geometry_.output_shape(x_shape)) {}

}  // namespace onnxprune
