// Tests of the kernels on planes, and of results stored by SpMM, against plain loops.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace onnxprune {

// The number of failures, the first of which are printed.
size_t test_plane_kernels(const Kernels& kernels);

}  // namespace onnxprune
