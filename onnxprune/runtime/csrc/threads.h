// The threads that a run may use. The caller provides them: onnxruntime's own, or those of a test.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>

namespace onnxprune {

// Runs task(0) to task(count - 1), on any threads, in any order, and comes back when all are done.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& task)>;

// How many threads a ParallelFor uses, at most max_threads(). One object serves all runs of a node.
//
// Measured, because onnxruntime's C API does not tell it: tasks wait for each other, and the threads that ran them are
// counted, the most of several times. It matters where a tile's rows are split, since each part packs the tile's panel
// again.
class ThreadCount {
 public:
  size_t measure(const ParallelFor& parallel_for);

 private:
  std::atomic<size_t> most_{1};
  std::atomic<size_t> calls_{0};
};

// The number of cores.
size_t max_threads();

// A ParallelFor and the number of its threads.
class Threads {
 public:
  Threads(ParallelFor parallel_for, ThreadCount& thread_count)
      : parallel_for_(std::move(parallel_for)), thread_count_(thread_count) {}

  size_t count() const { return thread_count_.measure(parallel_for_); }

  // Runs the tasks; rethrows the first exception that one of them threw.
  template <class Task>
  void run(size_t count, const Task& task) const {
    std::exception_ptr failure;
    std::mutex mutex;
    parallel_for_(count, [&](size_t index) {
      try {
        task(index);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
  }

 private:
  ParallelFor parallel_for_;
  ThreadCount& thread_count_;
};

}  // namespace onnxprune
