#include "sparse_conv.h"

#include <algorithm>
#include <utility>

#include "conv_tiles.h"
#include "refusal.h"
#include "spmm_matrix.h"
#include "tiled_spmm.h"

namespace onnxprune {
namespace {

int64_t volume(const std::vector<int64_t>& sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) product *= size;
  return product;
}

// Larger values could overflow sums of attributes and sizes.
constexpr int64_t kMaxAttribute = int64_t{1} << 26;

// An attribute of `count` numbers, none below `least`; all `absent` where it is not given.
std::vector<int64_t> numbers(std::vector<int64_t> given, size_t count, int64_t absent, int64_t least,
                             const char* name) {
  if (given.empty()) given.assign(count, absent);
  const auto wrong = [least](int64_t value) { return value < least || value > kMaxAttribute; };
  if (given.size() != count || std::any_of(given.begin(), given.end(), wrong)) {
    throw Refusal("its " + std::string(name) + " are " + to_string(given) + ", but it needs " + std::to_string(count) +
                  " of valid size");
  }
  return given;
}

}  // namespace

// What depends on the shape of x.
struct SparseConv::Prepared {
  std::vector<int64_t> x_shape;
  ConvTiles tiles;
  SpmmMatrix matrix;
};

SparseConv::SparseConv(const Kernels& kernels, const SparseWeight& weight, ConvAttributes attributes)
    : kernels_(kernels), attributes_(std::move(attributes)), matrix_(0, 0, kMaxBlockColumns) {
  const std::vector<int64_t>& shape = weight.shape;
  if (shape.size() < 3) throw Refusal("its shape " + to_string(shape) + " is not that of a Conv weight");
  const size_t axes = shape.size() - 2;
  std::vector<int64_t>& kernel = attributes_.kernel_shape;
  if (kernel.empty()) kernel.assign(shape.begin() + 2, shape.end());
  if (!std::equal(kernel.begin(), kernel.end(), shape.begin() + 2, shape.end())) {
    throw Refusal("its shape " + to_string(shape) + " and kernel_shape " + to_string(kernel) + " differ");
  }
  attributes_.strides = numbers(std::move(attributes_.strides), axes, 1, 1, "strides");
  attributes_.dilations = numbers(std::move(attributes_.dilations), axes, 1, 1, "dilations");
  attributes_.pads = numbers(std::move(attributes_.pads), 2 * axes, 0, -kMaxAttribute, "pads");
  if (attributes_.group < 1 || shape[0] % attributes_.group != 0) {
    throw Refusal(std::to_string(shape[0]) + " output channels cannot be divided into " +
                  std::to_string(attributes_.group) + " groups");
  }
  const auto groups = static_cast<size_t>(attributes_.group);
  output_channels_ = static_cast<size_t>(shape[0]);
  const auto group_columns = static_cast<size_t>(volume({shape.begin() + 1, shape.end()}));
  input_channels_ = static_cast<size_t>(shape[1]) * groups;
  const MatrixLayout layout{1, output_channels_, group_columns, false, groups};
  matrix_ = std::move(to_csr_matrices(weight, layout, 1.0, kMaxBlockColumns).front());
}

ConvShape SparseConv::resolve(const std::vector<int64_t>& x_shape) const {
  const size_t axes = attributes_.kernel_shape.size();
  const auto channels = static_cast<int64_t>(input_channels_);
  if (x_shape.size() != axes + 2 || x_shape[1] != channels) {
    throw Refusal("its input has shape " + to_string(x_shape) + ", but its weight wants " + std::to_string(axes) +
                  " spatial axes and " + std::to_string(channels) + " channels");
  }
  ConvShape shape{x_shape[0], channels, static_cast<int64_t>(output_channels_), {}};
  for (size_t i = 0; i < axes; ++i) {
    ConvAxis axis{x_shape[i + 2], 0, attributes_.kernel_shape[i], attributes_.strides[i], attributes_.dilations[i], 0};
    const int64_t extent = axis.dilation * (axis.kernel - 1) + 1;
    if (attributes_.auto_pad == "SAME_UPPER" || attributes_.auto_pad == "SAME_LOWER") {
      axis.output = (axis.input + axis.stride - 1) / axis.stride;
      const int64_t padding = std::max<int64_t>((axis.output - 1) * axis.stride + extent - axis.input, 0);
      axis.begin = attributes_.auto_pad == "SAME_LOWER" ? (padding + 1) / 2 : padding / 2;
    } else {
      const bool padded = attributes_.auto_pad == "NOTSET";
      axis.begin = padded ? attributes_.pads[i] : 0;
      const int64_t room = axis.input + axis.begin + (padded ? attributes_.pads[i + axes] : 0) - extent;
      if (room < 0) throw Refusal("its kernel is larger than its padded input of shape " + to_string(x_shape));
      axis.output = room / axis.stride + 1;
    }
    shape.axes.push_back(axis);
  }
  return shape;
}

std::vector<int64_t> SparseConv::output_shape(const std::vector<int64_t>& x_shape) const {
  const ConvShape resolved = resolve(x_shape);
  std::vector<int64_t> shape{resolved.images, resolved.output_channels};
  for (const ConvAxis& axis : resolved.axes) shape.push_back(axis.output);
  return shape;
}

std::shared_ptr<const SparseConv::Prepared> SparseConv::prepared(const std::vector<int64_t>& x_shape) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!latest_ || latest_->x_shape != x_shape) {
    ConvTiles tiles(kernels_, simplified(resolve(x_shape)), matrix_.entries());
    SpmmMatrix matrix(matrix_, tiles.layout());
    latest_ = std::make_shared<Prepared>(Prepared{x_shape, std::move(tiles), std::move(matrix)});
  }
  return latest_;
}

void SparseConv::run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y,
                     const Threads& threads, const Epilogue& epilogue) {
  const std::vector<int64_t> y_shape = output_shape(x_shape);
  if (volume(y_shape) == 0) return;
  const std::shared_ptr<const Prepared> shape = prepared(x_shape);
  const std::vector<ConvTiles::Tile>& tiles = shape->tiles.tiles();
  const PanelLayout& layout = shape->matrix.layout();
  const auto x_pixels = static_cast<size_t>(volume({x_shape.begin() + 2, x_shape.end()}));
  const auto y_pixels = static_cast<size_t>(volume({y_shape.begin() + 2, y_shape.end()}));
  const auto wider = [](const ConvTiles::Tile& a, const ConvTiles::Tile& b) { return a.vectors < b.vectors; };
  const size_t pitch = std::max_element(tiles.begin(), tiles.end(), wider)->vectors * kernels_.lanes;
  const std::vector<size_t> parts = make_parts(shape->matrix, tiles.size(), pitch, threads);
  threads.run(tiles.size() * (parts.size() - 1), [&](size_t task) {
    const ConvTiles::Tile& tile = tiles[task % tiles.size()];
    const size_t part = task / tiles.size();
    const Copies loads = shape->tiles.loads(tile);
    const Copies stores = shape->tiles.stores(tile);
    const auto load = [&](size_t channel, size_t channels, float* panel) {
      kernels_.copy(loads, x + tile.input + channel * x_pixels, x_pixels, channels, panel, layout.channel_stride);
    };
    const auto store = [&](size_t first_row, size_t last_row, const float* sums) {
      kernels_.copy(stores, sums, tile.vectors * kernels_.lanes, last_row - first_row,
                    y + tile.output + first_row * y_pixels, y_pixels);
      for (size_t row = first_row; epilogue.any() && row < last_row; ++row) {
        for (const ConvTiles::Run& stored : shape->tiles.stored(tile)) {
          const size_t first = static_cast<size_t>(tile.output + stored.target) + row * y_pixels;
          kernels_.finish(epilogue, first, stored.count, y + first);
        }
      }
    };
    multiply_tile(kernels_, shape->matrix, tile.vectors, parts[part], parts[part + 1], bias,
                  shape->tiles.has_holes(tile), load, store);
  });
}

}  // namespace onnxprune
