"""The precision of matrix products and convolutions in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from onnxprune.training.losses import Outputs
from onnxprune.training.module.running import run
from onnxprune.training.samples import Samples


@dataclass(frozen=True)
class Precision:
    """float32, or bfloat16 by torch's autocast: weights, sums and losses stay float32.

    `names`: the names of the graph's outputs, in order.
    """

    name: str
    device: torch.device
    names: tuple[str, ...] = ()

    def outputs(self, module: nn.Module, samples: Samples) -> Outputs:
        """A module's outputs, samples along the first axis; bfloat16 ones as float32, for the losses."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.name == "bfloat16"):
            outputs = run(module, samples.feeds())
        rows = samples.rows(outputs, self.names)
        return tuple(output.float() if output.dtype == torch.bfloat16 else output for output in rows)


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 at twice the speed of float32: AVX-512 BF16, AMX."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
