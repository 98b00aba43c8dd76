#include "quantized_gemm.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "aligned_floats.h"
#include "tiled_spmm.h"

namespace onnxprune {
namespace {

// The output of an entry: one of the two axes around that of inputs has one element.
size_t output_of(const ByteEntry& entry) { return entry.outer + entry.inner; }

CsrMatrix matrix_of(const ByteWeight& weight) {
  std::vector<CsrEntry> entries;
  entries.reserve(weight.entries.size());
  for (const ByteEntry& entry : weight.entries) {
    entries.push_back({static_cast<uint32_t>(output_of(entry)), static_cast<uint32_t>(entry.four), entry.word});
  }
  return {weight.axes.outer * weight.axes.inner, weight.axes.fours(), kMaxBlockColumns, std::move(entries)};
}

// Rows of bytes as rows of words: as they stand, or, where they do not fill words or are s8, as a copy.
const float* as_words(const uint8_t* x, size_t count, size_t inputs, uint8_t flip, AlignedFloats& memory) {
  const bool whole = inputs % kWordInputs == 0 && reinterpret_cast<uintptr_t>(x) % alignof(float) == 0;
  if (whole && flip == 0) return reinterpret_cast<const float*>(x);
  const size_t stride = (inputs + kWordInputs - 1) / kWordInputs * kWordInputs;
  float* const words = memory.at_least(count * stride / kWordInputs);
  auto* const bytes = reinterpret_cast<uint8_t*>(words);
  for (size_t n = 0; n < count; ++n) {
    uint8_t* const row = bytes + n * stride;
    std::transform(x + n * inputs, x + (n + 1) * inputs, row,
                   [flip](uint8_t byte) { return static_cast<uint8_t>(byte ^ flip); });
    std::fill(row + inputs, row + stride, uint8_t{0});
  }
  return words;
}

}  // namespace

QuantizedGemm::QuantizedGemm(const ByteKernels& kernels, const ByteWeight& weight)
    : kernels_(kernels),
      inputs_(weight.axes.inputs),
      matrix_(kernels.words, matrix_of(weight)),
      weight_sums_(output_sums(weight, outputs(), output_of)) {}

void QuantizedGemm::store_fours(const Tile& tile, const float* sums, const Quantized& numbers, uint8_t* y) const {
  static thread_local AlignedFloats bytes_memory;
  static thread_local AlignedFloats words_memory;
  static thread_local AlignedFloats rows_memory;
  const size_t fours = (tile.outputs + kWordInputs - 1) / kWordInputs;
  auto* const bytes = reinterpret_cast<uint8_t*>(bytes_memory.at_least(tile.pitch));
  float* const interleaved = words_memory.at_least(fours * tile.pitch);
  for (size_t four = 0; four < fours; ++four) {
    const size_t row = four * kWordInputs;
    const size_t rows = std::min(kWordInputs, tile.outputs - row);
    for (size_t i = 0; i < rows; ++i) {
      kernels_.requantize(numbers.range(), numbers.scale(tile.first_output + row + i), false,
                          sums + (row + i) * tile.pitch, tile.pitch, bytes + i * tile.pitch);
    }
    kernels_.interleave(bytes, tile.pitch, rows, tile.pitch, 0, interleaved + four * tile.pitch);
  }
  float* const rows = rows_memory.at_least(tile.count * fours);
  kernels_.words.transpose(interleaved, tile.pitch, fours, tile.count, rows, fours);
  for (size_t n = 0; n < tile.count; ++n) {
    std::memcpy(y + (tile.first + n) * outputs() + tile.first_output, rows + n * fours, tile.outputs);
  }
}

void QuantizedGemm::store_rows(const Tile& tile, const float* sums, const Quantized& numbers, const float* scales,
                               void* y) const {
  static thread_local AlignedFloats memory;
  const size_t at = tile.first * outputs() + tile.first_output;
  const bool bytes = numbers.output == Output::kBytes;
  float* const rows = bytes ? memory.at_least(tile.count * tile.outputs) : static_cast<float*>(y) + at;
  const size_t stride = bytes ? tile.outputs : outputs();
  kernels_.words.transpose(sums, tile.pitch, tile.outputs, tile.count, rows, stride);
  if (numbers.output == Output::kSums) return;
  for (size_t n = 0; n < tile.count; ++n) {
    float* const row = rows + n * stride;
    if (bytes) {
      uint8_t* const to = static_cast<uint8_t*>(y) + at + n * outputs();
      kernels_.requantize(numbers.range(), scales + tile.first_output, true, row, tile.outputs, to);
      continue;
    }
    kernels_.dequantize(scales + tile.first_output, true, row, tile.outputs, row);
    if (numbers.float_bias != nullptr) kernels_.add(numbers.float_bias + tile.first_output, tile.outputs, row);
  }
}

void QuantizedGemm::run(const uint8_t* x, size_t count, const Quantized& numbers, void* y, const Threads& threads) {
  if (count == 0) return;
  const Kernels& moves = kernels_.words;
  const size_t lanes = moves.lanes;
  const size_t columns = matrix_.rows().columns();
  static thread_local AlignedFloats memory;
  const float* const words = as_words(x, count, inputs_, numbers.flip(kernels_), memory);
  const std::vector<float> first_sums = numbers.first_sums(kernels_, weight_sums_);
  std::vector<float> scales = numbers.scales;
  if (scales.size() == 1) scales.resize(outputs(), scales.front());
  const size_t vectors = (count + lanes - 1) / lanes;
  const size_t widest = matrix_.tile_vectors(count);
  const size_t tiles = (vectors + widest - 1) / widest;
  const std::shared_ptr<const SpmmMatrix> matrix = matrix_.panels(widest);
  const size_t pitch = widest * lanes;
  const std::vector<size_t> parts = make_parts(*matrix, tiles, pitch, threads);
  threads.run(tiles * (parts.size() - 1), [&](size_t task) {
    const size_t tile = task % tiles;
    const size_t part = task / tiles;
    const size_t first = vectors * tile / tiles * lanes;
    const size_t here = std::min(vectors * (tile + 1) / tiles * lanes, count) - first;
    const size_t tile_vectors = (here + lanes - 1) / lanes;
    const auto load = [&](size_t channel, size_t channels, float* panel) {
      moves.transpose(words + first * columns + channel, columns, here, channels, panel, pitch);
    };
    const auto store = [&](size_t first_row, size_t last_row, const float* sums) {
      const Tile block{first, here, first_row, last_row - first_row, tile_vectors * lanes};
      // Few rows are requantized along y: along sums, most of a vector would be lanes that mean nothing.
      if (numbers.output == Output::kBytes && tile_vectors > 1) {
        store_fours(block, sums, numbers, static_cast<uint8_t*>(y));
      } else {
        store_rows(block, sums, numbers, scales.data(), y);
      }
    };
    multiply_tile(moves, *matrix, tile_vectors, parts[part], parts[part + 1], first_sums.data(),
                  here % lanes != 0 ? &kZero : nullptr, load, store);
  });
}

}  // namespace onnxprune
