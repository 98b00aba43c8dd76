#include "ort/api.h"

#include <memory>

namespace onnxprune {
namespace {

bool succeeded(OrtStatus* status) {
  if (status == nullptr) return true;
  g_ort->ReleaseStatus(status);
  return false;
}

}  // namespace

const OrtApi* g_ort = nullptr;

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = g_ort->GetErrorMessage(status);
  g_ort->ReleaseStatus(status);
  throw Refusal(message);
}

Tensor tensor_of(const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* made = nullptr;
  check(g_ort->GetTensorTypeAndShape(value, &made));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo*)> info(
      made, [](OrtTensorTypeAndShapeInfo* info) { g_ort->ReleaseTensorTypeAndShapeInfo(info); });
  Tensor tensor{};
  size_t rank = 0;
  check(g_ort->GetTensorElementType(info.get(), &tensor.element_type));
  check(g_ort->GetDimensionsCount(info.get(), &rank));
  tensor.shape.resize(rank);
  check(g_ort->GetDimensions(info.get(), tensor.shape.data(), rank));
  check(g_ort->GetTensorShapeElementCount(info.get(), &tensor.elements));
  // This version of the API has no const access to data; inputs are only read.
  check(g_ort->GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data));
  return tensor;
}

const OrtValue* constant_input(const OrtKernelInfo* info, size_t index) {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(g_ort->KernelInfoGetConstantInput_tensor(info, index, &is_constant, &value));
  return is_constant == 0 ? nullptr : value;
}

int64_t attribute(const OrtKernelInfo* info, const char* name, int64_t absent) {
  int64_t value = 0;
  return succeeded(g_ort->KernelInfoGetAttribute_int64(info, name, &value)) ? value : absent;
}

float attribute(const OrtKernelInfo* info, const char* name, float absent) {
  float value = 0;
  return succeeded(g_ort->KernelInfoGetAttribute_float(info, name, &value)) ? value : absent;
}

std::string attribute(const OrtKernelInfo* info, const char* name, const std::string& absent) {
  size_t size = 0;
  if (!succeeded(g_ort->KernelInfoGetAttribute_string(info, name, nullptr, &size)) || size == 0) return absent;
  std::string value(size, '\0');
  check(g_ort->KernelInfoGetAttribute_string(info, name, value.data(), &size));
  value.resize(size - 1);  // without the closing zero
  return value;
}

std::vector<int64_t> attribute(const OrtKernelInfo* info, const char* name, const std::vector<int64_t>& absent) {
  size_t size = 0;
  if (!succeeded(g_ort->KernelInfoGetAttributeArray_int64(info, name, nullptr, &size))) return absent;
  std::vector<int64_t> values(size);
  check(g_ort->KernelInfoGetAttributeArray_int64(info, name, values.data(), &size));
  return values;
}

std::string node_name(const OrtKernelInfo* info) {
  size_t size = 0;
  check(g_ort->KernelInfo_GetNodeName(info, nullptr, &size));
  std::string name(size, '\0');
  check(g_ort->KernelInfo_GetNodeName(info, name.data(), &size));
  name.resize(size - 1);  // without the closing zero
  return name;
}

}  // namespace onnxprune
