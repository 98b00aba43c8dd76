// Which products run by kernels and which dense, by what they are estimated to cost: the rule of sparse/estimate.py,
// with its constants, and the search of sparse/choose.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onnxprune {

// Where a product is computed: by a node of its own, which packs its input and copies its output; in a group, which
// keeps both in its layout; or there where they lie, as 1x1 convolutions of a group are.
enum class Site { kNode, kGroup, kInPlace };

// Of one product: the elements of its input, output and weight.
struct Work {
  int64_t x_elements;
  int64_t y_elements;
  // Rows of x, or pixels of the output of a convolution.
  int64_t rows;
  int64_t weight_elements;
  // The share of the weight that is not zero.
  double density;
  Site site;
};

// Of one product, in multiply-adds of onnxruntime's dense kernels.
struct Cost {
  double dense;
  double sparse;
};

Cost estimate(const Work& work);

// A convolution that reads what another one makes. Either may be a product that can be chosen, by its index, or one
// that is always dense.
struct Edge {
  static constexpr size_t kDense = SIZE_MAX;
  size_t maker;
  size_t reader;
  int64_t elements;
};

// For each product whether it runs by its kernel.
std::vector<bool> choose(const std::vector<Cost>& costs, const std::vector<Edge>& edges);

}  // namespace onnxprune
