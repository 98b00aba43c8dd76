// Runs the steps of a group. For the shapes of its inputs it plans once: weights are packed, and every value has its
// place.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "aligned_floats.h"
#include "planes/memory_plan.h"
#include "planes/step.h"

namespace onnxprune {

// A step of a group. Its inputs are values: those of the group come first, then the outputs of steps, in their order.
struct GroupStep {
  std::unique_ptr<Step> step;
  std::vector<size_t> inputs;
  // For messages.
  std::string text;
};

class Executor {
 public:
  struct Input {
    const float* data;
    Shape shape;
  };
  // Gives the contiguous tensor of output `index`, which has this shape.
  using Outputs = std::function<float*(size_t index, const Shape& shape)>;

  // `outputs` are values that steps make.
  Executor(const Kernels& kernels, size_t inputs, std::vector<GroupStep> steps, std::vector<size_t> outputs);

  // Safe to call from several threads at once. Throws Refusal, with the text of the step, where inputs do not fit.
  void run(const std::vector<Input>& inputs, const Outputs& outputs, const Threads& threads);

 private:
  struct Plan {
    std::vector<Shape> inputs;
    std::vector<Shape> shapes;
    std::vector<PlaneLayout> layouts;
    MemoryPlan memory;
    std::vector<std::unique_ptr<StepRun>> works;
  };

  std::shared_ptr<const Plan> plan_for(const std::vector<Input>& inputs);
  std::shared_ptr<const Plan> make_plan(const std::vector<Input>& inputs) const;
  std::vector<Shape> shapes_of(const std::vector<Input>& inputs) const;
  std::vector<Use> uses(const Plan& plan) const;
  std::unique_ptr<AlignedFloats> borrow();
  void give_back(std::unique_ptr<AlignedFloats> memory);

  const Kernels& kernels_;
  const size_t inputs_;
  const std::vector<GroupStep> steps_;
  const std::vector<size_t> outputs_;
  std::mutex mutex_;
  // The latest first.
  std::vector<std::shared_ptr<const Plan>> plans_;
  std::vector<std::unique_ptr<AlignedFloats>> free_;
};

}  // namespace onnxprune
