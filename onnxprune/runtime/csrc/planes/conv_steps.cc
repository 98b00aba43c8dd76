#include <algorithm>
#include <utility>

#include "aligned_floats.h"
#include "planes/step.h"
#include "refusal.h"

namespace onnxprune {
namespace {

// Channels that one task works on.
constexpr size_t kChannels = 8;

void check_addend(const std::vector<Shape>& inputs, const Shape& output) {
  if (inputs.size() > 1 && inputs[1] != output) {
    throw Refusal("its addend has shape " + to_string(inputs[1]) + ", its output " + to_string(output));
  }
}

Epilogue with_addend(Epilogue epilogue, const std::vector<const float*>& inputs) {
  epilogue.addend = inputs.size() > 1 ? inputs[1] : nullptr;
  return epilogue;
}

class SparseConvStep : public Step {
 public:
  SparseConvStep(const Kernels& kernels, const SparseWeight& weight, const ConvAttributes& attributes,
                 std::vector<float> bias, const Epilogue& epilogue)
      : kernels_(kernels), conv_(kernels, weight, attributes), bias_(std::move(bias)), epilogue_(epilogue) {
    if (!bias_.empty() && bias_.size() != conv_.output_channels()) {
      throw Refusal("its bias has " + std::to_string(bias_.size()) + " numbers for " +
                    std::to_string(conv_.output_channels()) + " output channels");
    }
  }

  Shape output_shape(const std::vector<Shape>& inputs) const override {
    Shape shape = conv_.output_shape(inputs[0]);
    check_addend(inputs, shape);
    return shape;
  }

  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    const PlaneLayout x(kernels_, inputs[0]);
    const PlaneLayout y(kernels_, conv_.output_shape(inputs[0]));
    return std::make_unique<Prepared>(conv_.prepare(inputs[0], x.strides(), y.strides()), bias_, epilogue_);
  }

 private:
  struct Prepared : StepRun {
    Prepared(std::unique_ptr<const PreparedConv> made, const std::vector<float>& bias_of, const Epilogue& epilogue_of)
        : conv(std::move(made)), bias(bias_of), epilogue(epilogue_of) {}
    void run(const std::vector<const float*>& inputs, float* output, const Threads& threads) const override {
      conv->run(inputs[0], bias.empty() ? nullptr : bias.data(), output, threads, with_addend(epilogue, inputs));
    }

    std::unique_ptr<const PreparedConv> conv;
    const std::vector<float>& bias;
    const Epilogue& epilogue;
  };

  const Kernels& kernels_;
  SparseConv conv_;
  const std::vector<float> bias_;
  const Epilogue epilogue_;
};

Window window_of(const ConvShape& shape) {
  const ConvAxis& row = shape.axes[0];
  const ConvAxis& column = shape.axes[1];
  const auto size = [](int64_t value) { return static_cast<size_t>(value); };
  return {size(row.input),    size(column.input), size(row.output),    size(column.output), size(row.kernel),
          size(column.kernel), size(row.stride),   size(column.stride), size(row.begin),     size(column.begin)};
}

class DepthwiseStep : public Step {
 public:
  DepthwiseStep(const Kernels& kernels, std::vector<float> weight, const Shape& weight_shape,
                const ConvAttributes& attributes, std::vector<float> bias, const Epilogue& epilogue)
      : kernels_(kernels),
        geometry_(weight_shape, attributes),
        weight_(std::move(weight)),
        bias_(std::move(bias)),
        epilogue_(epilogue) {
    if (bias_.empty()) bias_.assign(geometry_.output_channels(), 0);
    if (bias_.size() != geometry_.output_channels()) {
      throw Refusal("its bias has " + std::to_string(bias_.size()) + " numbers for " +
                    std::to_string(geometry_.output_channels()) + " output channels");
    }
  }

  Shape output_shape(const std::vector<Shape>& inputs) const override {
    Shape shape = geometry_.output_shape(inputs[0]);
    check_addend(inputs, shape);
    return shape;
  }

  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    return std::make_unique<Prepared>(*this, inputs[0]);
  }

 private:
  struct Prepared : StepRun {
    Prepared(const DepthwiseStep& of, const Shape& x_shape)
        : step(of),
          window(window_of(of.geometry_.resolve(x_shape))),
          x(of.kernels_, x_shape),
          y(of.kernels_, of.geometry_.output_shape(x_shape)) {}

    void run(const std::vector<const float*>& inputs, float* output, const Threads& threads) const override {
      const Epilogue epilogue = with_addend(step.epilogue_, inputs);
      threads.run((x.channels + kChannels - 1) / kChannels, [&](size_t task) {
        run_channels(inputs[0], output, task * kChannels, std::min((task + 1) * kChannels, x.channels), epilogue);
      });
    }

    void run_channels(const float* from, float* to, size_t first, size_t last, const Epilogue& epilogue) const {
      const size_t lanes = step.kernels_.lanes;
      const size_t pitch = std::max(window.reach(), window.begin_column + window.columns);
      const size_t lines =
          std::max((window.out_rows - 1) * window.row_stride + window.height, window.begin_row + window.rows);
      const size_t floats = lines * pitch + 2 * lanes * window.column_stride;
      static thread_local AlignedFloats memory;
      float* const padded = memory.at_least(floats);
      std::fill_n(padded, floats, 0.0f);
      float* const inside = padded + window.begin_row * pitch + window.begin_column;
      const size_t taps = window.height * window.width;
      for (size_t channel = first; channel < last; ++channel) {
        for (size_t image = 0; image < x.images; ++image) {
          const float* const plane = from + channel * x.pitch + image * x.pixels;
          for (size_t row = 0; row < window.rows; ++row) {
            std::copy_n(plane + row * window.columns, window.columns, inside + row * pitch);
          }
          step.kernels_.depthwise(window, step.weight_.data() + channel * taps, step.bias_[channel], padded, pitch,
                                  to + channel * y.pitch + image * y.pixels);
        }
        const size_t place = channel * y.pitch;
        if (epilogue.any()) step.kernels_.finish(epilogue, place, y.images * y.pixels, to + place);
      }
    }

    const DepthwiseStep& step;
    const Window window;
    const PlaneLayout x;
    const PlaneLayout y;
  };

  const Kernels& kernels_;
  const ConvGeometry geometry_;
  const std::vector<float> weight_;
  std::vector<float> bias_;
  const Epilogue epilogue_;
};

bool all_are(const std::vector<int64_t>& values, int64_t least, int64_t most) {
  return std::all_of(values.begin(), values.end(), [&](int64_t value) { return least <= value && value <= most; });
}

}  // namespace

bool is_depthwise(const Shape& weight_shape, const ConvAttributes& attributes) {
  constexpr int64_t kLargestPad = 64;
  return weight_shape.size() == 4 && weight_shape[1] == 1 && attributes.group == weight_shape[0] &&
         all_are(attributes.strides, 1, 2) && all_are(attributes.dilations, 1, 1) &&
         all_are(attributes.pads, 0, kLargestPad);
}

std::unique_ptr<Step> sparse_conv_step(const Kernels& kernels, const SparseWeight& weight,
                                       const ConvAttributes& attributes, std::vector<float> bias,
                                       const Epilogue& epilogue) {
  return std::make_unique<SparseConvStep>(kernels, weight, attributes, std::move(bias), epilogue);
}

std::unique_ptr<Step> depthwise_step(const Kernels& kernels, std::vector<float> weight, const Shape& weight_shape,
                                     const ConvAttributes& attributes, std::vector<float> bias,
                                     const Epilogue& epilogue) {
  return std::make_unique<DepthwiseStep>(kernels, std::move(weight), weight_shape, attributes, std::move(bias),
                                         epilogue);
}

}  // namespace onnxprune
