// Classifies one image by a dense and a pruned model, and times each: node main.js FOLDER
//
// FOLDER is what models.examples.serving.prepare wrote. Pruned files run as any other. onnxruntime-node cannot register
// libraries of operators, so they are smaller here, not faster.

import { readFile } from "node:fs/promises";
import path from "node:path";
import ort from "onnxruntime-node";

const WARM_UP = 50;
const RUNS = 500;

async function report(file, image) {
  const model = await readFile(file);
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
  const feeds = { input: new ort.Tensor("float32", image, [1, 1, 28, 28]) };
  const milliseconds = [];
  let logits;
  for (let run = -WARM_UP; run < RUNS; ++run) {
    const start = performance.now();
    ({ logits } = await session.run(feeds));
    if (run >= 0) milliseconds.push(performance.now() - start);
  }
  milliseconds.sort((a, b) => a - b);
  const digit = logits.data.indexOf(Math.max(...logits.data));
  const size = (model.length / 1000).toFixed(0).padStart(5);
  const latency = milliseconds[RUNS / 2].toFixed(3);
  console.log(`${path.basename(file)} ${"as it is".padEnd(18)} digit ${digit}  ${size} kB  ${latency} ms`);
}

const folder = process.argv[2];
if (folder === undefined) {
  console.error("usage: node main.js FOLDER");
  process.exit(2);
}
const image = new Float32Array(new Uint8Array(await readFile(path.join(folder, "digit.f32"))).buffer);
await report(path.join(folder, "dense.onnx"), image);
await report(path.join(folder, "small.onnx"), image);
