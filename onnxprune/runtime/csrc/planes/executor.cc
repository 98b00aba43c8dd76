#include "planes/executor.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "refusal.h"

namespace onnxprune {
namespace {

// Shapes whose plans are kept; a plan has the weights packed for it.
constexpr size_t kPlans = 4;
// Memory for later runs that is kept; more only serves that many runs at the same time.
constexpr size_t kFree = 4;

bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 64 == 0; }

Refusal named(const std::string& text, const std::exception& error) {
  return Refusal(text + " cannot run: " + error.what());
}

}  // namespace

Executor::Executor(const Kernels& kernels, size_t inputs, std::vector<GroupStep> steps, std::vector<size_t> outputs)
    : kernels_(kernels), inputs_(inputs), steps_(std::move(steps)), outputs_(std::move(outputs)) {}

void Executor::run(const std::vector<Input>& inputs, const Outputs& outputs, const Threads& threads) {
  const std::shared_ptr<const Plan> plan = plan_for(inputs);
  std::vector<float*> results;
  for (size_t i = 0; i < outputs_.size(); ++i) results.push_back(outputs(i, plan->shapes[outputs_[i]]));
  if (plan->works.empty()) return;  // there is nothing to compute
  std::unique_ptr<AlignedFloats> memory = borrow();
  float* const base = memory->at_least(plan->memory.floats);
  std::vector<float*> values;
  for (const size_t place : plan->memory.places) values.push_back(base + place);
  for (size_t i = 0; i < inputs_; ++i) {
    if (plan->layouts[i].is_contiguous() && is_aligned(inputs[i].data)) {
      values[i] = const_cast<float*>(inputs[i].data);  // only read
    } else {
      bring_in(plan->layouts[i], inputs[i].data, values[i]);
    }
  }
  // Outputs that have the layout of a group's values are made where the caller wants them.
  std::vector<bool> is_made(outputs_.size());
  for (size_t i = 0; i < outputs_.size(); ++i) {
    is_made[i] = plan->memory.is_free[outputs_[i]] && plan->layouts[outputs_[i]].is_contiguous() &&
                 is_aligned(results[i]);
    if (is_made[i]) values[outputs_[i]] = results[i];
  }
  std::vector<const float*> from;
  for (size_t i = 0; i < steps_.size(); ++i) {
    from.clear();
    for (const size_t input : steps_[i].inputs) from.push_back(values[input]);
    try {
      plan->works[i]->run(from, values[inputs_ + i], threads);
    } catch (const std::exception& error) {
      throw named(steps_[i].text, error);
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    if (!is_made[i]) bring_out(plan->layouts[outputs_[i]], values[outputs_[i]], results[i]);
  }
  give_back(std::move(memory));
}

std::shared_ptr<const Executor::Plan> Executor::plan_for(const std::vector<Input>& inputs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto fits = [&](const std::shared_ptr<const Plan>& plan) {
    return std::equal(inputs.begin(), inputs.end(), plan->inputs.begin(), plan->inputs.end(),
                      [](const Input& input, const Shape& shape) { return input.shape == shape; });
  };
  auto found = std::find_if(plans_.begin(), plans_.end(), fits);
  if (found == plans_.end()) {
    plans_.push_back(make_plan(inputs));
    found = plans_.end() - 1;
  }
  std::rotate(plans_.begin(), found, found + 1);
  if (plans_.size() > kPlans) plans_.pop_back();
  return plans_.front();
}

std::vector<Shape> Executor::shapes_of(const std::vector<Input>& inputs) const {
  std::vector<Shape> shapes;
  for (const Input& input : inputs) shapes.push_back(input.shape);
  for (const GroupStep& step : steps_) {
    std::vector<Shape> from;
    for (const size_t input : step.inputs) from.push_back(shapes[input]);
    try {
      if (from[0].size() < 3) throw Refusal("its input has shape " + to_string(from[0]) + ", without a spatial axis");
      shapes.push_back(step.step->output_shape(from));
    } catch (const std::exception& error) {
      throw named(step.text, error);
    }
  }
  return shapes;
}

std::shared_ptr<const Executor::Plan> Executor::make_plan(const std::vector<Input>& inputs) const {
  auto plan = std::make_shared<Plan>();
  plan->shapes = shapes_of(inputs);
  plan->inputs.assign(plan->shapes.begin(), plan->shapes.begin() + static_cast<ptrdiff_t>(inputs_));
  for (const Shape& shape : plan->shapes) plan->layouts.emplace_back(kernels_, shape);
  const auto is_empty = [](const Shape& shape) { return volume(shape) == 0; };
  if (std::any_of(plan->shapes.begin(), plan->shapes.end(), is_empty)) {
    for (const size_t output : outputs_) {
      if (!is_empty(plan->shapes[output])) throw Refusal("an input is empty, and an output is not");
    }
    return plan;
  }
  plan->memory = plan_memory(uses(*plan));
  for (const GroupStep& step : steps_) {
    std::vector<Shape> from;
    for (const size_t input : step.inputs) from.push_back(plan->shapes[input]);
    try {
      plan->works.push_back(step.step->prepare(from));
    } catch (const std::exception& error) {
      throw named(step.text, error);
    }
  }
  return plan;
}

std::vector<Use> Executor::uses(const Plan& plan) const {
  std::vector<Use> uses;
  for (size_t value = 0; value < plan.shapes.size(); ++value) {
    const size_t first = value < inputs_ ? 0 : value - inputs_;
    uses.push_back({plan.layouts[value].floats(), first, first});
  }
  for (size_t i = 0; i < steps_.size(); ++i) {
    for (const size_t input : steps_[i].inputs) uses[input].last = i;
  }
  for (const size_t output : outputs_) uses[output].last = steps_.size();
  // What a Concat reads is made in its place, where it belongs to no other Concat already. The later Concat comes
  // first, so that a Concat of a Concat is the one that has both.
  for (size_t i = steps_.size(); i-- > 0;) {
    if (!steps_[i].step->is_concat()) continue;
    const size_t made = inputs_ + i;
    const size_t whole = uses[made].whole == Use::kNone ? made : uses[made].whole;
    size_t offset = uses[made].offset;
    for (const size_t input : steps_[i].inputs) {
      if (input >= inputs_ && uses[input].whole == Use::kNone && input != whole) {
        uses[input].whole = whole;
        uses[input].offset = offset;
        uses[whole].first = std::min(uses[whole].first, uses[input].first);
        uses[whole].last = std::max(uses[whole].last, uses[input].last);
      }
      offset += plan.layouts[input].floats();
    }
  }
  return uses;
}

std::unique_ptr<AlignedFloats> Executor::borrow() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_.empty()) return std::make_unique<AlignedFloats>();
  std::unique_ptr<AlignedFloats> memory = std::move(free_.back());
  free_.pop_back();
  return memory;
}

void Executor::give_back(std::unique_ptr<AlignedFloats> memory) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_.size() < kFree) free_.push_back(std::move(memory));
}

}  // namespace onnxprune
