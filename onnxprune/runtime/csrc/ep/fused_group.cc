#include "ep/fused_group.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "cpu.h"
#include "ort/operands.h"

namespace onnxprune {

FusedGroup::FusedGroup(const std::vector<Node>& nodes, const std::vector<std::string>& inputs,
                       const std::vector<std::string>& outputs) {
  const std::vector<Unit> units = units_of(nodes, outputs);
  std::map<std::string, size_t> values;
  std::set<std::string> made;
  for (const Unit& unit : units) made.insert(unit.output().name());
  for (const Unit& unit : units) {
    for (const Value& input : unit.inputs) {
      if (made.count(input.name()) != 0 || values.count(input.name()) != 0) continue;
      const auto found = std::find(inputs.begin(), inputs.end(), input.name());
      if (found == inputs.end()) throw Refusal("onnxruntime does not pass its input '" + input.name() + "'");
      values[input.name()] = inputs_.size();
      inputs_.push_back(static_cast<size_t>(found - inputs.begin()));
    }
  }
  std::vector<GroupStep> steps;
  for (const Unit& unit : units) {
    GroupStep step{nullptr, {}, unit.nodes.front().text()};
    for (const Value& input : unit.inputs) step.inputs.push_back(values.at(input.name()));
    try {
      step.step = step_of(unit);
    } catch (const std::exception& error) {
      throw Refusal(step.text + " cannot run: " + error.what());
    }
    values[unit.output().name()] = inputs_.size() + steps.size();
    steps.push_back(std::move(step));
  }
  std::vector<size_t> results;
  for (const std::string& output : outputs) results.push_back(values.at(output));
  executor_ = std::make_unique<Executor>(choose_kernels(), inputs_.size(), std::move(steps), std::move(results));
}

void FusedGroup::compute(OrtKernelContext* kernel_context) {
  const Context context(kernel_context, thread_count_);
  std::vector<Executor::Input> inputs;
  for (const size_t input : inputs_) {
    const Operand<float> operand(context.input(input));
    inputs.push_back({operand.data(), operand.shape()});
  }
  const auto outputs = [&](size_t index, const Shape& shape) {
    return static_cast<float*>(context.output(shape, index).data);
  };
  executor_->run(inputs, outputs, context.threads());
}

OrtStatus* FusedGroup::refusal(const char* why) const noexcept {
  return g_ort->CreateStatus(ORT_INVALID_ARGUMENT, why);
}

}  // namespace onnxprune
