#include "pointwise.h"

#include <algorithm>
#include <cassert>
#include <vector>

#include "aligned_floats.h"
#include "cost_model.h"
#include "tiled_spmm.h"

namespace onnxprune {

Pointwise::Pointwise(const Kernels& kernels, const CsrMatrix& matrix, size_t pixels, size_t x_pitch, size_t y_pitch)
    : kernels_(kernels),
      pixels_(pixels),
      x_pitch_(x_pitch),
      y_pitch_(y_pitch),
      cut_(best_cut(kernels, matrix, pixels)),
      matrix_(matrix, PanelLayout{matrix.columns(), cut_.channels, x_pitch, {0}}) {
  assert(pixels % kernels.lanes == 0 && pixels <= x_pitch && pixels <= y_pitch);
}

Pointwise::Cut Pointwise::best_cut(const Kernels& kernels, const CsrMatrix& matrix, size_t pixels) {
  const size_t vectors = pixels / kernels.lanes;
  Cut best{1, 1};
  double least = 0;
  for (size_t width = 1; width <= std::min(vectors, kernels.max_vectors); ++width) {
    const size_t tiles = (vectors + width - 1) / width;
    const size_t widest = (vectors + tiles - 1) / tiles;
    const TileWork work{matrix.rows(), matrix.entries(), matrix.columns(), widest, widest, 0};
    const double cycles = static_cast<double>(tiles) * tile_cycles(kernels, work);
    if (least != 0 && cycles >= least) continue;
    least = cycles;
    best = {widest, block_channels(kernels, work)};
  }
  return best;
}

void Pointwise::run(const float* x, const float* bias, float* y, const Threads& threads,
                    const Epilogue& epilogue) const {
  const size_t vectors = pixels_ / kernels_.lanes;
  const size_t tiles = (vectors + cut_.vectors - 1) / cut_.vectors;
  const std::vector<size_t> parts = make_parts(matrix_, tiles, cut_.vectors * kernels_.lanes, threads);
  threads.run(tiles * (parts.size() - 1), [&](size_t task) {
    const size_t tile = task % tiles;
    const size_t part = task / tiles;
    const size_t first = vectors * tile / tiles;
    run_tile(x, bias, y, vectors * (tile + 1) / tiles - first, parts[part], parts[part + 1], first * kernels_.lanes,
             epilogue);
  });
}

void Pointwise::run_tile(const float* x, const float* bias, float* y, size_t vectors, size_t first_chunk,
                         size_t last_chunk, size_t at, const Epilogue& epilogue) const {
  const size_t pitch = vectors * kernels_.lanes;
  const size_t first_row = matrix_.first_row(first_chunk);
  const size_t last_row = matrix_.first_row(last_chunk);
  static thread_local AlignedFloats memory;
  float* const sums = memory.at_least((last_row - first_row) * pitch);
  const bool clips = epilogue.activation == Activation::kClip;
  const bool is_finished = matrix_.is_single() && (clips || epilogue.activation == Activation::kNone);
  if (bias == nullptr) bias = matrix_.zeros();
  for (size_t block = 0; block < matrix_.blocks(); ++block) {
    const float* const panel = x + block * matrix_.layout().block_channels * x_pitch_ + at;
    for (size_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      const SpmmBlock entries = matrix_.block(chunk, block);
      const size_t row = matrix_.first_row(chunk);
      const float* const start = block == 0 ? bias + row : nullptr;
      float* const running = sums + (row - first_row) * pitch;
      if (is_finished && block + 1 == matrix_.blocks()) {
        const SpmmResult result{y + row * y_pitch_ + at,
                                y_pitch_,
                                epilogue.addend == nullptr ? nullptr : epilogue.addend + row * y_pitch_ + at,
                                clips,
                                static_cast<float>(epilogue.constants.low),
                                static_cast<float>(epilogue.constants.high)};
        kernels_.spmm_last(entries.singles, vectors, panel, start, running, result);
      } else {
        kernels_.spmm(entries, vectors, panel, start, running);
      }
    }
  }
  if (is_finished) return;
  for (size_t row = first_row; row < last_row; ++row) {
    const size_t place = row * y_pitch_ + at;
    std::copy_n(sums + (row - first_row) * pitch, pitch, y + place);
    if (epilogue.any()) kernels_.finish(epilogue, place, pitch, y + place);
  }
}

}  // namespace onnxprune
