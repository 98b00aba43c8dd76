#include "byte_weight.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <string>
#include <utility>

#include "refusal.h"
#include "sparse_weight.h"

namespace onnxprune {
namespace {

using Four = std::array<int32_t, kWordInputs>;

int32_t number_at(const StoredBytes& stored, size_t index) {
  if (stored.is_signed) return static_cast<const int8_t*>(stored.values)[index];
  return static_cast<const uint8_t*>(stored.values)[index];
}

// Adds the four's numbers, in as many entries as it takes for each to fit s8; none for zeros.
void add_entries(ByteEntry place, Four numbers, std::vector<ByteEntry>& entries) {
  while (std::any_of(numbers.begin(), numbers.end(), [](int32_t number) { return number != 0; })) {
    int8_t bytes[kWordInputs];
    for (size_t i = 0; i < kWordInputs; ++i) {
      bytes[i] = static_cast<int8_t>(std::clamp(numbers[i], -128, 127));
      numbers[i] -= bytes[i];
    }
    static_assert(sizeof place.word == sizeof bytes, "a word of four bytes");
    std::memcpy(&place.word, bytes, sizeof bytes);
    entries.push_back(place);
  }
}

ByteAxes axes_of(const std::vector<int64_t>& shape, size_t input_axis) {
  ByteAxes axes{1, static_cast<size_t>(shape[input_axis]), 1};
  for (size_t axis = 0; axis < input_axis; ++axis) axes.outer *= static_cast<size_t>(shape[axis]);
  for (size_t axis = input_axis + 1; axis < shape.size(); ++axis) axes.inner *= static_cast<size_t>(shape[axis]);
  return axes;
}

}  // namespace

ByteWeight decode(const StoredBytes& stored, std::vector<int64_t> shape, size_t input_axis, const ZeroPoints& zeros) {
  element_count(shape);
  if (input_axis >= shape.size()) throw Refusal("its shape " + to_string(shape) + " has too few axes");
  if (stored.block != 1 && stored.block != kWordInputs) {
    throw Refusal("its values are in blocks of " + std::to_string(stored.block) + ", not of 1 or 4");
  }
  ByteWeight weight{std::move(shape), {}, {}};
  const ByteAxes axes = weight.axes = axes_of(weight.shape, input_axis);
  const size_t outputs = axes.outer * axes.inner;
  if (zeros.size() != 1 && zeros.size() != outputs) {
    throw Refusal("it has " + std::to_string(zeros.size()) + " zero points for " + std::to_string(outputs) +
                  " outputs");
  }
  const size_t row_blocks = (axes.inputs + stored.block - 1) / stored.block;
  const uint64_t blocks = static_cast<uint64_t>(outputs) * row_blocks;
  uint64_t end = 0;
  uint64_t last = 0;
  Four four{};
  const auto add_last = [&] {
    const uint64_t row = last / axes.fours();
    const ByteEntry place{static_cast<size_t>(row / axes.inner), static_cast<size_t>(row % axes.inner),
                          static_cast<size_t>(last % axes.fours()), 0};
    add_entries(place, four, weight.entries);
    four = {};
  };
  for (size_t i = 0; i < stored.count; ++i) {
    if (stored.gaps[i] == 0) throw Refusal("gap " + std::to_string(i) + " is 0, so two values claim one position");
    end += stored.gaps[i];
    if (end > blocks) {
      throw Refusal("value " + std::to_string(i) + " is at position " + std::to_string(end - 1) + " of " +
                    std::to_string(blocks));
    }
    const uint64_t row = (end - 1) / row_blocks;
    const size_t first = static_cast<size_t>((end - 1) % row_blocks) * stored.block;
    const uint64_t place = row * axes.fours() + first / kWordInputs;
    if (place != last) {
      add_last();
      last = place;
    }
    const int32_t zero = zeros[zeros.size() == 1 ? 0 : static_cast<size_t>(row)];
    // What stands beyond the last input is padding.
    for (size_t k = 0; k < stored.block && first + k < axes.inputs; ++k) {
      four[(first + k) % kWordInputs] = number_at(stored, i * stored.block + k) - zero;
    }
  }
  add_last();
  return weight;
}

}  // namespace onnxprune
