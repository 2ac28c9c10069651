"""A plain functional GPT over a dict of named tensors: the reference that Murmur is tested against.

Two architectures share one forward pass:

* ``gpt2``   - learned positions, LayerNorm, biases, GELU (tanh form), tied output head;
* ``modern`` - rotary positions, RMSNorm, QK-norm, squared ReLU, no biases, untied output head.

Everything is spelled out in elementary tensor operations, and nothing is fused, so that the file
reads as a specification. Shape letters: B batch, T time, C channels, H heads, D = C / H, V
vocabulary. Linear weights are stored [out, in].
"""

import math
from dataclasses import dataclass

import torch

NORM_EPS = 1e-5
ROPE_BASE = 10000.0


@dataclass(frozen=True)
class Config:
    """Sizes of one model; ``arch`` is "gpt2" or "modern"."""

    arch: str
    vocab_size: int = 64  # V
    n_embd: int = 32  # C
    n_layer: int = 2
    n_head: int = 2  # H
    block_size: int = 16  # T


def param_shapes(cfg):
    """Return {name: shape} in the order in which the parameters are listed and initialised."""
    V, C, T = cfg.vocab_size, cfg.n_embd, cfg.block_size
    gpt2 = cfg.arch == "gpt2"
    shapes = {"wte.weight": (V, C)}
    if gpt2:
        shapes["wpe.weight"] = (T, C)

    def add(name, *shape):
        shapes[name + ".weight"] = shape
        if gpt2:
            shapes[name + ".bias"] = shape[:1]

    for i in range(cfg.n_layer):
        add(f"h.{i}.ln_1", C)
        add(f"h.{i}.attn.c_attn", 3 * C, C)
        add(f"h.{i}.attn.c_proj", C, C)
        add(f"h.{i}.ln_2", C)
        add(f"h.{i}.mlp.c_fc", 4 * C, C)
        add(f"h.{i}.mlp.c_proj", C, 4 * C)
    add("ln_f", C)
    if not gpt2:
        shapes["lm_head.weight"] = (V, C)
    return shapes


def rms_normalise(x):
    """Divide x by its root mean square over the last dimension."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)


def norm(params, name, x):
    """LayerNorm where the named norm has a bias, else RMSNorm. (B,T,C) -> (B,T,C)"""
    weight, bias = params[name + ".weight"], params.get(name + ".bias")
    if bias is None:
        return rms_normalise(x) * weight
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + NORM_EPS) * weight + bias


def linear(params, name, x):
    """x W^T, plus the bias if there is one. (..., in) -> (..., out)"""
    y = x @ params[name + ".weight"].T
    bias = params.get(name + ".bias")
    return y if bias is None else y + bias


def rope(x):
    """Rotate column pairs (j, j + D/2) of x by the angle t * base^(-2j/D). (B,H,T,D)"""
    T, D = x.shape[-2:]
    t = torch.arange(T, dtype=x.dtype)
    j = torch.arange(D // 2, dtype=x.dtype)
    angle = t[:, None] * ROPE_BASE ** (-2 * j / D)  # (T,D/2)
    cos, sin = angle.cos(), angle.sin()
    x1, x2 = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1)


def attention(params, cfg, name, x):
    """Causal multi-head self-attention. (B,T,C) -> (B,T,C)"""
    B, T, C = x.shape
    H = cfg.n_head
    D = C // H
    qkv = linear(params, name + ".c_attn", x)  # (B,T,3C), columns [q | k | v]
    q, k, v = (part.view(B, T, H, D).transpose(1, 2) for part in qkv.split(C, dim=-1))  # (B,H,T,D)
    if cfg.arch == "modern":
        q, k = rope(rms_normalise(q)), rope(rms_normalise(k))
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # (B,H,T,T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)
    y = (weights @ v).transpose(1, 2).reshape(B, T, C)  # heads side by side again
    return linear(params, name + ".c_proj", y)


def mlp(params, cfg, name, x):
    """Two linear maps with an activation between them. (B,T,C) -> (B,T,4C) -> (B,T,C)"""
    u = linear(params, name + ".c_fc", x)
    if cfg.arch == "gpt2":
        a = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    else:
        a = u.relu().square()
    return linear(params, name + ".c_proj", a)


def forward(params, cfg, tokens):
    """Logits of every position. tokens (B,T) -> (B,T,V)"""
    x = params["wte.weight"][tokens]  # (B,T,C)
    if cfg.arch == "gpt2":
        x = x + params["wpe.weight"][: tokens.shape[1]]
    for i in range(cfg.n_layer):
        x = x + attention(params, cfg, f"h.{i}.attn", norm(params, f"h.{i}.ln_1", x))
        x = x + mlp(params, cfg, f"h.{i}.mlp", norm(params, f"h.{i}.ln_2", x))
    x = norm(params, "ln_f", x)
    head = params["wte.weight"] if cfg.arch == "gpt2" else params["lm_head.weight"]
    return x @ head.T


def cross_entropy(logits, targets):
    """Mean over the B*T tokens of -log p(target), in nats. (B,T,V), (B,T) -> ()"""
    log_p = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_p.gather(-1, targets[..., None]).mean()
