#include "ep/ep_api.h"

#include <algorithm>
#include <cstdio>
#include <string>

namespace onnxprune {
namespace {

// Asked for one that it does not have, an onnxruntime prints an error, so that it has to be told from "1.32.0".
uint32_t newest_api(const char* version) {
  unsigned major = 0;
  unsigned minor = 0;
  if (std::sscanf(version, "%u.%u", &major, &minor) != 2) return 0;
  return major > 1 ? ORT_API_VERSION : minor;
}

}  // namespace

EpApi g_ep{};

void connect(const OrtApiBase* base) {
  const std::string release = base->GetVersionString();
  const uint32_t version = std::min<uint32_t>(newest_api(release.c_str()), ORT_API_VERSION);
  const OrtApi* const ort = version < kOrtApiVersion ? nullptr : base->GetApi(version);
  g_ort = ort != nullptr ? ort : base->GetApi(1);
  if (ort == nullptr || version < kMinEpApiVersion) {
    throw Refusal("onnxprune's execution provider needs onnxruntime 1." + std::to_string(kMinEpApiVersion) +
                  " or later, and this is " + release + ": update it, or use the sparse kernels as custom operators");
  }
  g_ep = {version, ort, ort->GetEpApi()};
}

}  // namespace onnxprune
