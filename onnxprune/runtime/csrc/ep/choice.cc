#include "ep/choice.h"

#include <algorithm>
#include <cmath>
#include <deque>

namespace onnxprune {
namespace {

// Fitted in sparse/estimate.py, which says to what; test_provider.py compares the two.
constexpr double kDenseRows = 5.2;
constexpr double kSparse = 1.7;
constexpr double kSparseRow = 12.4;
constexpr double kElement = 38.0;
constexpr double kReorder = 82.0;
constexpr int64_t kSpmmRows = 8;
// In place of kElement in groups: of 3x3 convolutions of SqueezeNet and 1x1 ones of MobileNetV2 beside onnxruntime's,
// Zen 4 with AVX-512.
constexpr double kGroupElement = 10.0;
constexpr double kElementInPlace = 5.0;
// In favor of dense.
constexpr double kLeastSpeedup = 1.05;
// A change of the graph that gains less is noise.
constexpr double kLeastProgress = 1.01;

using Places = std::vector<bool>;

double element_cost(Site site) {
  switch (site) {
    case Site::kGroup: return kGroupElement;
    case Site::kInPlace: return kElementInPlace;
    case Site::kNode: break;
  }
  return kElement;
}

class Graph {
 public:
  Graph(const std::vector<Cost>& costs, const std::vector<Edge>& edges) : costs_(costs), edges_(edges) {}

  double gain(size_t place) const { return costs_[place].dense - kLeastSpeedup * costs_[place].sparse; }

  // How many times faster than dense the graph is with these places run by kernels.
  double speedup(const Places& chosen) const {
    double dense = 0;
    double cost = 0;
    for (size_t place = 0; place < costs_.size(); ++place) {
      dense += costs_[place].dense;
      cost += chosen[place] ? costs_[place].sparse : costs_[place].dense;
    }
    const auto by_kernel = [&](size_t place) { return place != Edge::kDense && chosen[place]; };
    for (const Edge& edge : edges_) {
      if (by_kernel(edge.maker) != by_kernel(edge.reader)) cost += kReorder * static_cast<double>(edge.elements);
    }
    return cost == 0 ? 1 : dense / cost;
  }

 private:
  const std::vector<Cost>& costs_;
  const std::vector<Edge>& edges_;
};

struct Segment {
  size_t begin;
  size_t end;
};

// Neighboring places that are alike, those first that speak least for what they are.
std::deque<Segment> segments_of(const Places& chosen, const Graph& graph) {
  std::deque<Segment> segments;
  for (size_t place = 0; place < chosen.size(); ++place) {
    if (place == 0 || chosen[place] != chosen[place - 1]) segments.push_back({place, place});
    segments.back().end = place + 1;
  }
  const auto weight = [&](const Segment& segment) {
    double sum = 0;
    for (size_t place = segment.begin; place < segment.end; ++place) sum += graph.gain(place);
    return std::abs(sum);
  };
  std::stable_sort(segments.begin(), segments.end(),
                   [&](const Segment& a, const Segment& b) { return weight(a) < weight(b); });
  return segments;
}

}  // namespace

Cost estimate(const Work& work) {
  const auto rows = static_cast<double>(work.rows);
  const auto size = static_cast<double>(work.weight_elements);
  const double used = rows * (work.rows >= kSpmmRows ? kSparse : kSparseRow);
  const auto elements = static_cast<double>(work.x_elements + work.y_elements);
  return {size * std::max(rows, kDenseRows), work.density * size * used + elements * element_cost(work.site)};
}

std::vector<bool> choose(const std::vector<Cost>& costs, const std::vector<Edge>& edges) {
  const Graph graph(costs, edges);
  Places chosen(costs.size(), true);
  Places gaining(costs.size());
  for (size_t place = 0; place < costs.size(); ++place) gaining[place] = graph.gain(place) > 0;
  if (graph.speedup(gaining) >= graph.speedup(chosen)) chosen = gaining;
  double fastest = graph.speedup(chosen);
  // Whole runs of neighbors are turned over, and halves of runs where that is no gain.
  for (std::deque<Segment> segments = segments_of(chosen, graph); !segments.empty();) {
    const Segment segment = segments.front();
    segments.pop_front();
    Places trial = chosen;
    for (size_t place = segment.begin; place < segment.end; ++place) trial[place] = !trial[place];
    const double faster = graph.speedup(trial);
    if (faster > fastest * kLeastProgress) {
      chosen = trial;
      fastest = faster;
    } else if (segment.end - segment.begin > 1) {
      const size_t half = segment.begin + (segment.end - segment.begin) / 2;
      segments.push_back({segment.begin, half});
      segments.push_back({half, segment.end});
    }
  }
  return fastest >= kLeastSpeedup ? chosen : Places(costs.size());
}

}  // namespace onnxprune
