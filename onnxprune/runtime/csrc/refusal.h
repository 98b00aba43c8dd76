// The exception for nodes that cannot run.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace onnxprune {

// A weight, an attribute or an input is not valid. `what()` completes the sentence "node ... cannot run: ".
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
