#include "sparse_weight.h"

#include <cassert>
#include <utility>

#include "float16.h"
#include "refusal.h"

namespace onnxprune {
namespace {

// More than any weight has, and small enough that products of two sizes do not overflow.
constexpr uint64_t kMaxElements = uint64_t{1} << 40;
// Empty rows take memory too, and a damaged file must not allocate all of it.
constexpr int64_t kMaxDimension = int64_t{1} << 26;

double value_at(const void* values, ValueType type, size_t index) {
  switch (type) {
    case ValueType::kFloat: return static_cast<const float*>(values)[index];
    case ValueType::kFloat16: return half_to_float(static_cast<const uint16_t*>(values)[index]);
    case ValueType::kDouble: return static_cast<const double*>(values)[index];
  }
  return 0;
}

}  // namespace

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

SparseWeight decode(const void* values, ValueType type, const uint8_t* gaps, size_t count, std::vector<int64_t> shape) {
  assert(count == 0 || (values != nullptr && gaps != nullptr));
  const uint64_t size = element_count(shape);
  SparseWeight weight{std::move(shape), {}, {}};
  weight.positions.reserve(count);
  weight.values.reserve(count);
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
      weight.positions.push_back(end - 1);
      weight.values.push_back(value);
    }
  }
  return weight;
}

}  // namespace onnxprune
