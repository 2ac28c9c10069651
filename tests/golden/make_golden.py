"""Write the golden fixtures: logits, loss, gradients and short optimizer trajectories in float64.

Usage: python make_golden.py [--out-dir DIR]    (needs torch and safetensors)

See README.md beside this file for the contents of the fixtures.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save as serialise

from reference_gpt import Config, cross_entropy, forward, param_shapes

BATCH_SIZE = 2
SEED = 1234
STEPS = 10
CLIP_NORM = 1.0

ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
MUON = dict(lr=0.02, momentum=0.95, weight_decay=0.01)
MUON_ADAMW = dict(lr=3e-3, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
NS_STEPS = 5
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def make_params(cfg, generator):
    """Random parameters: float32 values held in float64."""

    def draw(name, shape):
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        if len(shape) == 2:
            z = 0.08 * z  # matrices and embeddings
        elif name.endswith(".weight"):
            z = 1 + 0.1 * z  # gains
        else:
            z = 0.1 * z  # biases
        return z.float().double()

    return {name: draw(name, shape) for name, shape in param_shapes(cfg).items()}


def loss_and_grads(params, cfg, tokens, targets):
    """Return (logits (B,T,V), loss (), {name: gradient}), all detached."""
    leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    logits = forward(leaves, cfg, tokens)
    loss = cross_entropy(logits, targets)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return logits.detach(), loss.detach(), dict(zip(leaves, grads))


def clip(grads):
    """Scale all gradients so that their joint L2 norm is at most CLIP_NORM; return the norm too."""
    norm = math.sqrt(sum(g.square().sum().item() for g in grads.values()))
    scale = min(1.0, CLIP_NORM / (norm + 1e-6))
    return {name: g * scale for name, g in grads.items()}, norm


class AdamW:
    """AdamW for one parameter, with bias correction and decoupled decay of the old value."""

    def __init__(self, lr, betas, eps, weight_decay):
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.m = self.v = 0.0
        self.step = 0

    def update(self, w, g):
        """Return the new value of w."""
        beta1, beta2 = self.betas
        self.step += 1
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g.square()
        m_hat = self.m / (1 - beta1**self.step)
        v_hat = self.v / (1 - beta2**self.step)
        decayed = (1 - self.lr * self.weight_decay) * w
        return decayed - self.lr * m_hat / (v_hat.sqrt() + self.eps)


def newton_schulz(u):
    """Push the singular values of u towards 1 with five steps of an odd quintic polynomial."""
    a, b, c = NS_COEFFICIENTS
    tall = u.shape[0] > u.shape[1]
    x = u.T if tall else u
    x = x / (x.norm() + 1e-7)
    for _ in range(NS_STEPS):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if tall else x


class Muon:
    """Muon for one matrix: Nesterov momentum, orthogonalised."""

    def __init__(self, lr, momentum, weight_decay):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.m = 0.0

    def update(self, w, g):
        """Return the new value of w, a (rows, cols) matrix."""
        mu = self.momentum
        rows, cols = w.shape
        self.m = mu * self.m + (1 - mu) * g
        o = newton_schulz((1 - mu) * g + mu * self.m)
        scale = math.sqrt(max(1.0, rows / cols))
        return (1 - self.lr * self.weight_decay) * w - self.lr * scale * o


def adamw_rule(name, p):
    """AdamW everywhere; only 2-D parameters decay."""
    del name
    return AdamW(**(ADAMW if p.dim() == 2 else ADAMW | {"weight_decay": 0.0}))


def muon_rule(name, p):
    """Muon for the matrices inside the blocks, AdamW without decay for everything else."""
    if name.startswith("h.") and p.dim() == 2:
        return Muon(**MUON)
    return AdamW(**MUON_ADAMW)


def train(params, cfg, tokens, targets, rule):
    """Take STEPS steps on one batch; return (losses before each update, gradient norms, params)."""
    optimizers = {name: rule(name, p) for name, p in params.items()}
    losses, norms = [], []
    for _ in range(STEPS):
        _, loss, grads = loss_and_grads(params, cfg, tokens, targets)
        grads, norm = clip(grads)
        params = {name: optimizers[name].update(p, grads[name]) for name, p in params.items()}
        losses.append(loss.item())
        norms.append(norm)
    return losses, norms, params


def check_adamw(params, cfg, tokens, targets, losses, trained):
    """Assert that the AdamW trajectory is the one torch.optim.AdamW takes."""
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    groups = [
        {"params": [p for p in leaves.values() if p.dim() == 2]},
        {"params": [p for p in leaves.values() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], **ADAMW)
    for expected in losses:
        optimizer.zero_grad()
        loss = cross_entropy(forward(leaves, cfg, tokens), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), CLIP_NORM)
        optimizer.step()
        assert abs(loss.item() - expected) < 1e-10, (loss.item(), expected)
    for name, p in leaves.items():
        torch.testing.assert_close(trained[name], p.detach(), rtol=1e-9, atol=1e-11)


def check_newton_schulz(params):
    """Assert that newton_schulz applies its polynomial to the singular values and nothing else."""
    a, b, c = NS_COEFFICIENTS
    for p in params.values():
        if p.dim() != 2:
            continue
        u, s, vt = torch.linalg.svd(p, full_matrices=False)
        s = s / (s.norm() + 1e-7)
        for _ in range(NS_STEPS):
            s = a * s + b * s**3 + c * s**5
        torch.testing.assert_close(newton_schulz(p), (u * s) @ vt, rtol=0, atol=1e-10)


def save(path, tensors, metadata):
    """Write a safetensors file, floats rounded to float32, and report its size."""
    tensors = {
        name: (t.float() if t.is_floating_point() else t).contiguous()
        for name, t in tensors.items()
    }
    blob = serialise(tensors)
    # The library writes metadata in random order; put it in here so that reruns match bytewise.
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.dumps({"__metadata__": metadata} | json.loads(blob[8:end])).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + blob[end:])
    print(f"{path.name}: {path.stat().st_size} bytes")


def prefixed(prefix, tensors):
    """Return the dict with the prefix put before every name."""
    return {f"{prefix}.{name}": t for name, t in tensors.items()}


def make_arch(arch, out_dir):
    """Write the three fixtures of one architecture."""
    cfg = Config(arch)
    generator = torch.Generator().manual_seed(SEED)
    params = make_params(cfg, generator)
    shape = (BATCH_SIZE, cfg.block_size)  # (B,T)
    tokens = torch.randint(cfg.vocab_size, shape, generator=generator)
    targets = torch.randint(cfg.vocab_size, shape, generator=generator)
    sizes = {key: str(value) for key, value in vars(cfg).items()}
    sizes["torch_version"] = torch.__version__

    logits, loss, grads = loss_and_grads(params, cfg, tokens, targets)
    tensors = {
        "tokens": tokens.int(), "targets": targets.int(), "logits": logits, "loss": loss.view(1)
    }
    tensors |= prefixed("param", params) | prefixed("grad", grads)
    save(out_dir / f"{arch}.safetensors", tensors, sizes | {"loss": repr(loss.item())})

    check_newton_schulz(params)
    for optimizer, rule in (("adamw", adamw_rule), ("muon", muon_rule)):
        losses, norms, trained = train(params, cfg, tokens, targets, rule)
        if optimizer == "adamw":
            check_adamw(params, cfg, tokens, targets, losses, trained)
        tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
        metadata = {"losses": json.dumps(losses), "grad_norms": json.dumps(norms)}
        path = out_dir / f"{arch}_{optimizer}.safetensors"
        save(path, tensors | prefixed("param", trained), sizes | metadata)
        print("  losses    ", " ".join(f"{x:.4f}" for x in losses))
        print("  grad norms", " ".join(f"{x:.4f}" for x in norms))


def main():
    """Parse the command line and write all fixtures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out-dir", type=Path, default=Path(__file__).resolve().parent)
    args = parser.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for arch in ("gpt2", "modern"):
        make_arch(arch, args.out_dir)


if __name__ == "__main__":
    main()
