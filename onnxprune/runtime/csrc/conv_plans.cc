#include "conv_plans.h"

#include <algorithm>
#include <utility>

namespace onnxprune {

size_t ConvPlan::widest() const {
  const auto wider = [](const ConvTiles::Tile& a, const ConvTiles::Tile& b) { return a.vectors < b.vectors; };
  return std::max_element(tiles.tiles().begin(), tiles.tiles().end(), wider)->vectors;
}

ConvPlans::ConvPlans(const Kernels& kernels, CsrMatrix matrix, size_t channels)
    : kernels_(kernels), matrix_(std::move(matrix)), channels_(channels) {}

ConvPlan ConvPlans::make(ConvShape shape) const {
  shape.input_channels = static_cast<int64_t>(channels_);
  ConvTiles tiles(kernels_, simplified(std::move(shape)), matrix_.entries());
  SpmmMatrix matrix(matrix_, tiles.layout());
  return {{}, std::move(tiles), std::move(matrix)};
}

std::shared_ptr<const ConvPlan> ConvPlans::plan(const std::vector<int64_t>& x_shape, ConvShape shape) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!latest_ || latest_->x_shape != x_shape) {
    ConvPlan made = make(std::move(shape));
    made.x_shape = x_shape;
    latest_ = std::make_shared<const ConvPlan>(std::move(made));
  }
  return latest_;
}

}  // namespace onnxprune
