#include "tiled_spmm.h"

#include "cpu.h"

namespace onnxprune {
namespace {

// More than one, so that threads which finish early take over work from slower ones.
constexpr size_t kTasksPerThread = 2;

size_t quotient_up(size_t value, size_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

std::vector<size_t> make_parts(const SpmmMatrix& matrix, size_t tiles, size_t pitch, const Threads& threads) {
  assert(tiles >= 1);
  // Each part packs the panel again, which larger sums than these outweigh (MatMul 128 x 768 x 3072 by one thread: two
  // parts take 0.8 of the time of one; Conv 3x3 1024 -> 1024 at 4 x 4: 1.1).
  static const size_t cached_bytes = sums_bytes();
  size_t parts = quotient_up(matrix.rows() * pitch * sizeof(float), cached_bytes);
  if (matrix.chunks() > parts && tiles < kTasksPerThread * max_threads()) {
    const size_t count = threads.count();
    if (count > 1) parts = std::max(parts, quotient_up(kTasksPerThread * count, tiles));
  }
  parts = std::clamp<size_t>(parts, 1, matrix.chunks());
  std::vector<size_t> boundaries;
  for (size_t part = 0; part <= parts; ++part) boundaries.push_back(matrix.chunks() * part / parts);
  return boundaries;
}

}  // namespace onnxprune
