// What the products of a graph are estimated to cost.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "ep/choice.h"
#include "ep/groups.h"

namespace onnxprune {

// Of a product with the attributes and the shapes in the graph, where `density` of its weight is not zero. Of sizes
// that the graph leaves open, the costs are the ones that speak most for dense. `in_group`: whether it can be a part of
// a group.
//
// Throws Refusal where no kernel can compute it.
Cost cost_of(const Group& group, double density, bool in_group);

// Which convolution of the nodes reads which; products are those of the groups, by index. `is_glue` says of other
// convolutions whether they cost nothing extra between two kernels.
std::vector<Edge> edges_of(const std::vector<Node>& nodes, const std::vector<Group>& groups,
                           const std::function<bool(const Node&)>& is_glue);

}  // namespace onnxprune
