// The door of the library: what onnxruntime calls when the library is registered.
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
  if (api == nullptr) return nullptr;  // onnxruntime has said why on stderr; the functions in the file do the work
  onnxprune::g_ort = api;
  try {
    // Sessions keep pointers to it: never released.
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
