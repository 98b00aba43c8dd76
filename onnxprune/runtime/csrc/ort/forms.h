// The forms that an operator comes in: what follows its sums is said by its name (sparse/functions.py).
#pragma once

#include <string>
#include <vector>

#include "kernels/epilogue.h"

namespace onnxprune {

// `SparseConv` + "AddRelu": the name's ending, and the epilogue that it stands for.
struct Form {
  std::string name;
  Activation activation;
  // What neither scalars nor attributes give.
  Constants constants;
  // What inputs give, in their order, after the addend's.
  std::vector<double Constants::*> scalars;
  bool has_addend = false;
};

// Every form, the plain one first.
const std::vector<Form>& forms();

}  // namespace onnxprune
