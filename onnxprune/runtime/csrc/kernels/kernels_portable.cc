#include "epilogue.inl"
#include "layout.inl"
#include "spmm.inl"
#include "spmv.inl"
#include "vector_portable.h"

namespace onnxprune {

const Kernels kPortable = {
    "portable",           PortableVector::kLanes,    PortableVector::kMaxVectors, spmm<PortableVector>,
    spmv<PortableVector>, transpose<PortableVector>, copy<PortableVector>,        finish,
};

}  // namespace onnxprune
