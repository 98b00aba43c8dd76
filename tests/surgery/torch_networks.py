"""Networks as users write them with torch, small and with random weights, for exports by torch.onnx."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm and SiLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class C2f(nn.Module):
    """YOLOv8's block: the halves of a convolution, and what follows from the second half, are concatenated."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        half = outputs // 2
        self.first, self.last = block(inputs, outputs, 1), block(3 * half, outputs, 1)
        self.inner = nn.Sequential(block(half, half), block(half, half))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        return self.last(torch.cat([*parts, parts[-1] + self.inner(parts[-1])], 1))


class Yolo(nn.Module):
    """Images (N, 3, 64, 64) to boxes and scores (N, 9, 80): C2f, SPPF, upsampling and a decoupled head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage1 = block(3, 16, stride=2), nn.Sequential(block(16, 32, stride=2), C2f(32, 32))
        self.stage2 = nn.Sequential(block(32, 64, stride=2), C2f(64, 64))
        self.before, self.after = block(64, 32, 1), block(128, 64, 1)
        self.up = C2f(96, 32)
        self.boxes = nn.ModuleList(
            nn.Sequential(block(width, 32), nn.Conv2d(32, 64, 1)) for width in (32, 64)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(block(width, 32), nn.Conv2d(32, 5, 1)) for width in (32, 64)
        )
        self.register_buffer("bins", torch.arange(16.0).reshape(1, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stage1(self.stem(x))
        pooled = [self.before(self.stage2(fine))]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        coarse = self.after(torch.cat(pooled, 1))
        fine = self.up(torch.cat((F.interpolate(coarse, scale_factor=2.0), fine), 1))
        outs = [
            torch.cat((boxes(level), scores(level)), 1).flatten(2)
            for level, boxes, scores in zip((fine, coarse), self.boxes, self.scores, strict=True)
        ]
        sides, scores = torch.cat(outs, 2).split((64, 5), 1)
        sides = sides.view(sides.shape[0], 4, 16, -1).transpose(1, 2).softmax(1)
        return torch.cat(((sides * self.bins).sum(1), scores.sigmoid()), 1)


class StatefulRecurrent(nn.Module):
    """Sequences (N, T, 12) to (N, 5): stacked bidirectional layers whose first states are computed."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM, *, batch_first: bool = True):
        super().__init__()
        self.cell = cell(12, 16, num_layers=2, batch_first=batch_first, bidirectional=True)
        self.batch = 0 if batch_first else 1
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(4, x.shape[self.batch], 16, dtype=x.dtype, device=x.device)
        out, last = self.cell(x, (state, state) if isinstance(self.cell, nn.LSTM) else state)
        last = last[0] if isinstance(last, tuple) else last
        ends = last[-2:].transpose(0, 1).flatten(1)
        return self.head(torch.cat((ends, out.mean(1 - self.batch)), 1))


class Gru(StatefulRecurrent):
    """The same by GRU, time first."""

    def __init__(self) -> None:
        super().__init__(nn.GRU, batch_first=False)


class Packed(nn.Module):
    """Tokens (N, T, 32): blocks whose queries, keys and values are one projection, as in GPT and timm's ViT."""

    def __init__(self, width: int = 32, heads: int = 4, *, causal: bool = False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        packed = self.packed(self.norms[0](x)).reshape(n, t, 3, self.heads, width // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class PackedTransformer(nn.Module):
    """Tokens (N, T, 32) to (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Packed(), Packed(causal=True))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(1))


class MultiHead(nn.Module):
    """Tokens (N, T, 32) to (N, T, 5): nn.MultiheadAttention, to itself and to another sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(32, 4, batch_first=True)
        self.other = nn.MultiheadAttention(32, 4, kdim=16, vdim=16, batch_first=True)
        self.memory, self.head = nn.Linear(32, 16), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.own(x, x, x, need_weights=False)[0]
        memory = F.relu(self.memory(x))
        return self.head(y + self.other(y, memory, memory)[0])


class Encoder(nn.Module):
    """Tokens (N, T, 32) to (N, 5): torch's own encoder and decoder layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(x, self.encoder(x)).mean(1))


class Windows(nn.Module):
    """Images (N, 3, 30, 30) to (N, 5) as Swin does: padded to windows of 4x4, mixed in each, pooled; channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 24, 2, 2), nn.LayerNorm(24)
        self.packed, self.out, self.head = nn.Linear(24, 72), nn.Linear(24, 24), nn.Linear(24, 5)
        self.last, self.pool = nn.LayerNorm(24), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, height, width, channels = x.shape
        y = F.pad(self.norm(x), (0, 0, 0, (4 - width % 4) % 4, 0, (4 - height % 4) % 4))
        rows, columns = y.shape[1] // 4, y.shape[2] // 4
        y = y.view(n, rows, 4, columns, 4, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels)
        q, k, v = self.packed(y).reshape(y.shape[0], 16, 3, 2, 12).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 16, channels)
        y = self.out(y).view(n, rows, columns, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + y.reshape(n, 4 * rows, 4 * columns, channels)[:, :height, :width].contiguous()
        return self.head(self.pool(self.last(x).permute(0, 3, 1, 2)).flatten(1))


class GroupedBlock(nn.Module):
    """A diffusion model's block: GroupNorm, SiLU, convolution, twice, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class UNet(nn.Module):
    """Images (N, 3, 32, 32) to the same: blocks of GroupNorm around a coarser level with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 2, 1)
        self.block1, self.block2, self.block3 = (
            GroupedBlock(32, 32),
            GroupedBlock(32, 64),
            GroupedBlock(96, 32),
        )
        self.norm, self.qkv, self.out = nn.GroupNorm(8, 64), nn.Conv2d(64, 192, 1), nn.Conv2d(64, 64, 1)
        self.last = nn.Conv2d(32, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.block1(self.first(x))
        coarse = self.block2(self.down(fine))
        n, c, h, w = coarse.shape
        q, k, v = self.qkv(self.norm(coarse)).reshape(n, 3, 4, c // 4, h * w).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, h, w)
        coarse = F.interpolate(coarse + self.out(mixed), size=fine.shape[2:], mode="nearest")
        return self.last(self.block3(torch.cat((coarse, fine), 1)))


class RootMeanSquare(nn.Module):
    """RMSNorm as language models write it out."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class GroupedQueries(nn.Module):
    """Tokens (N, T, 32) to the same: eight query heads on two key heads, rotated, behind an RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = RootMeanSquare(32), RootMeanSquare(32)
        self.q, self.k, self.v = nn.Linear(32, 64), nn.Linear(32, 16), nn.Linear(32, 16)
        self.out = nn.Linear(64, 32, bias=False)
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)

    @staticmethod
    def rotated(x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * torch.tensor([1, 0.1, 0.01, 0.001])
        cos, sin = torch.cat((angles, angles), 1).cos(), torch.cat((angles, angles), 1).sin()
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat((-right, left), -1) * sin

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (layer(y).unflatten(-1, (-1, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        k, v = (each.repeat_interleave(4, 1) for each in (self.rotated(k), v))
        mixed = F.scaled_dot_product_attention(self.rotated(q), k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))
