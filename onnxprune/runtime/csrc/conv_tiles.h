// How a convolution's output is cut into tiles, and how the panel of each is filled.
//
// Output pixels are cut into strips, some columns wide; a tile has some rows of a strip, or of several side by side.
// For each input channel a panel holds the input that these rows see through the kernel's columns, a copy for each of
// them, so that every tap is an aligned vector of it; the kernel's rows see the same copies, some vectors further on.
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
    // Of the sums.
    size_t vectors;
    // Where its copies start in the input and in the output.
    ptrdiff_t input;
    ptrdiff_t output;
  };

  // Floats of the output that follow each other, counted from where the tile's copies start.
  struct Run {
    ptrdiff_t target;
    size_t count;
  };

  const PanelLayout& layout() const { return layout_; }
  const std::vector<Tile>& tiles() const { return tiles_; }
  // From a channel of the input to its panel row, from a row of the sums to a channel of the output.
  Copies loads(const Tile& tile) const { return programs_[tile.program].loads.view(); }
  Copies stores(const Tile& tile) const { return programs_[tile.program].stores.view(); }
  // What the stores write of a channel of the output.
  const std::vector<Run>& stored(const Tile& tile) const { return programs_[tile.program].stored; }
  // Whether the loads leave some of the panel as it is.
  bool has_holes(const Tile& tile) const { return programs_[tile.program].holes; }

 private:
  // How the output is cut, and what that costs.
  struct Cut {
    // Columns of a strip, strips side by side, vectors of all of them.
    int64_t width;
    int64_t strips;
    int64_t row_vectors;
    // Parts of a plane's rows, rows of the largest, and of its largest tile.
    int64_t bands;
    int64_t band_rows;
    int64_t tile_rows;
    // Whether the kernel's rows share copies; they share one for each phase, and see up to `halo` rows more.
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
  };
  struct Strip;
  class Builder;

  PanelLayout layout_;
  std::vector<Program> programs_;
  std::vector<Tile> tiles_;
};

}  // namespace onnxprune
