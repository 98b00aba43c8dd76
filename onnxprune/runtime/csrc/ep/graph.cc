#include "ep/graph.h"

#include <algorithm>

namespace onnxprune {
namespace {

// What a call gives that has the form (object, T* made).
template <class T, class Call, class Object>
T given(Call call, const Object* object) {
  T made{};
  check(call(object, &made));
  return made;
}

const OrtTensorTypeAndShapeInfo* tensor_info(const OrtValueInfo* info) {
  const auto* const type = given<const OrtTypeInfo*>(g_ep.ort->GetValueInfoTypeInfo, info);
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  if (type != nullptr) check(g_ep.ort->CastTypeInfoToTensorInfo(type, &tensor));
  return tensor;
}

const OrtOpAttr* find_attribute(const Node& node, const char* name) {
  const OrtOpAttr* found = nullptr;
  // The status says that the operator has no attribute of this name, which is as good as absent.
  if (OrtStatus* const status = g_ep.ort->Node_GetAttributeByName(node.get(), name, &found)) {
    g_ep.ort->ReleaseStatus(status);
    return nullptr;
  }
  return found;
}

// The value in bytes; asking for none says how many there are.
std::vector<char> bytes_of(const OrtOpAttr* attribute, OrtOpAttrType type) {
  size_t size = 0;
  if (OrtStatus* const status = g_ep.ort->ReadOpAttr(attribute, type, nullptr, 0, &size)) {
    g_ep.ort->ReleaseStatus(status);
  }
  std::vector<char> bytes(size);
  if (size > 0) check(g_ep.ort->ReadOpAttr(attribute, type, bytes.data(), size, &size));
  return bytes;
}

template <class T>
T number(const Node& node, const char* name, OrtOpAttrType type, T absent) {
  const OrtOpAttr* const found = find_attribute(node, name);
  size_t size = 0;
  if (found != nullptr) check(g_ep.ort->ReadOpAttr(found, type, &absent, sizeof(absent), &size));
  return absent;
}

}  // namespace

std::string Value::name() const { return given<const char*>(g_ep.ort->GetValueInfoName, info_); }

bool Value::is_float_tensor() const {
  const OrtTensorTypeAndShapeInfo* const tensor = tensor_info(info_);
  return tensor != nullptr && given<ONNXTensorElementDataType>(g_ep.ort->GetTensorElementType, tensor) ==
                                  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

std::optional<Dimensions> Value::shape() const {
  const OrtTensorTypeAndShapeInfo* const tensor = tensor_info(info_);
  if (tensor == nullptr || !g_ep.ort->TensorTypeAndShape_HasShape(tensor)) return std::nullopt;
  const auto rank = given<size_t>(g_ep.ort->GetDimensionsCount, tensor);
  std::vector<int64_t> sizes(rank);
  std::vector<const char*> names(rank);
  check(g_ep.ort->GetDimensions(tensor, sizes.data(), rank));
  check(g_ep.ort->GetSymbolicDimensions(tensor, names.data(), rank));
  Dimensions shape;
  for (size_t i = 0; i < rank; ++i) shape.push_back({sizes[i], names[i] == nullptr ? "" : names[i]});
  return shape;
}

bool Value::is_constant() const { return !is_outer() && given<bool>(g_ep.ort->ValueInfo_IsConstantInitializer, info_); }

bool Value::is_outer() const { return given<bool>(g_ep.ort->ValueInfo_IsFromOuterScope, info_); }

Tensor Value::initializer() const {
  return tensor_of(given<const OrtValue*>(g_ep.ort->ValueInfo_GetInitializerValue, info_));
}

std::optional<Node> Value::maker() const {
  const OrtNode* node = nullptr;
  size_t index = 0;
  check(g_ep.ort->ValueInfo_GetValueProducer(info_, &node, &index));
  return node == nullptr ? std::nullopt : std::optional(Node(node));
}

bool Value::is_needed() const {
  return given<bool>(g_ep.ort->ValueInfo_IsGraphOutput, info_) ||
         given<size_t>(g_ep.ort->ValueInfo_GetValueNumConsumers, info_) > 0;
}

std::optional<Node> Value::only_reader() const {
  if (given<bool>(g_ep.ort->ValueInfo_IsGraphOutput, info_)) return std::nullopt;
  if (given<size_t>(g_ep.ort->ValueInfo_GetValueNumConsumers, info_) != 1) return std::nullopt;
  const OrtNode* node = nullptr;
  int64_t index = 0;
  check(g_ep.ort->ValueInfo_GetValueConsumers(info_, &node, &index, 1));
  return index < 0 ? std::nullopt : std::optional(Node(node));  // below 0: read inside of a subgraph
}

size_t Node::id() const { return given<size_t>(g_ep.ort->Node_GetId, node_); }

std::string Node::text() const {
  const std::string name = given<const char*>(g_ep.ort->Node_GetName, node_);
  return op_type() + " node '" + (name.empty() ? output().name() : name) + "'";
}

std::string Node::op_type() const { return given<const char*>(g_ep.ort->Node_GetOperatorType, node_); }

std::string Node::domain() const { return given<const char*>(g_ep.ort->Node_GetDomain, node_); }

bool Node::is(const char* type) const {
  const std::string own = domain();
  return (own.empty() || own == "ai.onnx") && op_type() == type;
}

bool Node::is_assigned() const {
  const char* const provider = given<const char*>(g_ep.ort->Node_GetEpName, node_);
  return provider != nullptr && *provider != '\0';
}

std::vector<Value> Node::inputs() const {
  std::vector<const OrtValueInfo*> infos(given<size_t>(g_ep.ort->Node_GetNumInputs, node_));
  check(g_ep.ort->Node_GetInputs(node_, infos.data(), infos.size()));
  return {infos.begin(), infos.end()};
}

Value Node::input(size_t index) const {
  const std::vector<Value> all = inputs();
  return index < all.size() ? all[index] : Value();
}

std::vector<Value> Node::implicit_inputs() const {
  std::vector<const OrtValueInfo*> infos(given<size_t>(g_ep.ort->Node_GetNumImplicitInputs, node_));
  if (!infos.empty()) check(g_ep.ort->Node_GetImplicitInputs(node_, infos.data(), infos.size()));
  return {infos.begin(), infos.end()};
}

std::vector<Value> Node::all_outputs() const {
  std::vector<const OrtValueInfo*> infos(outputs());
  check(g_ep.ort->Node_GetOutputs(node_, infos.data(), infos.size()));
  return {infos.begin(), infos.end()};
}

Value Node::output() const {
  const std::vector<Value> all = all_outputs();
  return all.empty() ? Value() : all.front();
}

size_t Node::outputs() const { return given<size_t>(g_ep.ort->Node_GetNumOutputs, node_); }

int64_t attribute(const Node& node, const char* name, int64_t absent) {
  return number(node, name, ORT_OP_ATTR_INT, absent);
}

float attribute(const Node& node, const char* name, float absent) {
  return number(node, name, ORT_OP_ATTR_FLOAT, absent);
}

std::string attribute(const Node& node, const char* name, const std::string& absent) {
  const OrtOpAttr* const found = find_attribute(node, name);
  if (found == nullptr) return absent;
  const std::vector<char> bytes = bytes_of(found, ORT_OP_ATTR_STRING);
  return {bytes.begin(), std::find(bytes.begin(), bytes.end(), '\0')};  // some versions count a closing zero
}

std::vector<int64_t> attribute(const Node& node, const char* name, const std::vector<int64_t>& absent) {
  const OrtOpAttr* const found = find_attribute(node, name);
  if (found == nullptr) return absent;
  const std::vector<char> bytes = bytes_of(found, ORT_OP_ATTR_INTS);
  std::vector<int64_t> values(bytes.size() / sizeof(int64_t));
  std::copy_n(bytes.begin(), values.size() * sizeof(int64_t), reinterpret_cast<char*>(values.data()));
  return values;
}

std::vector<Node> nodes_of(const OrtGraph* graph) {
  std::vector<const OrtNode*> nodes(given<size_t>(g_ep.ort->Graph_GetNumNodes, graph));
  check(g_ep.ort->Graph_GetNodes(graph, nodes.data(), nodes.size()));
  return {nodes.begin(), nodes.end()};
}

}  // namespace onnxprune
