"""Operators of onnxruntime's own domain, com.microsoft: what its optimizer fuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.training.module.ops.convolution import conv
from onnxprune.training.module.ops.elementwise import held
from onnxprune.training.module.ops.linear import gemm
from onnxprune.training.module.ops.normalization import layer_normalization, rms_normalization
from onnxprune.training.module.ops.table import Function, lowers, opaque

_DOMAIN = "com.microsoft"


def _lowers(op_type: str, **settings: Any) -> Callable[[Function], Function]:
    return lowers(op_type, domain=_DOMAIN, **settings)


_lowers("Gelu")(F.gelu)


@_lowers("BiasGelu", trains=(1,))
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Gelu(x + bias) (com.microsoft BiasGelu-1)."""
    return F.gelu(x + bias)


@_lowers("FastGelu", trains=(1,))
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The tanh approximation of Gelu(x + bias) (com.microsoft FastGelu-1)."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@_lowers("QuickGelu")
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """x * sigmoid(alpha * x) (com.microsoft QuickGelu-1)."""
    return x * torch.sigmoid(alpha * x)


@_lowers("FusedConv", trains=(1, 2))
def fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    addend: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **attributes: Any,
) -> Tensor:
    """activation(Conv(x, weight, bias) + addend) (com.microsoft FusedConv-1)."""
    y = conv(x, weight, bias, **attributes)
    return _activated(y if addend is None else y + addend, activation, *activation_params)


@_lowers("FusedGemm", trains=(0, 1, 2))
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float = 0.0,
    activation_beta: float = 0.0,
    activation_gamma: float = 0.0,
    **attributes: Any,
) -> Tensor:
    """activation(Gemm(a, b, c)) (com.microsoft FusedGemm-1)."""
    return _activated(gemm(a, b, c, **attributes), activation, activation_alpha, activation_beta)


def _activated(x: Tensor, name: str, alpha: float = 0.0, beta: float = 0.0) -> Tensor:
    match name:
        case "":
            return x
        case "Relu":
            return torch.relu(x)
        case "Tanh":
            return torch.tanh(x)
        case "Sigmoid":
            return torch.sigmoid(x)
        case "LeakyRelu":
            return F.leaky_relu(x, alpha)
        case "Clip":
            return held(x, alpha, beta)
        case "HardSigmoid":
            return held(alpha * x + beta, 0, 1)
    raise NotImplementedError(f"the fused activation {name} is not supported")


@_lowers("FusedMatMul", trains=(0, 1))
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """alpha * a' @ b', the last two axes of either swapped on demand (com.microsoft FusedMatMul-1)."""
    if transBatchA or transBatchB:
        raise NotImplementedError("it transposes batch axes")
    product = torch.matmul(a.transpose(-1, -2) if transA else a, b.transpose(-1, -2) if transB else b)
    return product if alpha == 1 else alpha * product


_lowers("LayerNormalization", trains=(1, 2), several=True)(layer_normalization)


@lowers("SimplifiedLayerNormalization", trains=(1,), several=True)
@_lowers("SimplifiedLayerNormalization", trains=(1,), several=True)
def simplified_layer_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Tensor]:
    """RMSNormalization, as onnxruntime names it."""
    return (rms_normalization(x, scale, axis=axis, epsilon=epsilon),)


@_lowers("SkipLayerNormalization", trains=(2, 3, 4), several=True)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Any, ...]:
    """LayerNormalization of x + skip + bias; the fourth output is that sum (com.microsoft SkipLayerNormalization-1)."""
    total = x + skip if bias is None else x + skip + bias
    return layer_normalization(total, gamma, beta, epsilon=epsilon)[0], None, None, total


@_lowers("SkipSimplifiedLayerNormalization", trains=(2, 3), several=True)
def skip_simplified_layer_normalization(
    x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None, *, epsilon: float = 1e-12
) -> tuple[Any, ...]:
    """RMSNormalization of x + skip + bias; the fourth output is that sum."""
    total = x + skip if bias is None else x + skip + bias
    return rms_normalization(total, gamma, epsilon=epsilon), None, None, total


@_lowers("EmbedLayerNormalization", trains=(2, 3, 4, 5, 6), several=True)
@opaque
def embed_layer_normalization(
    ids: Tensor,
    segments: Tensor | None,
    words: Tensor,
    positions: Tensor,
    segment_embedding: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNormalization of the sum of word, position and segment embeddings; also the lengths, and that sum.

    ids, segments, mask: (N, S); each embedding: (rows, H) (com.microsoft EmbedLayerNormalization-1).
    """
    places = torch.arange(ids.shape[1], device=ids.device) if position_ids is None else position_ids
    total = F.embedding(ids.long(), words) + F.embedding(places.long(), positions)
    if segments is not None and segment_embedding is not None:
        total = total + F.embedding(segments.long(), segment_embedding)
    lengths = ids.new_zeros(len(ids)) if mask is None else mask.sum(1, dtype=mask.dtype)
    return F.layer_norm(total, gamma.shape, gamma, beta, epsilon), lengths, total


@_lowers("Attention", trains=(1, 2), several=True)
def attention(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *,
    num_heads: int,
    mask_filter_value: float = -10000.0,
    qkv_hidden_sizes: Sequence[int] | None = None,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Tensor]:
    """Self-attention of one packed projection (com.microsoft Attention-1); x: (N, S, I), weights: (I, 3H).

    mask: (N, T) or (N, S, T) of ones and zeros, (N,) lengths, or (2N,) ends and starts.
    """
    if past is not None:
        raise NotImplementedError("it reads keys and values of the past")
    packed = torch.matmul(x, weights) if bias is None else torch.matmul(x, weights) + bias
    sizes = None if qkv_hidden_sizes is None else tuple(qkv_hidden_sizes)
    query, key, value = (_part(packed, sizes, part) for part in range(3))
    bias = _mask_and_bias(query, key, mask, attention_bias, mask_filter_value, unidirectional)
    return (_attend(query, key, value, bias, num_heads, scale),)


@_lowers("MultiHeadAttention", trains=(3,), several=True)
def multi_head_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    num_heads: int,
    mask_filter_value: float = -10000.0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Tensor]:
    """Attention of projected operands (com.microsoft MultiHeadAttention-1); query: (N, S, H), key, value: (N, T, H)."""
    if past_key is not None:
        raise NotImplementedError("it reads keys and values of the past")
    if key is None or value is None:
        raise NotImplementedError("its query, key and value are packed")
    if bias is not None:
        query, key, value = _with_biases(query, key, value, bias)
    total = _mask_and_bias(query, key, key_padding_mask, attention_bias, mask_filter_value, unidirectional)
    return (_attend(query, key, value, total, num_heads, scale),)


@opaque
def _part(packed: Tensor, sizes: Sequence[int] | None, part: int) -> Tensor:
    return packed.chunk(3, -1)[part] if sizes is None else packed.split(list(sizes), -1)[part]


def _with_biases(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second = query.shape[-1], query.shape[-1] + key.shape[-1]
    return query + bias[:first], key + bias[first:second], value + bias[second:]


@opaque
def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, num_heads: int, scale: float | None
) -> Tensor:
    """query: (N, S, H), key, value: (N, T, H), bias broadcast to (N, heads, S, T); (N, S, H)."""
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale or None)
    return y.transpose(1, 2).flatten(2)


@opaque
def _mask_and_bias(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    hidden: float,
    unidirectional: int,
) -> Tensor | None:
    """The addend of the scores: the bias, and `hidden` where a key is masked or, if unidirectional, in the future."""
    width, length = query.shape[1], key.shape[1]
    if mask is not None:
        seen = _seen(mask, len(query), length)
        masked = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, hidden)
        bias = masked if bias is None else bias + masked
    if unidirectional:
        ahead = torch.ones(width, length, dtype=torch.bool, device=query.device).triu(1 + length - width)
        masked = torch.zeros_like(ahead, dtype=query.dtype).masked_fill(ahead, torch.finfo(query.dtype).min)
        bias = masked if bias is None else bias + masked
    return bias


def _seen(mask: Tensor, samples: int, length: int) -> Tensor:
    """Which keys are seen, broadcast to (N, heads, S, T), bool."""
    if mask.dim() == 1:
        places = torch.arange(length, device=mask.device)
        within = places < mask[:samples].unsqueeze(1)
        if len(mask) == 2 * samples:
            within = within & (places >= mask[samples:].unsqueeze(1))
        return within[:, None, None, :]
    return mask.bool().unsqueeze(1) if mask.dim() == 3 else mask.bool()[:, None, None, :]
