#include "layout.inl"
#include "spmm.inl"
#include "spmv.inl"
#include "vector_avx512.h"

namespace onnxprune {

const Kernels kAvx512 = {
    "avx512",           Avx512Vector::kLanes,    Avx512Vector::kMaxVectors, spmm<Avx512Vector>,
    spmv<Avx512Vector>, transpose<Avx512Vector>, gather<Avx512Vector>,
};

}  // namespace onnxprune
