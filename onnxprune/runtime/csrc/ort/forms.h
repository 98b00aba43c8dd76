// The fused forms of an operator: the end of its name says which epilogue it has (sparse/functions.py).
#pragma once

#include <string>
#include <vector>

#include "kernels/epilogue.h"

namespace onnxprune {

// The end of the name ("AddRelu" of SparseConvAddRelu), and the epilogue that it stands for.
struct Form {
  std::string name;
  Activation activation;
  // Parameters that are fixed by the form, and defaults of the others.
  Constants constants;
  // Parameters that are inputs, in their order; they follow the addend.
  std::vector<double Constants::*> scalars;
  bool has_addend = false;
};

// Every form, the plain one first.
const std::vector<Form>& forms();

}  // namespace onnxprune
