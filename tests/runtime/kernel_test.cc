// Tests of the micro-kernels against plain loops, without onnxruntime: `kernel_test [INSTRUCTION_SET [CASE]]`.
//
// Ends with 0 where everything holds, 1 where something does not, 77 where this machine lacks the instruction set.
// Outputs lie between guards, which no kernel may touch; inputs end where their memory ends in a build with
// AddressSanitizer, and elsewhere before NaNs.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "aligned_floats.h"
#include "byte_kernel_test.h"
#include "cpu.h"
#include "kernels/kernels.h"
#include "ort/forms.h"
#include "plane_kernel_test.h"
#include "sparse_conv.h"
#include "sparse_gemm.h"
#include "threads.h"

namespace {

using namespace onnxprune;

constexpr int kPassed = 0;
constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;
constexpr int kSkipped = 77;

constexpr double kEpsilon = 1.0 / (1 << 24);
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// What was looked at, and what was wrong with it.
struct Tally {
  const char* isa;
  const char* name;
  size_t checks = 0;
  size_t failures = 0;

  void check(bool holds, const char* format, ...) {
    ++checks;
    if (holds) return;
    constexpr size_t kMaxPrinted = 10;
    if (++failures > kMaxPrinted) return;
    std::printf("%s %s: ", isa, name);
    va_list arguments;
    va_start(arguments, format);
    std::vprintf(format, arguments);
    va_end(arguments);
    std::printf("\n");
  }
};

uint32_t bits_of(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// A NaN that no arithmetic makes.
float untouched() {
  const uint32_t bits = 0x7fa5a5a5;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

bool is_untouched(float value) { return (bits_of(value) & 0xffff) == 0xa5a5 && std::isnan(value); }

// `count` floats aligned to 64 bytes, `guard` more on both sides; all of them untouched.
class Floats {
 public:
  Floats(size_t count, size_t guard) : count_(count), guard_(guard), begin_(memory_.at_least(count + 2 * guard)) {
    std::fill_n(begin_, count + 2 * guard, untouched());
  }
  Floats(const Floats&) = delete;

  size_t count() const { return count_; }
  float* data() { return begin_ + guard_; }
  float& operator[](size_t index) { return data()[index]; }
  bool guards_hold() const {
    const float* const end = begin_ + 2 * guard_ + count_;
    return std::all_of(begin_, begin_ + guard_, is_untouched) && std::all_of(end - guard_, end, is_untouched);
  }

 private:
  AlignedFloats memory_;
  size_t count_;
  size_t guard_;
  float* begin_;
};

constexpr size_t kGuard = 64;

struct Output : Floats {
  explicit Output(size_t count) : Floats(count, kGuard) {}
};

struct Input : Floats {
#if defined(__SANITIZE_ADDRESS__)
  explicit Input(size_t count) : Floats(count, 0) {}
#else
  explicit Input(size_t count) : Floats(count, kGuard) {}
#endif
};

class Random {
 public:
  float value() { return std::uniform_real_distribution<float>(-1, 1)(engine_); }
  size_t below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(engine_); }
  void fill(Floats& floats) {
    std::generate_n(floats.data(), floats.count(), [this] { return value(); });
  }
  void shuffle(std::vector<uint32_t>& values) { std::shuffle(values.begin(), values.end(), engine_); }

 private:
  std::mt19937 engine_{1};
};

// A sum in double and the most that floats, added in any order, may be away from it.
struct Sum {
  double value = 0;
  double magnitude = 0;
  size_t terms = 0;

  void add(double term) {
    value += term;
    magnitude += std::abs(term);
    ++terms;
  }
  bool is(float got) const { return std::abs(got - value) <= static_cast<double>(terms + 1) * kEpsilon * magnitude; }
};

// ---------------------------------------------------------------------------------------------------------- SpMM

// The numbers of entries of rows: around every number by which the kernels unroll, none, and all.
constexpr size_t kEntryCounts[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 11};
constexpr size_t kColumns = 11;

// Rows of a block in the order that kernels want, from counts of entries in the order of the rows.
template <class Entry>
struct Rows {
  std::vector<SpmmRun> runs;
  std::vector<uint32_t> rows;
  std::vector<Entry> entries;

  // `entries_of[i]` are those of row `first_rows[i]`.
  Rows(const std::vector<uint32_t>& first_rows, const std::vector<std::vector<Entry>>& entries_of) {
    std::vector<size_t> order(first_rows.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return entries_of[a].size() < entries_of[b].size(); });
    for (const size_t i : order) {
      const auto count = static_cast<uint32_t>(entries_of[i].size());
      if (runs.empty() || runs.back().entries_per_row != count) runs.push_back({0, count});
      ++runs.back().rows;
      rows.push_back(first_rows[i]);
      entries.insert(entries.end(), entries_of[i].begin(), entries_of[i].end());
    }
    entries.shrink_to_fit();
  }
  SpmmRows<Entry> view() const { return {runs.data(), runs.size(), rows.data(), entries.data()}; }
};

// Which rows a block has, and how full they are.
struct Pattern {
  const char* name;
  bool singles;
  bool quads;
  size_t least_entries;
  size_t most_entries;
};

constexpr Pattern kPatterns[] = {
    {"no rows", false, false, 0, 0},
    {"rows alone", true, false, 0, kColumns},
    {"fours of rows", false, true, 0, kColumns},
    {"rows alone and fours", true, true, 0, kColumns},
    {"empty rows", true, false, 0, 0},
    {"full rows", true, false, kColumns, kColumns},
    {"full fours of rows", false, true, kColumns, kColumns},
};

void test_spmm_block(const Kernels& kernels, const Pattern& pattern, size_t vectors, bool biased, Random& random,
                     Tally& tally) {
  const size_t lanes = kernels.lanes;
  const size_t pitch = vectors * lanes;
  // Panel rows farther apart than a tile is wide, as a convolution's are.
  const size_t stride = pitch + random.below(3) * lanes;
  Input panel((kColumns - 1) * stride + pitch);
  random.fill(panel);
  std::vector<size_t> counts;
  for (const size_t count : kEntryCounts) {
    if (count >= pattern.least_entries && count <= pattern.most_entries) counts.push_back(count);
  }
  const auto columns_of_row = [&](size_t count) {
    std::vector<uint32_t> columns(kColumns);
    std::iota(columns.begin(), columns.end(), 0);
    random.shuffle(columns);
    columns.resize(count);
    return columns;
  };
  // Every count twice, every third row left out.
  std::vector<uint32_t> single_rows;
  std::vector<uint32_t> quad_rows;
  std::vector<std::vector<SpmmEntry>> singles;
  std::vector<std::vector<SpmmQuad>> quads;
  uint32_t row = 0;
  for (size_t i = 0; i < 2 * counts.size(); ++i) {
    const size_t count = counts[i % counts.size()];
    if (pattern.singles) {
      std::vector<SpmmEntry> entries;
      for (const uint32_t column : columns_of_row(count)) {
        // Rows alone may see the panel from any float on.
        const uint32_t shift = column + 1 < kColumns && stride > pitch ? static_cast<uint32_t>(random.below(2)) : 0;
        entries.push_back({column * static_cast<uint32_t>(stride) + shift, random.value()});
      }
      single_rows.push_back(row++);
      singles.push_back(entries);
    }
    if (pattern.quads) {
      std::vector<SpmmQuad> entries;
      for (const uint32_t column : columns_of_row(count)) {
        entries.push_back(
            {column * static_cast<uint32_t>(stride), {random.value(), 0.0f, random.value(), random.value()}});
      }
      quad_rows.push_back(row);
      quads.push_back(entries);
      row += 4;
    }
    if (i % 2 == 0) ++row;
  }
  const size_t row_count = row + 1;
  Input bias(row_count);
  random.fill(bias);
  Output sums(row_count * pitch);
  std::vector<Sum> expected(row_count * pitch);
  std::vector<bool> is_written(row_count);
  const auto begin_row = [&](size_t at) {
    is_written[at] = true;
    for (size_t i = at * pitch; i < (at + 1) * pitch; ++i) {
      // With a bias the sums are written whatever they were.
      if (!biased) sums[i] = random.value();
      expected[i].add(biased ? bias[at] : sums[i]);
    }
  };
  const auto add = [&](size_t at, float value, size_t offset) {
    for (size_t i = 0; i < pitch; ++i) expected[at * pitch + i].add(static_cast<double>(value) * panel[offset + i]);
  };
  for (size_t i = 0; i < single_rows.size(); ++i) {
    begin_row(single_rows[i]);
    for (const SpmmEntry& entry : singles[i]) add(single_rows[i], entry.value, entry.offset);
  }
  for (size_t i = 0; i < quad_rows.size(); ++i) {
    for (size_t r = 0; r < 4; ++r) {
      begin_row(quad_rows[i] + r);
      for (const SpmmQuad& entry : quads[i]) add(quad_rows[i] + r, entry.values[r], entry.offset);
    }
  }
  const Rows<SpmmEntry> single_block(single_rows, singles);
  const Rows<SpmmQuad> quad_block(quad_rows, quads);
  kernels.spmm({single_block.view(), quad_block.view()}, vectors, panel.data(), biased ? bias.data() : nullptr,
               sums.data());
  for (size_t at = 0; at < row_count; ++at) {
    for (size_t i = at * pitch; i < (at + 1) * pitch; ++i) {
      const bool holds = is_written[at] ? expected[i].is(sums[i]) : is_untouched(sums[i]);
      tally.check(holds, "%s, %zu vectors%s: row %zu, column %zu is %g, not %g", pattern.name, vectors,
                  biased ? ", with a bias" : "", at, i - at * pitch, sums[i], is_written[at] ? expected[i].value : NAN);
    }
  }
  tally.check(sums.guards_hold(), "%s, %zu vectors: wrote outside of the sums", pattern.name, vectors);
}

void test_spmm(const Kernels& kernels, Tally& tally) {
  Random random;
  for (const Pattern& pattern : kPatterns) {
    for (size_t vectors = 1; vectors <= kernels.max_vectors; ++vectors) {
      for (const bool biased : {false, true}) test_spmm_block(kernels, pattern, vectors, biased, random, tally);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------- SpMV

// Rows of these numbers of entries over `columns` columns, and parts of them.
void test_spmv_block(const Kernels& kernels, const std::vector<size_t>& counts, size_t columns, Random& random,
                     Tally& tally) {
  std::vector<uint32_t> row_start{0};
  std::vector<uint16_t> entry_columns;
  for (const size_t count : counts) {
    std::vector<uint32_t> row(count);
    for (uint32_t& column : row) column = static_cast<uint32_t>(random.below(columns));
    // Full rows have every column, the first and the last are read in others.
    if (count == columns) std::iota(row.begin(), row.end(), 0);
    if (count > 0) row.back() = static_cast<uint32_t>(columns - 1);
    if (count > 1) row.front() = 0;
    std::sort(row.begin(), row.end());
    entry_columns.insert(entry_columns.end(), row.begin(), row.end());
    row_start.push_back(static_cast<uint32_t>(entry_columns.size()));
  }
  entry_columns.shrink_to_fit();
  Input values(entry_columns.size());
  random.fill(values);
  Input x(columns);
  random.fill(x);
  const SpmvBlock block{row_start.data(), entry_columns.data(), values.data()};
  const size_t rows = counts.size();
  const std::pair<size_t, size_t> parts[] = {{0, rows}, {0, rows / 2}, {rows / 2, rows}, {rows / 3, rows / 3}};
  for (const auto& [first, last] : parts) {
    Output sums(last - first);
    random.fill(sums);
    std::vector<Sum> expected(last - first);
    for (size_t row = first; row < last; ++row) {
      Sum& sum = expected[row - first];
      sum.add(sums[row - first]);
      for (size_t i = row_start[row]; i < row_start[row + 1]; ++i) {
        sum.add(static_cast<double>(values[i]) * x[entry_columns[i]]);
      }
    }
    kernels.spmv(block, first, last, x.data(), sums.data());
    for (size_t row = first; row < last; ++row) {
      tally.check(expected[row - first].is(sums[row - first]), "rows %zu to %zu: row %zu of %zu entries is %g, not %g",
                  first, last, row, counts[row], sums[row - first], expected[row - first].value);
    }
    tally.check(sums.guards_hold(), "rows %zu to %zu: wrote outside of the sums", first, last);
  }
}

void test_spmv(const Kernels& kernels, Tally& tally) {
  Random random;
  std::vector<size_t> growing;
  for (size_t count = 0; count < 70; ++count) growing.push_back(count);
  test_spmv_block(kernels, growing, 300, random, tally);
  // Around the size of a buffer, and rows that end with one.
  test_spmv_block(kernels, {255, 256, 257, 0, 0, 511, 1, 512, 0, 513, 1000, 3}, 2000, random, tally);
  test_spmv_block(kernels, {256, 0, 0, 256, 256, 0}, 256, random, tally);
  test_spmv_block(kernels, {128, 128, 0, 128, 127, 1, 0}, 4096, random, tally);
  // Columns up to the last that sixteen bits count.
  test_spmv_block(kernels, {40, 0, 700, 9}, size_t{1} << 16, random, tally);
  test_spmv_block(kernels, {1, 1, 0, 1}, 1, random, tally);
  // Empty rows alone, and full ones.
  test_spmv_block(kernels, {0, 0, 0, 0, 0}, 50, random, tally);
  test_spmv_block(kernels, {301, 301, 301}, 301, random, tally);
  // More empty rows than a buffer has entries.
  std::vector<size_t> sparse(1000);
  sparse[17] = sparse[999] = 1;
  test_spmv_block(kernels, sparse, 64, random, tally);
}

// x is NaN where no row has an entry.
void test_masked_rows(const Kernels& kernels, size_t columns, double density, Random& random, Tally& tally) {
  constexpr size_t kRows = 9;
  std::vector<CsrEntry> entries;
  Input x(columns);
  std::fill_n(x.data(), columns, kNan);
  for (uint32_t row = 0; row < kRows; ++row) {
    for (uint32_t column = 0; column < columns; ++column) {
      if (static_cast<double>(random.below(1000)) >= 1000 * density) continue;
      entries.push_back({row, column, random.value()});
      x[column] = random.value();
    }
  }
  CsrMatrix matrix(kRows, columns, columns, entries);
  matrix.add_masks(0);
  const std::pair<size_t, size_t> parts[] = {{0, kRows}, {2, 7}, {3, 3}};
  for (const auto& [first, last] : parts) {
    Output sums(last - first);
    random.fill(sums);
    std::vector<Sum> expected(last - first);
    for (size_t row = first; row < last; ++row) expected[row - first].add(sums[row - first]);
    for (const CsrEntry& entry : entries) {
      if (entry.row < first || entry.row >= last) continue;
      expected[entry.row - first].add(static_cast<double>(entry.value) * x[entry.column]);
    }
    kernels.spmv_masked(matrix.masked(matrix.blocks().front()), first, last, x.data(), sums.data());
    for (size_t i = 0; i < last - first; ++i) {
      tally.check(expected[i].is(sums[i]), "%zu columns at %g, row %zu is %g, not %g", columns, density, first + i,
                  sums[i], expected[i].value);
    }
    tally.check(sums.guards_hold(), "%zu columns, rows %zu to %zu: wrote outside of the sums", columns, first, last);
  }
}

void test_spmv_masked(const Kernels& kernels, Tally& tally) {
  if (kernels.spmv_masked == nullptr) return;
  Random random;
  for (const size_t columns : {1, 15, 16, 63, 64, 65, 100, 4096}) {
    for (const double density : {0.0, 0.05, 0.3, 1.0}) test_masked_rows(kernels, columns, density, random, tally);
  }
  // Two entries of one place have one bit, so that there are no masks.
  CsrMatrix twice(1, 2, 2, {{0, 1, 1}, {0, 1, 2}});
  twice.add_masks(0);
  tally.check(twice.blocks().front().masks.empty(), "two entries of one place have a mask");
}

// -------------------------------------------------------------------------------------------- Moving into panels

void test_transpose(const Kernels& kernels, Tally& tally) {
  Random random;
  const size_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33};
  for (const size_t rows : sizes) {
    for (const size_t columns : sizes) {
      for (const auto& [from_gap, to_gap] : {std::pair<size_t, size_t>{0, 0}, {3, 0}, {0, 40}, {40, 3}}) {
        const size_t from_stride = columns + from_gap;
        const size_t to_stride = rows + to_gap;
        Input from(rows == 0 ? 0 : (rows - 1) * from_stride + columns);
        random.fill(from);
        Output to(columns * to_stride);
        kernels.transpose(from.data(), from_stride, rows, columns, to.data(), to_stride);
        for (size_t i = 0; i < to.count(); ++i) {
          const size_t row = i % to_stride;
          const size_t column = i / to_stride;
          const bool holds =
              row < rows ? bits_of(to[i]) == bits_of(from[row * from_stride + column]) : is_untouched(to[i]);
          tally.check(holds, "%zu x %zu, strides %zu and %zu: row %zu of column %zu is %g", rows, columns, from_stride,
                      to_stride, row, column, to[i]);
        }
        tally.check(to.guards_hold(), "%zu x %zu: wrote outside of the output", rows, columns);
      }
    }
  }
}

// `counts[kind]` copies of each kind, `rows` times, from places in disorder to places that lie `gap` apart.
void test_copies(const Kernels& kernels, const size_t (&counts)[kCopyKinds], size_t rows, size_t gap, Random& random,
                 Tally& tally) {
  const size_t floats[kCopyKinds] = {kernels.lanes, kernels.lanes, 8, 4, 1};
  std::vector<Copy> copies;
  Copies view{};
  size_t target = 0;
  for (size_t kind = 0; kind < kCopyKinds; ++kind) {
    view.begin[kind] = copies.size();
    for (size_t i = 0; i < counts[kind]; ++i) {
      copies.push_back({static_cast<ptrdiff_t>(random.below(50)), static_cast<ptrdiff_t>(target)});
      target += floats[kind] + gap;
    }
  }
  view.begin[kCopyKinds] = copies.size();
  view.copies = copies.data();
  std::vector<ptrdiff_t> source_of(target, -1);
  size_t source_end = 0;
  for (size_t kind = 0; kind < kCopyKinds; ++kind) {
    const ptrdiff_t step = kind == kEveryOther ? 2 : 1;
    for (size_t i = view.begin[kind]; i < view.begin[kind + 1]; ++i) {
      for (size_t k = 0; k < floats[kind]; ++k) {
        const ptrdiff_t source = copies[i].source + step * static_cast<ptrdiff_t>(k);
        source_of[static_cast<size_t>(copies[i].target) + k] = source;
        source_end = std::max(source_end, static_cast<size_t>(source) + 1);
      }
    }
  }
  const size_t from_stride = source_end + 5;
  const size_t to_stride = target + 3;
  Input from(rows == 0 ? 0 : (rows - 1) * from_stride + source_end);
  random.fill(from);
  Output to(rows * to_stride);
  kernels.copy(view, from.data(), from_stride, rows, to.data(), to_stride);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < to_stride; ++i) {
      const float got = to[row * to_stride + i];
      const bool is_target = i < target && source_of[i] >= 0;
      const bool holds = is_target
                             ? bits_of(got) == bits_of(from[row * from_stride + static_cast<size_t>(source_of[i])])
                             : is_untouched(got);
      tally.check(holds, "%zu, %zu, %zu, %zu, %zu copies: row %zu, float %zu is %g", counts[0], counts[1], counts[2],
                  counts[3], counts[4], row, i, got);
    }
  }
  tally.check(to.guards_hold(), "copies wrote outside of the output");
}

void test_copy(const Kernels& kernels, Tally& tally) {
  Random random;
  for (const size_t rows : {0, 1, 2, 5}) {
    for (const size_t gap : {0, 1, 7}) {
      test_copies(kernels, {0, 0, 0, 0, 0}, rows, gap, random, tally);
      for (size_t kind = 0; kind < kCopyKinds; ++kind) {
        size_t counts[kCopyKinds] = {};
        for (counts[kind] = 1; counts[kind] < 4; ++counts[kind]) {
          test_copies(kernels, counts, rows, gap, random, tally);
        }
      }
      test_copies(kernels, {3, 2, 1, 4, 5}, rows, gap, random, tally);
    }
  }
}

// ------------------------------------------------------------------------------------------------------ Epilogues

// activation(z), and the most that a float's arithmetic may be away from it.
std::pair<double, double> activated(Activation activation, const Constants& constants, double z) {
  const auto between = [&](double value) {
    return value < constants.low ? constants.low : value > constants.high ? constants.high : value;
  };
  const double inner = constants.slope * z;
  // An error of its argument is one of exp, relative to it.
  const double exp_error = 6e-7 + 2 * kEpsilon * std::min(std::abs(inner), 100.0);
  switch (activation) {
    case Activation::kNone: return {z, 0};
    case Activation::kClip: return {between(z), kEpsilon * std::abs(between(z))};
    case Activation::kLeakyRelu: {
      const double value = z < 0 ? inner : z;
      return {value, 4 * kEpsilon * std::abs(value)};
    }
    case Activation::kSigmoid: {
      const double value = 1 / (1 + std::exp(-z));
      return {value, 6e-7 * value + 1e-37};
    }
    case Activation::kSilu: {
      const double value = z / (1 + std::exp(-inner));
      return {value, exp_error * std::abs(value) + 1e-35};
    }
    case Activation::kHardSwish: {
      const double value = z * between(inner + constants.offset) / constants.divisor;
      const double inner_error = 4 * kEpsilon * (std::abs(inner) + std::abs(constants.offset));
      return {value, std::abs(z / constants.divisor) * inner_error + 4 * kEpsilon * std::abs(value)};
    }
  }
  return {kNan, 0};
}

bool is_near(float got, const std::pair<double, double>& expected) {
  const auto& [value, error] = expected;
  if (std::isnan(value)) return std::isnan(got);
  if (std::isinf(value)) return got == value;
  return std::abs(got - value) <= error;
}

void test_epilogue(const Kernels& kernels, const std::string& name, const Epilogue& settings, bool has_addend,
                   size_t count, size_t first, Random& random, Tally& tally) {
  const float specials[] = {0.0f, -0.0f, kInf, -kInf, kNan, 86.9f, -86.9f, 88.5f, -88.5f, 1e4f, -1e4f, 3.0f, -3.0f};
  Output sums(count);
  Input addend(first + count);
  random.fill(addend);
  std::vector<std::pair<double, double>> expected;
  for (size_t i = 0; i < count; ++i) {
    // Some of them at every lane of a vector.
    const size_t draw = random.below(2 * std::size(specials));
    sums[i] = draw < std::size(specials) ? specials[draw] : 12 * random.value();
    // In float, as what is measured here is the activation.
    const float z = has_addend ? sums[i] + addend[first + i] : sums[i];
    expected.push_back(activated(settings.activation, settings.constants, z));
  }
  const std::vector<float> before(sums.data(), sums.data() + count);
  Epilogue epilogue = settings;
  epilogue.addend = has_addend ? addend.data() : nullptr;
  kernels.finish(epilogue, first, count, sums.data());
  for (size_t i = 0; i < count; ++i) {
    tally.check(is_near(sums[i], expected[i]), "'%s' of %zu sums from %zu on: sum %zu, %g, becomes %g, not %g",
                name.c_str(), count, first, i, before[i], sums[i], expected[i].first);
  }
  tally.check(sums.guards_hold(), "'%s' of %zu sums: wrote outside of them", name.c_str(), count);
}

void test_epilogues(const Kernels& kernels, Tally& tally) {
  Random random;
  for (const Form& form : forms()) {
    Epilogue epilogue;
    epilogue.activation = form.activation;
    for (const double slope : {form.constants.slope, 1.7}) {
      epilogue.constants = form.constants;
      epilogue.constants.slope = slope;
      // What inputs give in a model.
      for (double Constants::* const scalar : form.scalars) {
        epilogue.constants.*scalar = scalar == &Constants::low ? -0.5 : scalar == &Constants::offset ? 3 : 6;
      }
      for (const size_t count : {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100, 1000}) {
        for (const size_t first : {0, 5}) {
          test_epilogue(kernels, form.name, epilogue, form.has_addend, count, first, random, tally);
        }
      }
    }
  }
}

// ------------------------------------------------------------------------- Tiles, and the threads that share them

// A ParallelFor of so many threads, and the number of tasks of its last call.
class Lender {
 public:
  explicit Lender(size_t threads) : threads_(threads) {}

  Threads threads() {
    const auto parallel_for = [this](size_t count, const std::function<void(size_t)>& task) {
      last_count_ = count;
      std::atomic<size_t> next{0};
      const auto work = [&] {
        for (size_t i = next++; i < count; i = next++) task(i);
      };
      std::vector<std::thread> helpers;
      for (size_t i = 1; i < threads_; ++i) helpers.emplace_back(work);
      work();
      for (std::thread& helper : helpers) helper.join();
    };
    return {parallel_for, count_};
  }
  size_t last_count() const { return last_count_; }

 private:
  size_t threads_;
  ThreadCount count_;
  size_t last_count_ = 0;
};

SparseWeight random_weight(const std::vector<int64_t>& shape, double density, Random& random) {
  SparseWeight weight{shape, {}, {}};
  uint64_t size = 1;
  for (const int64_t dimension : shape) size *= static_cast<uint64_t>(dimension);
  for (uint64_t position = 0; position < size; ++position) {
    if (random.below(1000) >= static_cast<size_t>(1000 * density)) continue;
    weight.positions.push_back(position);
    weight.values.push_back(random.value());
  }
  return weight;
}

constexpr double kSlope = 0.1;

// Of an activation that changes sums below zero.
Epilogue epilogue_with(float* addend) {
  Epilogue epilogue;
  epilogue.activation = Activation::kLeakyRelu;
  epilogue.constants.slope = kSlope;
  epilogue.addend = addend;
  return epilogue;
}

// Checks y against sums, whose last term is the addend.
void check_output(const char* name, size_t threads, Output& y, const std::vector<Sum>& sums, Tally& tally) {
  for (size_t i = 0; i < y.count(); ++i) {
    const double factor = sums[i].value < 0 ? kSlope : 1;
    const double error = static_cast<double>(sums[i].terms + 4) * kEpsilon * sums[i].magnitude;
    tally.check(std::abs(y[i] - factor * sums[i].value) <= error, "%s on %zu threads: output %zu is %g, not %g", name,
                threads, i, y[i], factor * sums[i].value);
  }
  tally.check(y.guards_hold(), "%s on %zu threads: wrote outside of the output", name, threads);
}

// A 3x3 convolution with padding 1. Returns the tasks of its second run.
size_t test_conv(const Kernels& kernels, size_t threads, int64_t outputs, int64_t channels, int64_t side,
                 double density, Tally& tally) {
  Random random;
  const SparseWeight weight = random_weight({outputs, channels, 3, 3}, density, random);
  ConvAttributes attributes;
  attributes.pads = {1, 1, 1, 1};
  SparseConv conv(kernels, weight, attributes);
  const auto pixels = static_cast<size_t>(side * side);
  Input x(static_cast<size_t>(channels) * pixels);
  random.fill(x);
  Input bias(static_cast<size_t>(outputs));
  random.fill(bias);
  Input addend(static_cast<size_t>(outputs) * pixels);
  random.fill(addend);
  std::vector<Sum> sums(addend.count());
  for (size_t i = 0; i < sums.size(); ++i) sums[i].add(bias[i / pixels]);
  for (size_t i = 0; i < weight.positions.size(); ++i) {
    const auto position = static_cast<int64_t>(weight.positions[i]);
    const int64_t row_shift = position / 3 % 3 - 1;
    const int64_t column_shift = position % 3 - 1;
    const int64_t channel = position / 9 % channels;
    const int64_t output = position / 9 / channels;
    const auto value = static_cast<double>(static_cast<float>(weight.values[i]));
    for (int64_t row = std::max<int64_t>(-row_shift, 0); row < std::min(side, side - row_shift); ++row) {
      for (int64_t column = std::max<int64_t>(-column_shift, 0); column < std::min(side, side - column_shift);
           ++column) {
        const auto from = static_cast<size_t>((channel * side + row + row_shift) * side + column + column_shift);
        sums[static_cast<size_t>((output * side + row) * side + column)].add(value * x[from]);
      }
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) sums[i].add(addend[i]);
  Lender lender(threads);
  for (size_t run = 0; run < 2; ++run) {
    Output y(sums.size());
    conv.run(x.data(), {1, channels, side, side}, bias.data(), y.data(), lender.threads(),
             epilogue_with(addend.data()));
    check_output("Conv", threads, y, sums, tally);
  }
  return lender.last_count();
}

// Rows of X times a matrix. Returns the tasks of its second run.
size_t test_gemm(const Kernels& kernels, size_t threads, size_t count, size_t outputs, size_t inputs, double density,
                 Tally& tally) {
  Random random;
  const SparseWeight weight =
      random_weight({static_cast<int64_t>(outputs), static_cast<int64_t>(inputs)}, density, random);
  SparseGemm gemm(kernels, std::move(to_csr_matrices(weight, {1, outputs, inputs, false}, 1.0).front()));
  Input x(count * inputs);
  random.fill(x);
  Input bias(outputs);
  random.fill(bias);
  Input addend(count * outputs);
  random.fill(addend);
  std::vector<Sum> sums(count * outputs);
  for (size_t n = 0; n < count; ++n) {
    for (size_t m = 0; m < outputs; ++m) sums[n * outputs + m].add(bias[m]);
    for (size_t i = 0; i < weight.positions.size(); ++i) {
      const auto value = static_cast<double>(static_cast<float>(weight.values[i]));
      sums[n * outputs + weight.positions[i] / inputs].add(value * x[n * inputs + weight.positions[i] % inputs]);
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) sums[i].add(addend[i]);
  Lender lender(threads);
  for (size_t run = 0; run < 2; ++run) {
    Output y(sums.size());
    gemm.run({x.data(), count, inputs, false}, bias.data(), y.data(), lender.threads(), epilogue_with(addend.data()));
    check_output("Gemm", threads, y, sums, tally);
  }
  return lender.last_count();
}

// The processors that this process may use: max_threads() of some C++ libraries counts all of the machine.
size_t usable_processors() {
#ifdef __linux__
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) == 0) return static_cast<size_t>(CPU_COUNT(&usable));
#endif
  return max_threads();
}

// Whether it has more tasks than one; a busy machine, or an emulated one, may hide threads for a while, but shows none
// that are not there.
template <class Run>
bool is_divided(const Run& count_tasks, bool expected) {
  const size_t attempts = expected ? 200 : 10;
  for (size_t i = 0; i < attempts; ++i) {
    if (count_tasks() > 1) return true;
  }
  return false;
}

void test_tiles(const Kernels& kernels, Tally& tally) {
  for (const size_t threads : {1, 2, 3}) {
    for (const double density : {0.0, 0.1, 1.0}) {
      for (const int64_t side : {1, 3, 7, 13, 30}) test_conv(kernels, threads, 13, 5, side, density, tally);
      for (const size_t count : {1, 2, 9, 40, 130}) test_gemm(kernels, threads, count, 70, 33, density, tally);
    }
    // One tile of many rows: divided where there are threads to share it.
    const bool divides = threads > 1 && max_threads() > 1;
    const auto conv_tasks = [&] { return test_conv(kernels, threads, 600, 9, 2, 0.2, tally); };
    const auto gemm_tasks = [&] { return test_gemm(kernels, threads, 3, 600, 40, 0.2, tally); };
    if (divides && usable_processors() == 1) {
      // Threads that take turns may not be seen, or may.
      conv_tasks();
      gemm_tasks();
      continue;
    }
    const bool conv = is_divided(conv_tasks, divides), gemm = is_divided(gemm_tasks, divides);
    tally.check(conv == divides, "a tile of a Conv on %zu threads is divided: %d", threads, conv);
    tally.check(gemm == divides, "a tile of a Gemm on %zu threads is divided: %d", threads, gemm);
  }
}

void test_planes(const Kernels& kernels, Tally& tally) { tally.failures += test_plane_kernels(kernels); }

struct Case {
  const char* name;
  void (*test)(const Kernels& kernels, Tally& tally);
};

constexpr Case kCases[] = {
    {"spmm", test_spmm}, {"spmv", test_spmv},          {"spmv_masked", test_spmv_masked}, {"transpose", test_transpose},
    {"copy", test_copy}, {"epilogue", test_epilogues}, {"tiles", test_tiles},
    {"planes", test_planes},
};

}  // namespace

int main(int argument_count, char** arguments) {
  const std::string wanted_isa = argument_count > 1 ? arguments[1] : "";
  const std::string wanted_case = argument_count > 2 ? arguments[2] : "";
  bool is_case = wanted_case.empty();
  size_t ran = 0;
  size_t failures = 0;
  for (const Case& one : kCases) {
    if (!wanted_case.empty() && wanted_case != one.name) continue;
    is_case = true;
    for (const Kernels* const kernels : runnable_kernels()) {
      if (!wanted_isa.empty() && wanted_isa != kernels->name) continue;
      Tally tally{kernels->name, one.name};
      one.test(*kernels, tally);
      std::printf("%s %s: %zu checks, %zu failures\n", tally.isa, tally.name, tally.checks, tally.failures);
      failures += tally.failures;
      ++ran;
    }
  }
  for (const ByteKernels* const kernels : runnable_byte_kernels()) {
    // "avx512" tests avx512vnni as well.
    const std::string name = kernels->words.name;
    if ((!wanted_case.empty() && wanted_case != "bytes") || name.rfind(wanted_isa, 0) != 0) continue;
    is_case = true;
    const size_t failed = test_byte_kernels(*kernels) + test_quantized(*kernels);
    std::printf("%s bytes: %zu failures\n", name.c_str(), failed);
    failures += failed;
    ++ran;
  }
  if (!is_case) {
    std::printf("There is no case '%s'.\n", wanted_case.c_str());
    return kWrongUsage;
  }
  if (ran == 0) {
    std::printf("This machine has no %s.\n", wanted_isa.c_str());
    return kSkipped;
  }
  return failures == 0 ? kPassed : kFailed;
}
