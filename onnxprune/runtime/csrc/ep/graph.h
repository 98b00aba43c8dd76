// What the provider reads of a graph of onnxruntime's. Views, valid as long as the graph is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ep/ep_api.h"

namespace onnxprune {

// A size, or where it is open -1, with the name that the model gives it, if any.
struct Dimension {
  int64_t size;
  std::string name;

  // Whether both are known to be the same size.
  bool equals(const Dimension& other) const {
    return size >= 0 ? size == other.size : other.size < 0 && !name.empty() && name == other.name;
  }
};

using Dimensions = std::vector<Dimension>;

class Node;

// A value, or none: an optional input that is absent.
class Value {
 public:
  Value() = default;
  explicit Value(const OrtValueInfo* info) : info_(info) {}

  explicit operator bool() const { return info_ != nullptr; }
  bool operator==(const Value& other) const { return name() == other.name(); }
  bool operator!=(const Value& other) const { return !(*this == other); }

  std::string name() const;
  bool is_float_tensor() const;
  // Nothing where not even the number of axes is known.
  std::optional<Dimensions> shape() const;
  // Whether it is an initializer of this graph that nothing can override, and whether of a graph around this one.
  bool is_constant() const;
  bool is_outer() const;
  // The tensor of an initializer.
  Tensor initializer() const;
  // The node that makes it, if there is one in this graph.
  std::optional<Node> maker() const;
  // Whether a node of the graph or of a subgraph, or the caller, needs it.
  bool is_needed() const;
  // The only reader, where nothing else needs the value: neither another node nor the caller.
  std::optional<Node> only_reader() const;

 private:
  const OrtValueInfo* info_ = nullptr;
};

class Node {
 public:
  explicit Node(const OrtNode* node) : node_(node) {}

  const OrtNode* get() const { return node_; }
  size_t id() const;
  // "Conv node 'conv1'", for messages; a node without a name is called by its output.
  std::string text() const;
  std::string op_type() const;
  std::string domain() const;
  // Whether it is this operator of ONNX's own.
  bool is(const char* op_type) const;
  bool is_assigned() const;
  // None where the node has no such input.
  Value input(size_t index) const;
  std::vector<Value> inputs() const;
  // Those that only subgraphs of the node read.
  std::vector<Value> implicit_inputs() const;
  Value output() const;
  std::vector<Value> all_outputs() const;
  size_t outputs() const;

 private:
  const OrtNode* node_;
};

// The value of an attribute, or `absent` if the node does not have it.
int64_t attribute(const Node& node, const char* name, int64_t absent);
float attribute(const Node& node, const char* name, float absent);
std::string attribute(const Node& node, const char* name, const std::string& absent);
std::vector<int64_t> attribute(const Node& node, const char* name, const std::vector<int64_t>& absent);

// In an order in which they can be computed.
std::vector<Node> nodes_of(const OrtGraph* graph);

}  // namespace onnxprune
