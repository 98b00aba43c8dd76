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
    explicit Attributes(const OrtKernelInfo* info) {
      auto_pad = attribute(info, "auto_pad", auto_pad);
      dilations = attribute(info, "dilations", dilations);
      group = attribute(info, "group", group);
      kernel_shape = attribute(info, "kernel_shape", kernel_shape);
      pads = attribute(info, "pads", pads);
      strides = attribute(info, "strides", strides);
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
