#include "plane_kernel_test.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "aligned_floats.h"
#include "planes/memory_plan.h"
#include "planes/windows.h"

namespace onnxprune {
namespace {

constexpr float kUntouched = 12345.0f;
constexpr size_t kGuard = 64;

class Checks {
 public:
  explicit Checks(const char* isa) : isa_(isa) {}

  void check(bool holds, const char* what, size_t at) {
    constexpr size_t kPrinted = 10;
    if (!holds && ++failures_ <= kPrinted) std::printf("%s planes: %s %zu is wrong\n", isa_, what, at);
  }
  size_t failures() const { return failures_; }

 private:
  const char* isa_;
  size_t failures_ = 0;
};

std::vector<float> random_floats(size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> distribution(-1, 1);
  std::vector<float> floats(count);
  for (float& value : floats) value = distribution(engine);
  return floats;
}

bool is_close(double got, double expected) { return std::abs(got - expected) <= 1e-5 * (1 + std::abs(expected)); }

Window window(size_t rows, size_t columns, size_t size, size_t stride, size_t pad) {
  return {rows,
          columns,
          (rows + 2 * pad - size) / stride + 1,
          (columns + 2 * pad - size) / stride + 1,
          size,
          size,
          stride,
          stride,
          pad,
          pad};
}

template <class Visit>
void each_tap(const Window& w, size_t row, size_t column, const Visit& visit) {
  for (size_t i = 0; i < w.height; ++i) {
    for (size_t j = 0; j < w.width; ++j) {
      const size_t r = row * w.row_stride + i;
      const size_t c = column * w.column_stride + j;
      const bool inside =
          r >= w.begin_row && r < w.begin_row + w.rows && c >= w.begin_column && c < w.begin_column + w.columns;
      visit(i * w.width + j, inside, inside ? (r - w.begin_row) * w.columns + c - w.begin_column : 0);
    }
  }
}

void test_pool(const Kernels& kernels, const Window& w, Checks& checks) {
  const std::vector<float> x = random_floats(w.rows * w.columns, 1);
  for (const Pooling pooling : {Pooling::kMax, Pooling::kMean, Pooling::kMeanWithPadding}) {
    const PaddedRows padded = padded_rows(kernels, w);
    AlignedFloats memory;
    float* const rows = memory.at_least(padded_floats(kernels, w, padded, kPooledRows) + w.out_columns);
    const size_t results = w.out_rows * w.out_columns;
    std::vector<float> y(results + kGuard, kUntouched);
    kernels.pool(w, padded, pooling, x.data(), rows, y.data());
    for (size_t at = results; at < y.size(); ++at) checks.check(y[at] == kUntouched, "what is behind a pool", at);
    for (size_t at = 0; at < results; ++at) {
      double largest = -std::numeric_limits<double>::infinity();
      double sum = 0;
      size_t count = 0;
      each_tap(w, at / w.out_columns, at % w.out_columns, [&](size_t, bool inside, size_t place) {
        if (!inside) return;
        largest = std::max<double>(largest, x[place]);
        sum += x[place];
        ++count;
      });
      const size_t all = pooling == Pooling::kMean ? count : w.height * w.width;
      checks.check(is_close(y[at], pooling == Pooling::kMax ? largest : sum / static_cast<double>(all)), "pool", at);
    }
  }
}

void check_depthwise(const Window& w, const float* x, const std::vector<float>& weight, const Filter& filter,
                     const std::vector<float>& y, const char* what, Checks& checks) {
  const size_t results = w.out_rows * w.out_columns;
  for (size_t at = results; at < y.size(); ++at) checks.check(y[at] == kUntouched, "what is behind a result", at);
  for (size_t at = 0; at < results; ++at) {
    double sum = filter.bias;
    each_tap(w, at / w.out_columns, at % w.out_columns, [&](size_t tap, bool inside, size_t place) {
      if (inside) sum += static_cast<double>(weight[tap]) * x[place];
    });
    if (filter.clips) sum = std::clamp<double>(sum, filter.low, filter.high);
    checks.check(is_close(y[at], sum), what, at);
  }
}

void test_depthwise(const Kernels& kernels, const Window& w, bool clips, Checks& checks) {
  const std::vector<float> x = random_floats(w.rows * w.columns, 2);
  const std::vector<float> weight = random_floats(w.height * w.width, 3);
  const Filter filter{weight.data(), 0.5f, clips, -0.75f, 1.25f};
  const PaddedRows padded = padded_rows(kernels, w);
  AlignedFloats memory;
  const size_t rows = (w.out_rows - 1) * w.row_stride + w.height;
  float* const from = memory.at_least(padded_floats(kernels, w, padded, rows));
  std::vector<float> y(w.out_rows * w.out_columns + kGuard, kUntouched);
  kernels.pad(w, padded, x.data(), 0, rows, from);
  kernels.depthwise(w, padded, filter, from, w.out_rows, y.data());
  check_depthwise(w, x.data(), weight, filter, y, "depthwise", checks);
}

// A plane between numbers that would spoil what reads them.
void test_depthwise_direct(const Kernels& kernels, const Window& w, bool clips, Checks& checks) {
  if (kernels.depthwise_direct == nullptr || !is_direct(w)) return;
  std::vector<float> x(2 * kGuard + w.rows * w.columns, std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> plane = random_floats(w.rows * w.columns, 2);
  std::copy(plane.begin(), plane.end(), x.begin() + kGuard);
  const std::vector<float> weight = random_floats(w.height * w.width, 3);
  const Filter filter{weight.data(), 0.5f, clips, -0.75f, 1.25f};
  std::vector<float> y(w.out_rows * w.out_columns + kGuard, kUntouched);
  kernels.depthwise_direct(w, filter, x.data() + kGuard, y.data());
  check_depthwise(w, plane.data(), weight, filter, y, "direct depthwise", checks);
}

// A row of results of `channels` output channels, from two planes.
void test_dense(const Kernels& kernels, const Window& w, size_t channels, bool clips, Checks& checks) {
  constexpr size_t kInputs = 2;
  const size_t taps = kInputs * w.height * w.width;
  const size_t whole = (channels + kDenseChannels - 1) / kDenseChannels * kDenseChannels;
  const std::vector<float> x = random_floats(kInputs * w.rows * w.columns, 9);
  const std::vector<float> weight = random_floats(whole * taps, 10);
  const std::vector<float> bias = random_floats(whole, 11);
  const PaddedRows padded = padded_rows(kernels, w);
  const size_t floats = padded_floats(kernels, w, padded, w.height);
  AlignedFloats memory;
  float* const from = memory.at_least(kInputs * floats);
  std::vector<size_t> places;
  for (size_t input = 0; input < kInputs; ++input) {
    kernels.pad(w, padded, x.data() + input * w.rows * w.columns, 0, w.height, from + input * floats);
    for (size_t i = 0; i < w.height; ++i) {
      for (size_t j = 0; j < w.width; ++j) {
        places.push_back(input * floats + i * padded.pitch + padded.place[j % padded.parts] + j / padded.parts);
      }
    }
  }
  const size_t stride = w.out_columns + 3;
  std::vector<float> y(channels * stride + kGuard, kUntouched);
  kernels.dense({channels, taps, weight.data(), bias.data(), places.data(), clips, -0.75f, 1.25f}, w.out_columns, from,
                y.data(), stride);
  for (size_t at = 0; at < y.size(); ++at) {
    const size_t channel = at / stride;
    const size_t column = at % stride;
    if (channel >= channels || column >= w.out_columns) {
      checks.check(y[at] == kUntouched, "what is behind a row", at);
      continue;
    }
    double sum = bias[channel];
    for (size_t input = 0; input < kInputs; ++input) {
      each_tap(w, 0, column, [&](size_t tap, bool inside, size_t place) {
        const size_t factor = (channel / kDenseChannels * taps + input * w.height * w.width + tap) * kDenseChannels +
                              channel % kDenseChannels;
        if (inside) sum += static_cast<double>(weight[factor]) * x[input * w.rows * w.columns + place];
      });
    }
    if (clips) sum = std::clamp(sum, -0.75, 1.25);
    checks.check(is_close(y[at], sum), "dense", at);
  }
}

// Rows of 0 to 4 entries, in an order that is not theirs.
void test_last_block(const Kernels& kernels, size_t vectors, bool adds, bool clips, Checks& checks) {
  const std::vector<SpmmRun> runs{{2, 0}, {1, 1}, {2, 3}, {1, 4}};
  const std::vector<uint32_t> rows{3, 0, 5, 1, 4, 2};
  const size_t pitch = vectors * kernels.lanes;
  const std::vector<float> numbers = random_floats(6, 4);
  std::vector<SpmmEntry> entries;
  for (uint32_t i = 0; i < 11; ++i) entries.push_back({static_cast<uint32_t>(i % 5 * pitch), numbers[i % 6]});
  AlignedFloats panel_memory;
  float* const panel = panel_memory.at_least(5 * pitch);
  std::copy_n(random_floats(5 * pitch, 5).data(), 5 * pitch, panel);
  AlignedFloats sums_memory;
  float* const sums = sums_memory.at_least(6 * pitch);
  const std::vector<float> before = random_floats(6 * pitch, 6);
  const std::vector<float> bias = random_floats(6, 7);
  const size_t stride = pitch + 3;
  const std::vector<float> addend = random_floats(6 * stride, 8);
  for (const bool starts : {false, true}) {
    std::copy_n(before.data(), 6 * pitch, sums);
    std::vector<float> y(6 * stride + kGuard, kUntouched);
    const SpmmResult result{y.data(), stride, adds ? addend.data() : nullptr, clips, -0.25f, 0.5f};
    kernels.spmm_last({runs.data(), runs.size(), rows.data(), entries.data()}, vectors, panel,
                      starts ? bias.data() : nullptr, sums, result);
    std::vector<double> expected(y.size(), kUntouched);
    size_t entry = 0;
    size_t index = 0;
    for (const SpmmRun& run : runs) {
      for (size_t i = 0; i < run.rows; ++i, ++index, entry += run.entries_per_row) {
        for (size_t column = 0; column < pitch; ++column) {
          const size_t row = rows[index];
          double sum = starts ? bias[row] : before[row * pitch + column];
          for (size_t k = entry; k < entry + run.entries_per_row; ++k) {
            sum += static_cast<double>(entries[k].value) * panel[entries[k].offset + column];
          }
          if (adds) sum += addend[row * stride + column];
          expected[row * stride + column] = clips ? std::clamp(sum, -0.25, 0.5) : sum;
        }
      }
    }
    for (size_t at = 0; at < y.size(); ++at) checks.check(is_close(y[at], expected[at]), "result", at);
  }
}

void test_memory(Checks& checks) {
  std::mt19937 engine(9);
  const auto below = [&](size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(engine); };
  for (size_t round = 0; round < 100; ++round) {
    std::vector<Use> uses;
    for (size_t i = 0; i < 12; ++i) {
      const size_t first = below(10);
      uses.push_back({16 * (1 + below(9)), first, first + below(5)});
    }
    const MemoryPlan plan = plan_memory(uses);
    for (size_t a = 0; a < uses.size(); ++a) {
      checks.check(plan.places[a] % 16 == 0 && plan.places[a] + uses[a].floats <= plan.floats, "place", a);
      for (size_t b = 0; b < a; ++b) {
        const bool together = uses[a].first <= uses[b].last && uses[b].first <= uses[a].last;
        const bool apart = plan.places[a] + uses[a].floats <= plan.places[b] ||
                           plan.places[b] + uses[b].floats <= plan.places[a];
        checks.check(!together || apart, "place of values of one time", a);
      }
    }
  }
}

}  // namespace

size_t test_plane_kernels(const Kernels& kernels) {
  Checks checks(kernels.name);
  for (const size_t size : {1, 2, 3, 5}) {
    for (const size_t stride : {1, 2, 3}) {
      for (const size_t pad : {size_t{0}, size / 2}) {
        for (const size_t rows : {5, 8, 14}) {
          for (const size_t columns : {5, 7, 16, 19, 33, 40, 83}) {
            const Window w = window(rows, columns, size, stride, pad);
            test_pool(kernels, w, checks);
            for (const bool clips : {false, true}) {
              if (stride < 3) test_depthwise(kernels, w, clips, checks);
              test_depthwise_direct(kernels, w, clips, checks);
              test_depthwise_direct(kernels, window(rows, columns, size, stride, pad + 17), clips, checks);
              if (stride < 3) test_dense(kernels, w, rows == 5 ? 13 : 8, clips, checks);
            }
          }
        }
      }
    }
  }
  for (size_t vectors = 1; vectors <= kernels.max_vectors; ++vectors) {
    for (const bool adds : {false, true}) {
      for (const bool clips : {false, true}) test_last_block(kernels, vectors, adds, clips, checks);
    }
  }
  test_memory(checks);
  return checks.failures();
}

}  // namespace onnxprune
