#include "tiled_spmm.h"

#include <thread>

namespace onnxprune {
namespace {

// Tasks for each core, so that unequal ones even out.
constexpr size_t kTasksPerCore = 2;

}  // namespace

std::vector<size_t> make_parts(const SpmmMatrix& matrix, size_t tiles) {
  static const size_t cores = std::max(std::thread::hardware_concurrency(), 1u);
  const size_t wanted = (kTasksPerCore * cores + tiles - 1) / std::max<size_t>(tiles, 1);
  const size_t parts = std::clamp<size_t>(wanted, 1, std::max<size_t>(matrix.chunks(), 1));
  std::vector<size_t> boundaries;
  for (size_t part = 0; part <= parts; ++part) boundaries.push_back(matrix.chunks() * part / parts);
  return boundaries;
}

}  // namespace onnxprune
