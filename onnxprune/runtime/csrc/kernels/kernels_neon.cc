#include "between.inl"
#include "byte_vector_portable.h"
#include "bytes.inl"
#include "dense.inl"
#include "epilogue.inl"
#include "layout.inl"
#include "planes.inl"
#include "spmm.inl"
#include "spmv.inl"
#include "vector_neon.h"

namespace onnxprune {

const Kernels kNeon = {
    "neon",
    NeonVector::kLanes,
    NeonVector::kMaxVectors,
    spmm<NeonVector>,
    spmv<NeonVector>,
    transpose<NeonVector>,
    copy<NeonVector>,
    finish,
    spmm_last<NeonVector>,
    pool<NeonVector>,
    pad<NeonVector>,
    depthwise<NeonVector>,
    nullptr,
    nullptr,
    dense<NeonVector>,
};

using ByteVector = PortableByteVector<NeonVector::kLanes>;

const ByteKernels kNeonBytes = {
    {"neon", ByteVector::kLanes, ByteVector::kMaxVectors, spmm<ByteVector>, nullptr, transpose<NeonVector>,
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
