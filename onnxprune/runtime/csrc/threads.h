// Threads: whoever calls the kernels lends them.
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

// How many threads a ParallelFor has, up to the cores of the machine; for all runs of a session.
//
// No version of onnxruntime's C API tells it, and dividing a tile's rows for threads that are not there loads its panel
// once more for each part: so it is measured, at the runs that could divide, by tasks that wait for each other.
class ThreadCount {
 public:
  size_t measure(const ParallelFor& parallel_for);

 private:
  std::atomic<size_t> most_{1};
  std::atomic<size_t> measurements_{0};
};

// The most that ThreadCount tells.
size_t max_threads();

// What a run may use: a ParallelFor and the measure of its threads.
class Threads {
 public:
  Threads(ParallelFor parallel_for, ThreadCount& thread_count)
      : parallel_for_(std::move(parallel_for)), thread_count_(thread_count) {}

  size_t count() const { return thread_count_.measure(parallel_for_); }

  // The ParallelFor, with the first exception of a task thrown again to the caller.
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
