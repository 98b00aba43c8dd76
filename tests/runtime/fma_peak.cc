// The most that a core computes: FMAs of registers alone, enough of them at once to hide their latency. Built by
// time_layers.py.
#include <cstddef>

using Vector = float __attribute__((vector_size(LANES * sizeof(float))));

// FMAs of LANES floats each, CHAINS a round; returns what they come to, so that they are computed.
extern "C" float fused_multiply_adds(size_t rounds) {
  Vector sums[CHAINS];
#pragma GCC unroll 16
  for (size_t i = 0; i < CHAINS; ++i) sums[i] = Vector{} + static_cast<float>(i);
  const Vector factor = Vector{} + 0.5f;
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (size_t i = 0; i < CHAINS; ++i) {
      sums[i] = sums[i] * factor + factor;
      __asm__("" : "+v"(sums[i]));  // neither merged nor left out
    }
  }
  Vector total{};
#pragma GCC unroll 16
  for (size_t i = 0; i < CHAINS; ++i) total += sums[i];
  float sum = 0;
  for (size_t lane = 0; lane < LANES; ++lane) sum += total[lane];
  return sum;
}
