#include "dynamic_quantization.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace onnxprune {
namespace {

// Numbers of a task; fewer do not pay for waking a thread.
constexpr size_t kTaskNumbers = 1 << 15;

struct Range {
  float low = 0;
  float high = 0;
};

}  // namespace

DynamicScale quantize_dynamically(const ByteKernels& kernels, const float* x, size_t count, uint8_t* to,
                                  const Threads& threads) {
  const size_t tasks = std::max<size_t>((count + kTaskNumbers - 1) / kTaskNumbers, 1);
  const auto begin = [&](size_t task) { return count * task / tasks; };
  std::vector<Range> ranges(tasks);
  threads.run(tasks, [&](size_t task) {
    kernels.extremes(x + begin(task), begin(task + 1) - begin(task), &ranges[task].low, &ranges[task].high);
  });
  Range range;
  for (const Range& each : ranges) range = {std::min(range.low, each.low), std::max(range.high, each.high)};
  DynamicScale found{1, 0};
  if (range.high > range.low) {
    found.scale = (range.high - range.low) / 255.0f;
    const float zero = std::min(std::max(0.0f - range.low / found.scale, 0.0f), 255.0f);
    // An infinite range has no zero point.
    found.zero_point = std::isnan(zero) ? uint8_t{0} : static_cast<uint8_t>(std::nearbyint(zero));
  }
  const OutputRange bytes{found.zero_point, 0, 255};
  threads.run(tasks, [&](size_t task) {
    kernels.quantize(bytes, found.scale, x + begin(task), begin(task + 1) - begin(task), to + begin(task));
  });
  return found;
}

}  // namespace onnxprune
