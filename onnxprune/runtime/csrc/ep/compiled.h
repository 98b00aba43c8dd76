// What a node of onnxruntime's runs that stands for nodes of a graph.
#pragma once

#include <string>

#include "ort/api.h"

namespace onnxprune {

class Compiled {
 public:
  virtual ~Compiled() = default;
  // Safe to call from several threads at once.
  virtual void compute(OrtKernelContext* context) = 0;
  // The status of a failed run: which node, and why.
  virtual OrtStatus* refusal(const char* why) const noexcept = 0;
};

}  // namespace onnxprune
