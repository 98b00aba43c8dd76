// The instruction sets and the cache of this CPU.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace onnxprune {

// The kernels of every instruction set that this CPU and its operating system have, the widest first.
std::vector<const Kernels*> runnable_kernels();

// The widest instruction set that this CPU and its operating system have, or the one that the environment variable
// ONNXPRUNE_ISA names (portable, avx2, avx512, neon). Throws Refusal if this machine does not have it.
const Kernels& choose_kernels();

// The kernels for 8-bit integers of the instruction set that choose_kernels() takes, or of a narrower one.
const ByteKernels& choose_byte_kernels();

// Those of every instruction set that this CPU and its operating system have, the fastest first.
std::vector<const ByteKernels*> runnable_byte_kernels();

// Bytes of a panel that stay in the L1 data cache next to the sums and the weights that stream through it.
size_t panel_bytes();

// Bytes of sums that stay in the L2 cache from one block of the matrix to the next.
size_t sums_bytes();

}  // namespace onnxprune
