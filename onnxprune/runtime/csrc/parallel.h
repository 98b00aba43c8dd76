// Threads: whoever calls the kernels lends them.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>

namespace onnxprune {

// Runs task(0) to task(count - 1), on any threads, in any order, and comes back when all are done.
using Threads = std::function<void(size_t count, const std::function<void(size_t)>& task)>;

// `threads`, with the first exception of a task thrown again to the caller.
template <class Task>
void run_parallel(const Threads& threads, size_t count, const Task& task) {
  std::exception_ptr failure;
  std::mutex mutex;
  threads(count, [&](size_t index) {
    try {
      task(index);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

// Floats aligned to a cache line, as vectors are loaded. What they hold is undefined.
class AlignedFloats {
 public:
  // At least `count` floats, valid until the next call; the memory is kept for it.
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
