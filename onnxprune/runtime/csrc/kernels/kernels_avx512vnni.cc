#include "byte_vector_avx512vnni.h"
#include "bytes.inl"
#include "layout.inl"
#include "spmm.inl"
#include "vector_avx512.h"

namespace onnxprune {

const ByteKernels kAvx512VnniBytes = {
    {"avx512vnni", Avx512VnniByteVector::kLanes, Avx512VnniByteVector::kMaxVectors, spmm<Avx512VnniByteVector>, nullptr,
     transpose<Avx512Vector>, copy<Avx512Vector>, nullptr},
    false,
    interleave,
    requantize,
    dequantize,
    add,
    extremes,
    quantize,
};

}  // namespace onnxprune
