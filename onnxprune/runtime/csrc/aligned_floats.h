// Memory for panels and sums.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace onnxprune {

// Floats aligned to a cache line, for aligned vector loads. Uninitialized.
class AlignedFloats {
 public:
  // At least `count` floats, valid until the next call, which reuses their memory.
  float* at_least(size_t count) {
    if (count > count_) {
      count_ = 0;
      floats_.reset(static_cast<float*>(::operator new[](count * sizeof(float), kAlignment)));
      count_ = count;
    }
    return floats_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* floats) const { ::operator delete[](floats, kAlignment); }
  };

  std::unique_ptr<float, Free> floats_;
  size_t count_ = 0;
};

}  // namespace onnxprune
