// The operators of 8-bit integers that stand between products, and read no weight.
#pragma once

#include <onnxruntime_c_api.h>

#include <vector>

namespace onnxprune {

void add_between_ops(std::vector<const OrtCustomOp*>& ops);

}  // namespace onnxprune
