"""The network for training: Qwen3 (QK-norm, grouped-query attention, tied embeddings) over flat tokens.

Everything but attention sees `[tokens, ...]` of one fixed shape, so `torch.compile` compiles each function once.
Weights are kept in fp32 and used in bf16; the residual stream is bf16 as it is when the model is served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from data import Batch


@dataclass
class Shape:
    vocab: int = 4096
    hidden: int = 384
    layers: int = 8
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 1024
    context: int = 2048
    theta: float = 10_000.0
    eps: float = 1e-6


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `[tokens, heads, head_dim]`; halves are paired as in Llama."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight.to(x.dtype))


def before_attention(x, cos, sin, norm, wq, wk, wv, q_norm, k_norm, head_dim: int, eps: float):
    h = rms_norm(x, norm, eps)
    q = linear(h, wq).view(x.shape[0], -1, head_dim)
    k = linear(h, wk).view(x.shape[0], -1, head_dim)
    v = linear(h, wv).view(x.shape[0], -1, head_dim)
    repeat = q.shape[1] // k.shape[1]
    k = rotate(rms_norm(k, k_norm, eps), cos, sin).repeat_interleave(repeat, dim=1)
    return rotate(rms_norm(q, q_norm, eps), cos, sin), k, v.repeat_interleave(repeat, dim=1)


def after_attention(x, attended, norm, wo, gate, up, down, eps: float):
    x = x + linear(attended, wo)
    h = rms_norm(x, norm, eps)
    return x + linear(F.silu(linear(h, gate)) * linear(h, up), down)


def weighted_loss(x, norm, embedding, targets, weights, eps: float):
    logits = linear(rms_norm(x, norm, eps), embedding).float()
    return (F.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()


def attention(q: Tensor, k: Tensor, v: Tensor, groups: list[tuple[int, int]], group_tokens: int) -> Tensor:
    """Causal attention within each dialogue. Tensors are split rather than sliced, as that is cheaper to go back through."""
    sizes = [size for rows, length in groups for size in (rows * length, group_tokens - rows * length)]
    split = [t.split(sizes) for t in (q, k, v)]
    parts = []
    for i, (rows, length) in enumerate(groups):
        shaped = (t[2 * i].view(rows, length, *t[2 * i].shape[1:]).transpose(1, 2) for t in split)
        y = F.scaled_dot_product_attention(*shaped, is_causal=True)
        parts += [y.transpose(1, 2).reshape(rows * length, -1), y.new_zeros(sizes[2 * i + 1], y.shape[1] * y.shape[3])]
    return torch.cat(parts)


class Layer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        scale = 0.02 / math.sqrt(2 * s.layers)
        matrix = lambda rows, columns, std: nn.Parameter(torch.randn(rows, columns) * std)  # noqa: E731
        self.input_norm, self.post_norm = nn.Parameter(torch.ones(s.hidden)), nn.Parameter(torch.ones(s.hidden))
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(s.head_dim)), nn.Parameter(torch.ones(s.head_dim))
        self.wq, self.wo = matrix(s.heads * s.head_dim, s.hidden, 0.02), matrix(s.hidden, s.heads * s.head_dim, scale)
        self.wk, self.wv = matrix(s.kv_heads * s.head_dim, s.hidden, 0.02), matrix(s.kv_heads * s.head_dim, s.hidden, 0.02)
        self.gate, self.up = matrix(s.ffn, s.hidden, 0.02), matrix(s.ffn, s.hidden, 0.02)
        self.down = matrix(s.hidden, s.ffn, scale)


class Model(nn.Module):
    def __init__(self, shape: Shape, compiled: bool):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocab, shape.hidden) * 0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = nn.Parameter(torch.ones(shape.hidden))
        inverse = shape.theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angles = torch.arange(shape.context).float()[:, None] * inverse[None, :]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        wrap = torch.compile if compiled else lambda f: f
        self.before, self.after, self.loss = wrap(before_attention), wrap(after_attention), wrap(weighted_loss)

    def forward(self, batch: Batch) -> Tensor:
        """The weighted mean loss of a batch."""
        s = self.shape
        group_tokens = batch.ids.numel() // len(batch.groups)
        cos, sin = self.cos[batch.positions][:, None, :], self.sin[batch.positions][:, None, :]
        x = F.embedding(batch.ids, self.embedding).bfloat16()
        for m in self.layers:
            q, k, v = self.before(x, cos, sin, m.input_norm, m.wq, m.wk, m.wv, m.q_norm, m.k_norm, s.head_dim, s.eps)
            y = attention(q, k, v, batch.groups, group_tokens)
            x = self.after(x, y, m.post_norm, m.wo, m.gate, m.up, m.down, s.eps)
        return self.loss(x, self.final_norm, self.embedding, batch.targets, batch.weights, s.eps)

    def huggingface(self) -> dict[str, Tensor]:
        """The weights under the names that `transformers` gives them, in bf16."""
        return {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in self.named_as_published().items()}

    @torch.no_grad()
    def read(self, folder: Path) -> None:
        """Takes the weights that `export.py` wrote there."""
        own = self.named_as_published()
        for file in folder.glob("*.safetensors"):
            for name, weight in load_file(file).items():
                own.pop(name).copy_(weight)
        assert not own, f"{folder} lacks {sorted(own)}"

    def named_as_published(self) -> dict[str, nn.Parameter]:
        names = {
            "input_norm": "input_layernorm", "post_norm": "post_attention_layernorm", "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm", "wq": "self_attn.q_proj",
            "wk": "self_attn.k_proj", "wv": "self_attn.v_proj", "wo": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
        out = {"model.embed_tokens.weight": self.embedding}
        for i, layer in enumerate(self.layers):
            out |= {f"model.layers.{i}.{names[n]}.weight": p for n, p in layer.named_parameters()}
        return out | {"model.norm.weight": self.final_norm}
