#include "sparse_conv.h"

#include <algorithm>
#include <utility>

#include "tiled_conv.h"

namespace onnxprune {
namespace {

Strides contiguous(const std::vector<int64_t>& shape) {
  const auto pixels = static_cast<size_t>(volume({shape.begin() + 2, shape.end()}));
  return {pixels, static_cast<size_t>(shape[1]) * pixels, pixels, false};
}

// Whether output pixel i reads input pixel i alone, and images of a channel follow each other, or there is but one.
bool is_pointwise(const ConvShape& shape, const Strides& x, const Strides& y) {
  const auto pixels = static_cast<size_t>(shape.input_pixels());
  return std::all_of(shape.axes.begin(), shape.axes.end(), [](const ConvAxis& axis) { return axis.is_plain(); }) &&
         (shape.images == 1 || (x.image == pixels && y.image == pixels));
}

}  // namespace

PreparedConv::PreparedConv(const Kernels& kernels, const ConvPlans& plans, ConvShape shape, const Strides& x,
                           const Strides& y)
    : kernels_(kernels), x_channel_(x.channel), y_channel_(y.channel) {
  const auto pixels = static_cast<size_t>(shape.images * shape.input_pixels());
  const size_t whole = (pixels + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
  if (is_pointwise(shape, x, y) && whole <= std::min(x.room, y.room) && !is_clashing(x.channel)) {
    pointwise_.emplace(kernels, plans.matrix(), whole, x.channel, y.channel);
    if (x.is_aligned || pointwise_->takes_any_alignment()) return;
    pointwise_.reset();
  }
  shape.input_image = static_cast<int64_t>(x.image);
  shape.output_image = static_cast<int64_t>(y.image);
  plan_.emplace(plans.make(std::move(shape)));
}

void PreparedConv::run(const float* x, const float* bias, float* y, const Threads& threads,
                       const Epilogue& epilogue) const {
  if (pointwise_) {
    pointwise_->run(x, bias, y, threads, epilogue);
  } else {
    run_tiles(x, bias, y, threads, epilogue);
  }
}

void PreparedConv::run_tiles(const float* x, const float* bias, float* y, const Threads& threads,
                             const Epilogue& epilogue) const {
  // What the kernel itself does before the results are copied out.
  std::optional<Clamp> clamp;
  if (epilogue.activation == Activation::kClip && epilogue.addend == nullptr && plan_->matrix.is_single()) {
    clamp = {static_cast<float>(epilogue.constants.low), static_cast<float>(epilogue.constants.high)};
  }
  const bool is_left = epilogue.any() && !clamp;
  const auto store = [&](const ConvTiles::Tile& tile, const Copies& copies, size_t first_row, size_t last_row,
                         const float* sums) {
    kernels_.copy(copies, sums, tile.vectors * kernels_.lanes, last_row - first_row,
                  y + tile.output + first_row * y_channel_, y_channel_);
    for (size_t row = first_row; is_left && row < last_row; ++row) {
      for (const ConvTiles::Run& stored : plan_->tiles.stored(tile)) {
        const size_t first = static_cast<size_t>(tile.output + stored.target) + row * y_channel_;
        kernels_.finish(epilogue, first, stored.count, y + first);
      }
    }
  };
  multiply_tiles(kernels_, *plan_, copying(kernels_, *plan_, x, x_channel_), bias, kZero, threads, store,
                 clamp ? &*clamp : nullptr);
}

SparseConv::SparseConv(const Kernels& kernels, const SparseWeight& weight, ConvAttributes attributes)
    : kernels_(kernels),
      geometry_(weight.shape, std::move(attributes)),
      plans_(kernels, matrix_of(weight, geometry_), geometry_.input_channels()) {}

CsrMatrix SparseConv::matrix_of(const SparseWeight& weight, const ConvGeometry& geometry) {
  const auto group_columns = static_cast<size_t>(volume({weight.shape.begin() + 1, weight.shape.end()}));
  const MatrixLayout layout{1, geometry.output_channels(), group_columns, false, geometry.groups()};
  return std::move(to_csr_matrices(weight, layout, 1.0, kMaxBlockColumns).front());
}

std::unique_ptr<const PreparedConv> SparseConv::prepare(const std::vector<int64_t>& x_shape, const Strides& x,
                                                        const Strides& y) const {
  return std::make_unique<const PreparedConv>(kernels_, plans_, geometry_.resolve(x_shape), x, y);
}

std::shared_ptr<const PreparedConv> SparseConv::latest(const std::vector<int64_t>& x_shape) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (latest_ == nullptr || latest_shape_ != x_shape) {
    latest_ = prepare(x_shape, contiguous(x_shape), contiguous(output_shape(x_shape)));
    latest_shape_ = x_shape;
  }
  return latest_;
}

void SparseConv::run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y,
                     const Threads& threads, const Epilogue& epilogue) {
  if (volume(output_shape(x_shape)) == 0) return;
  latest(x_shape)->run(x, bias, y, threads, epilogue);
}

}  // namespace onnxprune
