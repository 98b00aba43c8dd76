// The Conv operators as onnxruntime calls them: attributes and inputs, checked and handed to SparseConv.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "cpu.h"
#include "ort/operands.h"
#include "refusal.h"
#include "sparse_conv.h"

namespace onnxprune {

template <class T>
class ConvOp {
 public:
  struct Attributes : ConvAttributes {
    // Of what has attributes: an OrtKernelInfo*, or a Node of a graph.
    template <class Source>
    explicit Attributes(const Source& source) {
      auto_pad = attribute(source, "auto_pad", auto_pad);
      dilations = attribute(source, "dilations", dilations);
      group = attribute(source, "group", group);
      kernel_shape = attribute(source, "kernel_shape", kernel_shape);
      pads = attribute(source, "pads", pads);
      strides = attribute(source, "strides", strides);
    }
  };

  ConvOp(const Attributes& attributes, const SparseWeight& weight) : conv_(choose_kernels(), weight, attributes) {}

  void compute(const Context& context, const Arguments<T>& arguments) {
    const Operand<T>& x = arguments.x;
    const std::optional<Operand<T>>& bias = arguments.bias;
    if (bias && (bias->shape().size() != 1 || size_at(bias->shape(), 0) != conv_.output_channels())) {
      throw Refusal("its bias has shape " + to_string(bias->shape()));
    }
    const std::vector<int64_t> y_shape = conv_.output_shape(x.shape());
    Result<T> y(context, y_shape);
    conv_.run(x.data(), x.shape(), bias ? bias->data() : nullptr, y.data(), context.threads(),
              arguments.epilogue_for(y_shape));
    y.finish();
  }

 private:
  SparseConv conv_;
};

}  // namespace onnxprune
