#include "quantized_conv.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

#include "aligned_floats.h"
#include "refusal.h"
#include "tiled_conv.h"

namespace onnxprune {
namespace {

// Copies of bytes where those of floats copy floats.
void copy_bytes(const Copies& copies, size_t lanes, const uint8_t* from, uint8_t* to) {
  const auto each = [&](CopyKind kind, auto size) {
    for (size_t i = copies.begin[kind]; i < copies.begin[kind + 1]; ++i) {
      std::memcpy(to + copies.copies[i].target, from + copies.copies[i].source, size());
    }
  };
  switch (lanes) {
    case 16: each(kVectors, [] { return std::integral_constant<size_t, 16>{}; }); break;
    case 8: each(kVectors, [] { return std::integral_constant<size_t, 8>{}; }); break;
    default: each(kVectors, [lanes] { return lanes; }); break;
  }
  each(kEights, [] { return std::integral_constant<size_t, 8>{}; });
  each(kFours, [] { return std::integral_constant<size_t, 4>{}; });
  each(kOnes, [] { return std::integral_constant<size_t, 1>{}; });
}

}  // namespace

QuantizedConv::QuantizedConv(const ByteKernels& kernels, const ByteWeight& weight, ConvAttributes attributes)
    : kernels_(kernels),
      geometry_(weight.shape, std::move(attributes)),
      group_fours_(weight.axes.fours()),
      plans_(kernels.words, matrix_of(weight), group_fours_ * geometry_.groups()),
      weight_sums_(
          output_sums(weight, geometry_.output_channels(), [](const ByteEntry& entry) { return entry.outer; })) {}

CsrMatrix QuantizedConv::matrix_of(const ByteWeight& weight) const {
  const size_t taps = weight.axes.inner;
  const size_t group_rows = geometry_.output_channels() / geometry_.groups();
  const size_t columns = group_fours_ * geometry_.groups() * taps;
  if (columns > UINT32_MAX) throw Refusal("its shape " + to_string(weight.shape) + " is larger than memory");
  std::vector<CsrEntry> entries;
  entries.reserve(weight.entries.size());
  for (const ByteEntry& entry : weight.entries) {
    const size_t channel = entry.outer / group_rows * group_fours_ + entry.four;
    entries.push_back({static_cast<uint32_t>(entry.outer), static_cast<uint32_t>(channel * taps + entry.inner),
                       entry.word});
  }
  return {geometry_.output_channels(), columns, kMaxBlockColumns, std::move(entries)};
}

void QuantizedConv::interleave(const uint8_t* x, size_t images, size_t pixels, uint8_t flip, float* words,
                               const Threads& threads) const {
  const size_t groups = images * geometry_.groups();
  const size_t channels = geometry_.input_channels() / geometry_.groups();
  threads.run(groups, [&](size_t group) {
    for (size_t four = 0; four < group_fours_; ++four) {
      const size_t first = four * kWordInputs;
      kernels_.interleave(x + (group * channels + first) * pixels, pixels, std::min(kWordInputs, channels - first),
                          pixels, flip, words + (group * group_fours_ + four) * pixels);
    }
  });
}

void QuantizedConv::run(const uint8_t* x, const std::vector<int64_t>& x_shape, const Quantized& numbers, void* y,
                        const Threads& threads) {
  const std::vector<int64_t> y_shape = output_shape(x_shape);
  if (volume(y_shape) == 0) return;
  const Kernels& moves = kernels_.words;
  const std::shared_ptr<const ConvPlan> plan = plans_.plan(x_shape, geometry_.resolve(x_shape));
  const auto images = static_cast<size_t>(x_shape[0]);
  const auto x_pixels = static_cast<size_t>(volume({x_shape.begin() + 2, x_shape.end()}));
  const auto y_pixels = static_cast<size_t>(volume({y_shape.begin() + 2, y_shape.end()}));
  const std::vector<float> first_sums = numbers.first_sums(kernels_, weight_sums_);
  const OutputRange range = numbers.range();
  const uint32_t zeros = numbers.zero_byte(kernels_) * 0x01010101u;
  float padding;
  std::memcpy(&padding, &zeros, sizeof padding);
  const auto store = [&](const ConvTiles::Tile& tile, const Copies& copies, size_t first_row, size_t last_row,
                         const float* sums) {
    const size_t width = tile.vectors * moves.lanes;
    const size_t straight = plan->tiles.straight_store(tile);
    if (numbers.output == Output::kSums) {
      float* const to = static_cast<float*>(y) + tile.output + first_row * y_pixels;
      return moves.copy(copies, sums, width, last_row - first_row, to, y_pixels);
    }
    for (size_t row = first_row; row < last_row; ++row, sums += width) {
      if (numbers.output == Output::kFloats) {
        std::array<float, kMostRowSums> floats;
        kernels_.dequantize(numbers.scale(row), false, sums, width, floats.data());
        moves.copy(copies, floats.data(), width, 1, static_cast<float*>(y) + tile.output + row * y_pixels, 0);
      } else {
        uint8_t* const to = static_cast<uint8_t*>(y) + tile.output + row * y_pixels;
        if (straight > 0) {
          kernels_.requantize(range, numbers.scale(row), false, sums, straight, to);
          continue;
        }
        std::array<uint8_t, kMostRowSums> bytes;
        kernels_.requantize(range, numbers.scale(row), false, sums, width, bytes.data());
        copy_bytes(copies, moves.lanes, bytes.data(), to);
      }
    }
  };
  const uint8_t flip = numbers.flip(kernels_);
  const std::vector<ConvTiles::Tile>& tiles = plan->tiles.tiles();
  if (images == 1 && geometry_.groups() == 1 && std::all_of(tiles.begin(), tiles.end(), [&](const auto& tile) {
        return plan->tiles.straight_load(tile) > 0;
      })) {
    // Bytes are interleaved on their way into the panel, without words of the whole image between.
    const size_t channels = geometry_.input_channels();
    const size_t stride = plan->matrix.layout().channel_stride;
    const auto load = [&](const ConvTiles::Tile& tile, size_t first, size_t count, float* panel) {
      for (size_t four = first; four < first + count; ++four, panel += stride) {
        const size_t channel = four * kWordInputs;
        kernels_.interleave(x + channel * x_pixels + tile.input, x_pixels, std::min(kWordInputs, channels - channel),
                            plan->tiles.straight_load(tile), flip, panel);
      }
    };
    return multiply_tiles(moves, *plan, load, first_sums.data(), padding, threads, store);
  }
  static thread_local AlignedFloats memory;
  float* const words = memory.at_least(images * plan->matrix.layout().channels * x_pixels);
  interleave(x, images, x_pixels, flip, words, threads);
  multiply_tiles(moves, *plan, copying(moves, *plan, words, x_pixels), first_sums.data(), padding, threads, store);
}

}  // namespace onnxprune
