// Downloads a dense and a pruned model, classifies one image by each, and shows what each costs.
//
// `?folder=URL` names where models.examples.serving.prepare wrote them; else that is /build/serving/.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const FOLDER = new URLSearchParams(location.search).get("folder") ?? "/build/serving/";
const MODELS = { before: "dense.onnx", after: "small.onnx" };
// A browser's clock is too coarse for single runs. The models take turns, so that what else the machine does, and the
// browser's optimizing of WebAssembly, meet both.
const WARM_UP = 300;
const ROUNDS = 20;
const RUNS = 25;

// More threads need a page that is cross-origin isolated.
ort.env.wasm.numThreads = 1;

async function download(name) {
  const response = await fetch(new URL(name, new URL(FOLDER, location.href)));
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

/** The time of `action` in milliseconds, and what it gives. */
async function timed(action) {
  const start = performance.now();
  const value = await action();
  return [performance.now() - start, value];
}

function draw(image) {
  const context = document.querySelector("canvas").getContext("2d");
  const pixels = context.createImageData(28, 28);
  image.forEach((value, i) => pixels.data.set([0, 0, 0, 255 * value], 4 * i));
  context.putImageData(pixels, 0, 0);
}

async function load(label, name, image) {
  const model = await download(name);
  const bytes = model.byteLength;
  const [ready, session] = await timed(() => ort.InferenceSession.create(model));
  const feeds = { input: new ort.Tensor("float32", image, [1, 1, 28, 28]) };
  const run = () => session.run(feeds);
  const { logits } = await run();
  return { label, bytes, ready, run, digit: logits.data.indexOf(Math.max(...logits.data)), latencies: [] };
}

async function measure(models) {
  for (let i = 0; i < WARM_UP; ++i) for (const { run } of models) await run();
  for (let round = 0; round < ROUNDS; ++round) {
    for (const { run, latencies } of models) {
      const [all] = await timed(async () => {
        for (let i = 0; i < RUNS; ++i) await run();
      });
      latencies.push(all / RUNS);
    }
  }
}

function show({ label, bytes, ready, digit, latencies }) {
  const latency = latencies.sort((a, b) => a - b)[ROUNDS / 2];
  const row = document.querySelector("tbody").insertRow();
  for (const cell of [label, `${(bytes / 1000).toFixed(0)} kB`, `${ready.toFixed(0)} ms`, `${latency.toFixed(2)} ms`, digit]) {
    row.insertCell().textContent = cell;
  }
}

const status = document.querySelector("#status");
try {
  const image = new Float32Array(await download("digit.f32"));
  draw(image);
  // The first session also starts WebAssembly, which is no cost of its model.
  await ort.InferenceSession.create(await download(MODELS.before));
  const models = [];
  for (const [label, name] of Object.entries(MODELS)) models.push(await load(label, name, image));
  status.textContent = "Measuring.";
  await measure(models);
  models.forEach(show);
  status.textContent = "Done.";
} catch (error) {
  status.textContent = `It does not work: ${error.message}`;
  throw error;
}
