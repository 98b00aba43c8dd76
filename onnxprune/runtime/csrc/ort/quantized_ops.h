// The operators of 8-bit integers as onnxruntime custom operators.
#pragma once

#include <vector>

#include "ort/api.h"

namespace onnxprune {

// Every operator, for u8 and for s8.
void add_quantized_ops(std::vector<const OrtCustomOp*>& ops);

}  // namespace onnxprune
