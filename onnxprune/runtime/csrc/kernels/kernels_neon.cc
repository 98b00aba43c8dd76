#include "epilogue.inl"
#include "layout.inl"
#include "spmm.inl"
#include "spmv.inl"
#include "vector_neon.h"

namespace onnxprune {

const Kernels kNeon = {
    "neon",           NeonVector::kLanes,    NeonVector::kMaxVectors, spmm<NeonVector>,
    spmv<NeonVector>, transpose<NeonVector>, copy<NeonVector>,        finish,
};

}  // namespace onnxprune
