// Convolution tile by tile: what those of floats and of 8-bit integers have in common.
#pragma once

#include <cstddef>
#include <vector>

#include "conv_plans.h"
#include "kernels/kernels.h"
#include "threads.h"
#include "tiled_spmm.h"

namespace onnxprune {

// Multiplies the weight of a plan with every tile of x, whose channels have `x_pixels` elements. `bias` has the initial
// value of each output channel's sums, and what lies beyond x is `padding`.
//
// store(tile, copies, first_channel, last_channel, sums) receives the sums of a tile; the copies bring those of a
// channel to their places. Tiles are worked on by several threads at once.
template <class Store>
void multiply_tiles(const Kernels& kernels, const ConvPlan& plan, const float* x, size_t x_pixels, const float* bias,
                    const float& padding, const Threads& threads, const Store& store, const Clamp* clamp = nullptr) {
  const std::vector<ConvTiles::Tile>& tiles = plan.tiles.tiles();
  const PanelLayout& layout = plan.matrix.layout();
  const std::vector<size_t> parts = make_parts(plan.matrix, tiles.size(), plan.widest() * kernels.lanes, threads);
  threads.run(tiles.size() * (parts.size() - 1), [&](size_t task) {
    const ConvTiles::Tile& tile = tiles[task % tiles.size()];
    const size_t part = task / tiles.size();
    const Copies loads = plan.tiles.loads(tile);
    const Copies stores = plan.tiles.stores(tile);
    const auto load = [&](size_t channel, size_t channels, float* panel) {
      kernels.copy(loads, x + tile.input + channel * x_pixels, x_pixels, channels, panel, layout.channel_stride);
    };
    multiply_tile(kernels, plan.matrix, tile.vectors, parts[part], parts[part + 1], bias,
                  plan.tiles.has_holes(tile) ? &padding : nullptr, load,
                  [&](size_t first_channel, size_t last_channel, const float* sums) {
                    store(tile, stores, first_channel, last_channel, sums);
                  },
                  clamp);
  });
}

}  // namespace onnxprune
