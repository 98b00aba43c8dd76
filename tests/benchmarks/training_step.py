"""A training step of the graph against one written by hand: python -m tests.benchmarks.training_step [--compile] [NAME]

Both sides hold the same weights, in the same memory format, and do forward, backward, a step of AdamW and the
product of every matrix with its mask. Time: the median over interleaved rounds of graph / hand-written. Memory: the
peak of what torch's allocator holds in one step above what it held before it (activations, gradients, temporaries).
With --compile, the last column is the graph's step under torch.compile over that of the graph itself; that takes a
C++ compiler and a minute a network.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from onnxprune.training.module.graph import to_torch
from tests.surgery.whole_models import light
from tests.training.networks import EncoderBlock, LeNet5, ResNet50, exported

LENET5 = Path(__file__).parents[2] / "models/lenet-5.onnx"
KEPT = 0.1  # density of the masks
SECONDS_A_PAIR = 6.0
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Pair:
    """A network as the graph of its ONNX file and by hand, with an input for both."""

    graph: nn.Module
    hand: nn.Module
    x: Tensor


def pair(proto: onnx.ModelProto, hand: nn.Module, x: Tensor) -> Pair:
    """The graph of the file, and the hand-written network with the weights of the file, in the order of use."""
    graph = to_torch(ir.from_proto(proto))
    hand.eval()  # batch normalization uses its statistics, as the graph does
    tensors = [*hand.parameters(), *(buffer for buffer in hand.buffers() if buffer.is_floating_point())]
    constants = [*graph.parameters(), *(buffer for buffer in graph.buffers() if buffer.is_floating_point())]
    with torch.no_grad():
        for target, source in zip(tensors, constants, strict=False):
            target.copy_(source if source.shape == target.shape else source.t())
    return Pair(graph, hand, x)


def lenet5() -> Pair:
    made = pair(onnx.load(LENET5), LeNet5(), torch.rand(64, 1, 28, 28))
    return channels_last(made)


def resnet50() -> Pair:
    proto, _ = light("resnet50")
    return channels_last(pair(proto, ResNet50(), torch.randn(1, 3, 224, 224)))  # its Reshape is of one image


def encoder(*, dynamo: bool) -> Pair:
    torch.manual_seed(0)
    hand, x = EncoderBlock(), torch.randn(4, 128, 768)
    graph = to_torch(ir.from_proto(exported(hand, x, dynamo=dynamo, axes=(0, 1))))
    return Pair(graph, hand, x)


def channels_last(made: Pair) -> Pair:
    layout = {"memory_format": torch.channels_last}
    return Pair(made.graph.to(**layout), made.hand.to(**layout), made.x.to(**layout))


NETWORKS: dict[str, Callable[[], Pair]] = {
    "LeNet-5": lenet5,
    "ResNet-50": resnet50,
    "BERT-base block": lambda: encoder(dynamo=True),
    "BERT-base block (dynamo=False)": lambda: encoder(dynamo=False),
}


class Step:
    """A training step of a module: forward, backward, AdamW, masks."""

    def __init__(self, module: nn.Module, x: Tensor):
        self.module, self.x = module, x
        # By size, the same order on both sides: AdamW's loop holds the temporaries of two neighbors at a time.
        parameters = sorted(module.parameters(), key=torch.numel)
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5)
        self.masks = [
            (weight, torch.rand_like(weight) < KEPT) for weight in module.parameters() if weight.ndim > 1
        ]

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        outputs = self.module(self.x)
        y = outputs[0] if isinstance(outputs, tuple) else outputs
        y.square().mean().backward()
        self.optimizer.step()
        with torch.no_grad():
            for weight, mask in self.masks:
                weight.mul_(mask)

    def seconds(self) -> float:
        start = time.perf_counter()
        self()
        return time.perf_counter() - start

    def peak_bytes(self) -> int:
        """The most that torch's allocator holds during a step, above what it held before."""
        self.optimizer.zero_grad()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self()
        assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
        changes = [
            (event.start_ns(), event.nbytes())
            for event in profiler.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]
        held = peak = 0
        for _, change in sorted(changes, key=lambda pair: pair[0]):
            held += change
            peak = max(peak, held)
        return peak


def ratio(numerator: Step, denominator: Step, seconds: float = SECONDS_A_PAIR) -> float:
    """The median of numerator / denominator over interleaved rounds, the order turned in every other one."""
    ratios, start = [], time.perf_counter()
    while len(ratios) < MIN_ROUNDS or time.perf_counter() - start < seconds:
        if len(ratios) % 2:
            bottom, top = denominator.seconds(), numerator.seconds()
        else:
            top, bottom = numerator.seconds(), denominator.seconds()
        ratios.append(top / bottom)
    return statistics.median(ratios)


def table(names: list[str], *, compiles: bool) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| a training step | time, graph / by hand | memory, graph / by hand | compiled / not |"
    yield "|---|---|---|---|"
    for name in names:
        made = NETWORKS[name]()
        torch.testing.assert_close(made.graph(made.x)[0], made.hand(made.x), rtol=1e-3, atol=1e-4)
        graph, hand = Step(made.graph, made.x), Step(made.hand, made.x)
        for step in (graph, hand, graph, hand):
            step()  # the optimizer's state, and oneDNN's cache
        time_ratio, memory_ratio = ratio(graph, hand), graph.peak_bytes() / hand.peak_bytes()
        yield f"| {name} | {time_ratio:.3f}x | {memory_ratio:.2f}x | {_compiled(graph) if compiles else '-'} |"


def _compiled(step: Step) -> str:
    if shutil.which("g++") is None:
        return "no C++ compiler"
    compiled = Step(torch.compile(step.module), step.x)
    for _ in range(2):
        compiled()
    return f"{ratio(compiled, step):.2f}x"


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen = [name for name in sys.argv[1:] if name != "--compile"]
    for line in table(chosen or list(NETWORKS), compiles="--compile" in sys.argv):
        print(line, flush=True)
