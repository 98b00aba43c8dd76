#include "between.inl"
#include "byte_vector_neon.h"
#include "bytes.inl"
#include "layout.inl"
#include "spmm.inl"
#include "vector_neon.h"

namespace onnxprune {
namespace {

// SDOT multiplies s8 by s8, so panels are s8: Cortex-A76 (Raspberry Pi 5) and later.
struct DotProduct {
  static int32x4_t dot(int32x4_t sums, uint8x16_t panel, int8x16_t weight) {
    return vdotq_s32(sums, vreinterpretq_s8_u8(panel), weight);
  }
};

using ByteVector = NeonByteVector<DotProduct>;

}  // namespace

const ByteKernels kNeonDotBytes = {
    {"neondot", ByteVector::kLanes, ByteVector::kMaxVectors, spmm<ByteVector>, nullptr, transpose<NeonVector>,
     copy<NeonVector>, nullptr},
    true,
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
