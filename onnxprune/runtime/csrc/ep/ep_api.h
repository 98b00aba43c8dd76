// The calls of onnxruntime's C API that an execution provider makes beside those of the operators (ort/api.h).
#pragma once

#include <cstdint>

#include "ort/api.h"

namespace onnxprune {

// The first version whose graphs may be claimed in part by a provider in the CPU's memory.
constexpr uint32_t kMinEpApiVersion = 24;

struct EpApi {
  // The version that this onnxruntime and the headers of this build both have; what it lacks is not called.
  uint32_t version;
  const OrtApi* ort;
  const OrtEpApi* ep;
};

extern EpApi g_ep;

// Sets g_ep and g_ort. Throws Refusal where onnxruntime is too old; CreateStatus can be called even then.
void connect(const OrtApiBase* base);

}  // namespace onnxprune
