// The entry point of the library, which onnxruntime calls when the library is registered.
#include <exception>

#include "ort/ops.h"

#if defined(_WIN32)
#define ONNXPRUNE_EXPORT __declspec(dllexport)
#else
#define ONNXPRUNE_EXPORT __attribute__((visibility("default")))
#endif

extern "C" ONNXPRUNE_EXPORT OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                                      const OrtApiBase* api_base) {
  const OrtApi* const api = api_base->GetApi(onnxprune::kOrtApiVersion);
  if (api == nullptr) return nullptr;  // too old: it says so on stderr and runs the functions in the model file
  onnxprune::g_ort = api;
  try {
    // Never released, as sessions keep pointers to it.
    static OrtCustomOpDomain* const domain = [] {
      OrtCustomOpDomain* made = nullptr;
      onnxprune::check(onnxprune::g_ort->CreateCustomOpDomain("onnxprune", &made));
      for (const OrtCustomOp* const op : onnxprune::custom_ops()) {
        onnxprune::check(onnxprune::g_ort->CustomOpDomain_Add(made, op));
      }
      return made;
    }();
    return api->AddCustomOpDomain(options, domain);
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}
