#include "between.inl"
#include "byte_vector_avx512vnni.h"
#include "bytes.inl"
#include "layout.inl"
#include "narrowing_avx512.h"
#include "spmm.inl"
#include "vector_avx512.h"

namespace onnxprune {

const ByteKernels kAvx512VnniBytes = {
    {"avx512vnni", Avx512VnniByteVector::kLanes, Avx512VnniByteVector::kMaxVectors, spmm<Avx512VnniByteVector>, nullptr,
     transpose<Avx512Vector>, copy<Avx512Vector>, nullptr},
    false,
    interleave,
    requantize_avx512,
    dequantize,
    add,
    extremes,
    quantize,
    add_bytes_avx512,
    softmax_bytes,
};

}  // namespace onnxprune
