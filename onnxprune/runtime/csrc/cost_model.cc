#include "cost_model.h"

#include <algorithm>
#include <cmath>

#include "cpu.h"

namespace onnxprune {
namespace {

// Cycles, measured on Zen 3 with AVX2. kLoad: a vector of the panel, two of which are loaded per cycle. kEntry: a
// non-zero of the matrix, often loaded from an outer cache. kSum, kRow: a vector of sums that a row of a block loads
// and stores, and the row itself. kMove: a vector that is copied into the panel.
constexpr double kLoad = 0.545;
constexpr double kEntry = 1.1;
constexpr double kSum = 1.75;
constexpr double kRow = 2;
constexpr double kMove = 1.5;
// A vector of the result: broadcasting its bias, and copying it out.
constexpr double kOutput = 3;

}  // namespace

size_t block_channels(const Kernels& kernels, const TileWork& work) {
  const size_t channel = std::max<size_t>(work.channel_vectors * kernels.lanes * sizeof(float), 1);
  const size_t most = std::clamp<size_t>(panel_bytes() / channel, 1, std::max<size_t>(work.channels, 1));
  const size_t blocks = (work.channels + most - 1) / most;
  return blocks == 0 ? 1 : (work.channels + blocks - 1) / blocks;
}

double tile_cycles(const Kernels& kernels, const TileWork& work) {
  const auto channels = static_cast<double>(std::max<size_t>(work.channels, 1));
  const double blocks = std::ceil(channels / static_cast<double>(block_channels(kernels, work)));
  const auto rows = static_cast<double>(std::max<size_t>(work.rows, 1));
  const auto entries = static_cast<double>(work.entries);
  const auto vectors = static_cast<double>(work.vectors);
  // Expected rows of a block that are not empty, entries being spread at random.
  const double full_rows = rows * (1 - std::exp(-entries / rows / blocks));
  return entries * (vectors * kLoad + kEntry) + blocks * full_rows * (vectors * kSum + kRow) +
         channels * work.channel_moves * kMove + rows * vectors * kOutput;
}

}  // namespace onnxprune
