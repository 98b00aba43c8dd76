// How a convolution's output is cut into tiles, and how the panel of each is filled.
//
// The output is cut into strips of columns. A tile is some rows of one strip, or of several strips side by side. For
// each input channel, a panel holds the input that the tile needs, once for each column of the convolution's kernel and
// shifted by it, so that every tap reads aligned vectors. The rows of the convolution's kernel read the same copies at
// other offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "conv_shape.h"
#include "kernels/kernels.h"
#include "spmm_matrix.h"

namespace onnxprune {

class ConvTiles {
 public:
  // For a weight with `entries` non-zeros.
  ConvTiles(const Kernels& kernels, const ConvShape& shape, size_t entries);

  struct Tile {
    size_t program;
    // Width of a row of sums.
    size_t vectors;
    // Where its copies start in the input and in the output.
    ptrdiff_t input;
    ptrdiff_t output;
  };

  // Contiguous floats of the output; `target` counts from where the tile's copies start.
  struct Run {
    ptrdiff_t target;
    size_t count;
  };

  const PanelLayout& layout() const { return layout_; }
  const std::vector<Tile>& tiles() const { return tiles_; }
  // `loads` fill the panel row of an input channel; `stores` move a row of sums to its output channel.
  Copies loads(const Tile& tile) const { return programs_[tile.program].loads.view(); }
  Copies stores(const Tile& tile) const { return programs_[tile.program].stores.view(); }
  // The parts of an output channel that the stores write.
  const std::vector<Run>& stored(const Tile& tile) const { return programs_[tile.program].stored; }
  // Elements of an output channel where the stores are one run, as a row of sums has it; else 0.
  size_t straight_store(const Tile& tile) const { return programs_[tile.program].straight_store; }
  // The same of an input channel and its row of the panel.
  size_t straight_load(const Tile& tile) const { return programs_[tile.program].straight_load; }
  // Whether the loads leave gaps in the panel (padding), which must then be zero.
  bool has_holes(const Tile& tile) const { return programs_[tile.program].holes; }

 private:
  // A way to cut the output, and its estimated cost.
  struct Cut {
    // Columns of a strip, strips side by side in a tile, and vectors of a row of all of them.
    int64_t width;
    int64_t strips;
    int64_t row_vectors;
    // Bands of rows that a plane is divided into, rows of the largest band, and rows of its largest tile.
    int64_t bands;
    int64_t band_rows;
    int64_t tile_rows;
    // Whether the rows of the convolution's kernel share copies: one for each phase of the stride, `halo` rows higher.
    bool shares_rows;
    int64_t phases;
    int64_t halo;
    double cycles;
  };
  struct CopyList {
    std::vector<Copy> copies;
    size_t begin[kCopyKinds + 1];

    Copies view() const;
  };
  struct Program {
    CopyList loads;
    CopyList stores;
    std::vector<Run> stored;
    bool holes;
    size_t straight_store;
    size_t straight_load;
  };
  struct Strip;
  class Builder;

  PanelLayout layout_;
  std::vector<Program> programs_;
  std::vector<Tile> tiles_;
};

}  // namespace onnxprune
