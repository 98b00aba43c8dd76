#include "ep/costs.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <set>

#include "conv_geometry.h"
#include "ort/conv_op.h"

namespace onnxprune {
namespace {

// What a size is taken for where the graph leaves it open: of an image, a middling one, as the costs grow with it alike
// (sparse/estimate.py); of rows, few and many, since what is best depends on it.
constexpr int64_t kOpenSide = 56;
constexpr std::array<int64_t, 2> kOpenRows{1, 64};

// What onnxruntime's blocked layout passes through on its way from one convolution to the next (sparse/estimate.py).
// clang-format off
constexpr std::array<const char*, 16> kPassing{
    "Add", "Sum", "Mul", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Identity", "Dropout",
    "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"};
// clang-format on

bool passes(const Node& node) {
  return std::any_of(kPassing.begin(), kPassing.end(), [&](const char* op_type) { return node.is(op_type); });
}

// Whether onnxruntime may compute it in its blocked layout.
bool is_conv(const Node& node) { return node.is("Conv") && node.input(1).is_constant(); }

std::vector<int64_t> conv_input(const Node& node, const std::vector<int64_t>& weight, int64_t groups) {
  std::vector<int64_t> sizes(weight.size(), kOpenSide);
  sizes[0] = 1;
  if (const std::optional<Dimensions> shape = node.input(0).shape(); shape && shape->size() == sizes.size()) {
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
      if ((*shape)[axis].size >= 0) sizes[axis] = (*shape)[axis].size;
    }
  }
  sizes[1] = weight[1] * groups;
  return sizes;
}

Cost conv_cost(const Group& group, const Tensor& weight, double density, bool in_group) {
  const ConvOp<float>::Attributes attributes(group.nodes.front());
  const ConvGeometry geometry(weight.shape, attributes);
  const std::vector<int64_t> x = conv_input(group.nodes.front(), weight.shape, attributes.group);
  const std::vector<int64_t> y = geometry.output_shape(x);
  const std::vector<ConvAxis> axes = geometry.resolve(x).axes;
  const bool is_plain = std::all_of(axes.begin(), axes.end(), [](const ConvAxis& axis) { return axis.is_plain(); });
  const Site site = !in_group ? Site::kNode : is_plain ? Site::kInPlace : Site::kGroup;
  return estimate({volume(x), volume(y), volume(y) / weight.shape[0], volume(weight.shape), density, site});
}

// The rows of x, where sizes that are open are `open`.
int64_t rows_of(const Value& x, int64_t open, int64_t inputs) {
  const std::optional<Dimensions> shape = x.shape();
  if (!shape || shape->empty()) return open;
  // Of all axes, so that it does not matter which one the product sums over.
  int64_t elements = 1;
  bool is_open = false;
  for (const Dimension& dimension : *shape) {
    if (dimension.size >= 0) elements *= dimension.size;
    if (dimension.size < 0) is_open = true;
  }
  const int64_t rows = std::max<int64_t>(elements / inputs, 1);
  return is_open ? rows * open : rows;
}

Cost product_cost(const Group& group, const Tensor& weight, double density) {
  const bool is_gemm = group.op == Operator::kGemm;
  const size_t input_axis =
      weight.shape.size() - (is_gemm && attribute(group.nodes.front(), "transB", int64_t{0}) != 0 ? 1 : 2);
  const int64_t inputs = weight.shape[input_axis];
  const int64_t outputs = weight.shape[weight.shape.size() - 2] * weight.shape.back() / inputs;
  std::optional<Cost> worst;
  for (const int64_t open : kOpenRows) {
    const int64_t rows = rows_of(group.x, open, inputs);
    const Cost cost = estimate({rows * inputs, rows * outputs, rows, volume(weight.shape), density, Site::kNode});
    if (!worst || cost.dense * worst->sparse < worst->dense * cost.sparse) worst = cost;
  }
  return *worst;
}

// The nearest convolution before the node.
std::optional<Node> conv_before(const Node& node, const std::function<bool(const Node&)>& is_conv_apart) {
  std::deque<Value> values{node.input(0)};
  std::set<size_t> seen;
  while (!values.empty()) {
    const std::optional<Node> maker = values.front().maker();
    values.pop_front();
    if (!maker || !seen.insert(maker->id()).second) continue;
    if (is_conv_apart(*maker)) return maker;
    if (is_conv(*maker)) {
      values.push_back(maker->input(0));
      continue;
    }
    if (!passes(*maker)) continue;
    for (const Value& value : maker->inputs()) {
      if (value) values.push_back(value);
    }
  }
  return std::nullopt;
}

}  // namespace

Cost cost_of(const Group& group, double density, bool in_group) {
  const Tensor weight = group.weight.initializer();
  if (weight.elements == 0) throw Refusal("its weight is empty");
  return group.op == Operator::kConv ? conv_cost(group, weight, density, in_group)
                                    : product_cost(group, weight, density);
}

std::vector<Edge> edges_of(const std::vector<Node>& nodes, const std::vector<Group>& groups,
                           const std::function<bool(const Node&)>& is_glue) {
  std::map<size_t, size_t> places;
  for (size_t i = 0; i < groups.size(); ++i) places[groups[i].nodes.front().id()] = i;
  const auto place = [&](const Node& node) {
    const auto found = places.find(node.id());
    return found == places.end() ? Edge::kDense : found->second;
  };
  const auto is_apart = [&](const Node& node) {
    return is_conv(node) && (place(node) != Edge::kDense || !is_glue(node));
  };
  std::vector<Edge> edges;
  for (const Node& node : nodes) {
    if (!is_apart(node)) continue;
    const std::optional<Node> maker = conv_before(node, is_apart);
    if (!maker) continue;
    const Tensor weight = node.input(1).initializer();
    if (weight.shape.size() < 3) continue;
    const std::vector<int64_t> x = conv_input(node, weight.shape, attribute(node, "group", int64_t{1}));
    edges.push_back({place(*maker), place(node), volume(x)});
  }
  return edges;
}

}  // namespace onnxprune
