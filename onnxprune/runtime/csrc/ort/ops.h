// The operators of domain `onnxprune` as onnxruntime custom operators.
#pragma once

#include <vector>

#include "ort/api.h"

namespace onnxprune {

// Every operator, for every element type of its input.
const std::vector<const OrtCustomOp*>& custom_ops();

}  // namespace onnxprune
