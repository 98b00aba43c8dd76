// The few calls of onnxruntime's C API that the operators make.
//
// Not the official C++ wrappers: they call functions as new as themselves, and in an older runtime those pointers lie
// beyond the table (a read of a tensor crashed every onnxruntime before 1.23).
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "refusal.h"

namespace onnxprune {

// The first version with KernelContext_ParallelFor. Operators that claim a later one are refused by every onnxruntime
// before it.
constexpr uint32_t kOrtApiVersion = 17;

extern const OrtApi* g_ort;

// Throws Refusal with the message of a status that is not OK.
void check(OrtStatus* status);

// A tensor that somebody else owns.
struct Tensor {
  ONNXTensorElementDataType element_type;
  std::vector<int64_t> shape;
  size_t elements;
  void* data;
};

Tensor tensor_of(const OrtValue* value);

// Input `index`, or null where it is not constant.
const OrtValue* constant_input(const OrtKernelInfo* info, size_t index);
// What attributes give, or `absent` where they are not there.
int64_t attribute(const OrtKernelInfo* info, const char* name, int64_t absent);
float attribute(const OrtKernelInfo* info, const char* name, float absent);
std::string attribute(const OrtKernelInfo* info, const char* name, const std::string& absent);
std::vector<int64_t> attribute(const OrtKernelInfo* info, const char* name, const std::vector<int64_t>& absent);
std::string node_name(const OrtKernelInfo* info);

}  // namespace onnxprune
