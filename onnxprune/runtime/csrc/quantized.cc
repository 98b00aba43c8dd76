#include "quantized.h"

#include <cstring>

namespace onnxprune {

std::vector<float> Quantized::first_sums(const std::vector<uint32_t>& weight_sums) const {
  std::vector<float> sums(weight_sums.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    const uint32_t first = (bias == nullptr ? 0 : static_cast<uint32_t>(bias[i])) - zero_byte() * weight_sums[i];
    std::memcpy(&sums[i], &first, sizeof first);
  }
  return sums;
}

}  // namespace onnxprune
