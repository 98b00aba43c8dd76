// What onnxruntime calls throws nothing.
#pragma once

#include <exception>

#include "ort/api.h"

namespace onnxprune {

// Runs the task, and says in a status what it threw.
template <class Task>
OrtStatus* guarded(const Task& task) noexcept {
  try {
    task();
    return nullptr;
  } catch (const std::exception& error) {
    return g_ort->CreateStatus(ORT_FAIL, error.what());
  }
}

}  // namespace onnxprune
