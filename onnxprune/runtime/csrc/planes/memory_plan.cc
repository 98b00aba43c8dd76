#include "planes/memory_plan.h"

#include <algorithm>
#include <numeric>

namespace onnxprune {
namespace {

bool overlap(const Use& a, const Use& b) { return a.first <= b.last && b.first <= a.last; }

}  // namespace

MemoryPlan plan_memory(const std::vector<Use>& uses) {
  MemoryPlan plan;
  plan.places.resize(uses.size());
  // Large ones first: small ones fit the gaps between them.
  std::vector<size_t> order(uses.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return uses[a].floats > uses[b].floats; });
  std::vector<size_t> placed;
  for (const size_t value : order) {
    const Use& use = uses[value];
    if (use.whole != Use::kNone) continue;
    // The lowest place where it meets no value of the same time; `placed` is in order of places.
    size_t place = 0;
    for (const size_t other : placed) {
      if (!overlap(use, uses[other])) continue;
      if (plan.places[other] >= place + use.floats) break;
      place = std::max(place, plan.places[other] + uses[other].floats);
    }
    plan.places[value] = place;
    plan.floats = std::max(plan.floats, place + use.floats);
    const auto behind =
        std::upper_bound(placed.begin(), placed.end(), place,
                         [&](size_t at, size_t other) { return at < plan.places[other]; });
    placed.insert(behind, value);
  }
  plan.is_free.assign(uses.size(), true);
  for (size_t value = 0; value < uses.size(); ++value) {
    if (uses[value].whole == Use::kNone) continue;
    plan.places[value] = plan.places[uses[value].whole] + uses[value].offset;
    plan.is_free[value] = plan.is_free[uses[value].whole] = false;
  }
  return plan;
}

}  // namespace onnxprune
