// The epilogue of a sparse product: an addition and an activation, applied before the result is stored.
#pragma once

namespace onnxprune {

enum class Activation {
  kNone,
  kClip,       // z between low and high
  kLeakyRelu,  // z, or slope * z below zero
  kSigmoid,    // 1 / (1 + exp(-z))
  kSilu,       // z * sigmoid(slope * z)
  kHardSwish,  // z * (slope * z + offset between low and high) / divisor
};

// The parameters of activations.
struct Constants {
  double slope = 1;
  double offset = 0;
  double low = 0;
  double high = 1;
  double divisor = 1;
};

// y = activation(sum + addend). NaN stays NaN.
template <class Number>
struct EpilogueOf {
  Activation activation = Activation::kNone;
  Constants constants;
  // Of the same layout as y, or null.
  const Number* addend = nullptr;

  bool any() const { return activation != Activation::kNone || addend != nullptr; }
};

using Epilogue = EpilogueOf<float>;

}  // namespace onnxprune
