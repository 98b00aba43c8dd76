#include "panel_matrix.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace onnxprune {

PanelMatrix::PanelMatrix(const Kernels& kernels, CsrMatrix matrix) : kernels_(kernels), rows_(std::move(matrix)) {}

std::shared_ptr<const SpmmMatrix> PanelMatrix::panels(size_t vectors) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t pitch = vectors * kernels_.lanes;
  if (!panels_ || panels_->layout().channel_stride != pitch) {
    const size_t block = block_channels(kernels_, work(vectors));
    panels_ = std::make_shared<SpmmMatrix>(rows_, PanelLayout{rows_.columns(), block, pitch, {0}});
  }
  return panels_;
}

TileWork PanelMatrix::work(size_t vectors) const {
  return {rows_.rows(), rows_.entries(), rows_.columns(), vectors, vectors, static_cast<double>(vectors)};
}

size_t PanelMatrix::tile_vectors(size_t count) const {
  const size_t vectors = (count + kernels_.lanes - 1) / kernels_.lanes;
  size_t best = 1;
  double least = std::numeric_limits<double>::infinity();
  for (size_t width = 1; width <= std::min(vectors, kernels_.max_vectors); ++width) {
    const size_t tiles = (vectors + width - 1) / width;
    const size_t widest = (vectors + tiles - 1) / tiles;
    const double cycles = static_cast<double>(tiles) * tile_cycles(kernels_, work(widest));
    if (cycles < least) {
      least = cycles;
      best = widest;
    }
  }
  return best;
}

}  // namespace onnxprune
