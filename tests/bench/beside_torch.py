"""Benchmark Murmur's training step beside the PyTorch peer and print a Markdown table.

Usage: python beside_torch.py [--compile] [--json FILE]    (from the repository root, after a build)

The contenders take turns: every round runs each of them once, in an order that rotates from round
to round, so that a slow spell of the machine does not fall on one of them alone. The table shows
the medians over the rounds.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCH_SCRIPT = Path(__file__).resolve().parent / "torch_gpt.py"


@dataclass(frozen=True)
class Case:
    """One row of the table: a preset, its batch, and the number of timed steps per run."""

    preset: str
    batch_size: int  # B
    block_size: int  # T
    steps: int

    @property
    def name(self):
        """Name as shown in the table and taken by --cases."""
        return f"{self.preset}-B{self.batch_size}-T{self.block_size}"


CASES = [
    Case("nano", 12, 64, 50),
    Case("baby", 4, 256, 12),
    Case("baby", 12, 256, 6),
    Case("gpt2", 4, 64, 6),
]


def run_json(command):
    """Run a command and return the JSON object that it prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    start = done.stdout.find("{")
    if done.returncode != 0 or start < 0:
        sys.exit(f"failed ({done.returncode}): {' '.join(command)}\n{done.stdout}{done.stderr}")
    return json.JSONDecoder().raw_decode(done.stdout[start:])[0]


def run_once(contender, case, args):
    """Run one contender on one case; return its JSON with the peak memory in MiB."""
    options = ["--preset", case.preset, "--dtype", "fp32", "--threads", str(args.threads)]
    options += ["--batch-size", str(case.batch_size), "--block-size", str(case.block_size)]
    options += ["--steps", str(args.steps or case.steps)]
    if contender == "murmur":
        result = run_json([args.murmur, "bench", "step", *options, "--json"])
        result["peak_rss_mb"] = result["peak_rss_bytes"] / 2**20
        return result
    flags = ["--compile"] if contender == "torch-compile" else []
    return run_json([args.python, str(TORCH_SCRIPT), *options, *flags])


def run_case(case, contenders, args):
    """Run all rounds of one case; return {contender: {medians and the runs themselves}}."""
    runs = {contender: [] for contender in contenders}
    for turn in range(args.rounds):
        first = turn % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            result = run_once(contender, case, args)
            runs[contender].append(result)
            speed = f"{result['tokens_per_s']:.0f} tok/s"
            print(f"{case.name} round {turn + 1} {contender}: {speed}", file=sys.stderr)
    keys = ("tokens_per_s", "step_ms", "peak_rss_mb")
    return {
        contender: {key: statistics.median(r[key] for r in results) for key in keys}
        | {"runs": results}
        for contender, results in runs.items()
    }


def markdown_table(results, contenders):
    """Return the table: speeds, Murmur's speed over each peer's, and peak memory."""
    peers = [c for c in contenders if c != "murmur"] if "murmur" in contenders else []
    header = ["case", *(f"{c} tok/s" for c in contenders), *(f"murmur / {p}" for p in peers)]
    header += [f"{c} peak MiB" for c in contenders]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, row in results.items():
        speed = {c: row[c]["tokens_per_s"] for c in contenders}
        cells = [name, *(f"{speed[c]:,.0f}" for c in contenders)]
        cells += [f"{speed['murmur'] / speed[p]:.2f}" for p in peers]
        cells += [f"{row[c]['peak_rss_mb']:,.0f}" for c in contenders]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def cpu_model():
    """Name of the processor, as well as it can be found."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit():
    """Abbreviated commit of the repository, marked where the work tree differs; None if unknown."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [case.name for case in CASES]
    parser.add_argument("--murmur", default="build/murmur", help="binary, from the repository root")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="timed steps per run, instead of each case's own")
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--compile", action="store_true", help="add torch.compile as a contender")
    parser.add_argument("--torch-only", action="store_true", help="leave Murmur out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not args.torch_only and not (ROOT / args.murmur).is_file():
        parser.error(f"no binary at {args.murmur}; build it, or give --torch-only")
    return args


def write_record(args, dtype, results):
    """Write the results, and what they depend on, to the file that --json names."""
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "commit": commit(),
        "threads": args.threads,
        "rounds": args.rounds,
        "dtype": dtype,
        **results,
    }
    args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main():
    """Run the cases, print the table and write the JSON file."""
    args = parse_args()
    contenders = [] if args.torch_only else ["murmur"]
    contenders += ["torch-eager"] + (["torch-compile"] if args.compile else [])
    cases = [case for case in CASES if case.name in args.cases]
    results = {case.name: run_case(case, contenders, args) for case in cases}
    print(markdown_table(results, contenders))
    if args.json:
        write_record(args, "fp32", {"cases": results})


if __name__ == "__main__":
    main()
