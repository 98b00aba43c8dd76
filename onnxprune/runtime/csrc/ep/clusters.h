// Which units run as one node of onnxruntime's.
#pragma once

#include <cstddef>
#include <vector>

#include "ep/units.h"

namespace onnxprune {

struct Cluster {
  std::vector<Unit> units;
  // How many of them are sparse convolutions.
  size_t products;
};

// Joins units that read each other, where nothing outside lies between them: otherwise the node would wait for itself.
// What is no product joins only what makes an input of it. Of units that join nothing only products are left.
std::vector<Cluster> clusters_of(const std::vector<Node>& nodes, std::vector<Unit> products);

}  // namespace onnxprune
