#include "tiled_spmm.h"

namespace onnxprune {
namespace {

// More than one, so that threads which finish early take over work from slower ones.
constexpr size_t kTasksPerThread = 2;

}  // namespace

std::vector<size_t> make_parts(const SpmmMatrix& matrix, size_t tiles, const Threads& threads) {
  assert(tiles >= 1);
  size_t parts = 1;
  if (matrix.chunks() > 1 && tiles < kTasksPerThread * max_threads()) {
    const size_t count = threads.count();
    const size_t wanted = count == 1 ? 1 : (kTasksPerThread * count + tiles - 1) / tiles;
    parts = std::min(wanted, matrix.chunks());
  }
  std::vector<size_t> boundaries;
  for (size_t part = 0; part <= parts; ++part) boundaries.push_back(matrix.chunks() * part / parts);
  return boundaries;
}

}  // namespace onnxprune
