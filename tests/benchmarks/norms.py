"""What residual streams without some channels would gain, by norm: python -m tests.benchmarks.norms [CHANNELS] [TOKENS]

Four blocks of a projection and a perceptron, each behind a norm, of which half of the stream's channels are zero. A row
a form of the norm without them: how many times as fast as all channels (10th percentiles of CPU times of alternating
runs, one thread), and the largest difference of its outputs, relative to the largest of them.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnx
import onnxruntime as ort

from tests.surgery.oracle import model

BLOCKS, RUNS = 4, 60
FORMS = {
    "LayerNormalization": ("{y} = LayerNormalization<axis=-1>({x}, {s}, {b})", False),
    "of what is left alone": ("{y} = LayerNormalization<axis=-1>({x}, {s}, {b})", True),
    "Pad, LayerNormalization, Slice": (
        "{y}p = Pad({x}, pads) {y}n = LayerNormalization<axis=-1>({y}p, {s}all, {b}all) "
        "{y} = Slice({y}n, start, end, last)",
        True,
    ),
    "sums, squares, Sqrt": (
        """{y}m = ReduceMean<keepdims=1>({x}, last) {y}a = Mul({y}m, share) {y}d = Sub({x}, {y}a) {y}q = Mul({y}d, {y}d)
        {y}v = ReduceMean<keepdims=1>({y}q, last) {y}w = Mul({y}v, share) {y}e = Mul({y}a, {y}a) {y}f = Mul({y}e, gone)
        {y}g = Add({y}w, {y}f) {y}h = Add({y}g, epsilon) {y}r = Sqrt({y}h) {y}t = Div({y}d, {y}r) {y}k = Mul({y}t, {s})
        {y} = Add({y}k, {b})""",
        True,
    ),
}


def network(norm: str, channels: int, tokens: int, *, cut: bool) -> onnx.ModelProto:
    """With all channels, of which the second half is zero, or without these."""
    rng, left = np.random.default_rng(0), channels // 2
    kept = left if cut else channels
    weights: dict[str, np.ndarray] = {
        "pads": np.array([0, 0, 0, 0, 0, channels - left]), "start": np.array([0]), "end": np.array([left]),
        "last": np.array([2]), "share": np.float32(left / channels), "gone": np.float32(1 - left / channels),
        "epsilon": np.float32(1e-5),
    }  # fmt: skip

    def matrix(name: str, rows: int, columns: int, zero: int) -> None:
        array = (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        places = [slice(None), slice(None)]
        places[zero] = slice(left, None)
        array[tuple(places)] = 0
        weights[name] = np.take(array, range(kept), axis=zero)

    def vectors(name: str) -> None:
        array = np.zeros(channels, np.float32)
        array[:left] = rng.uniform(0.5, 1.5, left)
        weights[name], weights[f"{name}all"] = array[:kept], array

    lines, last = [], "x"
    for block in range(BLOCKS):
        for part, wide in (("p", channels), ("m", 4 * channels)):
            of = f"{part}{block}"
            matrix(f"u{of}", channels, wide, 0)
            matrix(f"d{of}", wide, channels, 1)
            vectors(f"s{of}")
            vectors(f"b{of}")
            made = norm.format(y=f"n{of}", x=last, s=f"s{of}", b=f"b{of}")
            lines.append(
                f"{made} h{of} = MatMul(n{of}, u{of}) r{of} = Relu(h{of}) o{of} = MatMul(r{of}, d{of})"
            )
            lines.append(f"x{of} = Add({last}, o{of})")
            last = f"x{of}"
    text = f"(float[1,{tokens},{kept}] x) => (float[1,{tokens},{kept}] {last}) {{{' '.join(lines)}}}"
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return model(text, opset=18, **{name: array for name, array in weights.items() if name in words})


def main(channels: int, tokens: int) -> None:
    """Print the table."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = np.random.default_rng(1).standard_normal((1, tokens, channels), np.float32)
    data[..., channels // 2 :] = 0
    sessions, feeds = {}, {}
    for name, (norm, cut) in FORMS.items():
        content = network(norm, channels, tokens, cut=cut).SerializeToString()
        sessions[name] = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        feeds[name] = {"x": data[..., : channels // 2] if cut else data}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(RUNS):
        for name, session in sessions.items():
            begun = time.thread_time()
            session.run(None, feeds[name])
            times[name].append(time.thread_time() - begun)
    whole = sessions["LayerNormalization"].run(None, feeds["LayerNormalization"])[0][..., : channels // 2]
    print(f"{channels} channels, {tokens} tokens")
    least = {name: float(np.quantile(taken, 0.1)) for name, taken in times.items()}
    for name, session in sessions.items():
        found = session.run(None, feeds[name])[0][..., : channels // 2]
        difference = np.abs(found - whole).max() / np.abs(whole).max()
        print(f"{name:32s} {least['LayerNormalization'] / least[name]:5.2f}x {difference:9.1e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3] or ("384", "197")))
