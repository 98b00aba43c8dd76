// The execution provider of one session: it claims the products of a graph that kernels compute faster than dense ones,
// and compiles each with what follows it.
#pragma once

#include "ep/ep_api.h"

namespace onnxprune {

constexpr const char* kProviderName = "OnnxpruneExecutionProvider";

// Throws Refusal for an option of the session that it does not know.
OrtEp* make_provider(const OrtSessionOptions* session_options);
void delete_provider(OrtEp* provider);

}  // namespace onnxprune
