// How wide to cut panels and how many channels to put in a block, by a model of what that costs.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace onnxprune {

// A sparse matrix and the vectors of a tile of its product.
struct TileWork {
  size_t rows;
  size_t entries;
  size_t channels;
  // Of the sums.
  size_t vectors;
  // Of the panel, for each channel, and the moves it takes to fill them.
  size_t channel_vectors;
  double channel_moves;
};

// Channels of a block such that its panel stays in the first cache.
size_t block_channels(const Kernels& kernels, const TileWork& work);

// Cycles that a tile takes.
double tile_cycles(const Kernels& kernels, const TileWork& work);

}  // namespace onnxprune
