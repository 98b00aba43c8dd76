// What this CPU has.
#pragma once

#include "kernels/kernels.h"

namespace onnxprune {

// The widest instruction set that this CPU and its operating system have, or the one that the environment variable
// ONNXPRUNE_ISA names (portable, avx2, avx512, neon). Throws Refusal where that one is not there.
const Kernels& choose_kernels();

// Bytes of a panel that stay in the first data cache, beside the sums and the weights that stream through it.
size_t panel_bytes();

}  // namespace onnxprune
