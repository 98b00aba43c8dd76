// What every custom operator tells onnxruntime about itself.
#pragma once

#include <exception>
#include <limits>
#include <string>
#include <utility>

#include "ort/api.h"
#include "ort/refuse.h"

namespace onnxprune {

// An operator with one output, whose nodes are `Node`s. Its functions throw nothing; its errors name the node.
//
// `Op` has input_type(index), is_optional(index), output_type(), and make_node(name, info), which makes a Node. A Node
// has compute(context) and name().
template <class Op, class Node>
struct CustomOp : OrtCustomOp {
  CustomOp(std::string op_name, size_t inputs) : OrtCustomOp{}, name(std::move(op_name)), input_count(inputs) {
    version = kOrtApiVersion;
    GetName = [](const OrtCustomOp* op) { return self(op).name.c_str(); };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
    GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).input_count; };
    GetInputType = [](const OrtCustomOp* op, size_t index) { return self(op).input_type(index); };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetInputCharacteristic = [](const OrtCustomOp* op, size_t index) {
      return self(op).is_optional(index) ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
    };
    GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
    GetOutputType = [](const OrtCustomOp* op, size_t) { return self(op).output_type(); };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
    CreateKernelV2 = create;
    KernelComputeV2 = compute;
    KernelDestroy = [](void* node) { delete static_cast<Node*>(node); };
  }

  static const Op& self(const OrtCustomOp* op) { return *static_cast<const Op*>(op); }

  static OrtStatus* ORT_API_CALL create(const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info,
                                        void** node) noexcept {
    std::string node_text;
    try {
      node_text = self(op).name + " node '" + node_name(info) + "'";
      *node = self(op).make_node(node_text, info);
      return nullptr;
    } catch (const std::exception& error) {
      return refuse(node_text, error.what());
    }
  }

  static OrtStatus* ORT_API_CALL compute(void* op_kernel, OrtKernelContext* context) noexcept {
    auto* const node = static_cast<Node*>(op_kernel);
    try {
      node->compute(context);
      return nullptr;
    } catch (const std::exception& error) {
      return refuse(node->name(), error.what());
    }
  }

  const std::string name;
  const size_t input_count;
};

}  // namespace onnxprune
