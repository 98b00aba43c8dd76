// What a group of several products may consist of: convolutions, and what lies between them, each with the addition and
// the activation that follow.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ep/groups.h"
#include "planes/step.h"

namespace onnxprune {

// Nodes that one step of a group computes, the last of which makes its output.
struct Unit {
  std::vector<Node> nodes;
  // Those that a run passes or another unit makes.
  std::vector<Value> inputs;
  // Whether a group may begin with it, though it is no sparse product.
  bool is_stem = false;

  Value output() const { return nodes.back().output(); }
};

// The unit of a sparse convolution with what follows it, other than nodes in `taken`, where it is added. Nothing where
// a group of several cannot hold it: its bias or its addend is not what a step takes.
std::optional<Unit> conv_unit(const Group& group);

// The unit that begins at a node between products or before them: a depthwise convolution, pooling, an addition, an
// activation or a Concat; and a convolution of an image's few channels, dense or not. Takes in what follows, other than
// nodes in `taken`, and adds it there.
std::optional<Unit> glue_at(const Node& node, std::set<size_t>& taken, const Part* part = nullptr);

// The units of a group's nodes, in an order in which they can be computed, and the step of one. `wanted` are the values
// that nodes outside of the group read.
std::vector<Unit> units_of(const std::vector<Node>& nodes, const std::vector<std::string>& wanted);
std::unique_ptr<Step> step_of(const Unit& unit);

}  // namespace onnxprune
