// A matrix that multiplies panels of any number of columns, packed for them on first use.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>

#include "cost_model.h"
#include "csr_matrix.h"
#include "kernels/kernels.h"
#include "spmm_matrix.h"

namespace onnxprune {

class PanelMatrix {
 public:
  PanelMatrix(const Kernels& kernels, CsrMatrix matrix);

  const CsrMatrix& rows() const { return rows_; }
  // The width of tiles, in vectors, with the least total cost for `count` columns.
  size_t tile_vectors(size_t count) const;
  // Packed for tiles of one width; replaced when another width is asked for. Safe to call from several threads at once.
  std::shared_ptr<const SpmmMatrix> panels(size_t vectors);

 private:
  // The cost model's view of one tile that is `vectors` vectors wide.
  TileWork work(size_t vectors) const;

  const Kernels& kernels_;
  CsrMatrix rows_;
  std::mutex mutex_;
  std::shared_ptr<const SpmmMatrix> panels_;
};

}  // namespace onnxprune
