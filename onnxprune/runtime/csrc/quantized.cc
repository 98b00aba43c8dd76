#include "quantized.h"

#include <cstring>

namespace onnxprune {

std::vector<float> Quantized::first_sums(const ByteKernels& kernels, const std::vector<uint32_t>& weight_sums) const {
  const uint8_t byte = zero_byte(kernels);
  const uint32_t zero = kernels.signed_panels ? static_cast<uint32_t>(static_cast<int8_t>(byte)) : byte;
  std::vector<float> sums(weight_sums.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    const uint32_t first = (bias == nullptr ? 0 : static_cast<uint32_t>(bias[i])) - zero * weight_sums[i];
    std::memcpy(&sums[i], &first, sizeof first);
  }
  return sums;
}

}  // namespace onnxprune
