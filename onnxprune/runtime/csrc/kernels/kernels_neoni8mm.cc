#include "between.inl"
#include "byte_vector_neon.h"
#include "bytes.inl"
#include "layout.inl"
#include "spmm.inl"
#include "vector_neon.h"

namespace onnxprune {
namespace {

// USDOT multiplies u8 by s8: Armv8.6 and later.
struct MixedProduct {
  static int32x4_t dot(int32x4_t sums, uint8x16_t panel, int8x16_t weight) {
    return vusdotq_s32(sums, panel, weight);
  }
};

using ByteVector = NeonByteVector<MixedProduct>;

}  // namespace

const ByteKernels kNeonI8mmBytes = {
    {"neoni8mm", ByteVector::kLanes, ByteVector::kMaxVectors, spmm<ByteVector>, nullptr, transpose<NeonVector>,
     copy<NeonVector>, nullptr},
    false,
    interleave,
    requantize,
    dequantize,
    add,
    extremes,
    quantize,
    add_bytes,
    softmax_bytes,
};

}  // namespace onnxprune
