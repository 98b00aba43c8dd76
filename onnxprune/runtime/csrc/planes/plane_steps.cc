#include <algorithm>
#include <utility>

#include "aligned_floats.h"
#include "planes/step.h"
#include "planes/windows.h"
#include "refusal.h"

namespace onnxprune {
namespace {

// Runs task(channel) for each channel, several of them by one thread.
template <class Task>
void each_channel(size_t channels, const Threads& threads, const Task& task) {
  constexpr size_t kAtOnce = 16;
  threads.run((channels + kAtOnce - 1) / kAtOnce, [&](size_t part) {
    for (size_t i = part * kAtOnce; i < std::min((part + 1) * kAtOnce, channels); ++i) task(i);
  });
}

void check_planes(const Shape& shape) {
  if (shape.size() < 3) throw Refusal("its input has shape " + to_string(shape) + ", without a spatial axis");
}

// A StepRun that is a function.
template <class Function>
class Made : public StepRun {
 public:
  explicit Made(Function function) : function_(std::move(function)) {}
  void run(const std::vector<const float*>& inputs, float* output, const Threads& threads) const override {
    function_(inputs, output, threads);
  }

 private:
  const Function function_;
};

template <class Function>
std::unique_ptr<StepRun> make(Function function) {
  return std::make_unique<Made<Function>>(std::move(function));
}

class PoolStep : public Step {
 public:
  PoolStep(const Kernels& kernels, Pooling pooling, ConvAttributes attributes)
      : kernels_(kernels), pooling_(pooling), attributes_(std::move(attributes)) {}

  Shape output_shape(const std::vector<Shape>& inputs) const override {
    Shape shape = inputs[0];
    const ConvShape conv = resolve(shape);
    for (size_t axis = 0; axis < conv.axes.size(); ++axis) shape[axis + 2] = conv.axes[axis].output;
    return shape;
  }

  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    const Window window = window_of(resolve(inputs[0]));
    const PaddedRows padded = padded_rows(kernels_, window);
    const size_t floats = std::max(padded_floats(kernels_, window, padded, kPooledRows), window.out_columns);
    const PlaneLayout x(kernels_, inputs[0]);
    const PlaneLayout y(kernels_, output_shape(inputs));
    return make([this, window, padded, floats, x, y](const std::vector<const float*>& from, float* to,
                                                     const Threads& threads) {
      each_channel(x.channels, threads, [&](size_t channel) {
        static thread_local AlignedFloats memory;
        float* const rows = memory.at_least(floats);
        for (size_t image = 0; image < x.images; ++image) {
          kernels_.pool(window, padded, pooling_, from[0] + channel * x.pitch + image * x.pixels, rows,
                        to + channel * y.pitch + image * y.pixels);
        }
      });
    });
  }

 private:
  // As a convolution of one channel.
  ConvShape resolve(const Shape& x) const {
    if (x.size() != attributes_.kernel_shape.size() + 2) {
      throw Refusal("its input has shape " + to_string(x) + ", and its kernel " + to_string(attributes_.kernel_shape));
    }
    Shape weight{1, 1};
    weight.insert(weight.end(), attributes_.kernel_shape.begin(), attributes_.kernel_shape.end());
    Shape plane = x;
    plane[1] = 1;
    return ConvGeometry(weight, attributes_).resolve(plane);
  }

  const Kernels& kernels_;
  const Pooling pooling_;
  const ConvAttributes attributes_;
};

class GlobalMeanStep : public Step {
 public:
  explicit GlobalMeanStep(const Kernels& kernels) : kernels_(kernels) {}

  Shape output_shape(const std::vector<Shape>& inputs) const override {
    check_planes(inputs[0]);
    Shape shape = inputs[0];
    std::fill(shape.begin() + 2, shape.end(), 1);
    return shape;
  }

  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    const PlaneLayout x(kernels_, inputs[0]);
    const PlaneLayout y(kernels_, output_shape(inputs));
    return make([x, y](const std::vector<const float*>& from, float* to, const Threads& threads) {
      each_channel(x.channels, threads, [&](size_t channel) {
        for (size_t image = 0; image < x.images; ++image) {
          const float* const plane = from[0] + channel * x.pitch + image * x.pixels;
          // Several sums, which neither round nor wait as much as one.
          float sums[16] = {};
          size_t i = 0;
          for (; i + 16 <= x.pixels; i += 16) {
            for (size_t lane = 0; lane < 16; ++lane) sums[lane] += plane[i + lane];
          }
          for (; i < x.pixels; ++i) sums[i % 16] += plane[i];
          float sum = 0;
          for (const float part : sums) sum += part;
          to[channel * y.pitch + image] = sum / static_cast<float>(x.pixels);
        }
      });
    });
  }

 private:
  const Kernels& kernels_;
};

class SumStep : public Step {
 public:
  SumStep(const Kernels& kernels, const Epilogue& epilogue) : kernels_(kernels), epilogue_(epilogue) {}

  Shape output_shape(const std::vector<Shape>& inputs) const override {
    if (inputs.size() > 1 && inputs[0] != inputs[1]) {
      throw Refusal("its inputs have shapes " + to_string(inputs[0]) + " and " + to_string(inputs[1]) +
                    ", which the model declares the same");
    }
    return inputs[0];
  }

  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    const PlaneLayout x(kernels_, inputs[0]);
    return make([this, x](const std::vector<const float*>& from, float* to, const Threads& threads) {
      Epilogue epilogue = epilogue_;
      epilogue.addend = from.size() > 1 ? from[1] : nullptr;
      each_channel(x.channels, threads, [&](size_t channel) {
        const size_t place = channel * x.pitch;
        std::copy_n(from[0] + place, x.images * x.pixels, to + place);
        if (epilogue.any()) kernels_.finish(epilogue, place, x.images * x.pixels, to + place);
      });
    });
  }

 private:
  const Kernels& kernels_;
  const Epilogue epilogue_;
};

class ConcatStep : public Step {
 public:
  explicit ConcatStep(const Kernels& kernels) : kernels_(kernels) {}

  bool is_concat() const override { return true; }

  Shape output_shape(const std::vector<Shape>& inputs) const override {
    Shape shape = inputs[0];
    for (size_t i = 1; i < inputs.size(); ++i) {
      Shape other = inputs[i];
      if (other.size() == shape.size()) other[1] = inputs[0][1];
      if (other != inputs[0]) {
        throw Refusal("its inputs have shapes " + to_string(inputs[0]) + " and " + to_string(inputs[i]));
      }
      shape[1] += inputs[i][1];
    }
    return shape;
  }

  // What was not made in its place already.
  std::unique_ptr<StepRun> prepare(const std::vector<Shape>& inputs) const override {
    std::vector<PlaneLayout> layouts;
    for (const Shape& shape : inputs) layouts.emplace_back(kernels_, shape);
    return make([layouts](const std::vector<const float*>& from, float* to, const Threads&) {
      for (size_t i = 0; i < layouts.size(); ++i) {
        if (from[i] != to) std::copy_n(from[i], layouts[i].floats(), to);
        to += layouts[i].floats();
      }
    });
  }

 private:
  const Kernels& kernels_;
};

}  // namespace

std::unique_ptr<Step> pool_step(const Kernels& kernels, Pooling pooling, ConvAttributes attributes) {
  return std::make_unique<PoolStep>(kernels, pooling, std::move(attributes));
}

std::unique_ptr<Step> global_mean_step(const Kernels& kernels) { return std::make_unique<GlobalMeanStep>(kernels); }

std::unique_ptr<Step> sum_step(const Kernels& kernels, const Epilogue& epilogue) {
  return std::make_unique<SumStep>(kernels, epilogue);
}

std::unique_ptr<Step> concat_step(const Kernels& kernels) { return std::make_unique<ConcatStep>(kernels); }

}  // namespace onnxprune
