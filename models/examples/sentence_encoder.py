"""A sentence encoder: a small transformer, pruned in one step from sentences without labels.

    python -m models.examples.sentence_encoder [FOLDER]

The sentences are generated: words of one of 20 topics between words of all, padded with 0. What counts is what a search
finds: the share of sentences whose nearest neighbor, by the cosine of the embeddings, is of the same topic.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onnxprune
from models.examples import parts

TOPICS, WORDS_OF_TOPIC, COMMON_WORDS, LENGTH = 20, 20, 100, 16
VOCABULARY = 1 + TOPICS * WORDS_OF_TOPIC + COMMON_WORDS
SENTENCES, TEST_SENTENCES = 3_000, 1_000
WIDTH, HEADS = 64, 4
RATE = 0.5


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a LayerNorm and beside a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (N, 16, 64); mask: (N, 1, 1, 16), true where a word is."""
        split = self.qkv(self.norms[0](x)).unflatten(2, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=mask)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.norms[1](x))))


class Encoder(nn.Module):
    """Words (N, 16) int64 -> embeddings (N, 64) of length 1, the mean over the words that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH) / 10)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, words: Tensor) -> Tensor:
        there = words > 0
        x = self.words(words) + self.places
        for block in self.blocks:
            x = block(x, there[:, None, None])
        weights = there[:, :, None].to(x.dtype)
        return F.normalize((x * weights).sum(1) / weights.sum(1))


def sentences(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Words (count, 16) int64 of 6 to 16 words, a third of them of the topic, and topics (count,)."""
    topics = rng.integers(TOPICS, size=count)
    of_topic = 1 + topics[:, None] * WORDS_OF_TOPIC + rng.integers(WORDS_OF_TOPIC, size=(count, LENGTH))
    common = VOCABULARY - 1 - rng.integers(COMMON_WORDS, size=(count, LENGTH))
    words = np.where(rng.random((count, LENGTH)) < 1 / 3, of_topic, common)
    return np.where(np.arange(LENGTH) < rng.integers(6, LENGTH + 1, (count, 1)), words, 0), topics


def contrastive(embeddings: Tensor, topics: Tensor) -> Tensor:
    """Supervised contrastive loss: sentences of one topic attract, all others repel (Khosla et al. 2020)."""
    alone = torch.eye(len(topics), dtype=torch.bool)
    scores = (embeddings @ embeddings.T / 0.1).masked_fill(alone, -torch.inf).log_softmax(1)
    same = (topics[:, None] == topics) & ~alone
    return -(scores.masked_fill(~same, 0).sum(1) / same.sum(1).clamp(min=1)).mean()


def found(embeddings: np.ndarray, topics: np.ndarray) -> float:
    """Share of sentences whose nearest neighbor is of the same topic."""
    cosine = embeddings @ embeddings.T - 2 * np.eye(len(topics))
    return float((topics[cosine.argmax(1)] == topics).mean())


def main() -> None:
    torch.manual_seed(0)
    folder, rng = parts.work_folder(), np.random.default_rng(0)
    words, topics = sentences(SENTENCES, rng)
    test, test_topics = sentences(TEST_SENTENCES, rng)

    net = Encoder()
    parts.train(net, torch.from_numpy(words), torch.from_numpy(topics), epochs=5, loss=contrastive)
    dense, pruned = folder / "encoder.onnx", folder / "encoder-pruned.onnx"
    parts.export(net, words, dense, output="embeddings")

    onnxprune.prune(dense, pruned, rate=RATE, calibration_data={"input": words[:256]}, effort="fast")
    before, after = parts.run(dense, test), parts.run(pruned, test)
    print(f"cosine of the embeddings with the dense ones: {(before * after).sum(1).mean():.3f}")
    for path, embeddings in ((dense, before), (pruned, after)):
        print(
            f"{path.name}: neighbor of the same topic {found(embeddings, test_topics):.1%}, {parts.kilobytes(path)}"
        )


if __name__ == "__main__":
    main()
