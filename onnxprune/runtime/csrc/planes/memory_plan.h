// Where values lie in one piece of memory, so that those that are needed at different times share it.
#pragma once

#include <cstddef>
#include <vector>

namespace onnxprune {

// A value: its size, and the steps from the one that makes it to the last that reads it. A value that is a part of
// another one lies `offset` floats behind its start.
struct Use {
  static constexpr size_t kNone = static_cast<size_t>(-1);
  size_t floats;
  size_t first;
  size_t last;
  size_t whole = kNone;
  size_t offset = 0;
};

struct MemoryPlan {
  // Of each value, in floats; multiples of 16.
  std::vector<size_t> places;
  // Whether each value is neither a part of another one nor has parts, and may as well lie elsewhere.
  std::vector<bool> is_free;
  size_t floats = 0;
};

// Sizes are multiples of 16. A whole must not be a part itself, and must live as long as its parts.
MemoryPlan plan_memory(const std::vector<Use>& uses);

}  // namespace onnxprune
