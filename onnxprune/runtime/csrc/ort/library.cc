// The entry point that onnxruntime calls when the library is registered as one of custom operators.
#include <exception>

#include "ort/export.h"
#include "ort/ops.h"

extern "C" ONNXPRUNE_EXPORT OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                                      const OrtApiBase* api_base) {
  const OrtApi* const api = api_base->GetApi(onnxprune::kOrtApiVersion);
  if (api == nullptr) return nullptr;  // too old: it says so on stderr and runs the functions in the model file
  onnxprune::g_ort = api;
  try {
    return api->AddCustomOpDomain(options, onnxprune::custom_op_domain());
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}
