// How the code says that it cannot run a node.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace onnxprune {

// A weight, an attribute or an input that no kernel can work with; `what()` is a sentence's end for the user.
struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// "[2, 3]", for messages.
inline std::string to_string(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace onnxprune
