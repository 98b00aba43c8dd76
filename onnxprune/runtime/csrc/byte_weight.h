// A sparse weight of 8-bit integers as the model file stores it (sparse/encode.py), decoded and checked.
//
// The file has the weight's axes as (outer, inner, inputs), inputs last, cut into blocks of 1 or 4 inputs; some
// are stored. Here it is fours of neighboring inputs, as the kernels multiply them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxprune {

// Inputs that a word holds.
constexpr size_t kWordInputs = 4;

// The numbers of inputs 4 * four to 4 * four + 3 of one output, less the weight's zero point.
struct ByteEntry {
  size_t outer;
  size_t inner;
  size_t four;
  // Four s8. A number beyond s8 is the sum of those of several entries of the same place.
  float word;
};

// The axes of a weight around that of inputs; outputs are outer, inner, or both, in that order.
struct ByteAxes {
  size_t outer;
  size_t inputs;
  size_t inner;

  // Fours of inputs, the last one padded.
  size_t fours() const { return (inputs + kWordInputs - 1) / kWordInputs; }
};

struct ByteWeight {
  std::vector<int64_t> shape;
  ByteAxes axes;
  // In the order of the file.
  std::vector<ByteEntry> entries;
};

// What the file stores: `count` blocks of `block` numbers each, u8 or s8.
struct StoredBytes {
  const void* values;
  bool is_signed;
  size_t block;
  const uint8_t* gaps;
  size_t count;
};

// Zero points of a weight, s8 or u8 as its values are: one, or one for each output.
using ZeroPoints = std::vector<int32_t>;

// Decodes a weight of this shape whose inputs are along `input_axis`. Throws Refusal for a gap of 0, a block beyond the
// weight, another size of blocks, zero points of another number, or a shape that is negative or overflows.
ByteWeight decode(const StoredBytes& stored, std::vector<int64_t> shape, size_t input_axis, const ZeroPoints& zeros);

// The sum of all numbers of each output, modulo 2^32; `output` tells the output of an entry.
template <class Output>
std::vector<uint32_t> output_sums(const ByteWeight& weight, size_t outputs, const Output& output) {
  std::vector<uint32_t> sums(outputs);
  for (const ByteEntry& entry : weight.entries) {
    const auto* const bytes = reinterpret_cast<const signed char*>(&entry.word);
    for (size_t i = 0; i < kWordInputs; ++i) sums[output(entry)] += static_cast<uint32_t>(bytes[i]);
  }
  return sums;
}

}  // namespace onnxprune
