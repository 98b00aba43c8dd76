#include "convolution.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "spmm.h"

namespace onnxprune {
namespace {

int64_t volume(const std::vector<int64_t>& sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) product *= size;
  return product;
}

// Counts up the last axis first. False when all combinations are through.
bool advance(std::vector<int64_t>& index, const std::vector<int64_t>& sizes) {
  for (size_t axis = sizes.size(); axis-- > 0;) {
    if (++index[axis] < sizes[axis]) return true;
    index[axis] = 0;
  }
  return false;
}

// Beyond it, sums of attributes and sizes could overflow.
constexpr int64_t kMaxAttribute = int64_t{1} << 26;

// An attribute of `count` numbers from `least` on, all of them `absent` where it is not given.
std::vector<int64_t> numbers(std::vector<int64_t> given, size_t count, int64_t absent, int64_t least,
                             const char* name) {
  if (given.empty()) given.assign(count, absent);
  const auto wrong = [least](int64_t value) { return value < least || value > kMaxAttribute; };
  if (given.size() != count || std::any_of(given.begin(), given.end(), wrong)) {
    throw Refusal("its " + std::string(name) + " are " + to_string(given) + ", not " + std::to_string(count) +
                  " numbers of a Conv");
  }
  return given;
}

}  // namespace

// What the shape of x decides: the tiles, and the pieces of x that make up each vector of a panel.
struct Convolution::Geometry {
  std::vector<int64_t> x_shape;
  size_t images;
  size_t pixels;
  // Input rows are split into `phases` rows of every phases-th element, so that the elements which neighbouring
  // outputs need lie side by side.
  size_t phases;
  size_t row_width;
  size_t rows_per_channel;
  size_t channel_stride;
  size_t image_stride;
  std::vector<Tile> tiles;
  // For each tile, tap and vector, the first piece; for each tile and tap, where its further pieces begin.
  std::vector<Piece> first_pieces;
  std::vector<Piece> more_pieces;
  std::vector<size_t> more_start;
  // For each tile, where its first pieces begin.
  std::vector<size_t> tile_start;
};

Convolution::Convolution(const Kernels& kernels, const Entries& weight, ConvAttributes attributes)
    : kernels_(kernels), attributes_(std::move(attributes)) {
  const std::vector<int64_t>& shape = weight.shape;
  if (shape.size() < 3) throw Refusal("its shape " + to_string(shape) + " is none of a Conv weight");
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
    throw Refusal(std::to_string(shape[0]) + " output channels do not part into " + std::to_string(attributes_.group) +
                  " groups");
  }
  const auto groups = static_cast<size_t>(attributes_.group);
  output_channels_ = static_cast<size_t>(shape[0]);
  channels_per_group_ = static_cast<size_t>(shape[1]);
  taps_ = static_cast<size_t>(volume(kernel));
  const MatrixLayout layout{groups, output_channels_ / groups, channels_per_group_ * taps_, false};
  for (const RowMatrix& matrix : to_row_matrices(weight, layout, 1.0)) groups_.emplace_back(matrix);
}

void Convolution::resolve(const std::vector<int64_t>& x_shape, std::vector<int64_t>& begin,
                          std::vector<int64_t>& size) const {
  const size_t axes = attributes_.kernel_shape.size();
  const auto channels = static_cast<int64_t>(channels_per_group_) * attributes_.group;
  if (x_shape.size() != axes + 2 || x_shape[1] != channels) {
    throw Refusal("its input has shape " + to_string(x_shape) + ", but its weight wants " + std::to_string(axes) +
                  " spatial axes and " + std::to_string(channels) + " channels");
  }
  for (size_t axis = 0; axis < axes; ++axis) {
    const int64_t input = x_shape[axis + 2];
    const int64_t stride = attributes_.strides[axis];
    const int64_t extent = attributes_.dilations[axis] * (attributes_.kernel_shape[axis] - 1) + 1;
    if (attributes_.auto_pad == "SAME_UPPER" || attributes_.auto_pad == "SAME_LOWER") {
      const int64_t outputs = (input + stride - 1) / stride;
      const int64_t padding = std::max<int64_t>((outputs - 1) * stride + extent - input, 0);
      begin.push_back(attributes_.auto_pad == "SAME_LOWER" ? (padding + 1) / 2 : padding / 2);
      size.push_back(outputs);
      continue;
    }
    const bool padded = attributes_.auto_pad == "NOTSET";
    const int64_t before = padded ? attributes_.pads[axis] : 0;
    const int64_t after = padded ? attributes_.pads[axis + axes] : 0;
    const int64_t room = input + before + after - extent;
    if (room < 0) {
      throw Refusal("its kernel is larger than its padded input of shape " + to_string(x_shape));
    }
    begin.push_back(before);
    size.push_back(room / stride + 1);
  }
}

std::vector<int64_t> Convolution::output_shape(const std::vector<int64_t>& x_shape) const {
  std::vector<int64_t> begin;
  std::vector<int64_t> size;
  resolve(x_shape, begin, size);
  std::vector<int64_t> shape{x_shape[0], static_cast<int64_t>(output_channels_)};
  shape.insert(shape.end(), size.begin(), size.end());
  return shape;
}

std::shared_ptr<const Convolution::Geometry> Convolution::geometry(const std::vector<int64_t>& x_shape) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!latest_ || latest_->x_shape != x_shape) latest_ = make_geometry(x_shape);
  return latest_;
}

std::shared_ptr<const Convolution::Geometry> Convolution::make_geometry(const std::vector<int64_t>& x_shape) const {
  std::vector<int64_t> begin;
  std::vector<int64_t> size;
  resolve(x_shape, begin, size);
  const size_t axes = size.size();
  const std::vector<int64_t> input(x_shape.begin() + 2, x_shape.end());
  auto geometry = std::make_shared<Geometry>();
  geometry->x_shape = x_shape;
  geometry->images = static_cast<size_t>(x_shape[0]);
  geometry->pixels = static_cast<size_t>(volume(size));
  const int64_t width = input.back();
  const int64_t phases = std::min(attributes_.strides.back(), std::max<int64_t>(width, 1));
  const int64_t phase_width = (width + phases - 1) / phases;
  geometry->phases = static_cast<size_t>(phases);
  geometry->row_width = static_cast<size_t>(phase_width * phases);
  geometry->rows_per_channel = static_cast<size_t>(volume({input.begin(), input.end() - 1}));
  geometry->channel_stride = geometry->rows_per_channel * geometry->row_width;
  geometry->image_stride = geometry->channel_stride * static_cast<size_t>(x_shape[1]);
  geometry->tiles = make_tiles(geometry->images * geometry->pixels, groups_.front().panel_width(), kernels_);

  // Element of x that tap `tap` reads for output `at` of an image, and whether there is one.
  const auto source = [&](const std::vector<int64_t>& tap, const std::vector<int64_t>& at, ptrdiff_t& offset) {
    int64_t row = 0;
    for (size_t axis = 0; axis < axes; ++axis) {
      const int64_t place =
          at[axis] * attributes_.strides[axis] + tap[axis] * attributes_.dilations[axis] - begin[axis];
      if (place < 0 || place >= input[axis]) return false;
      if (axis + 1 < axes) {
        row = row * input[axis] + place;
      } else {
        offset = static_cast<ptrdiff_t>((row * phases + place % phases) * phase_width + place / phases);
      }
    }
    return true;
  };
  for (const Tile& tile : geometry->tiles) {
    geometry->tile_start.push_back(geometry->first_pieces.size());
    std::vector<int64_t> tap(axes, 0);
    for (size_t i = 0; i < taps_; ++i, advance(tap, attributes_.kernel_shape)) {
      geometry->more_start.push_back(geometry->more_pieces.size());
      for (size_t vector = 0; vector < tile.vectors; ++vector) {
        geometry->first_pieces.push_back({0, 0, static_cast<uint32_t>(vector)});
        Piece* piece = &geometry->first_pieces.back();
        for (size_t lane = 0; lane < kernels_.lanes; ++lane) {
          const size_t column = vector * kernels_.lanes + lane;
          if (column >= tile.count) break;
          size_t pixel = (tile.first + column) % geometry->pixels;
          std::vector<int64_t> at(axes);
          for (size_t axis = axes; axis-- > 0; pixel /= static_cast<size_t>(size[axis])) {
            at[axis] = static_cast<int64_t>(pixel % static_cast<size_t>(size[axis]));
          }
          ptrdiff_t offset = 0;
          if (!source(tap, at, offset)) continue;
          const size_t image = (tile.first + column) / geometry->pixels;
          offset += static_cast<ptrdiff_t>(image * geometry->image_stride) - static_cast<ptrdiff_t>(lane);
          if (piece->mask != 0 && piece->offset != offset) {
            geometry->more_pieces.push_back({0, 0, static_cast<uint32_t>(vector)});
            piece = &geometry->more_pieces.back();
          }
          piece->offset = offset;
          piece->mask |= 1u << lane;
        }
      }
    }
  }
  geometry->more_start.push_back(geometry->more_pieces.size());
  return geometry;
}

void Convolution::run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y,
                      const Threads& threads) {
  if (volume(output_shape(x_shape)) == 0) return;
  const std::shared_ptr<const Geometry> shape = geometry(x_shape);
  const size_t channels = channels_per_group_ * groups_.size();
  std::vector<float> split;
  if (shape->phases > 1) {
    split.resize(shape->images * shape->image_stride);
    const auto width = static_cast<size_t>(x_shape.back());
    const size_t phase_width = shape->row_width / shape->phases;
    run_parallel(threads, shape->images * channels, [&](size_t plane) {
      for (size_t row = plane * shape->rows_per_channel; row < (plane + 1) * shape->rows_per_channel; ++row) {
        const float* const from = x + row * width;
        float* const to = split.data() + row * shape->row_width;
        for (size_t phase = 0; phase < shape->phases; ++phase) {
          float* place = to + phase * phase_width;
          for (size_t i = phase; i < width; i += shape->phases) *place++ = from[i];
        }
      }
    });
    x = split.data();
  }
  const size_t rows = groups_.front().rows();
  const std::vector<size_t> parts = make_parts(groups_.front(), shape->tiles.size() * groups_.size());
  const size_t tasks_per_group = shape->tiles.size() * (parts.size() - 1);
  run_parallel(threads, groups_.size() * tasks_per_group, [&](size_t task) {
    const size_t group = task / tasks_per_group;
    const size_t tile_index = task % shape->tiles.size();
    const size_t part = task % tasks_per_group / shape->tiles.size();
    const float* const group_x = x + group * channels_per_group_ * shape->channel_stride;
    const Columns columns{taps_, shape->channel_stride, shape->first_pieces.data() + shape->tile_start[tile_index],
                          shape->more_start.data() + tile_index * taps_, shape->more_pieces.data()};
    TileSource source;
    source.load = [&](const Tile& tile, size_t first, size_t last, float* panel) {
      const float* const plane = group_x + first / taps_ * shape->channel_stride;
      kernels_.gather(plane, first % taps_, columns, last - first, tile.vectors, panel);
    };
    source.bias = [&](size_t row) { return bias == nullptr ? 0.0f : bias[group * rows + row]; };
    source.store = [&](const Tile& tile, size_t first, size_t last, const float* sums) {
      const size_t pitch = tile.vectors * kernels_.lanes;
      for (size_t column = 0; column < tile.count;) {
        const size_t image = (tile.first + column) / shape->pixels;
        const size_t pixel = (tile.first + column) % shape->pixels;
        const size_t count = std::min(tile.count - column, shape->pixels - pixel);
        float* const image_y = y + (image * output_channels_ + group * rows) * shape->pixels + pixel;
        for (size_t row = first; row < last; ++row) {
          std::memcpy(image_y + row * shape->pixels, sums + (row - first) * pitch + column, count * sizeof(float));
        }
        column += count;
      }
    };
    multiply_tile(kernels_, groups_[group], shape->tiles[tile_index], parts[part], parts[part + 1], source);
  });
}

}  // namespace onnxprune
