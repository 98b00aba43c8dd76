#include "ort/forms.h"

#include <limits>

namespace onnxprune {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The slope and the offset are attributes, whose defaults these are.
constexpr Constants constants(double slope, double offset, double low, double high) {
  return {slope, offset, low, high, 1};
}

// Activations are named by the ONNX operators that they are made of.
const std::vector<Form>& activations() {
  static const std::vector<double Constants::*> bounds{&Constants::low, &Constants::high};
  static const std::vector<double Constants::*> shift_bounds_divisor{&Constants::offset, &Constants::low,
                                                                     &Constants::high, &Constants::divisor};
  static const std::vector<Form> all{
      {"", Activation::kNone, {}, {}},
      {"Relu", Activation::kClip, constants(1, 0, 0, kInfinity), {}},
      {"Clip", Activation::kClip, {}, bounds},
      {"LeakyRelu", Activation::kLeakyRelu, constants(0.01, 0, 0, 0), {}},
      {"Sigmoid", Activation::kSigmoid, {}, {}},
      {"SigmoidMul", Activation::kSilu, {}, {}},
      {"Swish", Activation::kSilu, {}, {}},
      {"HardSwish", Activation::kHardSwish, constants(1.0 / 6, 0.5, 0, 1), {}},
      {"HardSigmoidMul", Activation::kHardSwish, constants(0.2, 0.5, 0, 1), {}},
      {"AddClipDivMul", Activation::kHardSwish, {}, shift_bounds_divisor},
      {"AddClipMulDiv", Activation::kHardSwish, {}, shift_bounds_divisor},
  };
  return all;
}

}  // namespace

const std::vector<Form>& forms() {
  static const std::vector<Form> all = [] {
    std::vector<Form> made = activations();
    for (Form form : activations()) {
      form.name.insert(0, "Add");
      form.has_addend = true;
      made.push_back(form);
    }
    return made;
  }();
  return all;
}

}  // namespace onnxprune
