#include "ep/clusters.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace onnxprune {
namespace {

// A unit, or a node that is none.
struct Vertex {
  std::vector<Node> nodes;
  const Unit* unit = nullptr;
  bool is_product = false;
  // Where its last node is in the graph.
  size_t place = 0;
  size_t cluster = 0;
  std::vector<size_t> makers;
  std::vector<size_t> readers;
};

class Contraction {
 public:
  Contraction(const std::vector<Node>& nodes, const std::vector<Unit>& units, size_t products) {
    std::map<size_t, size_t> vertex_of;
    for (size_t i = 0; i < units.size(); ++i) {
      Vertex vertex;
      vertex.nodes = units[i].nodes;
      vertex.unit = &units[i];
      vertex.is_product = i < products;
      for (const Node& node : vertex.nodes) vertex_of[node.id()] = vertices_.size();
      vertices_.push_back(std::move(vertex));
    }
    for (size_t i = 0; i < nodes.size(); ++i) {
      const auto found = vertex_of.emplace(nodes[i].id(), vertices_.size());
      if (found.second) vertices_.push_back({{nodes[i]}, nullptr, false, i, 0, {}, {}});
      vertices_[found.first->second].place = std::max(vertices_[found.first->second].place, i);
    }
    for (size_t i = 0; i < vertices_.size(); ++i) {
      vertices_[i].cluster = i;
      members_.push_back({i});
    }
    connect();
  }

  // Joins each unit with the makers of its inputs, in the order of the graph.
  void join() {
    std::vector<size_t> order;
    for (size_t i = 0; i < vertices_.size(); ++i) {
      if (vertices_[i].unit != nullptr) order.push_back(i);
    }
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return vertices_[a].place < vertices_[b].place; });
    for (const size_t reader : order) {
      if (!vertices_[reader].is_product && !is_made_here(vertices_[reader])) continue;
      for (const size_t maker : vertices_[reader].makers) {
        if (vertices_[maker].unit == nullptr || !begins(vertices_[maker].cluster)) continue;
        merge(vertices_[maker].cluster, vertices_[reader].cluster);
      }
    }
  }

  std::vector<Cluster> clusters() const {
    std::vector<Cluster> clusters;
    for (size_t i = 0; i < members_.size(); ++i) {
      if (members_[i].empty() || !has_product(i)) continue;
      Cluster cluster;
      for (const size_t member : members_[i]) cluster.push_back(*vertices_[member].unit);
      clusters.push_back(std::move(cluster));
    }
    return clusters;
  }

 private:
  void connect() {
    std::map<std::string, size_t> maker_of;
    for (size_t i = 0; i < vertices_.size(); ++i) {
      for (const Node& node : vertices_[i].nodes) {
        for (const Value& value : node.all_outputs()) {
          if (value) maker_of[value.name()] = i;
        }
      }
    }
    for (size_t i = 0; i < vertices_.size(); ++i) {
      std::set<size_t> makers;
      for (const Node& node : vertices_[i].nodes) {
        std::vector<Value> values = node.inputs();
        const std::vector<Value> implicit = node.implicit_inputs();
        values.insert(values.end(), implicit.begin(), implicit.end());
        for (const Value& value : values) {
          const auto maker = value ? maker_of.find(value.name()) : maker_of.end();
          if (maker != maker_of.end() && maker->second != i) makers.insert(maker->second);
        }
      }
      vertices_[i].makers.assign(makers.begin(), makers.end());
      for (const size_t maker : makers) vertices_[maker].readers.push_back(i);
    }
  }

  // Whether groups make all inputs of a unit. Others would have to be brought into the layout of groups, at no gain.
  bool is_made_here(const Vertex& vertex) const {
    std::set<std::string> names;
    for (const Value& input : vertex.unit->inputs) names.insert(input.name());
    return names.size() == vertex.makers.size() &&
           std::all_of(vertex.makers.begin(), vertex.makers.end(), [&](size_t maker) {
             return vertices_[maker].unit != nullptr && begins(vertices_[maker].cluster);
           });
  }

  bool has_product(size_t cluster) const {
    return std::any_of(members_[cluster].begin(), members_[cluster].end(),
                       [&](size_t member) { return vertices_[member].is_product; });
  }

  // Whether it is a group, or becomes one where a product joins.
  bool begins(size_t cluster) const {
    return has_product(cluster) || std::any_of(members_[cluster].begin(), members_[cluster].end(), [&](size_t member) {
             return vertices_[member].unit->is_stem;
           });
  }

  void merge(size_t into, size_t from) {
    if (into == from || leads_back(into, from)) return;
    for (const size_t member : members_[from]) vertices_[member].cluster = into;
    members_[into].insert(members_[into].end(), members_[from].begin(), members_[from].end());
    members_[from].clear();
  }

  // Whether a path leaves the two clusters and comes back to them.
  bool leads_back(size_t a, size_t b) const {
    std::set<size_t> seen;
    std::vector<size_t> left;
    const auto follow = [&](size_t cluster) {
      for (const size_t member : members_[cluster]) {
        for (const size_t reader : vertices_[member].readers) left.push_back(vertices_[reader].cluster);
      }
    };
    for (const size_t start : {a, b}) {
      for (const size_t member : members_[start]) {
        for (const size_t reader : vertices_[member].readers) {
          const size_t cluster = vertices_[reader].cluster;
          if (cluster != a && cluster != b && seen.insert(cluster).second) follow(cluster);
        }
      }
    }
    while (!left.empty()) {
      const size_t cluster = left.back();
      left.pop_back();
      if (cluster == a || cluster == b) return true;
      if (seen.insert(cluster).second) follow(cluster);
    }
    return false;
  }

  std::vector<Vertex> vertices_;
  std::vector<std::vector<size_t>> members_;
};

}  // namespace

std::vector<Cluster> clusters_of(const std::vector<Node>& nodes, std::vector<Unit> products, std::set<size_t> taken) {
  std::vector<Unit> units = std::move(products);
  const size_t count = units.size();
  for (const Node& node : nodes) {
    if (taken.count(node.id()) != 0) continue;
    std::optional<Unit> unit = glue_at(node, taken);
    if (unit && unit->output().is_needed()) units.push_back(std::move(*unit));
  }
  Contraction contraction(nodes, units, count);
  contraction.join();
  return contraction.clusters();
}

}  // namespace onnxprune
