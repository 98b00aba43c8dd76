// Convolution tile by tile: what those of floats and of 8-bit integers have in common.
#pragma once

#include <cstddef>
#include <vector>

#include "conv_plans.h"
#include "kernels/kernels.h"
#include "threads.h"
#include "tiled_spmm.h"

namespace onnxprune {

// Multiplies the weight of a plan with every tile of x. `bias` has the initial value of each output channel's sums, and
// what lies beyond x is `padding`.
//
// load(tile, first_channel, channels, panel) fills the panel with those channels of the tile. store(tile, copies,
// first_channel, last_channel, sums) receives the sums of a tile; the copies bring those of a channel to their places.
// Tiles are worked on by several threads at once.
template <class Load, class Store>
void multiply_tiles(const Kernels& kernels, const ConvPlan& plan, const Load& load, const float* bias,
                    const float& padding, const Threads& threads, const Store& store, const Clamp* clamp = nullptr) {
  const std::vector<ConvTiles::Tile>& tiles = plan.tiles.tiles();
  const std::vector<size_t> parts = make_parts(plan.matrix, tiles.size(), plan.widest() * kernels.lanes, threads);
  threads.run(tiles.size() * (parts.size() - 1), [&](size_t task) {
    const ConvTiles::Tile& tile = tiles[task % tiles.size()];
    const size_t part = task / tiles.size();
    const Copies stores = plan.tiles.stores(tile);
    multiply_tile(
        kernels, plan.matrix, tile.vectors, parts[part], parts[part + 1], bias,
        plan.tiles.has_holes(tile) ? &padding : nullptr,
        [&](size_t channel, size_t channels, float* panel) { load(tile, channel, channels, panel); },
        [&](size_t first_channel, size_t last_channel, const float* sums) {
          store(tile, stores, first_channel, last_channel, sums);
        },
        clamp);
  });
}

// Loads tiles of x, whose channels have `x_pixels` elements, by the copies of the plan.
inline auto copying(const Kernels& kernels, const ConvPlan& plan, const float* x, size_t x_pixels) {
  return [&kernels, &plan, x, x_pixels](const ConvTiles::Tile& tile, size_t channel, size_t channels, float* panel) {
    kernels.copy(plan.tiles.loads(tile), x + tile.input + channel * x_pixels, x_pixels, channels, panel,
                 plan.matrix.layout().channel_stride);
  };
}

}  // namespace onnxprune
