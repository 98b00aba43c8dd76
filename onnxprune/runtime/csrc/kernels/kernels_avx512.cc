#include "dense.inl"
#include "depthwise.inl"
#include "epilogue.inl"
#include "layout.inl"
#include "masked_spmv.inl"
#include "planes.inl"
#include "spmm.inl"
#include "spmv.inl"
#include "vector_avx512.h"

namespace onnxprune {

// SpMV stays with AVX2: it is bound by its scalar gather, and wider sums only lengthen each row's end (12 % slower on
// Zen 5).
const Kernels kAvx512 = {
    "avx512",
    Avx512Vector::kLanes,
    Avx512Vector::kMaxVectors,
    spmm<Avx512Vector>,
    spmv<Avx2Vector>,
    transpose<Avx512Vector>,
    copy<Avx512Vector>,
    finish,
    spmm_last<Avx512Vector>,
    pool<Avx512Vector>,
    pad<Avx512Vector>,
    depthwise<Avx512Vector>,
    depthwise_direct<Avx512Vector>,
    spmv_masked<Avx512Vector>,
    dense<Avx512Vector>,
};

}  // namespace onnxprune
