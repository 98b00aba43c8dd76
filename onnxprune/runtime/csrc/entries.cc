#include "entries.h"

#include <cstring>

namespace onnxprune {
namespace {

// More than any weight has, and so few that no product of two sizes overflows.
constexpr uint64_t kMaxElements = uint64_t{1} << 40;
// An empty row of a matrix costs memory too: a broken file must not ask for more than there is.
constexpr int64_t kMaxDimension = int64_t{1} << 26;

uint64_t element_count(const std::vector<int64_t>& shape) {
  uint64_t count = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 0) throw Refusal("its shape " + to_string(shape) + " has a negative dimension");
    if (dimension == 0) throw Refusal("its shape " + to_string(shape) + " has no elements");
    if (dimension > kMaxDimension) throw Refusal("its shape " + to_string(shape) + " is larger than memory");
    count *= static_cast<uint64_t>(dimension);
    if (count > kMaxElements) throw Refusal("its shape " + to_string(shape) + " is larger than memory");
  }
  return count;
}

double value_at(const void* values, ValueType type, size_t index) {
  switch (type) {
    case ValueType::kFloat: return static_cast<const float*>(values)[index];
    case ValueType::kFloat16: return half_to_float(static_cast<const uint16_t*>(values)[index]);
    case ValueType::kDouble: return static_cast<const double*>(values)[index];
  }
  return 0;
}

}  // namespace

Entries decode(const void* values, ValueType type, const uint8_t* gaps, size_t count, std::vector<int64_t> shape) {
  const uint64_t size = element_count(shape);
  Entries entries{std::move(shape), {}, {}};
  entries.positions.reserve(count);
  entries.values.reserve(count);
  uint64_t end = 0;
  for (size_t i = 0; i < count; ++i) {
    if (gaps[i] == 0) throw Refusal("gap " + std::to_string(i) + " is 0, so two values claim one position");
    end += gaps[i];
    if (end > size) {
      throw Refusal("value " + std::to_string(i) + " is at position " + std::to_string(end - 1) + " of " +
                    std::to_string(size));
    }
    const double value = value_at(values, type, i);
    if (value != 0) {
      entries.positions.push_back(end - 1);
      entries.values.push_back(value);
    }
  }
  return entries;
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  uint32_t bits = 0;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    std::memcpy(&bits, &magnitude, sizeof bits);
    bits |= sign;
  } else {
    const uint32_t wide_exponent = exponent == 0x1fu ? 0xffu : exponent + 112;
    bits = sign | (wide_exponent << 23) | (mantissa << 13);
  }
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t float_to_half(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (bits >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits < 0x38800000u) {
    // Subnormal: adding a half lets the FPU round to the last of its ten bits, ties to even.
    float magnitude = 0;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, sizeof bits);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  const uint32_t odd = (bits >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + odd) >> 13));
}

std::string to_string(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace onnxprune
