#include "ep/provider.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ep/clusters.h"
#include "ep/costs.h"
#include "ep/fused_group.h"
#include "ep/fused_node.h"
#include "ep/guard.h"
#include "ort/refuse.h"

namespace onnxprune {
namespace {

// A weight with more non-zeros is not stored sparse either: a kernel has no chance.
constexpr double kMostDensity = 0.8;

// Which products run by kernels.
constexpr const char* kKernelsOption = "ep.onnxpruneexecutionprovider.kernels";
enum class Rule { kEstimated, kAll };

// Whether products that read each other run as one.
constexpr const char* kGroupsOption = "ep.onnxpruneexecutionprovider.groups";

// Asks for a file of what was compiled.
constexpr const char* kContextOption = "ep.context_enable";

std::string option(const OrtSessionOptions* options, const char* name, const char* absent) {
  int has_entry = 0;
  check(g_ep.ort->HasSessionConfigEntry(options, name, &has_entry));
  if (has_entry == 0) return absent;
  size_t size = 0;
  check(g_ep.ort->GetSessionConfigEntry(options, name, nullptr, &size));
  std::string value(size, '\0');
  check(g_ep.ort->GetSessionConfigEntry(options, name, value.data(), &size));
  value.resize(size - 1);  // without the closing zero
  return value;
}

Rule kernels_option(const OrtSessionOptions* options) {
  const std::string value = option(options, kKernelsOption, "estimated");
  if (value == "estimated") return Rule::kEstimated;
  if (value == "all") return Rule::kAll;
  throw Refusal("the option kernels of " + std::string(kProviderName) + " is '" + value +
                "': write estimated, or all for every product with enough zeros");
}

bool groups_option(const OrtSessionOptions* options) {
  const std::string value = option(options, kGroupsOption, "on");
  if (value != "on" && value != "off") {
    throw Refusal("the option groups of " + std::string(kProviderName) + " is '" + value + "': write on or off");
  }
  return value == "on";
}

void refuse_compiled_file(const OrtSessionOptions* options) {
  if (option(options, kContextOption, "0") != "0") {
    throw Refusal(std::string(kProviderName) + " writes no compiled models: leave " + kContextOption +
                  " out and load the model itself");
  }
}

// A node of onnxruntime's that stands for others.
struct ComputeInfo : OrtNodeComputeInfo {
  explicit ComputeInfo(std::unique_ptr<Compiled> made) : OrtNodeComputeInfo{}, compiled(std::move(made)) {
    ort_version_supported = g_ep.version;
    CreateState = [](OrtNodeComputeInfo* info, OrtNodeComputeContext*, void** state) noexcept -> OrtStatus* {
      *state = static_cast<ComputeInfo*>(info)->compiled.get();
      return nullptr;
    };
    Compute = [](OrtNodeComputeInfo*, void* state, OrtKernelContext* context) noexcept -> OrtStatus* {
      auto* const compiled = static_cast<Compiled*>(state);
      try {
        compiled->compute(context);
        return nullptr;
      } catch (const std::exception& error) {
        return compiled->refusal(error.what());
      }
    };
    ReleaseState = [](OrtNodeComputeInfo*, void*) noexcept {};  // the state is part of this
  }

  std::unique_ptr<Compiled> compiled;
};

std::vector<std::string> names_of(const std::vector<Value>& values) {
  std::vector<std::string> names;
  for (const Value& value : values) names.push_back(value.name());
  return names;
}

class Provider : public OrtEp {
 public:
  explicit Provider(const OrtSessionOptions* options)
      : OrtEp{}, rule_(kernels_option(options)), makes_groups_(groups_option(options)) {
    ort_version_supported = g_ep.version;
    GetName = [](const OrtEp*) noexcept { return kProviderName; };
    GetCapability = [](OrtEp* provider, const OrtGraph* graph, OrtEpGraphSupportInfo* support) noexcept {
      return guarded([&] { static_cast<Provider*>(provider)->claim(graph, support); });
    };
    Compile = [](OrtEp*, const OrtGraph** graphs, const OrtNode** fused, size_t count, OrtNodeComputeInfo** infos,
                 OrtNode**) noexcept { return compile(graphs, fused, count, infos); };
    ReleaseNodeComputeInfos = [](OrtEp*, OrtNodeComputeInfo** infos, size_t count) noexcept {
      for (size_t i = 0; i < count; ++i) delete static_cast<ComputeInfo*>(infos[i]);
    };
  }

 private:
  void claim(const OrtGraph* graph, OrtEpGraphSupportInfo* support) {
    const std::vector<Node> nodes = nodes_of(graph);
    // A file with nodes of ours says itself which ones run dense; they are offered before they become dense ones.
    const auto is_ours = [](const Node& node) { return node.domain().rfind("onnxprune", 0) == 0; };
    has_choice_ = has_choice_ || std::any_of(nodes.begin(), nodes.end(), is_ours);
    if (has_choice_) return;
    std::set<size_t> taken;
    std::vector<Unit> units;
    for (Group& group : chosen(nodes)) {
      extend(group, taken);
      for (const Node& node : group.nodes) taken.insert(node.id());
      // Onnxruntime has no room for an output that nothing needs.
      if (!group.nodes.back().output().is_needed()) continue;
      if (std::optional<Unit> unit = makes_groups_ ? conv_unit(group) : std::nullopt) {
        units.push_back(std::move(*unit));
      } else {
        claim_nodes(group.nodes, support);
      }
    }
    for (const Cluster& cluster : clusters_of(nodes, std::move(units), taken)) {
      std::vector<Node> members;
      for (const Unit& unit : cluster) members.insert(members.end(), unit.nodes.begin(), unit.nodes.end());
      claim_nodes(members, support);
    }
  }

  static void claim_nodes(const std::vector<Node>& nodes, OrtEpGraphSupportInfo* support) {
    std::vector<const OrtNode*> members;
    for (const Node& node : nodes) members.push_back(node.get());
    OrtNodeFusionOptions options{};
    options.ort_version_supported = g_ep.version;
    options.drop_constant_initializers = true;  // the dense weights
    check(g_ep.ep->EpGraphSupportInfo_AddNodesToFuse(support, members.data(), members.size(), &options));
  }

  // The products that are to run by kernels.
  std::vector<Group> chosen(const std::vector<Node>& nodes) const {
    std::vector<Group> groups;
    std::vector<Cost> costs;
    for (const Node& node : nodes) {
      const std::optional<Group> group = product_at(node);
      if (!group) continue;
      const double share = density(group->weight.initializer());
      if (share > kMostDensity) continue;
      try {
        costs.push_back(cost_of(*group, share, makes_groups_ && conv_unit(*group)));
        groups.push_back(*group);
      } catch (const Refusal&) {
        // Left to onnxruntime, with its own message where it cannot compute it either.
      }
    }
    if (rule_ == Rule::kAll) return groups;
    const std::vector<bool> by_kernel =
        choose(costs, edges_of(nodes, groups, [&](const Node& node) {
      std::set<size_t> taken;
      return makes_groups_ && glue_at(node, taken).has_value();
    }));
    std::vector<Group> chosen;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (by_kernel[i]) chosen.push_back(groups[i]);
    }
    return chosen;
  }

  static std::unique_ptr<Compiled> compiled(const std::vector<Node>& nodes, const Node& fused) {
    const std::vector<std::string> inputs = names_of(fused.inputs());
    // With a second output, a value between is wanted as well.
    if (fused.outputs() == 1 && is_group(nodes)) return std::make_unique<FusedNode>(group_of(nodes), inputs);
    return std::make_unique<FusedGroup>(nodes, inputs, names_of(fused.all_outputs()));
  }

  static OrtStatus* compile(const OrtGraph** graphs, const OrtNode** fused, size_t count,
                            OrtNodeComputeInfo** infos) noexcept {
    std::string text = kProviderName;
    try {
      std::vector<std::unique_ptr<ComputeInfo>> made;
      for (size_t i = 0; i < count; ++i) {
        const std::vector<Node> nodes = nodes_of(graphs[i]);
        if (!nodes.empty()) text = nodes.front().text();
        made.push_back(std::make_unique<ComputeInfo>(compiled(nodes, Node(fused[i]))));
      }
      for (size_t i = 0; i < count; ++i) infos[i] = made[i].release();
      return nullptr;
    } catch (const std::exception& error) {
      return refuse(text, error.what());
    }
  }

  const Rule rule_;
  const bool makes_groups_;
  // Whether the file has nodes of the domains of ours.
  bool has_choice_ = false;
};

}  // namespace

OrtEp* make_provider(const OrtSessionOptions* session_options) {
  refuse_compiled_file(session_options);
  return new Provider(session_options);
}

void delete_provider(OrtEp* provider) { delete static_cast<Provider*>(provider); }

}  // namespace onnxprune
