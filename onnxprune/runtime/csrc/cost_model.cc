#include "cost_model.h"

#include <algorithm>
#include <cmath>

#include "cpu.h"

namespace onnxprune {
namespace {

// Measured on Zen 3 with AVX2, in cycles. A load is a vector of the panel, two of which go at once; an entry of the
// matrix is loaded itself, often from an outer cache; a row of a block loads and stores its sums; a move is a vector
// that is loaded, stored and addressed.
constexpr double kLoad = 0.545;
constexpr double kEntry = 1.1;
constexpr double kSum = 1.75;
constexpr double kRow = 2;
constexpr double kMove = 1.5;
// Loading the bias, and taking the result out.
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
  // Rows of a block that are not empty.
  const double full_rows = rows * (1 - std::exp(-entries / rows / blocks));
  return entries * (vectors * kLoad + kEntry) + blocks * full_rows * (vectors * kSum + kRow) +
         channels * work.channel_moves * kMove + rows * vectors * kOutput;
}

}  // namespace onnxprune
