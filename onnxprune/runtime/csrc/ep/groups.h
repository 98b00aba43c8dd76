// Activation ∘ Add ∘ Conv | Gemm | MatMul: a node with a sparse weight and what follows it, computed as one.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ep/graph.h"
#include "ort/forms.h"
#include "sparse_weight.h"

namespace onnxprune {

enum class Operator { kConv, kGemm, kMatMul };

struct Group {
  Operator op = Operator::kConv;
  // The product first, each reading the one before it.
  std::vector<Node> nodes;
  Value x;
  Value weight;
  // None where there is none; the addend is what an Add has beside the product.
  Value bias;
  Value addend;
  Activation activation = Activation::kNone;
  Constants constants;
};

// The part of a graph that is compiled, whose nodes are the provider's already: their identifiers, and the names of
// values that others want of it.
struct Part {
  std::set<size_t> nodes;
  std::set<std::string> wanted;
};

// The group of a product alone, where kernels can compute it: of floats, with a weight that nothing can override.
std::optional<Group> product_at(const Node& node, const Part* part = nullptr);

// The only reader of a value that nothing else needs, and that is free: not in `taken` (identifiers), nor outside of
// the part, if there is one.
std::optional<Node> free_reader(const Value& value, const std::set<size_t>& taken, const Part* part);

// Takes in what follows the product, other than the nodes in `taken`, and adds it there. What is taken in is the only
// reader of what lies between, so that no value is missed and no group waits for itself.
void extend(Group& group, std::set<size_t>& taken, const Part* part = nullptr);

// Whether the nodes are one product and what follows it.
bool is_group(const std::vector<Node>& nodes);

// The group that was made of these nodes, in their order in the graph.
Group group_of(const std::vector<Node>& nodes);

// Adds the activation that a node is. False where it is none that the kernels have.
bool add_activation(const Node& node, Group& group);

// Whether both are known to have the same shape.
bool same_shape(const Value& a, const Value& b);

// The share of a weight that is not zero, and what is not.
double density(const Tensor& weight);
SparseWeight nonzeros(const Tensor& weight);

}  // namespace onnxprune
