#include <algorithm>
#include <utility>

#include "aligned_floats.h"
#include "planes/conv_step.h"

namespace onnxprune {
namespace {

// Colors, and what else images have.
constexpr int64_t kMostChannels = 4;

class StemStep : public PaddedConvStep {
 public:
  StemStep(const Kernels& kernels, const std::vector<float>& weight, const Shape& weight_shape,
           const ConvAttributes& attributes, const std::vector<float>& bias, const Epilogue& epilogue)
      : PaddedConvStep(kernels, weight_shape, attributes, epilogue),
        taps_(weight.size() / geometry_.output_channels()) {
    const size_t channels = geometry_.output_channels();
    if (!bias.empty()) check_bias(bias, channels);
    const size_t padded = (channels + kDenseChannels - 1) / kDenseChannels * kDenseChannels;
    bias_.assign(padded, 0);
    std::copy(bias.begin(), bias.end(), bias_.begin());
    weight_.assign(padded * taps_, 0);
    for (size_t channel = 0; channel < channels; ++channel) {
      const size_t block = channel / kDenseChannels * kDenseChannels * taps_;
      for (size_t tap = 0; tap < taps_; ++tap) {
        weight_[block + tap * kDenseChannels + channel % kDenseChannels] = weight[channel * taps_ + tap];
      }
    }
  }

  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    return std::make_unique<Run>(*this, inputs[0]);
  }

 private:
  struct Run : Prepared {
    Run(const StemStep& of, const Shape& x_shape) : Prepared(of, x_shape), step(of) {
      band_rows = std::clamp<size_t>(rows_of(kPaddedFloats / (padded.pitch * x.channels)), 1, window.out_rows);
      bands = (window.out_rows + band_rows - 1) / band_rows;
      channel_floats = padded_floats(of.kernels_, window, padded, rows_read(band_rows));
      for (size_t channel = 0; channel < x.channels; ++channel) {
        for (size_t row = 0; row < window.height; ++row) {
          for (size_t column = 0; column < window.width; ++column) {
            places.push_back(channel * channel_floats + row * padded.pitch + padded.place[column % padded.parts] +
                             column / padded.parts);
          }
        }
      }
    }

    void run(const std::vector<const float*>& inputs, float* output, const Threads& threads) const override {
      const Epilogue epilogue = with_addend(step.epilogue_, inputs);
      threads.run(x.images * bands, [&](size_t task) {
        const size_t first = task % bands * band_rows;
        run_band(inputs[0], output, task / bands, first, std::min(first + band_rows, window.out_rows), epilogue);
      });
    }

    void run_band(const float* from, float* to, size_t image, size_t first, size_t last,
                  const Epilogue& epilogue) const {
      const Kernels& kernels = step.kernels_;
      static thread_local AlignedFloats memory;
      float* const rows = memory.at_least(x.channels * channel_floats);
      const size_t start = first * window.row_stride;
      for (size_t channel = 0; channel < x.channels; ++channel) {
        kernels.pad(window, padded, from + channel * x.pitch + image * x.pixels, start,
                    start + rows_read(last - first), rows + channel * channel_floats);
      }
      const bool clips = only_clips(epilogue);
      const DenseFilter filter{y.channels,
                               step.taps_,
                               step.weight_.data(),
                               step.bias_.data(),
                               places.data(),
                               clips,
                               static_cast<float>(epilogue.constants.low),
                               static_cast<float>(epilogue.constants.high)};
      const size_t place = image * y.pixels + first * window.out_columns;
      for (size_t row = 0; row < last - first; ++row) {
        kernels.dense(filter, window.out_columns, rows + row * window.row_stride * padded.pitch,
                      to + place + row * window.out_columns, y.pitch);
      }
      for (size_t channel = 0; channel < y.channels && epilogue.any() && !clips; ++channel) {
        const size_t at = channel * y.pitch + place;
        kernels.finish(epilogue, at, (last - first) * window.out_columns, to + at);
      }
    }

    const StemStep& step;
    size_t band_rows;
    size_t bands;
    size_t channel_floats;
    std::vector<size_t> places;
  };

  const size_t taps_;
  std::vector<float> weight_;
  std::vector<float> bias_;
};

}  // namespace

bool is_stem(const Shape& weight_shape, const ConvAttributes& attributes) {
  return weight_shape.size() == 4 && weight_shape[1] <= kMostChannels && attributes.group == 1 &&
         volume(weight_shape) > 0 && pads_rows(attributes);
}

std::unique_ptr<Step> stem_step(const Kernels& kernels, const std::vector<float>& weight, const Shape& weight_shape,
                                const ConvAttributes& attributes, const std::vector<float>& bias,
                                const Epilogue& epilogue) {
  return std::make_unique<StemStep>(kernels, weight, weight_shape, attributes, bias, epilogue);
}

}  // namespace onnxprune
