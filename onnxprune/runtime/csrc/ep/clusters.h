// Which units run as one node of onnxruntime's.
#pragma once

#include <cstddef>
#include <set>
#include <vector>

#include "ep/units.h"

namespace onnxprune {

using Cluster = std::vector<Unit>;

// Joins units that read each other, where nothing outside lies between them: otherwise the node would wait for itself.
// What is no product joins only where groups make all of its inputs. Of units that join nothing only products are left.
// Nodes in `taken`, those of the products among them, are left out.
std::vector<Cluster> clusters_of(const std::vector<Node>& nodes, std::vector<Unit> products, std::set<size_t> taken);

}  // namespace onnxprune
