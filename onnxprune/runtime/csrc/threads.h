// Threads: whoever calls the kernels lends them.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>

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

}  // namespace onnxprune
