// The kernels that every instruction set provides. `<kernel>.inl` is a kernel over a vector type, `vector_<set>.h` has
// the type, and `kernels_<set>.cc` instantiates the kernels with it, compiled with the flags of that instruction set.
//
// These files include no C++ standard header. The linker keeps one copy of an inline function for all callers: if that
// were one compiled here, it would crash a CPU without the instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "epilogue.h"

namespace onnxprune {

// One non-zero of a block: its value, and where its panel row begins, in floats from the start of the panel.
struct SpmmEntry {
  uint32_t offset;
  float value;
};

// The same for four consecutive rows of the weight that have their non-zeros in the same columns (4x1 blocks).
struct SpmmQuad {
  uint32_t offset;
  float values[4];
};

// Consecutive rows of a block with the same number of entries.
struct SpmmRun {
  uint32_t rows;
  uint32_t entries_per_row;
};

// Rows of a sparse matrix, sorted by their number of entries: the inner loop's trip count then repeats, and its branch
// is predicted (28 % of peak unsorted, 42 % sorted). Empty rows are left out, except in the first block and the last.
template <class Entry>
struct SpmmRows {
  const SpmmRun* runs;
  size_t run_count;
  const uint32_t* rows;
  const Entry* entries;
};

// Part of a sparse matrix: single rows, and groups of four rows, which are given by their first row.
struct SpmmBlock {
  SpmmRows<SpmmEntry> singles;
  SpmmRows<SpmmQuad> quads;
};

// Where the results of a block's rows go: row r to `to + r * to_stride`, after adding what `addend` has at the same
// place, if it is not null, and bringing them between `low` and `high`, if `clips`. NaN stays NaN.
struct SpmmResult {
  float* to;
  size_t to_stride;
  const float* addend;
  bool clips;
  float low;
  float high;
};

// Part of a sparse matrix in compressed rows; columns are counted from the first one of the part.
struct SpmvBlock {
  const uint32_t* row_start;
  const uint16_t* columns;
  const float* values;
};

// The columns whose entries a mask tells.
constexpr size_t kMaskColumns = 64;

// Part of a sparse matrix whose rows have a bit for each column, set where there is an entry; the first column is the
// lowest bit of the first mask, and bits of columns that do not exist are zero. Behind the last value is room for
// kMaskColumns.
struct MaskedBlock {
  // Values before each row.
  const uint32_t* row_start;
  size_t columns;
  const uint64_t* masks;
  const float* values;

  // Masks of a row.
  size_t words() const { return (columns + kMaskColumns - 1) / kMaskColumns; }
};

// A copy of some floats from `from + source` to `to + target`; its kind says how many.
struct Copy {
  ptrdiff_t source;
  ptrdiff_t target;
};

// One vector, one vector of every second float, eight floats, four, and one.
enum CopyKind { kVectors, kEveryOther, kEights, kFours, kOnes, kCopyKinds };

// Copies of each kind, from `copies + begin[kind]` on to `copies + begin[kind + 1]`.
struct Copies {
  const Copy* copies;
  size_t begin[kCopyKinds + 1];
};

// A window that moves over a plane, whose padding is `begin_row` rows above it and `begin_column` columns before it.
struct Window {
  size_t rows;
  size_t columns;
  size_t out_rows;
  size_t out_columns;
  size_t height;
  size_t width;
  size_t row_stride;
  size_t column_stride;
  size_t begin_row;
  size_t begin_column;

  // A row of the padded plane as the windows reach over it.
  size_t reach() const { return (out_columns - 1) * column_stride + width; }
};

// Whether `depthwise_direct` takes these windows.
inline constexpr bool is_direct(const Window& window) {
  return window.height == window.width && (window.width == 3 || window.width == 5) &&
         window.row_stride == window.column_stride && (window.row_stride == 1 || window.row_stride == 2);
}

// Rows of a plane with their padding in place: `gap` floats of it, which end the row before as well, then the
// row's columns, up to a whole vector. Where windows step over every other column, those at even places and those at
// odd ones are two such `part`s, one behind the other. Sizes are multiples of the vector. Behind the last row is
// another gap.
struct PaddedRows {
  size_t parts;
  size_t gap;
  // Floats of a part, and of a row.
  size_t part;
  size_t pitch;
  // Where the first window finds its columns: column c at place[c % parts] + c / parts.
  size_t place[2];
};

// Rows of results that pooling works on together.
constexpr size_t kPooledRows = 8;

// The weight of a channel of its own, and what bounds its results, if it `clips`.
struct Filter {
  const float* weight;
  float bias;
  bool clips;
  float low;
  float high;
};

// The largest of a window, the mean of what of it lies within the plane, and the mean with padding as zeros.
enum class Pooling { kMax, kMean, kMeanWithPadding };

// A weight of several input and output channels, for planes of padded rows: for each kDenseChannels output channels, for
// each tap their numbers (zeros where there are no more channels); and where each tap reads, from the start of the rows
// that a row of results needs.
struct DenseFilter {
  size_t channels;
  size_t taps;
  const float* weight;
  const float* bias;
  const size_t* places;
  bool clips;
  float low;
  float high;
};
constexpr size_t kDenseChannels = 8;

// Sums of a row of the widest tile of any instruction set, at the most; `spmm` asserts it of its vectors.
constexpr size_t kMostRowSums = 14 * 16;

struct Kernels {
  const char* name;
  // Floats in a vector.
  size_t lanes;
  // The widest tile of `spmm`, in vectors.
  size_t max_vectors;
  // sums[row][*] += weight[row][column] * panel[column][*], rows of `vectors` vectors, aligned to 64 bytes. With
  // `bias`, the sums start at bias[row] and their previous values are ignored.
  void (*spmm)(const SpmmBlock& block, size_t vectors, const float* panel, const float* bias, float* sums);
  // sums[row - first] += weight[row] . x, for rows first to last - 1.
  void (*spmv)(const SpmvBlock& block, size_t first, size_t last, const float* x, float* sums);
  // to[column][row] = from[row][column]
  void (*transpose)(const float* from, size_t from_stride, size_t rows, size_t columns, float* to, size_t to_stride);
  // Makes the copies for each of `rows` rows.
  void (*copy)(const Copies& copies, const float* from, size_t from_stride, size_t rows, float* to, size_t to_stride);
  // Applies the epilogue in place to `count` sums, which are the elements of y from `first` on.
  void (*finish)(const Epilogue& epilogue, size_t first, size_t count, float* sums);
  // The last block of rows that are single: like `spmm`, but with results instead of sums.
  void (*spmm_last)(const SpmmRows<SpmmEntry>& block, size_t vectors, const float* panel, const float* bias,
                    float* sums, const SpmmResult& result) = nullptr;
  // Pools a plane; `memory`, aligned, has room for kPooledRows padded rows and a gap, for the vector that a window at
  // the end of the last one reads, and for a row of results.
  void (*pool)(const Window& window, const PaddedRows& padded, Pooling pooling, const float* from, float* memory,
               float* to) = nullptr;
  // Brings rows [first, last) of a plane, counted with the padding above it, into `to`, padded by zeros.
  void (*pad)(const Window& window, const PaddedRows& padded, const float* from, size_t first, size_t last,
              float* to) = nullptr;
  // Convolves a plane with one filter: `rows` rows of the result, from the padded rows that they need. A vector behind
  // the last of them may be read. Strides of columns are 1 or 2.
  void (*depthwise)(const Window& window, const PaddedRows& padded, const Filter& filter, const float* from,
                    size_t rows, float* to) = nullptr;
  // Convolves a plane with one filter, without padded rows, where is_direct() holds; null where loads have no masks.
  void (*depthwise_direct)(const Window& window, const Filter& filter, const float* from, float* to) = nullptr;
  // Like `spmv`; null where it is not worth having.
  void (*spmv_masked)(const MaskedBlock& block, size_t first, size_t last, const float* x, float* sums) = nullptr;
  // Convolves all channels: a row of `columns` results for each output channel, which begin `to_stride` apart. A
  // vector behind what the windows need may be read. The bias has as many numbers as the weight has output channels.
  void (*dense)(const DenseFilter& filter, size_t columns, const float* from, float* to, size_t to_stride) = nullptr;
};

// How numbers become 8-bit outputs: sum * scale, rounded to the nearest (ties to even), plus `zero_point`, saturated to
// `low` to `high`.
struct OutputRange {
  int32_t zero_point;
  int32_t low;
  int32_t high;
};

// A sum of bytes, u8 or, where `low` is negative, s8: a * a_ratio + (b * b_ratio + fixed), rounded to the nearest (ties
// to even) and saturated to `low` to `high`.
struct ByteSum {
  float a_ratio;
  float b_ratio;
  float fixed;
  int32_t low;
  int32_t high;
};

// Softmax of bytes, u8: `table` has the power of each byte, the largest last; its share of the sum is multiplied by
// `factor`, rounded, and `zero_point` added.
struct ByteSoftmax {
  const float* table;
  float factor;
  int32_t zero_point;
};

// Rows of a Softmax that are worked on together.
constexpr size_t kSoftmaxRows = 4;

// Kernels for 8-bit integers. They work on words, 32 bits where other kernels have a float: four bytes of neighboring
// inputs, or a sum. A product is exact modulo 2^32; nothing saturates on the way.
struct ByteKernels {
  // `copy` and `transpose` move words; `spmm` multiplies words of the panel by words of s8 in the weight, byte by byte,
  // and adds the four products to the sum. The others are null.
  Kernels words;
  // Whether the bytes of panels are s8, for instruction sets that multiply s8 alone.
  bool signed_panels;
  // to[i] = the bytes from[row * from_stride + i] of up to four rows, each xor `flip`, the first row in the first byte.
  void (*interleave)(const uint8_t* from, size_t from_stride, size_t rows, size_t count, uint8_t flip, float* to);
  // Bytes, u8 or s8 as the range says, of `count` sums. There is one scale, or with `each` one for each sum.
  void (*requantize)(const OutputRange& range, const float* scales, bool each, const float* sums, size_t count,
                     uint8_t* to);
  // to[i] = sums[i] * scale, as floats; `to` may be `sums`.
  void (*dequantize)(const float* scales, bool each, const float* sums, size_t count, float* to);
  // to[i] += terms[i]. Not a part of `dequantize`, where it would be rounded together with the product.
  void (*add)(const float* terms, size_t count, float* to);
  // Lowers `low` and raises `high` to the extremes of `count` numbers.
  void (*extremes)(const float* from, size_t count, float* low, float* high);
  // u8 of from[i] / scale, rounded as the range says.
  void (*quantize)(const OutputRange& range, float scale, const float* from, size_t count, uint8_t* to);
  // to[i] = the sum of a[i] and b[i].
  void (*add_bytes)(const ByteSum& sum, const uint8_t* a, const uint8_t* b, size_t count, uint8_t* to);
  // Softmax of each of `rows` rows of `count` bytes; `powers` has room for kSoftmaxRows rows of floats.
  void (*softmax_bytes)(const ByteSoftmax& softmax, const uint8_t* x, size_t rows, size_t count, float* powers,
                        uint8_t* to);
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kNeon;

extern const ByteKernels kPortableBytes;
extern const ByteKernels kAvx2Bytes;
extern const ByteKernels kAvx512VnniBytes;
extern const ByteKernels kNeonBytes;
extern const ByteKernels kNeonDotBytes;
extern const ByteKernels kNeonI8mmBytes;

}  // namespace onnxprune
