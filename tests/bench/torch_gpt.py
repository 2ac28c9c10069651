"""PyTorch peer of Murmur's step benchmark: a GPT-2 trained on random tokens, timed per step.

Runs whole training steps (forward, loss, backward, clipping, update) on the CPU or a GPU and prints
one JSON line. Shape letters: B batch, T time, C channels, H heads, D = C / H, V vocabulary.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

WARMUP_STEPS = 3


@dataclass(frozen=True)
class Preset:
    """Model and batch sizes."""

    n_layer: int
    n_head: int  # H
    n_embd: int  # C
    block_size: int  # T
    batch_size: int  # B
    vocab_size: int  # V


PRESETS = {
    "nano": Preset(4, 4, 128, 64, 12, 256),
    "baby": Preset(6, 6, 384, 256, 12, 256),
    "gpt2": Preset(12, 12, 768, 1024, 4, 50304),
}


class Attention(nn.Module):
    """Causal multi-head self-attention with packed q, k, v."""

    def __init__(self, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        """(B,T,C) -> (B,T,C)"""
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B,H,T,D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class Mlp(nn.Module):
    """The feed-forward half of a block."""

    def __init__(self, n_embd):
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd)
        self.c_proj = nn.Linear(4 * n_embd, n_embd)

    def forward(self, x):
        """(B,T,C) -> (B,T,C)"""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, n_embd, n_head):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = Attention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.mlp = Mlp(n_embd)

    def forward(self, x):
        """(B,T,C) -> (B,T,C)"""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    """GPT-2 with learned positions and the output head tied to the token embedding."""

    def __init__(self, preset):
        super().__init__()
        p = preset
        self.wte = nn.Embedding(p.vocab_size, p.n_embd)
        self.wpe = nn.Embedding(p.block_size, p.n_embd)
        self.h = nn.ModuleList(Block(p.n_embd, p.n_head) for _ in range(p.n_layer))
        self.ln_f = nn.LayerNorm(p.n_embd)
        for name, param in self.named_parameters():
            if param.dim() == 2:
                residual = name.endswith("c_proj.weight")
                nn.init.normal_(param, std=0.02 / math.sqrt(2 * p.n_layer) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(param)

    def forward(self, tokens, targets):
        """Mean cross-entropy in nats. tokens (B,T), targets (B,T) -> ()"""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)  # (B,T,C)
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)  # (B,T,V)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_adamw(params, lr=1e-3):
    """Fused AdamW that decays matrices and embeddings only."""
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def make_optimizers(model, name):
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""
    if name == "adamw":
        return [make_adamw(list(model.parameters()))]
    matrices = [p for p in model.h.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0), make_adamw(rest)]


def synchronize(device):
    """Wait until a GPU has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_rss_mb():
    """Largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_device_bytes(device):
    """Largest memory held by tensors on a GPU so far; 0 on the CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


@dataclass
class Timed:
    """Seconds of every timed step, of a whole update alone, and the last loss."""

    seconds: list
    update_s: float
    loss: float


def update(model, optimizers, clip):
    """Clip the gradients and move the parameters."""
    if clip > 0:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        optimizer.step()


def time_update(model, optimizers, args):
    """Median seconds of the update alone, with the gradients that are there."""
    seconds = []
    for _ in range(5):
        synchronize(args.device)
        start = time.perf_counter()
        update(model, optimizers, args.clip)
        synchronize(args.device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def time_steps(model, step_model, preset, args):
    """Train for the warm-up and the timed steps. step_model: the model, or its compiled form."""
    optimizers = make_optimizers(model, args.optimizer)
    autocast = (
        torch.autocast(args.device, dtype=torch.bfloat16) if args.dtype == "bf16" else nullcontext()
    )
    shape = (preset.batch_size, preset.block_size)  # (B,T)
    tokens = torch.randint(preset.vocab_size, shape).to(args.device)
    targets = torch.randint(preset.vocab_size, shape).to(args.device)
    seconds = []
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(WARMUP_STEPS + args.steps):
        synchronize(args.device)
        start = time.perf_counter()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = step_model(tokens, targets)
        loss.backward()
        update(model, optimizers, args.clip)
        synchronize(args.device)
        seconds.append(time.perf_counter() - start)
    update_s = time_update(model, optimizers, args)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    return Timed(seconds[WARMUP_STEPS:], update_s, loss.item())


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--block-size", type=int)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="timed steps, after the warm-up")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--clip", type=float, default=1.0, help="gradient norm; 0 turns it off")
    args = parser.parse_args()
    if args.steps < 1:
        parser.error("--steps must be at least 1")
    return args


def main():
    """Run the benchmark and print its JSON line."""
    args = parse_args()
    sizes = {
        "batch_size": args.batch_size, "block_size": args.block_size, "vocab_size": args.vocab
    }
    chosen = {key: value for key, value in sizes.items() if value is not None}
    preset = replace(PRESETS[args.preset], **chosen)
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = Gpt(preset).to(args.device)
    timed = time_steps(model, torch.compile(model) if args.compile else model, preset, args)
    step_s = statistics.median(timed.seconds)
    result = {
        "peer": "torch-compile" if args.compile else "torch-eager",
        "torch_version": torch.__version__,
        "preset": args.preset,
        "batch_size": preset.batch_size,
        "block_size": preset.block_size,
        "vocab_size": preset.vocab_size,
        "device": args.device,
        "dtype": args.dtype,
        "optimizer": args.optimizer,
        "threads": args.threads,
        "steps": args.steps,
        "tokens_per_s": preset.batch_size * preset.block_size / step_s,
        "step_ms": 1e3 * step_s,
        "update_ms": 1e3 * timed.update_s,
        "peak_rss_mb": peak_rss_mb(),
        "peak_device_bytes": peak_device_bytes(args.device),
        "loss": timed.loss,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
