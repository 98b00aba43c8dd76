#include "between.inl"
#include "byte_vector_portable.h"
#include "bytes.inl"
#include "dense.inl"
#include "epilogue.inl"
#include "layout.inl"
#include "planes.inl"
#include "spmm.inl"
#include "spmv.inl"
#include "vector_portable.h"

namespace onnxprune {

const Kernels kPortable = {
    "portable",
    PortableVector::kLanes,
    PortableVector::kMaxVectors,
    spmm<PortableVector>,
    spmv<PortableVector>,
    transpose<PortableVector>,
    copy<PortableVector>,
    finish,
    spmm_last<PortableVector>,
    pool<PortableVector>,
    pad<PortableVector>,
    depthwise<PortableVector>,
    nullptr,
    nullptr,
    dense<PortableVector>,
};

using ByteVector = PortableByteVector<PortableVector::kLanes>;

const ByteKernels kPortableBytes = {
    {"portable", ByteVector::kLanes, ByteVector::kMaxVectors, spmm<ByteVector>, nullptr, transpose<PortableVector>,
     copy<PortableVector>, nullptr},
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
