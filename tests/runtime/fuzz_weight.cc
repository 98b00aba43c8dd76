// A fuzz target for what a model file can say of a sparse weight: decoding, packing and one run, without onnxruntime.
//
// With Clang it is built for libFuzzer; else it has a main of its own, which generates inputs: `fuzz_weight [COUNT]`.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "byte_weight.h"
#include "cpu.h"
#include "csr_matrix.h"
#include "quantized_conv.h"
#include "quantized_gemm.h"
#include "refusal.h"
#include "sparse_conv.h"
#include "sparse_gemm.h"
#include "sparse_weight.h"
#include "threads.h"

namespace {

using namespace onnxprune;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kSizes[] = {1, 2, 3, 4, 5, 8, 16, 33, 64, 255, 0, -1, 4097, kMax, -kMax - 1, int64_t{1} << 27};
// More would take the time of many runs.
constexpr uint64_t kMaxRunElements = 1 << 20;

// Takes an input apart; where it is used up there are zeros.
class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  int64_t size() { return kSizes[byte() % std::size(kSizes)]; }
  std::vector<int64_t> sizes(size_t count) {
    std::vector<int64_t> made(count);
    for (int64_t& size : made) size = this->size();
    return made;
  }
  std::vector<uint8_t> rest(size_t count) {
    std::vector<uint8_t> made(count);
    for (uint8_t& value : made) value = byte();
    return made;
  }
  size_t left() const { return size_; }

 private:
  const uint8_t* data_;
  size_t size_;
};

void serially(size_t count, const std::function<void(size_t)>& task) {
  for (size_t i = 0; i < count; ++i) task(i);
}

Threads one_thread() {
  static ThreadCount count;
  return {serially, count};
}

Epilogue epilogue_of(Reader& reader, const float* addend) {
  Epilogue epilogue;
  epilogue.activation = static_cast<Activation>(reader.byte() % 6);
  if (reader.byte() % 2 == 1) epilogue.addend = addend;
  return epilogue;
}

void multiply(Reader& reader, const SparseWeight& weight) {
  if (weight.shape.size() < 2) return;
  const auto rows = static_cast<size_t>(weight.shape[weight.shape.size() - 1]);
  const auto columns = static_cast<size_t>(weight.shape[weight.shape.size() - 2]);
  size_t count = 1;
  for (size_t i = 0; i + 2 < weight.shape.size(); ++i) count *= static_cast<size_t>(weight.shape[i]);
  const bool transposed = reader.byte() % 2 == 1;
  const size_t n = reader.byte() % 20;
  if (rows * columns > kMaxRunElements || count > 64) return;
  for (CsrMatrix& matrix : to_csr_matrices(weight, {count, rows, columns, transposed}, 0.5)) {
    const std::vector<float> x(n * columns, 0.5f);
    const std::vector<float> addend(n * rows, 1.0f);
    std::vector<float> y(n * rows);
    SparseGemm gemm(choose_kernels(), std::move(matrix));
    gemm.run({x.data(), n, columns, false}, nullptr, y.data(), one_thread(), epilogue_of(reader, addend.data()));
  }
}

void convolve(Reader& reader, const SparseWeight& weight) {
  const size_t axes = weight.shape.size() < 3 ? 1 : weight.shape.size() - 2;
  ConvAttributes attributes;
  if (reader.byte() % 4 == 0) attributes.strides = reader.sizes(axes);
  if (reader.byte() % 4 == 0) attributes.dilations = reader.sizes(axes);
  if (reader.byte() % 4 == 0) attributes.pads = reader.sizes(2 * axes);
  if (reader.byte() % 4 == 0) attributes.group = reader.size();
  if (reader.byte() % 4 == 0) attributes.auto_pad = "SAME_UPPER";
  std::vector<int64_t> x_shape{reader.byte() % 3};
  uint64_t elements = 1;
  for (const int64_t size : weight.shape) elements *= static_cast<uint64_t>(size);
  if (elements > kMaxRunElements) return;
  SparseConv conv(choose_kernels(), weight, attributes);
  x_shape.push_back(weight.shape[1] * attributes.group);
  for (size_t axis = 0; axis < axes; ++axis) x_shape.push_back(reader.byte() % 12);
  size_t x_elements = 1;
  for (const int64_t size : x_shape) x_elements *= static_cast<size_t>(size);
  double outputs = 1;
  const std::vector<int64_t> y_shape = conv.output_shape(x_shape);
  for (const int64_t size : y_shape) outputs *= static_cast<double>(size);
  if (x_elements > kMaxRunElements || outputs > kMaxRunElements) return;
  const std::vector<float> x(x_elements, 0.5f);
  const std::vector<float> addend(static_cast<size_t>(outputs), 1.0f);
  std::vector<float> y(static_cast<size_t>(outputs));
  conv.run(x.data(), x_shape, nullptr, y.data(), one_thread(), epilogue_of(reader, addend.data()));
}

Quantized numbers_of(Reader& reader) {
  Quantized numbers{};
  numbers.is_signed = reader.byte() % 2 == 1;
  numbers.x_zero_point = reader.byte() - (numbers.is_signed ? 128 : 0);
  numbers.y_zero_point = reader.byte() - (numbers.is_signed ? 128 : 0);
  numbers.scales = {static_cast<float>(reader.byte()) / 64};
  return numbers;
}

void multiply_bytes(Reader& reader, const ByteWeight& weight) {
  const size_t n = reader.byte() % 20;
  const Quantized numbers = numbers_of(reader);
  QuantizedGemm gemm(choose_byte_kernels(), weight);
  const std::vector<uint8_t> x(n * gemm.inputs(), 200);
  std::vector<uint8_t> y(n * gemm.outputs());
  gemm.run(x.data(), n, numbers, y.data(), one_thread());
}

void convolve_bytes(Reader& reader, const ByteWeight& weight) {
  const size_t axes = weight.shape.size() < 3 ? 1 : weight.shape.size() - 2;
  const Quantized numbers = numbers_of(reader);
  ConvAttributes attributes;
  if (reader.byte() % 4 == 0) attributes.strides = reader.sizes(axes);
  if (reader.byte() % 4 == 0) attributes.dilations = reader.sizes(axes);
  if (reader.byte() % 4 == 0) attributes.pads = reader.sizes(2 * axes);
  if (reader.byte() % 4 == 0) attributes.group = reader.size();
  QuantizedConv conv(choose_byte_kernels(), weight, attributes);
  std::vector<int64_t> x_shape{reader.byte() % 3, weight.shape[1] * attributes.group};
  for (size_t axis = 0; axis < axes; ++axis) x_shape.push_back(reader.byte() % 12);
  double outputs = 1;
  for (const int64_t size : conv.output_shape(x_shape)) outputs *= static_cast<double>(size);
  if (static_cast<uint64_t>(volume(x_shape)) > kMaxRunElements || outputs > kMaxRunElements) return;
  const std::vector<uint8_t> x(static_cast<size_t>(volume(x_shape)), 200);
  std::vector<uint8_t> y(static_cast<size_t>(outputs));
  conv.run(x.data(), x_shape, numbers, y.data(), one_thread());
}

// What a file can say of a weight of 8-bit integers.
void fuzz_bytes(Reader& reader, Reader& settings) {
  const bool conv = reader.byte() % 2 == 1;
  const std::vector<int64_t> shape = reader.sizes(reader.byte() % 6);
  const size_t block = reader.byte() % 6;
  const bool is_signed = reader.byte() % 2 == 1;
  const ZeroPoints zeros(reader.byte() % 4 == 0 ? 3 : 1, reader.byte());
  const size_t count = reader.left() / (block + 1);
  const std::vector<uint8_t> gaps = reader.rest(count);
  const std::vector<uint8_t> values = reader.rest(count * block);
  uint64_t elements = element_count(shape);
  const ByteWeight weight =
      decode(StoredBytes{values.data(), is_signed, block, gaps.data(), count}, shape, conv ? 1 : 0, zeros);
  if (elements > kMaxRunElements) return;
  if (conv) return convolve_bytes(settings, weight);
  if (shape.size() == 2) multiply_bytes(settings, weight);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Reader reader(data, size);
  if (reader.byte() % 2 == 1) {
    Reader settings(data, std::min<size_t>(size, 24));
    try {
      fuzz_bytes(reader, settings);
    } catch (const Refusal&) {
    }
    return 0;
  }
  const auto type = static_cast<ValueType>(reader.byte() % 3);
  const bool conv = reader.byte() % 2 == 1;
  const std::vector<int64_t> shape = reader.sizes(reader.byte() % 6);
  Reader settings(data, std::min<size_t>(size, 24));
  const size_t value_bytes = type == ValueType::kDouble ? 8 : type == ValueType::kFloat ? 4 : 2;
  const size_t count = reader.left() / (value_bytes + 1);
  const std::vector<uint8_t> gaps = reader.rest(count);
  // Of doubles, so that they are aligned.
  std::vector<double> values(count * value_bytes / sizeof(double) + 1);
  const std::vector<uint8_t> bytes = reader.rest(count * value_bytes);
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(values.data()));
  try {
    const SparseWeight weight = decode(values.data(), type, gaps.data(), count, shape);
    conv ? convolve(settings, weight) : multiply(settings, weight);
  } catch (const Refusal&) {
  }
  return 0;
}

#if !defined(ONNXPRUNE_LIBFUZZER)
#include <cstdlib>
#include <random>

int main(int argument_count, char** arguments) {
  const int count = argument_count > 1 ? std::atoi(arguments[1]) : 10000;
  std::mt19937 random(0);
  for (int i = 0; i < count; ++i) {
    std::vector<uint8_t> input(random() % 400);
    // Half of the gaps are small, so that some weights decode.
    const uint32_t largest = i % 2 == 0 ? 256 : 12;
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random() % largest);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  return 0;
}
#endif
