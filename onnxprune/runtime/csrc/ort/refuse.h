// What the operators have in common: how they refuse, and how they read the constants of a weight.
#pragma once

#include <string>

#include "ort/api.h"
#include "refusal.h"

namespace onnxprune {

// The status "<node> cannot run: <what>".
inline OrtStatus* refuse(const std::string& node, const char* what) noexcept {
  try {
    return g_ort->CreateStatus(ORT_INVALID_ARGUMENT, (node + " cannot run: " + what).c_str());
  } catch (...) {
    return g_ort->CreateStatus(ORT_FAIL, "out of memory");
  }
}

// A tensor of one axis; `name` is what its refusal calls it.
inline Tensor list_of(const OrtValue* value, const char* name) {
  Tensor tensor = tensor_of(value);
  if (tensor.shape.size() != 1) throw Refusal("its " + std::string(name) + " are not one-dimensional");
  return tensor;
}

}  // namespace onnxprune
