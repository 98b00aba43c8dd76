#include "threads.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

namespace onnxprune {
namespace {

// Measurements end after this many calls.
constexpr size_t kMeasuredCalls = 1024;
// How long a measurement waits for all threads; waking a sleeping one takes about 50 microseconds.
constexpr std::chrono::microseconds kPatience{1000};

}  // namespace

size_t max_threads() {
  static const size_t cores = std::max(std::thread::hardware_concurrency(), 1u);
  return cores;
}

size_t ThreadCount::measure(const ParallelFor& parallel_for) {
  const size_t tasks = max_threads();
  if (most_ == tasks || calls_ >= kMeasuredCalls) return most_;
  // At calls 1, 2, 4, 8 ...: other work may keep threads away from some measurements, but hardly from all of them.
  const size_t call = ++calls_;
  if ((call & (call - 1)) != 0) return most_;
  std::vector<std::thread::id> runners(tasks);
  std::atomic<size_t> begun{0};
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  // No thread takes a second task before all tasks have started or time is up.
  parallel_for(tasks, [&](size_t task) {
    runners[task] = std::this_thread::get_id();
    ++begun;
    while (begun < tasks && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  });
  std::sort(runners.begin(), runners.end());
  const auto threads = static_cast<size_t>(std::unique(runners.begin(), runners.end()) - runners.begin());
  size_t most = most_;
  while (most < threads && !most_.compare_exchange_weak(most, threads)) {
  }
  return most_;
}

}  // namespace onnxprune
