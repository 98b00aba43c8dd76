#include "ep/units.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "cpu.h"
#include "ort/conv_op.h"

namespace onnxprune {
namespace {

using Attributes = ConvOp<float>::Attributes;

// With more non-zeros a kernel of dense weights is faster than one of sparse ones.
constexpr double kDenseStem = 0.5;

bool is_input(const Value& value) {
  return value && !value.is_constant() && !value.is_outer() && value.is_float_tensor();
}

size_t rank_of(const Value& value) {
  const std::optional<Dimensions> shape = value.shape();
  return shape ? shape->size() : 0;
}

std::vector<float> numbers_of(const Value& value) {
  if (!value) return {};
  const Tensor tensor = value.initializer();
  const auto* const numbers = static_cast<const float*>(tensor.data);
  return {numbers, numbers + tensor.elements};
}

Epilogue epilogue_of(const Group& group) {
  Epilogue epilogue;
  epilogue.activation = group.activation;
  epilogue.constants = group.constants;
  return epilogue;
}

// Pooling as it is computed here: of planes, with neither steps inside of the window nor windows beyond the padding.
std::optional<Pooling> pooling_of(const Node& node) {
  const bool is_max = node.is("MaxPool");
  if ((!is_max && !node.is("AveragePool")) || node.all_outputs().size() != 1 || rank_of(node.input(0)) != 4) {
    return std::nullopt;
  }
  const Attributes attributes(node);
  const auto one = [](int64_t value) { return value == 1; };
  const auto negative = [](int64_t value) { return value < 0; };
  if (attribute(node, "ceil_mode", int64_t{0}) != 0 || attributes.kernel_shape.size() != 2 ||
      !std::all_of(attributes.dilations.begin(), attributes.dilations.end(), one) ||
      std::any_of(attributes.pads.begin(), attributes.pads.end(), negative)) {
    return std::nullopt;
  }
  // A window of padding alone has no mean, and no largest.
  for (size_t i = 0; i < attributes.pads.size(); ++i) {
    if (attributes.pads[i] >= attributes.kernel_shape[i % 2]) return std::nullopt;
  }
  if (is_max) return Pooling::kMax;
  return attribute(node, "count_include_pad", int64_t{0}) != 0 ? Pooling::kMeanWithPadding : Pooling::kMean;
}

bool is_sum(const Node& node) {
  return (node.is("Add") || node.is("Sum")) && node.inputs().size() == 2 && node.input(0) != node.input(1) &&
         rank_of(node.input(0)) >= 3 && same_shape(node.input(0), node.input(1));
}

bool is_channel_concat(const Node& node) {
  const size_t rank = rank_of(node.input(0));
  const int64_t axis = attribute(node, "axis", int64_t{0});
  return node.is("Concat") && rank >= 3 && (axis == 1 || axis == 1 - static_cast<int64_t>(rank));
}

// An activation of planes; nothing where the node is none.
std::optional<Group> activation_of(const Node& node) {
  Group group;
  if (rank_of(node.input(0)) < 3 || !add_activation(node, group)) return std::nullopt;
  return group;
}

bool is_depthwise_conv(const Group& group) {
  return group.op == Operator::kConv &&
         is_depthwise(group.weight.initializer().shape, Attributes(group.nodes.front()));
}

bool is_stem_conv(const Group& group) {
  return group.op == Operator::kConv && is_stem(group.weight.initializer().shape, Attributes(group.nodes.front()));
}

Unit unit_of(std::vector<Node> nodes, std::vector<Value> inputs) {
  return {std::move(nodes), std::move(inputs), false};
}

// An addition takes in the activation that follows it.
void take_activation(Unit& unit, std::set<size_t>& taken, const Part* part) {
  const std::optional<Node> next = free_reader(unit.output(), taken, part);
  if (!next || !activation_of(*next)) return;
  unit.nodes.push_back(*next);
  taken.insert(next->id());
}

}  // namespace

std::optional<Unit> conv_unit(const Group& group) {
  if (group.op != Operator::kConv || (group.bias && !group.bias.is_constant()) || !is_input(group.x) ||
      rank_of(group.x) != group.weight.initializer().shape.size()) {
    return std::nullopt;
  }
  if (group.addend && !is_input(group.addend)) return std::nullopt;
  Unit unit = unit_of(group.nodes, {group.x});
  if (group.addend) unit.inputs.push_back(group.addend);
  return unit;
}

std::optional<Unit> glue_at(const Node& node, std::set<size_t>& taken, const Part* part) {
  if ((part == nullptr && node.is_assigned()) || !node.input(0)) return std::nullopt;
  if (node.is("Conv")) {
    std::optional<Group> group = product_at(node, part);
    if (!group || !(is_depthwise_conv(*group) || is_stem_conv(*group))) return std::nullopt;
    std::set<size_t> with_followers = taken;
    extend(*group, with_followers, part);
    std::optional<Unit> unit = conv_unit(*group);
    if (!unit) return unit;
    taken = std::move(with_followers);
    unit->is_stem = !is_depthwise_conv(*group);
    return unit;
  }
  const std::vector<Value> inputs = node.inputs();
  if (pooling_of(node) || (node.is("GlobalAveragePool") && rank_of(inputs[0]) >= 3) || activation_of(node)) {
    return is_input(inputs[0]) ? std::optional(unit_of({node}, {inputs[0]})) : std::nullopt;
  }
  if (!is_sum(node) && !is_channel_concat(node)) return std::nullopt;
  if (!std::all_of(inputs.begin(), inputs.end(), is_input)) return std::nullopt;
  Unit unit = unit_of({node}, inputs);
  if (is_sum(node)) take_activation(unit, taken, part);
  return unit;
}

std::vector<Unit> units_of(const std::vector<Node>& nodes, const std::vector<std::string>& wanted) {
  std::map<size_t, size_t> places;
  Part part{{}, {wanted.begin(), wanted.end()}};
  for (size_t i = 0; i < nodes.size(); ++i) {
    places[nodes[i].id()] = i;
    part.nodes.insert(nodes[i].id());
  }
  std::set<size_t> taken;
  std::vector<Unit> units;
  // Convolutions first: what follows them is theirs.
  for (const bool convolutions : {true, false}) {
    for (const Node& node : nodes) {
      if (node.is("Conv") != convolutions || taken.count(node.id()) != 0) continue;
      std::optional<Unit> unit;
      if (convolutions) {
        std::optional<Group> group = product_at(node, &part);
        if (group) extend(*group, taken, &part);
        if (group) unit = conv_unit(*group);
      } else {
        unit = glue_at(node, taken, &part);
      }
      if (!unit) throw Refusal("it was compiled with " + node.text());
      units.push_back(*unit);
    }
  }
  std::stable_sort(units.begin(), units.end(), [&](const Unit& a, const Unit& b) {
    return places.at(a.nodes.back().id()) < places.at(b.nodes.back().id());
  });
  return units;
}

std::unique_ptr<Step> step_of(const Unit& unit) {
  const Kernels& kernels = choose_kernels();
  const Node& first = unit.nodes.front();
  if (first.is("Conv")) {
    const Group group = group_of(unit.nodes);
    const Tensor weight = group.weight.initializer();
    if (is_depthwise_conv(group)) {
      return depthwise_step(kernels, numbers_of(group.weight), weight.shape, Attributes(first),
                            numbers_of(group.bias), epilogue_of(group));
    }
    if (is_stem_conv(group) && density(weight) > kDenseStem) {
      return stem_step(kernels, numbers_of(group.weight), weight.shape, Attributes(first), numbers_of(group.bias),
                       epilogue_of(group));
    }
    return sparse_conv_step(kernels, nonzeros(weight), Attributes(first), numbers_of(group.bias),
                            epilogue_of(group));
  }
  if (const std::optional<Pooling> pooling = pooling_of(first)) {
    return pool_step(kernels, *pooling, Attributes(first));
  }
  if (first.is("GlobalAveragePool")) return global_mean_step(kernels);
  if (first.is("Concat")) return concat_step(kernels);
  const std::optional<Group> activation = activation_of(unit.nodes.back());
  return sum_step(kernels, activation ? epilogue_of(*activation) : Epilogue{});
}

}  // namespace onnxprune
