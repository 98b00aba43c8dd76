#include "byte_kernel_test.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "aligned_floats.h"

namespace onnxprune {
namespace {

constexpr size_t kColumns = 9;
constexpr size_t kGuard = 64;
constexpr uint32_t kUntouched = 0x7fa5a5a5;

std::mt19937 g_random(1);

uint32_t below(uint32_t limit) { return std::uniform_int_distribution<uint32_t>(0, limit - 1)(g_random); }

// Words aligned to 64 bytes that end where their memory ends, with guards around those that kernels write.
class Words {
 public:
  explicit Words(size_t count, size_t guard = 0) : count_(count), guard_(guard) {
    begin_ = memory_.at_least(count + 2 * guard);
    for (size_t i = 0; i < count + 2 * guard; ++i) put(begin_ + i, kUntouched);
  }
  float* data() { return begin_ + guard_; }
  uint32_t operator[](size_t index) { return get(data() + index); }
  void set(size_t index, uint32_t word) { put(data() + index, word); }
  // Extreme bytes among them.
  void fill() {
    for (size_t i = 0; i < count_; ++i) set(i, random_word());
  }
  static uint32_t random_word() {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      constexpr uint32_t kExtremes[] = {0, 0x7f, 0x80, 0xff};
      word = word << 8 | (below(2) == 0 ? below(256) : kExtremes[below(4)]);
    }
    return word;
  }
  bool guards_hold() {
    for (size_t i = 0; i < guard_; ++i) {
      if (get(begin_ + i) != kUntouched || get(data() + count_ + i) != kUntouched) return false;
    }
    return true;
  }

 private:
  static uint32_t get(const float* from) {
    uint32_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
  }
  static void put(float* to, uint32_t word) { std::memcpy(to, &word, sizeof word); }

  AlignedFloats memory_;
  size_t count_;
  size_t guard_;
  float* begin_;
};

float as_float(uint32_t word) {
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// The four products of u8, or s8, by s8, the first bytes at the lowest addresses.
uint32_t product(uint32_t panel, uint32_t weight, bool signed_panels) {
  uint8_t panel_bytes[4];
  int8_t weight_bytes[4];
  std::memcpy(panel_bytes, &panel, 4);
  std::memcpy(weight_bytes, &weight, 4);
  uint32_t sum = 0;
  for (int i = 0; i < 4; ++i) {
    const int factor = signed_panels ? static_cast<int8_t>(panel_bytes[i]) : panel_bytes[i];
    sum += static_cast<uint32_t>(factor * weight_bytes[i]);
  }
  return sum;
}

size_t report(bool holds, const char* isa, const char* what, size_t size, size_t at) {
  if (!holds) std::printf("%s bytes: %s of %zu is wrong at %zu\n", isa, what, size, at);
  return holds ? 0 : 1;
}

// Rows alone with 0 to kColumns entries, then a group of four; the sums start at a bias, or go on.
size_t test_products(const ByteKernels& kernels, size_t vectors, bool biased) {
  const char* const isa = kernels.words.name;
  const size_t pitch = vectors * kernels.words.lanes;
  Words panel(kColumns * pitch);
  panel.fill();
  const size_t rows = kColumns + 1 + 4;
  Words bias(rows);
  bias.fill();
  Words sums(rows * pitch, kGuard);
  sums.fill();
  std::vector<uint32_t> expected(rows * pitch);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = biased ? bias[i / pitch] : sums[i];
  std::vector<SpmmRun> runs;
  std::vector<uint32_t> row_numbers;
  std::vector<SpmmEntry> entries;
  const auto add = [&](size_t row, size_t column, uint32_t word) {
    for (size_t i = 0; i < pitch; ++i) {
      expected[row * pitch + i] += product(panel[column * pitch + i], word, kernels.signed_panels);
    }
  };
  for (uint32_t row = 0; row <= kColumns; ++row) {
    runs.push_back({1, row});
    row_numbers.push_back(row);
    for (size_t column = 0; column < row; ++column) {
      const uint32_t word = Words::random_word();
      entries.push_back({static_cast<uint32_t>(column * pitch), as_float(word)});
      add(row, column, word);
    }
  }
  const SpmmRun quad_run{1, kColumns};
  const uint32_t quad_row = kColumns + 1;
  std::vector<SpmmQuad> quads;
  for (size_t column = 0; column < kColumns; ++column) {
    SpmmQuad quad{static_cast<uint32_t>(column * pitch), {}};
    for (size_t r = 0; r < 4; ++r) {
      const uint32_t word = Words::random_word();
      quad.values[r] = as_float(word);
      add(quad_row + r, column, word);
    }
    quads.push_back(quad);
  }
  const SpmmBlock block{{runs.data(), runs.size(), row_numbers.data(), entries.data()},
                        {&quad_run, 1, &quad_row, quads.data()}};
  kernels.words.spmm(block, vectors, panel.data(), biased ? bias.data() : nullptr, sums.data());
  size_t failures = report(sums.guards_hold(), isa, "a guard of products", vectors, 0);
  for (size_t i = 0; i < expected.size() && failures < 10; ++i) {
    failures += report(sums[i] == expected[i], isa, "a product", vectors, i);
  }
  return failures;
}

size_t test_interleave(const ByteKernels& kernels, size_t rows, size_t count) {
  const char* const isa = kernels.words.name;
  const size_t stride = count + 3;
  std::vector<uint8_t> from((rows - 1) * stride + count);
  for (uint8_t& byte : from) byte = static_cast<uint8_t>(below(256));
  size_t failures = 0;
  for (const uint8_t flip : {uint8_t{0}, uint8_t{0x80}}) {
    Words to(count, kGuard);
    kernels.interleave(from.data(), stride, rows, count, flip, to.data());
    failures += report(to.guards_hold(), isa, "a guard of interleaved rows", count, 0);
    for (size_t i = 0; i < count; ++i) {
      const uint32_t word = to[i];
      uint8_t bytes[4];
      std::memcpy(bytes, &word, 4);
      for (size_t row = 0; row < rows; ++row) {
        failures += report(bytes[row] == (from[row * stride + i] ^ flip), isa, "an interleaved row", count, i);
      }
    }
  }
  return failures;
}

// With one scale, or with one for each sum.
size_t test_requantize(const ByteKernels& kernels, const OutputRange& range, float scale, bool each, size_t count) {
  const char* const isa = kernels.words.name;
  std::vector<float> scales(each ? count : 1, scale);
  for (size_t i = 1; i < scales.size(); i += 2) scales[i] *= 0.37f;
  Words sums(count);
  for (size_t i = 0; i < count; ++i) {
    const int32_t edges[] = {0, 1, -1, 3, -3, 255, std::numeric_limits<int32_t>::max(),
                             std::numeric_limits<int32_t>::min()};
    const uint32_t any[] = {static_cast<uint32_t>(edges[below(8)]), below(1u << 31), below(600) - 300};
    sums.set(i, any[below(3)]);
  }
  std::vector<uint8_t> to(count + 2 * kGuard, 0xa5);
  kernels.requantize(range, scales.data(), each, sums.data(), count, to.data() + kGuard);
  Words products(count, kGuard);
  kernels.dequantize(scales.data(), each, sums.data(), count, products.data());
  size_t failures = report(products.guards_hold(), isa, "a guard of dequantized sums", count, 0);
  for (size_t i = 0; i < count; ++i) {
    const float scaled = static_cast<float>(static_cast<int32_t>(sums[i])) * scales[each ? i : 0];
    failures += report(same(as_float(products[i]), scaled), isa, "a dequantized sum", count, i);
    const float low = static_cast<float>(range.low - range.zero_point);
    const float high = static_cast<float>(range.high - range.zero_point);
    const float kept = std::isnan(scaled) ? low : std::min(std::max(scaled, low), high);
    const auto wanted = static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(kept)) + range.zero_point);
    failures += report(to[kGuard + i] == wanted, isa, "a requantized sum", count, i);
  }
  const bool holds = std::all_of(to.begin(), to.begin() + kGuard, [](uint8_t byte) { return byte == 0xa5; }) &&
                     std::all_of(to.end() - kGuard, to.end(), [](uint8_t byte) { return byte == 0xa5; });
  return failures + report(holds, isa, "a guard of requantized sums", count, 0);
}

// The way from floats to bytes, and the sums of floats.
size_t test_floats(const ByteKernels& kernels, size_t count) {
  const char* const isa = kernels.words.name;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = static_cast<float>(below(2001)) / 100.0f - 7.0f;
  float low = 1;
  float high = 2;
  kernels.extremes(numbers.data(), count, &low, &high);
  float wanted_low = 1;
  float wanted_high = 2;
  for (const float number : numbers) {
    wanted_low = std::min(wanted_low, number);
    wanted_high = std::max(wanted_high, number);
  }
  size_t failures = report(low == wanted_low && high == wanted_high, isa, "the extremes", count, 0);
  if (count > 2) numbers[count / 2] = std::numeric_limits<float>::quiet_NaN();
  const float scale = 0.0371f;
  const OutputRange range{100, 0, 255};
  std::vector<uint8_t> bytes(count + kGuard, 0xa5);
  kernels.quantize(range, scale, numbers.data(), count, bytes.data());
  std::vector<float> totals(numbers);
  kernels.add(numbers.data(), count, totals.data());
  for (size_t i = 0; i < count; ++i) {
    const float quotient = numbers[i] / scale;
    const float kept = std::isnan(quotient) ? -100.0f : std::min(std::max(quotient, -100.0f), 155.0f);
    const auto wanted = static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(kept)) + 100);
    failures += report(bytes[i] == wanted, isa, "a quantized number", count, i);
    failures += report(same(totals[i], numbers[i] + numbers[i]), isa, "a sum of floats", count, i);
  }
  const bool holds = std::all_of(bytes.begin() + static_cast<ptrdiff_t>(count), bytes.end(),
                                 [](uint8_t byte) { return byte == 0xa5; });
  return failures + report(holds, isa, "a guard of quantized numbers", count, 0);
}

bool untouched(const std::vector<uint8_t>& bytes, size_t first, size_t last) {
  return std::all_of(bytes.begin() + static_cast<ptrdiff_t>(first), bytes.begin() + static_cast<ptrdiff_t>(last),
                     [](uint8_t byte) { return byte == 0xa5; });
}

std::vector<uint8_t> random_bytes(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(Words::random_word());
  return bytes;
}

// Sums of bytes, of ratios for which intermediate numbers fit 32 bits and of others.
size_t test_sums(const ByteKernels& kernels, float ratio, bool is_signed, size_t count) {
  const ByteSum sum{ratio, ratio * 0.75f, is_signed ? -3.0f : 117.5f, is_signed ? -128 : 0, is_signed ? 127 : 255};
  const std::vector<uint8_t> a = random_bytes(count);
  const std::vector<uint8_t> b = random_bytes(count);
  std::vector<uint8_t> to(count + 2 * kGuard, 0xa5);
  kernels.add_bytes(sum, a.data(), b.data(), count, to.data() + kGuard);
  const auto number = [is_signed](uint8_t byte) {
    return static_cast<float>(is_signed ? static_cast<int8_t>(byte) : static_cast<int32_t>(byte));
  };
  size_t failures = 0;
  for (size_t i = 0; i < count; ++i) {
    const float exact = std::fma(number(a[i]), sum.a_ratio, std::fma(number(b[i]), sum.b_ratio, sum.fixed));
    const float kept = std::min(std::max(exact, static_cast<float>(sum.low)), static_cast<float>(sum.high));
    const auto wanted = static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(kept)));
    failures += report(to[kGuard + i] == wanted, kernels.words.name, "a sum of bytes", count, i);
  }
  const bool holds = untouched(to, 0, kGuard) && untouched(to, kGuard + count, to.size());
  return failures + report(holds, kernels.words.name, "a guard of sums of bytes", count, 0);
}

size_t test_softmax(const ByteKernels& kernels, size_t rows, size_t count) {
  std::vector<float> table(256);
  for (size_t i = 0; i < table.size(); ++i) table[i] = std::exp((static_cast<float>(i) - 255) * 0.05f) * 1e30f;
  const ByteSoftmax softmax{table.data(), 255, 3};
  const std::vector<uint8_t> x = random_bytes(rows * count);
  std::vector<float> powers(count * kSoftmaxRows);
  std::vector<uint8_t> to(rows * count + 2 * kGuard, 0xa5);
  kernels.softmax_bytes(softmax, x.data(), rows, count, powers.data(), to.data() + kGuard);
  size_t failures = 0;
  for (size_t row = 0; row < rows; ++row) {
    const uint8_t* const from = x.data() + row * count;
    const size_t shift = 255 - *std::max_element(from, from + count);
    float sum = 0;
    for (size_t i = 0; i < count; ++i) sum += table[shift + from[i]];
    for (size_t i = 0; i < count; ++i) {
      const double exact = static_cast<double>(table[shift + from[i]]) * 255 / static_cast<double>(sum);
      const int wanted = static_cast<int>(std::nearbyint(static_cast<float>(exact))) + 3;
      const uint8_t found = to[kGuard + row * count + i];
      failures += report(found == std::min(wanted, 255), kernels.words.name, "a share", count, row * count + i);
    }
  }
  const bool holds = untouched(to, 0, kGuard) && untouched(to, kGuard + rows * count, to.size());
  return failures + report(holds, kernels.words.name, "a guard of shares", count, 0);
}

}  // namespace

size_t test_byte_kernels(const ByteKernels& kernels) {
  size_t failures = 0;
  for (const size_t count : {1, 15, 16, 17, 63, 64, 65, 150, 200}) {
    for (const float ratio : {0.5f, 0.031f, -0.3f, 1e5f, 1e12f}) {
      for (const bool is_signed : {false, true}) failures += test_sums(kernels, ratio, is_signed, count);
    }
    for (const size_t rows : {1, 3, 4, 9}) failures += test_softmax(kernels, rows, count);
  }
  for (size_t vectors = 1; vectors <= kernels.words.max_vectors; ++vectors) {
    for (const bool biased : {false, true}) failures += test_products(kernels, vectors, biased);
  }
  for (const size_t count : {0, 1, 7, 16, 63, 64, 65, 200}) {
    failures += test_floats(kernels, count);
    for (size_t rows = 1; rows <= 4; ++rows) failures += test_interleave(kernels, rows, count);
    for (const OutputRange& range : {OutputRange{0, 0, 255}, OutputRange{255, 0, 255}, OutputRange{128, 0, 255},
                                     OutputRange{-128, -128, 127}, OutputRange{127, -128, 127}}) {
      for (const float scale : {0.5f, 0.0371f, 1e-9f, 1e30f, std::numeric_limits<float>::infinity(), 0.0f}) {
        for (const bool each : {false, true}) failures += test_requantize(kernels, range, scale, each, count);
      }
    }
  }
  return failures;
}

}  // namespace onnxprune
