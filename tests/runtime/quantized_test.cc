// Convolutions and products of 8-bit integers by every instruction set, against sums one by one.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

#include "byte_kernel_test.h"
#include "byte_weight.h"
#include "quantized.h"
#include "quantized_conv.h"
#include "quantized_gemm.h"
#include "threads.h"

namespace onnxprune {
namespace {

constexpr size_t kInputs = 13;
constexpr size_t kOutputs = 21;
constexpr size_t kSide = 7;

std::mt19937 g_random(2);

std::vector<uint8_t> random_bytes(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) {
    const uint32_t draw = g_random() % 6;
    byte = draw == 0 ? 0x7f : draw == 1 ? 0x80 : draw == 2 ? 0xff : static_cast<uint8_t>(g_random());
  }
  return bytes;
}

int32_t number(uint8_t byte, bool is_signed) { return is_signed ? static_cast<int8_t>(byte) : byte; }

// A weight of every number, whose inputs are along axis 1 of `shape`; `at` is in the order of the file, inputs last.
ByteWeight weight_of(const std::vector<uint8_t>& at, std::vector<int64_t> shape, int32_t zero) {
  const std::vector<uint8_t> gaps(at.size(), 1);
  return decode({at.data(), true, 1, gaps.data(), at.size()}, std::move(shape), 1, {zero});
}

Threads one_by_one(ThreadCount& count) {
  return {[](size_t tasks, const std::function<void(size_t)>& task) {
            for (size_t i = 0; i < tasks; ++i) task(i);
          },
          count};
}

size_t report(const ByteKernels& kernels, const char* what, bool is_signed, size_t wrong) {
  if (wrong > 0) {
    std::printf("%s bytes: %zu sums of %s of %s are wrong\n", kernels.words.name, wrong, what, is_signed ? "s8" : "u8");
  }
  return wrong > 0 ? 1 : 0;
}

size_t test_product(const ByteKernels& kernels, bool is_signed, size_t count) {
  const std::vector<uint8_t> bytes = random_bytes(kOutputs * kInputs);
  const int32_t zero = 3;
  QuantizedGemm gemm(kernels, weight_of(bytes, {kOutputs, kInputs}, zero));
  const std::vector<uint8_t> x = random_bytes(count * kInputs);
  Quantized numbers;
  numbers.output = Output::kSums;
  numbers.is_signed = is_signed;
  numbers.x_zero_point = is_signed ? -128 : 200;
  std::vector<int32_t> y(count * kOutputs);
  ThreadCount threads;
  gemm.run(x.data(), count, numbers, y.data(), one_by_one(threads));
  size_t wrong = 0;
  for (size_t n = 0; n < count; ++n) {
    for (size_t m = 0; m < kOutputs; ++m) {
      int32_t sum = 0;
      for (size_t k = 0; k < kInputs; ++k) {
        sum += (number(x[n * kInputs + k], is_signed) - numbers.x_zero_point) *
               (number(bytes[m * kInputs + k], true) - zero);
      }
      wrong += y[n * kOutputs + m] != sum;
    }
  }
  return report(kernels, "a product", is_signed, wrong);
}

// 3x3, padded by one pixel of the zero point.
size_t test_convolution(const ByteKernels& kernels, bool is_signed) {
  constexpr size_t kTaps = 9;
  const std::vector<uint8_t> bytes = random_bytes(kOutputs * kTaps * kInputs);
  ConvAttributes attributes;
  attributes.pads = {1, 1, 1, 1};
  QuantizedConv conv(kernels, weight_of(bytes, {kOutputs, kInputs, 3, 3}, 0), attributes);
  const std::vector<int64_t> x_shape{1, kInputs, kSide, kSide};
  const std::vector<uint8_t> x = random_bytes(kInputs * kSide * kSide);
  Quantized numbers;
  numbers.output = Output::kSums;
  numbers.is_signed = is_signed;
  numbers.x_zero_point = is_signed ? 127 : 7;
  std::vector<int32_t> y(kOutputs * kSide * kSide);
  ThreadCount threads;
  conv.run(x.data(), x_shape, numbers, y.data(), one_by_one(threads));
  size_t wrong = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t m = i / (kSide * kSide);
    int32_t sum = 0;
    for (size_t tap = 0; tap < kTaps; ++tap) {
      const size_t row = i / kSide % kSide + tap / 3;
      const size_t column = i % kSide + tap % 3;
      if (row < 1 || row > kSide || column < 1 || column > kSide) continue;
      for (size_t k = 0; k < kInputs; ++k) {
        const uint8_t byte = x[(k * kSide + row - 1) * kSide + column - 1];
        sum += (number(byte, is_signed) - numbers.x_zero_point) *
               number(bytes[(m * kTaps + tap) * kInputs + k], true);
      }
    }
    wrong += y[i] != sum;
  }
  return report(kernels, "a convolution", is_signed, wrong);
}

}  // namespace

size_t test_quantized(const ByteKernels& kernels) {
  size_t failures = 0;
  for (const bool is_signed : {false, true}) {
    for (const size_t count : {1, 5, 40}) failures += test_product(kernels, is_signed, count);
    failures += test_convolution(kernels, is_signed);
  }
  return failures;
}

}  // namespace onnxprune
