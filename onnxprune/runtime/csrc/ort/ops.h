// The operators of domain `onnxprune` as onnxruntime custom operators.
#pragma once

#include "ort/api.h"

namespace onnxprune {

// The domain with every operator, for every element type of its input.
OrtCustomOpDomain* custom_op_domain();

}  // namespace onnxprune
