#include "ep/groups.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>

namespace onnxprune {
namespace {

constexpr size_t kWeight = 1;
constexpr size_t kBias = 2;

std::optional<Operator> operator_of(const Node& node) {
  if (node.is("Conv")) return Operator::kConv;
  if (node.is("Gemm")) return Operator::kGemm;
  if (node.is("MatMul")) return Operator::kMatMul;
  return std::nullopt;
}

Group start(Operator op, const Node& node) {
  Group group;
  group.op = op;
  group.nodes = {node};
  group.x = node.input(0);
  group.weight = node.input(kWeight);
  if (op != Operator::kMatMul) group.bias = node.input(kBias);
  return group;
}

const Form& form_named(const std::string& name) {
  return *std::find_if(forms().begin(), forms().end(), [&](const Form& form) { return form.name == name; });
}

// Whether `addend` is a row for each output of a MatMul, which broadcasts to all of its rows.
bool is_row_of(const Group& group, const Value& addend) {
  if (group.op != Operator::kMatMul || !addend.is_constant()) return false;
  return addend.initializer().shape == std::vector<int64_t>{group.weight.initializer().shape.back()};
}

// What an addition of two has beside `sum`; none where the node is no such addition.
Value other_operand(const Node& node, const Value& sum) {
  if ((!node.is("Add") && !node.is("Sum")) || node.inputs().size() != 2) return {};
  return node.input(node.input(0) == sum ? 1 : 0);
}

bool takes_addend(const Group& group, const Node& node) {
  const Value sum = group.nodes.back().output();
  const Value addend = other_operand(node, sum);
  return group.nodes.size() == 1 && addend && !addend.is_outer() &&
         (same_shape(sum, addend) || is_row_of(group, addend));
}

// A bound of a Clip, an attribute before opset 11 and an input after; nothing where it is computed.
std::optional<double> bound(const Node& node, const char* name, size_t index, double absent) {
  const Value value = node.input(index);
  if (!value || value.name().empty()) return attribute(node, name, static_cast<float>(absent));
  if (!value.is_constant() || !value.is_float_tensor()) return std::nullopt;
  const Tensor tensor = value.initializer();
  if (tensor.elements != 1) return std::nullopt;
  return *static_cast<const float*>(tensor.data);
}

bool reads(const Node& node, const Value& value) {
  const std::vector<Value> inputs = node.inputs();
  return std::any_of(inputs.begin(), inputs.end(), [&](const Value& input) { return input && input == value; });
}

// Takes the node in where kernels can compute it in the same pass.
bool add(const Node& node, Group& group) {
  const Value before = group.nodes.back().output();
  if (const Value addend = other_operand(node, before); addend && group.activation == Activation::kNone) {
    group.addend = addend;
  } else if (!add_activation(node, group)) {
    return false;
  }
  group.nodes.push_back(node);
  return true;
}

}  // namespace

bool same_shape(const Value& a, const Value& b) {
  const std::optional<Dimensions> shape = a.shape();
  const std::optional<Dimensions> other = b.shape();
  return shape && other && shape->size() == other->size() &&
         std::equal(shape->begin(), shape->end(), other->begin(),
                    [](const Dimension& one, const Dimension& two) { return one.equals(two); });
}

bool add_activation(const Node& node, Group& group) {
  constexpr std::array<const char*, 5> kActivations{"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSwish"};
  const auto* const name = std::find_if(kActivations.begin(), kActivations.end(),
                                        [&](const char* activation) { return node.is(activation); });
  if (group.activation != Activation::kNone || name == kActivations.end()) return false;
  const Form& form = form_named(*name);
  Constants constants = form.constants;
  if (node.is("Clip")) {
    constexpr double kLargest = std::numeric_limits<float>::max();
    const std::optional<double> low = bound(node, "min", 1, -kLargest);
    const std::optional<double> high = bound(node, "max", 2, kLargest);
    if (!low || !high || *low > *high) return false;
    constants.low = *low;
    constants.high = *high;
  } else if (node.is("LeakyRelu")) {
    constants.slope = attribute(node, "alpha", static_cast<float>(constants.slope));
  }
  group.activation = form.activation;
  group.constants = constants;
  return true;
}

std::optional<Group> product_at(const Node& node, const Part* part) {
  const std::optional<Operator> op = operator_of(node);
  if (!op || (part == nullptr && node.is_assigned()) || !node.input(0).is_float_tensor()) return std::nullopt;
  const Group group = start(*op, node);
  if (!group.weight.is_constant() || !group.weight.is_float_tensor()) return std::nullopt;
  if (group.bias && group.bias.is_outer()) return std::nullopt;
  const size_t rank = group.weight.initializer().shape.size();
  const bool fits = *op == Operator::kConv ? rank >= 3 : *op == Operator::kGemm ? rank == 2 : rank >= 2;
  return fits ? std::optional(group) : std::nullopt;
}

std::optional<Node> free_reader(const Value& value, const std::set<size_t>& taken, const Part* part) {
  if (part != nullptr && part->wanted.count(value.name()) != 0) return std::nullopt;
  const std::optional<Node> next = value.only_reader();
  if (!next || taken.count(next->id()) != 0) return std::nullopt;
  const bool is_free = part == nullptr ? !next->is_assigned() : part->nodes.count(next->id()) != 0;
  return is_free ? next : std::nullopt;
}

void extend(Group& group, std::set<size_t>& taken, const Part* part) {
  while (const std::optional<Node> next = free_reader(group.nodes.back().output(), taken, part)) {
    if (other_operand(*next, group.nodes.back().output()) && !takes_addend(group, *next)) return;
    if (!add(*next, group)) return;
    taken.insert(next->id());
  }
}

bool is_group(const std::vector<Node>& nodes) {
  const auto first = std::find_if(nodes.begin(), nodes.end(), operator_of);
  if (first == nodes.end()) return false;
  Group group = start(*operator_of(*first), *first);
  return std::all_of(nodes.begin(), nodes.end(), [&](const Node& node) {
    return node.id() == first->id() || (node.input(0) && reads(node, group.nodes.back().output()) && add(node, group));
  });
}

Group group_of(const std::vector<Node>& nodes) {
  const auto first = std::find_if(nodes.begin(), nodes.end(), operator_of);
  if (first == nodes.end()) throw Refusal("it was compiled without its product");
  Group group = start(*operator_of(*first), *first);
  for (const Node& node : nodes) {
    if (node.id() != first->id() && !add(node, group)) throw Refusal("it was compiled with " + node.text());
  }
  return group;
}

double density(const Tensor& weight) {
  const auto* const values = static_cast<const float*>(weight.data);
  const auto zeros = std::count(values, values + weight.elements, 0.0f);
  return weight.elements == 0 ? 1.0 : 1.0 - static_cast<double>(zeros) / static_cast<double>(weight.elements);
}

SparseWeight nonzeros(const Tensor& tensor) {
  SparseWeight weight{tensor.shape, {}, {}};
  const auto* const values = static_cast<const float*>(tensor.data);
  const auto count = tensor.elements - static_cast<size_t>(std::count(values, values + tensor.elements, 0.0f));
  weight.positions.reserve(count);
  weight.values.reserve(count);
  for (size_t i = 0; i < tensor.elements; ++i) {
    if (values[i] == 0) continue;
    weight.positions.push_back(i);
    weight.values.push_back(values[i]);
  }
  return weight;
}

}  // namespace onnxprune
