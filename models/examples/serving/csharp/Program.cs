// Classifies one image by a dense and a pruned model, the pruned one by the sparse kernels as well, and times each:
//
//     dotnet run -- FOLDER LIBRARY
//
// FOLDER is what models.examples.serving.prepare wrote; LIBRARY what this prints:
//     python -c "import onnxprune.runtime as r; print(r.library_path())"

using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.IO;
using System.Linq;
using Microsoft.ML.OnnxRuntime;

static class Program
{
    const int WarmUp = 50;
    const int Runs = 500;

    static int Main(string[] arguments)
    {
        if (arguments.Length != 2)
        {
            Console.Error.WriteLine("usage: dotnet run -- FOLDER LIBRARY");
            return 2;
        }
        string Model(string name) => Path.Combine(arguments[0], name);
        string library = Path.GetFullPath(arguments[1]);
        float[] image = ReadImage(Model("digit.f32"));

        using (SessionOptions options = OneThread())
        {
            Report(Model("dense.onnx"), "as it is", options, image);
            Report(Model("small.onnx"), "as it is", options, image);
        }
        using (SessionOptions options = OneThread())
        {
            options.RegisterCustomOpLibraryV2(library, out _);
            Report(Model("small.onnx"), "sparse kernels", options, image);
        }
        using (SessionOptions options = WithProvider(library))
        {
            Report(Model("zeros.onnx"), "execution provider", options, image);
        }
        return 0;
    }

    static float[] ReadImage(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        var image = new float[bytes.Length / sizeof(float)];
        Buffer.BlockCopy(bytes, 0, image, 0, bytes.Length);
        return image;
    }

    static SessionOptions OneThread() => new SessionOptions { IntraOpNumThreads = 1 };

    // What the library's execution provider takes runs by sparse kernels, and the rest as usual.
    static SessionOptions WithProvider(string library)
    {
        OrtEnv env = OrtEnv.Instance();
        env.RegisterExecutionProviderLibrary("onnxprune", library);
        SessionOptions options = OneThread();
        foreach (string name in new[] { "OnnxpruneExecutionProvider", "CPUExecutionProvider" })
        {
            List<OrtEpDevice> devices = env.GetEpDevices().Where(device => device.EpName == name).Take(1).ToList();
            options.AppendExecutionProvider(env, devices, new Dictionary<string, string>());
        }
        return options;
    }

    static void Report(string model, string how, SessionOptions options, float[] image)
    {
        using (var session = new InferenceSession(model, options))
        using (var run = new RunOptions())
        using (OrtValue input = OrtValue.CreateTensorValueFromMemory(image, new long[] { 1, 1, 28, 28 }))
        {
            var feeds = new Dictionary<string, OrtValue> { ["input"] = input };
            var milliseconds = new double[Runs];
            var digit = 0;
            for (int i = -WarmUp; i < Runs; i++)
            {
                var watch = Stopwatch.StartNew();
                using (var outputs = session.Run(run, feeds, session.OutputNames))
                {
                    if (i >= 0)
                    {
                        milliseconds[i] = watch.Elapsed.TotalMilliseconds;
                    }
                    float[] logits = outputs[0].GetTensorDataAsSpan<float>().ToArray();
                    digit = Array.IndexOf(logits, logits.Max());
                }
            }
            Array.Sort(milliseconds);
            Console.WriteLine(string.Format(
                CultureInfo.InvariantCulture,
                "{0} {1,-18} digit {2}  {3,5:F0} kB  {4:F3} ms",
                Path.GetFileName(model), how, digit, new FileInfo(model).Length / 1000.0, milliseconds[Runs / 2]));
        }
    }
}
