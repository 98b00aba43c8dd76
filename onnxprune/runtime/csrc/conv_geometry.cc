#include "conv_geometry.h"

#include <algorithm>
#include <utility>

#include "refusal.h"

namespace onnxprune {
namespace {

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

int64_t volume(const std::vector<int64_t>& sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) product *= size;
  return product;
}

ConvGeometry::ConvGeometry(const std::vector<int64_t>& shape, ConvAttributes attributes)
    : attributes_(std::move(attributes)) {
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
  output_channels_ = static_cast<size_t>(shape[0]);
  input_channels_ = static_cast<size_t>(shape[1]) * groups();
}

ConvShape ConvGeometry::resolve(const std::vector<int64_t>& x_shape) const {
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

std::vector<int64_t> ConvGeometry::output_shape(const std::vector<int64_t>& x_shape) const {
  const ConvShape resolved = resolve(x_shape);
  std::vector<int64_t> shape{resolved.images, resolved.output_channels};
  for (const ConvAxis& axis : resolved.axes) shape.push_back(axis.output);
  return shape;
}

}  // namespace onnxprune
