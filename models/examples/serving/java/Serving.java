// Classifies one image by a dense and a pruned model, the pruned one by the sparse kernels as well, and times each:
//
//     mvn compile exec:java -Dexec.args="FOLDER LIBRARY"
//
// FOLDER is what models.examples.serving.prepare wrote; LIBRARY what this prints:
//     python -c "import onnxprune.runtime as r; print(r.library_path())"

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtEpDevice;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;

final class Serving {
  private static final int WARM_UP = 50;
  private static final int RUNS = 500;
  private static final OrtEnvironment ENVIRONMENT = OrtEnvironment.getEnvironment();

  public static void main(String[] arguments) throws OrtException, IOException {
    if (arguments.length != 2) {
      throw new IllegalArgumentException("two arguments are needed: FOLDER LIBRARY");
    }
    Path folder = Path.of(arguments[0]);
    String library = Path.of(arguments[1]).toAbsolutePath().toString();
    FloatBuffer image = readImage(folder.resolve("digit.f32"));

    try (OrtSession.SessionOptions options = oneThread()) {
      report(folder.resolve("dense.onnx"), "as it is", options, image);
      report(folder.resolve("small.onnx"), "as it is", options, image);
    }
    try (OrtSession.SessionOptions options = oneThread()) {
      options.registerCustomOpLibrary(library);
      report(folder.resolve("small.onnx"), "sparse kernels", options, image);
    }
    try (OrtSession.SessionOptions options = oneThread()) {
      addProvider(options, library);
      report(folder.resolve("zeros.onnx"), "execution provider", options, image);
    }
  }

  /** The floats of a file, in a direct buffer, which onnxruntime reads without a copy. */
  private static FloatBuffer readImage(Path path) throws IOException {
    byte[] bytes = Files.readAllBytes(path);
    ByteBuffer file = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    ByteBuffer direct = ByteBuffer.allocateDirect(bytes.length).order(ByteOrder.nativeOrder());
    return direct.asFloatBuffer().put(file.asFloatBuffer()).rewind();
  }

  private static OrtSession.SessionOptions oneThread() throws OrtException {
    OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    options.setIntraOpNumThreads(1);
    return options;
  }

  /** Has sparse kernels run what the library's execution provider takes, and the rest run as usual. */
  private static void addProvider(OrtSession.SessionOptions options, String library) throws OrtException {
    ENVIRONMENT.registerExecutionProviderLibrary("onnxprune", library);
    for (String name : List.of("OnnxpruneExecutionProvider", "CPUExecutionProvider")) {
      List<OrtEpDevice> devices =
          ENVIRONMENT.getEpDevices().stream().filter(device -> device.getEpName().equals(name)).limit(1).toList();
      options.addExecutionProvider(devices, Map.of());
    }
  }

  private static void report(Path model, String how, OrtSession.SessionOptions options, FloatBuffer image)
      throws OrtException, IOException {
    try (OrtSession session = ENVIRONMENT.createSession(model.toString(), options);
        OnnxTensor input = OnnxTensor.createTensor(ENVIRONMENT, image, new long[] {1, 1, 28, 28})) {
      long[] nanoseconds = new long[RUNS];
      int digit = 0;
      for (int run = -WARM_UP; run < RUNS; run++) {
        long start = System.nanoTime();
        try (OrtSession.Result outputs = session.run(Map.of("input", input))) {
          if (run >= 0) {
            nanoseconds[run] = System.nanoTime() - start;
          }
          digit = largest(((float[][]) outputs.get(0).getValue())[0]);
        }
      }
      Arrays.sort(nanoseconds);
      System.out.printf(Locale.ROOT, "%s %-18s digit %d  %5.0f kB  %.3f ms%n",
          model.getFileName(), how, digit, Files.size(model) / 1e3, nanoseconds[RUNS / 2] / 1e6);
    }
  }

  private static int largest(float[] values) {
    int at = 0;
    for (int i = 1; i < values.length; i++) {
      if (values[i] > values[at]) {
        at = i;
      }
    }
    return at;
  }
}
