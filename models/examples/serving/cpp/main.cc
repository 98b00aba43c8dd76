// Classifies one image by a dense and a pruned model, the pruned one by the sparse kernels as well, and times each.
//
//     serving FOLDER LIBRARY
//
// FOLDER is what models.examples.serving.prepare wrote; LIBRARY what this prints:
//     python -c "import onnxprune.runtime as r; print(r.library_path())"

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Image = std::array<float, 28 * 28>;
using Clock = std::chrono::steady_clock;

constexpr int kWarmUp = 50, kRuns = 500;

Image ReadImage(const fs::path& path) {
  Image image;
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(image.data()), sizeof(image))) {
    throw std::runtime_error("cannot read " + path.string());
  }
  return image;
}

Ort::SessionOptions OneThread() {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  return options;
}

// Options of a session that runs what the library's execution provider takes by sparse kernels, and the rest as usual.
Ort::SessionOptions WithProvider(Ort::Env& env) {
  Ort::SessionOptions options = OneThread();
  for (const char* name : {"OnnxpruneExecutionProvider", "CPUExecutionProvider"}) {
    for (const Ort::ConstEpDevice& device : env.GetEpDevices()) {
      if (device.EpName() == std::string(name)) {
        options.AppendExecutionProvider_V2(env, {device}, std::unordered_map<std::string, std::string>());
        break;
      }
    }
  }
  return options;
}

void Report(Ort::Env& env, const fs::path& model, const char* how, const Ort::SessionOptions& options, Image& image) {
  Ort::Session session(env, model.c_str(), options);
  const std::array<int64_t, 4> shape{1, 1, 28, 28};
  const Ort::Value input =
      Ort::Value::CreateTensor<float>(Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU), image.data(),
                                      image.size(), shape.data(), shape.size());
  const char* input_name = "input";
  const char* output_name = "logits";
  size_t digit = 0;
  std::vector<double> milliseconds;
  for (int run = -kWarmUp; run < kRuns; ++run) {
    const auto start = Clock::now();
    const std::vector<Ort::Value> outputs =
        session.Run(Ort::RunOptions(nullptr), &input_name, &input, 1, &output_name, 1);
    const std::chrono::duration<double, std::milli> taken = Clock::now() - start;
    if (run >= 0) milliseconds.push_back(taken.count());
    const float* logits = outputs[0].GetTensorData<float>();
    digit = std::max_element(logits, logits + 10) - logits;
  }
  std::nth_element(milliseconds.begin(), milliseconds.begin() + kRuns / 2, milliseconds.end());
  std::printf("%s %-18s digit %zu  %5.0f kB  %.3f ms\n", model.filename().string().c_str(), how, digit,
              static_cast<double>(fs::file_size(model)) / 1000, milliseconds[kRuns / 2]);
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 3) {
    std::fprintf(stderr, "usage: %s FOLDER LIBRARY\n", arguments[0]);
    return 2;
  }
  // Onnxruntime looks for the library of a provider beside its own, unless the path is absolute.
  const fs::path folder = arguments[1], library = fs::absolute(arguments[2]);
  Image image = ReadImage(folder / "digit.f32");
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "serving");

  Report(env, folder / "dense.onnx", "as it is", OneThread(), image);
  Report(env, folder / "small.onnx", "as it is", OneThread(), image);

  Ort::SessionOptions kernels = OneThread();
  kernels.RegisterCustomOpsLibrary(library.c_str());
  Report(env, folder / "small.onnx", "sparse kernels", kernels, image);

  env.RegisterExecutionProviderLibrary("onnxprune", library.native());
  Report(env, folder / "zeros.onnx", "execution provider", WithProvider(env), image);
  env.UnregisterExecutionProviderLibrary("onnxprune");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
