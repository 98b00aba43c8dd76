// A model of SpMM's cost, which decides how wide tiles are and how many channels a block has.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace onnxprune {

// A sparse matrix, and one tile of the operand that it multiplies.
struct TileWork {
  size_t rows;
  size_t entries;
  size_t channels;
  // Width of a row of sums.
  size_t vectors;
  // Vectors of the panel for each channel, and how many moves fill them.
  size_t channel_vectors;
  double channel_moves;
};

// Channels of a block, chosen so that its panel stays in the L1 cache.
size_t block_channels(const Kernels& kernels, const TileWork& work);

// Estimated cycles of a tile.
double tile_cycles(const Kernels& kernels, const TileWork& work);

}  // namespace onnxprune
