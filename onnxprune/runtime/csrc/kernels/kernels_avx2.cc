#include "between.inl"
#include "byte_vector_avx2.h"
#include "bytes.inl"
#include "dense.inl"
#include "epilogue.inl"
#include "layout.inl"
#include "planes.inl"
#include "spmm.inl"
#include "spmv.inl"
#include "vector_avx2.h"

namespace onnxprune {

const Kernels kAvx2 = {
    "avx2",
    Avx2Vector::kLanes,
    Avx2Vector::kMaxVectors,
    spmm<Avx2Vector>,
    spmv<Avx2Vector>,
    transpose<Avx2Vector>,
    copy<Avx2Vector>,
    finish,
    spmm_last<Avx2Vector>,
    pool<Avx2Vector>,
    pad<Avx2Vector>,
    depthwise<Avx2Vector>,
    nullptr,
    nullptr,
    dense<Avx2Vector>,
};

const ByteKernels kAvx2Bytes = {
    {"avx2", Avx2ByteVector::kLanes, Avx2ByteVector::kMaxVectors, spmm<Avx2ByteVector>, nullptr, transpose<Avx2Vector>,
     copy<Avx2Vector>, nullptr},
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
