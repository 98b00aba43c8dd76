// The entry points that onnxruntime calls when the library is registered as one of execution providers, and released.
#include <algorithm>

#include "ep/ep_api.h"
#include "ep/guard.h"
#include "ep/provider.h"
#include "ort/export.h"
#include "ort/ops.h"

namespace onnxprune {
namespace {

struct Factory : OrtEpFactory {
  Factory() : OrtEpFactory{} {
    ort_version_supported = g_ep.version;
    GetName = [](const OrtEpFactory*) noexcept { return kProviderName; };
    GetVendor = [](const OrtEpFactory*) noexcept { return "onnxprune"; };
    GetVendorId = [](const OrtEpFactory*) noexcept { return uint32_t{0}; };  // there is none, as of PCI
    GetVersion = [](const OrtEpFactory*) noexcept { return ONNXPRUNE_VERSION; };
    GetSupportedDevices = supported_devices;
    CreateEp = [](OrtEpFactory*, const OrtHardwareDevice* const*, const OrtKeyValuePairs* const*, size_t,
                  const OrtSessionOptions* options, const OrtLogger*,
                  OrtEp** provider) noexcept { return guarded([&] { *provider = make_provider(options); }); };
    ReleaseEp = [](OrtEpFactory*, OrtEp* provider) noexcept { delete_provider(provider); };
    // Tensors stay where onnxruntime's own CPU provider has them. Versions differ in which of these they do without.
    CreateAllocator = [](OrtEpFactory*, const OrtMemoryInfo*, const OrtKeyValuePairs*,
                         OrtAllocator** allocator) noexcept -> OrtStatus* {
      *allocator = nullptr;
      return nullptr;
    };
    ReleaseAllocator = [](OrtEpFactory*, OrtAllocator*) noexcept {};
    CreateDataTransfer = [](OrtEpFactory*, OrtDataTransferImpl** transfer) noexcept -> OrtStatus* {
      *transfer = nullptr;
      return nullptr;
    };
    IsStreamAware = [](const OrtEpFactory*) noexcept { return false; };
    GetNumCustomOpDomains = [](OrtEpFactory*, size_t* count) noexcept -> OrtStatus* {
      *count = 1;
      return nullptr;
    };
    GetCustomOpDomains = [](OrtEpFactory*, OrtCustomOpDomain** domains, size_t) noexcept {
      return guarded([&] { *domains = custom_op_domain(); });
    };
  }

  // The CPU, once.
  static OrtStatus* ORT_API_CALL supported_devices(OrtEpFactory* factory, const OrtHardwareDevice* const* devices,
                                                   size_t count, OrtEpDevice** supported, size_t most,
                                                   size_t* supported_count) noexcept {
    *supported_count = 0;
    return guarded([&] {
      for (size_t i = 0; i < count && *supported_count < std::min<size_t>(most, 1); ++i) {
        if (g_ep.ort->HardwareDevice_Type(devices[i]) != OrtHardwareDeviceType_CPU) continue;
        check(g_ep.ep->CreateEpDevice(factory, devices[i], nullptr, nullptr, supported));
        ++*supported_count;
      }
    });
  }
};

}  // namespace
}  // namespace onnxprune

extern "C" ONNXPRUNE_EXPORT OrtStatus* CreateEpFactories(const char*, const OrtApiBase* base, const OrtLogger*,
                                                         OrtEpFactory** factories, size_t most, size_t* count) {
  *count = 0;
  return onnxprune::guarded([&] {
    onnxprune::connect(base);
    if (most == 0) throw onnxprune::Refusal("onnxruntime has no room for onnxprune's execution provider");
    *factories = new onnxprune::Factory;
    *count = 1;
  });
}

extern "C" ONNXPRUNE_EXPORT OrtStatus* ReleaseEpFactory(OrtEpFactory* factory) {
  delete static_cast<onnxprune::Factory*>(factory);
  return nullptr;
}
