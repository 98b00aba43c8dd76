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

void QuantizedGemm::run(const uint8_t* x, size_t count, const Quantized& numbers, uint8_t* y, const Threads& threads) {
  if (count == 0) return;
  const Kernels& moves = kernels_.words;
  const size_t lanes = moves.lanes;
  const size_t columns = matrix_.rows().columns();
  const size_t outputs = this->outputs();
  static thread_local AlignedFloats memory;
  const float* const words = as_words(x, count, inputs_, numbers.flip(), memory);
  const std::vector<float> first_sums = numbers.first_sums(weight_sums_);
  const OutputRange range = numbers.range();
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
    // Four outputs of bytes are interleaved into words, and these transposed: a quarter of transposing sums.
    const auto store = [&](size_t first_row, size_t last_row, const float* sums) {
      static thread_local AlignedFloats bytes_memory;
      static thread_local AlignedFloats words_memory;
      static thread_local AlignedFloats rows_memory;
      const size_t width = tile_vectors * lanes;
      const size_t fours = (last_row - first_row + kWordInputs - 1) / kWordInputs;
      auto* const bytes = reinterpret_cast<uint8_t*>(bytes_memory.at_least(width));
      float* const interleaved = words_memory.at_least(fours * width);
      for (size_t four = 0; four < fours; ++four) {
        const size_t row = first_row + four * kWordInputs;
        const size_t rows = std::min(kWordInputs, last_row - row);
        for (size_t i = 0; i < rows; ++i) {
          kernels_.requantize(range, numbers.scale(row + i), sums + (row + i - first_row) * width, width,
                              bytes + i * width);
        }
        kernels_.interleave(bytes, width, rows, width, 0, interleaved + four * width);
      }
      float* const rows = rows_memory.at_least(here * fours);
      moves.transpose(interleaved, width, fours, here, rows, fours);
      for (size_t n = 0; n < here; ++n) {
        std::memcpy(y + (first + n) * outputs + first_row, rows + n * fours, last_row - first_row);
      }
    };
    multiply_tile(moves, *matrix, tile_vectors, parts[part], parts[part + 1], first_sums.data(),
                  here % lanes != 0 ? &kZero : nullptr, load, store);
  });
}

}  // namespace onnxprune
