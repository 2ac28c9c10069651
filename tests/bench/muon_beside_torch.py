"""Benchmark Murmur's Muon update beside PyTorch's, both with Newton-Schulz in bf16 on the CPU.

Usage: python muon_beside_torch.py [--compile] [--json FILE]    (from the repository root, after a
build)

What is timed is one update of all transformer matrices of a preset, from fp32 gradients to fp32
weights: momentum with Nesterov, five Newton-Schulz steps, scale, decay, step. PyTorch runs the
usual single-file form, matrix by matrix ("torch"), and the same batched over matrices of one shape
("torch-batched"), each also compiled with --compile. The contenders take turns, in an order that
rotates; the table shows medians over the rounds.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path

from beside_torch import run_json, write_record

MURMUR = (
    "build/murmur bench optimizers --optimizers muon:ns_dtype=bf16 "
    "--preset {preset} --json"
)
PRESETS = {"nano": (4, 128), "baby": (6, 384), "gpt2": (12, 768)}  # layers, width
STEPS = {"nano": 30, "baby": 7, "gpt2": 3}  # timed updates of a run of PyTorch
LR, MOMENTUM, WEIGHT_DECAY = 0.02, 0.95, 0.01


def zeropower_via_newtonschulz5(g, steps=5):
    """Nearest semi-orthogonal matrix of g, or of each matrix of a batch, approximately, in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = g.size(-2) > g.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def muon_update(weight, gradient, momentum):
    """One step of Muon on a matrix, or on a batch of matrices, in place."""
    momentum.lerp_(gradient, 1 - MOMENTUM)
    update = zeropower_via_newtonschulz5(gradient.lerp(momentum, MOMENTUM))
    scale = max(1, weight.size(-2) / weight.size(-1)) ** 0.5
    weight.mul_(1 - LR * WEIGHT_DECAY)
    weight.add_(update, alpha=-LR * scale)


def shapes(preset, batched):
    """Shapes of a preset's matrices, one by one or as batches of one shape."""
    layers, width = PRESETS[preset]
    matrices = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    if batched:
        return [(layers, *matrix) for matrix in matrices]
    return matrices * layers


def run_torch(contender, preset, threads):
    """Median time of one update in ms."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    torch._dynamo.reset()
    step = torch.compile(muon_update) if "compile" in contender else muon_update
    state = []
    for shape in shapes(preset, "batched" in contender):
        weight, gradient = torch.randn(shape) * 0.02, torch.randn(shape) * 0.01
        state.append((weight, gradient, torch.zeros(shape)))
    times = []
    with torch.no_grad():
        for _ in range(STEPS[preset] + 2):  # two to warm up
            start = time.perf_counter()
            for tensors in state:
                step(*tensors)
            times.append(time.perf_counter() - start)
    return {"update_ms": 1e3 * statistics.median(times[2:])}


def run_once(contender, preset, args):
    """Run one contender once; return its JSON, with "update_ms" at the top."""
    if contender != "murmur":
        return run_torch(contender, preset, args.threads)
    command = shlex.split(args.murmur.replace("{preset}", preset))
    result = run_json(["env", f"OMP_NUM_THREADS={args.threads}", *command])
    if "update_ms" not in result:
        (row,) = [row for row in result["optimizers"] if row["name"].startswith("muon")]
        result["update_ms"] = row["update_ms"]
    return result


def run_preset(preset, contenders, args):
    """Run all rounds of one preset; return {contender: {median and the runs themselves}}."""
    runs = {contender: [] for contender in contenders}
    for turn in range(args.rounds):
        first = turn % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            result = run_once(contender, preset, args)
            runs[contender].append(result)
            ms = f"{result['update_ms']:.2f} ms"
            print(f"{preset} round {turn + 1} {contender}: {ms}", file=sys.stderr)
    return {
        contender: {
            "update_ms": statistics.median(r["update_ms"] for r in results),
            "runs": results,
        }
        for contender, results in runs.items()
    }


def markdown_table(results, contenders):
    """Return the table: times of one update, and every peer's time over Murmur's."""
    peers = [c for c in contenders if c != "murmur"]
    header = ["matrices", *(f"{c} ms" for c in contenders), *(f"{p} / murmur" for p in peers)]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for preset, row in results.items():
        ms = {c: row[c]["update_ms"] for c in contenders}
        cells = [preset, *(f"{ms[c]:,.1f}" for c in contenders)]
        lines.append(cells + [f"{ms[p] / ms['murmur']:.2f}" for p in peers])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--murmur",
        default=MURMUR,
        metavar="COMMAND",
        help='prints JSON with "update_ms"; {preset} is replaced',
    )
    parser.add_argument("--threads", type=int, default=2, help="of every contender")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--compile", action="store_true", help="also run PyTorch compiled")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def main():
    """Run the presets, print the table and write the JSON file."""
    args = parse_args()
    contenders = ["murmur", "torch", "torch-batched"]
    if args.compile:
        contenders += ["torch-compile", "torch-batched-compile"]
    results = {preset: run_preset(preset, contenders, args) for preset in args.presets}
    print(markdown_table(results, contenders))
    if args.json:
        write_record(args, "bf16", {"presets": results})


if __name__ == "__main__":
    main()
