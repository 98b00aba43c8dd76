// The few calls of onnxruntime's C API that the operators make.
//
// The official C++ wrappers are not used: they call functions of their own version, which an older runtime's table does
// not have (reading a tensor crashed every onnxruntime before 1.23).
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "refusal.h"

namespace onnxprune {

// The first version with KernelContext_ParallelFor. An onnxruntime refuses operators of a later version than its own.
constexpr uint32_t kOrtApiVersion = 17;

extern const OrtApi* g_ort;

// Throws Refusal with the message of a status that is not OK.
void check(OrtStatus* status);

// A view of a tensor that onnxruntime owns.
struct Tensor {
  ONNXTensorElementDataType element_type;
  std::vector<int64_t> shape;
  size_t elements;
  void* data;
};

Tensor tensor_of(const OrtValue* value);

// Input `index`, or null where it is not constant.
const OrtValue* constant_input(const OrtKernelInfo* info, size_t index);
// The value of an attribute, or `absent` if the node does not have it.
int64_t attribute(const OrtKernelInfo* info, const char* name, int64_t absent);
float attribute(const OrtKernelInfo* info, const char* name, float absent);
std::string attribute(const OrtKernelInfo* info, const char* name, const std::string& absent);
std::vector<int64_t> attribute(const OrtKernelInfo* info, const char* name, const std::vector<int64_t>& absent);
std::string node_name(const OrtKernelInfo* info);

}  // namespace onnxprune
