#include <algorithm>
#include <utility>

#include "aligned_floats.h"
#include "planes/conv_step.h"

namespace onnxprune {
namespace {

// Channels of a depthwise convolution that one task works on.
constexpr size_t kChannels = 8;
// Half of what is padded at once.
constexpr size_t kBandFloats = kPaddedFloats / 2;
// Rows of results of a band, at the least.
constexpr size_t kLeastBand = 4;

class SparseConvStep : public Step {
 public:
  SparseConvStep(const Kernels& kernels, const SparseWeight& weight, const ConvAttributes& attributes,
                 std::vector<float> bias, const Epilogue& epilogue)
      : kernels_(kernels), conv_(kernels, weight, attributes), bias_(std::move(bias)), epilogue_(epilogue) {
    if (!bias_.empty()) check_bias(bias_, conv_.output_channels());
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

class DepthwiseStep : public PaddedConvStep {
 public:
  DepthwiseStep(const Kernels& kernels, std::vector<float> weight, const Shape& weight_shape,
                const ConvAttributes& attributes, std::vector<float> bias, const Epilogue& epilogue)
      : PaddedConvStep(kernels, weight_shape, attributes, epilogue),
        weight_(std::move(weight)),
        bias_(std::move(bias)) {
    if (bias_.empty()) bias_.assign(geometry_.output_channels(), 0);
    check_bias(bias_, geometry_.output_channels());
  }

  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    return std::make_unique<Run>(*this, inputs[0]);
  }

 private:
  struct Run : Prepared {
    Run(const DepthwiseStep& of, const Shape& x_shape) : Prepared(of, x_shape), step(of) {
      const size_t most = std::max(rows_of(kBandFloats / padded.pitch) / kLeastBand * kLeastBand, kLeastBand);
      bands = (window.out_rows + most - 1) / most;
      band_rows = std::min(most, window.out_rows);
    }

    void run(const std::vector<const float*>& inputs, float* output, const Threads& threads) const override {
      const Epilogue epilogue = with_addend(step.epilogue_, inputs);
      threads.run((x.channels + kChannels - 1) / kChannels, [&](size_t task) {
        run_channels(inputs[0], output, task * kChannels, std::min((task + 1) * kChannels, x.channels), epilogue);
      });
    }

    Filter filter_of(size_t channel, const Epilogue& epilogue) const {
      return {step.weight_.data() + channel * window.height * window.width, step.bias_[channel], only_clips(epilogue),
              static_cast<float>(epilogue.constants.low), static_cast<float>(epilogue.constants.high)};
    }

    void run_channels(const float* from, float* to, size_t first, size_t last, const Epilogue& epilogue) const {
      if (step.kernels_.depthwise_direct != nullptr && is_direct(window)) {
        convolve_planes(from, to, first, last, epilogue);
      } else {
        convolve_bands(from, to, first, last, epilogue);
      }
      for (size_t channel = first; channel < last && epilogue.any() && !only_clips(epilogue); ++channel) {
        const size_t place = channel * y.pitch;
        step.kernels_.finish(epilogue, place, y.images * y.pixels, to + place);
      }
    }

    void convolve_planes(const float* from, float* to, size_t first, size_t last, const Epilogue& epilogue) const {
      for (size_t channel = first; channel < last; ++channel) {
        const Filter filter = filter_of(channel, epilogue);
        for (size_t image = 0; image < x.images; ++image) {
          step.kernels_.depthwise_direct(window, filter, from + channel * x.pitch + image * x.pixels,
                                         to + channel * y.pitch + image * y.pixels);
        }
      }
    }

    // Each band is padded before the one before it is convolved, as what is just written is slow to read.
    void convolve_bands(const float* from, float* to, size_t first, size_t last, const Epilogue& epilogue) const {
      const Kernels& kernels = step.kernels_;
      const size_t rows = rows_read(band_rows);
      const size_t floats = padded_floats(kernels, window, padded, rows);
      static thread_local AlignedFloats memory;
      float* const both = memory.at_least(2 * floats);
      const size_t pieces = (last - first) * x.images * bands;
      const auto piece = [&](size_t index) {
        const size_t row = std::min(index % bands * band_rows, window.out_rows - band_rows);
        const size_t image = index / bands % x.images;
        return Piece{first + index / bands / x.images, image, row};
      };
      const auto pad = [&](size_t index) {
        const auto [channel, image, row] = piece(index);
        const size_t start = row * window.row_stride;
        kernels.pad(window, padded, from + channel * x.pitch + image * x.pixels, start, start + rows,
                    both + index % 2 * floats);
      };
      pad(0);
      for (size_t index = 0; index < pieces; ++index) {
        if (index + 1 < pieces) pad(index + 1);
        const auto [channel, image, row] = piece(index);
        kernels.depthwise(window, padded, filter_of(channel, epilogue), both + index % 2 * floats, band_rows,
                          to + channel * y.pitch + image * y.pixels + row * window.out_columns);
      }
    }

    struct Piece {
      size_t channel;
      size_t image;
      size_t row;
    };

    const DepthwiseStep& step;
    size_t bands;
    size_t band_rows;
  };

  const std::vector<float> weight_;
  std::vector<float> bias_;
};

}  // namespace

bool is_depthwise(const Shape& weight_shape, const ConvAttributes& attributes) {
  return weight_shape.size() == 4 && weight_shape[1] == 1 && attributes.group == weight_shape[0] &&
         pads_rows(attributes);
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
