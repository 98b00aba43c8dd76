// A sparse weight as the model file stores it: `values`, `gaps` and `shape` (sparse/encode.py), decoded and checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxprune {

// The non-zeros of a weight, in ascending order of their position in the flattened weight.
struct SparseWeight {
  std::vector<int64_t> shape;
  std::vector<uint64_t> positions;
  std::vector<double> values;
};

// The number of elements of a weight. Throws Refusal for a shape that is negative, empty or larger than memory.
uint64_t element_count(const std::vector<int64_t>& shape);

enum class ValueType { kFloat, kFloat16, kDouble };

// Decodes `count` values and gaps. Fillers, which bridge distances above 255 with a value of 0, are dropped.
// Throws Refusal for a gap of 0, a position beyond the weight, or a shape that is negative or overflows.
SparseWeight decode(const void* values, ValueType type, const uint8_t* gaps, size_t count, std::vector<int64_t> shape);

}  // namespace onnxprune
