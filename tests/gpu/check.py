#!/usr/bin/env python3
"""Check the CUDA engine on this machine's GPU and write one dated JSON file (make gpu-check).

Builds, runs the engine's tests, compares whole runs, looks for races, and times steps beside
PyTorch, all within --budget seconds. It goes on after a failure, and the file is whole after every
step, also when the check is stopped. Exit code 0: nothing failed; 1: something did, or the check
was stopped; 77: there is no GPU.

  --age       print in one line what the newest record is, and how old
  --dry-run   walk through all steps with commands that are only printed
  --on-cpu    tiny settings, with the kernels run by the CPU: tests this program, not the GPU
"""

import argparse
import hashlib
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import evidence
import machine
import nccl
import runs
import speed
import suite
from dry import DryShell
from record import ROOT, Clock, OutOfTime, Record, Skip
from shell import Shell

NO_GPU = 77
RESULTS = ROOT / "docs" / "results"


@dataclass(frozen=True)
class Settings:
    """How large everything is."""

    corpus: int = 400_000  # bytes of text
    nano: list = field(default_factory=lambda: ["--preset", "nano"])
    small: list = field(default_factory=lambda: [
        "--preset", "nano", "--arch", "modern", "--n-layer", "2", "--n-head", "2",
        "--n-embd", "128", "--block-size", "200"])
    shape: list = field(default_factory=list)  # instead of a preset's own sizes
    curve_steps: int = 200
    timed_steps: int = 20
    train_steps: int = 90
    rounds: int = speed.ROUNDS
    threads: int = 4


TINY_SHAPE = ["--n-layer", "1", "--n-head", "1", "--n-embd", "32", "--block-size", "16",
              "--batch-size", "2"]
TINY = Settings(
    corpus=6000, nano=["--preset", "nano", *TINY_SHAPE],
    small=["--preset", "nano", *TINY_SHAPE, "--arch", "modern"],
    shape=["--preset", "nano", *TINY_SHAPE], curve_steps=20, timed_steps=2, train_steps=6,
    rounds=2, threads=1,
)
TINY_CASES = re.compile(r"^(cuda: (softmax|sum|lerp|clip|token)|mma |an error says|a tile lies)")


class Check:
    """What the steps share: programs, settings, time, the record."""

    def __init__(self, args: argparse.Namespace):
        self.dry, self.on_cpu = args.dry_run, args.on_cpu
        self.emulated = args.dry_run or args.on_cpu
        self.tiny = args.on_cpu
        self.settings = TINY if self.tiny else Settings()
        self.cases = speed.TINY if self.tiny else speed.FULL
        self.workers = 1 if self.tiny else 4
        self.whole_suite = not self.tiny
        self.python = args.python
        self.jobs = os.cpu_count() or 1
        self.build = (ROOT / args.build).resolve()
        self.work = Path(tempfile.mkdtemp(prefix="gpu-check-", dir=work_folder(self)))
        self.clock = Clock(args.budget)
        env = {"MURMUR_CUDA_PLANS": str(self.work / "plans.txt")}
        env["PATH"] = os.environ.get("PATH", "") + ":/usr/local/cuda/bin"
        log = self.work.parent / "gpu-check.log"
        self.shell = (DryShell if self.dry else Shell)(self.clock, log, env)
        suffix = "_on_cpu" if self.on_cpu else ""
        self.murmur = self.build / ("tests/cuda/murmur_cuda_on_cpu" if self.on_cpu else "murmur")
        self.cpu_murmur = self.build / "murmur" if not self.on_cpu else self.murmur
        self.tests = self.build / f"tests/cuda/test_cuda{suffix}"
        self.ops = self.build / f"tests/gpu/ops_bench{suffix}"
        self.nccl = self.build / "tests/gpu/nccl_check"
        self.hopper_good = False
        self.peer = None
        revision = machine.revision()
        gpu = {} if self.emulated else machine.gpu_facts(self.shell)
        self.record = Record(result_path(args, revision, gpu), emulated=self.emulated,
                             command=command_line(args), budget_s=args.budget, **revision)
        self.record.data["machine"] = {"gpu": gpu}

    def takes_case(self, name: str) -> bool:
        """Whether a test case is run: all of them on a GPU, a few in tiny settings."""
        return not self.tiny or bool(TINY_CASES.match(name))

    def require(self, *programs: Path) -> None:
        """Skip where a program was not built."""
        for program in programs:
            if not self.dry and not program.is_file():
                raise Skip(f"{program.name} was not built")


def work_folder(check: Check) -> Path:
    """Where runs and logs go."""
    folder = Path(tempfile.gettempdir()) if check.emulated else check.build
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def command_line(args: argparse.Namespace) -> str:
    """What was asked for, without the places of this machine."""
    kinds = (["--dry-run"] if args.dry_run else []) + (["--on-cpu"] if args.on_cpu else [])
    only = ["--steps", *args.steps] if args.steps else []
    return shlex.join(["tests/gpu/check.py", "--budget", f"{args.budget:g}", *kinds, *only])


def result_path(args: argparse.Namespace, revision: dict, gpu: dict) -> Path | None:
    """The file to write; an emulated check writes one only where --out says so."""
    if args.out is None and (args.dry_run or args.on_cpu):
        return None
    name = re.sub(r"[^a-z0-9]+", "-", gpu.get("name", "emulated").lower()).strip("-")
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d-%H%M")
    return (args.out or RESULTS) / f"{date}-{revision['commit']}-{name}-check.json"


# ------------------------------------------------------------------------------------------- steps


def facts(check: Check) -> None:
    """The machine."""
    found = {"cpu": machine.processor(), "cores": os.cpu_count(), "kernel": os.uname().release}
    check.record.data["machine"] |= found | machine.versions(check.shell)


def build(check: Check) -> None:
    """Configure and build what the check runs."""
    if check.on_cpu:
        check.require(check.murmur, check.tests, check.ops)
        raise Skip("the emulated programs are taken as they are")
    packages = machine.PACKAGES / "packages.cmake"
    given = ["-C", packages] if packages.exists() else []
    configure = ["cmake", "--preset", "cuda", "-B", check.build, *given]
    targets = ["murmur", "test_cuda", "ops_bench", "nccl_check"]
    compile_ = ["ninja", "-C", check.build, f"-j{check.jobs}", "-k0", *targets]
    if not check.dry:
        for program in (check.murmur, check.tests, check.ops, check.nccl):
            program.unlink(missing_ok=True)  # what fails to build must not be what is checked
    for name, command in [("configure", configure), ("compile", compile_)]:
        done = check.shell.run(command, 240)
        status = "passed" if done.ok else "failed"
        check.record.check("build", name, status, "" if done.ok else done.why(),
                           seconds=round(done.seconds, 1))
        if not done.ok and name == "configure":
            return


def ceilings(check: Check) -> None:
    """The largest product and copy, by the engine itself."""
    check.require(check.ops)
    for only in ("product", "copy"):
        speed.operations(check, only, "ceilings")
    if not check.emulated:
        check.record.data["machine"]["gpu_after_product"] = machine.gpu_facts(check.shell)


def conformance(check: Check) -> None:
    """All tests of the engine."""
    check.require(check.tests)
    suite.conformance(check, "conformance", {}, 60)


def conformance_hopper(check: Check) -> None:
    """The same with Hopper's own kernels."""
    check.require(check.tests)
    label = "conformance with Hopper's kernels"
    check.hopper_good = suite.conformance(check, label, runs.HOPPER, 60)


def equal_bits(check: Check) -> None:
    """Runs that must end with the same bits."""
    check.require(check.murmur)
    runs.equal_bits(check)


def curves(check: Check) -> None:
    """Loss curves beside the CPU's."""
    check.require(check.murmur)
    runs.curves(check)


def messages(check: Check) -> None:
    """NCCL with one rank, and with two on this GPU as an experiment."""
    if check.on_cpu:
        raise Skip("needs a GPU; ctest runs transport nccl on the CPU")
    check.require(check.nccl)
    nccl.world_of_one(check)
    nccl.two_on_one_gpu(check)


def start_peer(check: Check) -> None:
    """PyTorch compiles in the background."""
    done = check.shell.run([check.python, "-c", "import torch; print(torch.__version__)"], 60)
    if not done.ok:
        raise Skip(f"PyTorch is not there: {done.why()}")
    if not check.dry:
        speed.start_peer(check)


def memcheck(check: Check) -> None:
    """compute-sanitizer memcheck."""
    sanitized(check, "memcheck", suite.MEMCHECK)


def racecheck(check: Check) -> None:
    """compute-sanitizer racecheck."""
    sanitized(check, "racecheck", suite.RACECHECK)


def sanitized(check: Check, tool: str, patterns: list) -> None:
    """One tool, on a GPU only."""
    if check.on_cpu:
        raise Skip("needs a GPU")
    check.require(check.tests)
    suite.sanitize(check, tool, patterns)


def wait_for_peer(check: Check) -> None:
    """Wait until PyTorch has compiled, so that it disturbs no measurement."""
    if check.peer:
        check.peer.settle()


def operations(check: Check) -> None:
    """Operations one by one."""
    check.require(check.ops)
    speed.operations(check)


def steps_beside_torch(check: Check) -> None:
    """Whole steps, the contenders taking turns."""
    check.require(check.murmur)
    speed.benchmark(check)
    if not check.emulated:
        check.record.data["machine"]["gpu_after_steps"] = machine.gpu_facts(check.shell)


# Name, function, seconds at most, seconds without which it is not begun.
STEPS = [
    ("facts", facts, 30, 1),
    ("build", build, 240, 20),
    ("ceilings", ceilings, 40, 5),
    ("conformance", conformance, 90, 10),
    ("conformance-hopper", conformance_hopper, 90, 10),
    ("equal-bits", equal_bits, 90, 10),
    ("curves", curves, 60, 10),
    ("nccl", messages, 100, 10),
    ("start-torch", start_peer, 60, 60),
    ("memcheck", memcheck, 60, 30),
    ("racecheck", racecheck, 50, 30),
    ("torch-ready", wait_for_peer, 100, 1),
    ("operations", operations, 80, 15),
    ("steps", steps_beside_torch, 600, 20),
]


def run_step(check: Check, name: str, function, limit: float, least: float) -> None:
    """One step; whatever happens in it, the check goes on."""
    begin = check.clock.spent()
    status, reason = "done", ""
    print(f"[{begin:5.0f} s] {name}: {function.__doc__}", flush=True)
    check.clock.start_step(limit)
    try:
        if check.clock.left() < least:
            raise Skip(f"{max(check.clock.left(), 0):.0f} s of the budget are left")
        function(check)
    except Skip as skip:
        status, reason = "skipped", str(skip)
    except OutOfTime as late:
        status, reason = "out of time", str(late)
    except KeyboardInterrupt:
        status, reason = "interrupted", "stopped from outside"
        raise
    except Exception as error:  # noqa: BLE001 - recorded, and the next step begins
        status, reason = "failed", f"{type(error).__name__}: {error}"
        check.record.check(name, "the step itself", "failed", reason)
    finally:
        if reason:
            print(f"    {status}: {reason}", flush=True)
        check.record.step(name, status, check.clock.spent() - begin, reason)
        speed.add_targets(check.record)
        check.record.data["seconds"] = round(check.clock.spent(), 1)
        check.record.save()


def run_steps(check: Check, only: list | None) -> None:
    """All steps in order; after an interruption the others are written down as skipped."""
    stopped = False
    for name, function, limit, least in STEPS:
        if stopped or (only and name not in only):
            reason = "stopped from outside" if stopped else "not asked for"
            check.record.step(name, "skipped", 0, reason)
            continue
        try:
            run_step(check, name, function, limit, least)
        except KeyboardInterrupt:
            stopped = True
    plans = check.work / "plans.txt"
    if plans.exists():
        digest = hashlib.sha256(plans.read_bytes()).hexdigest()
        check.record.data["machine"]["product_plans_sha256"] = digest
    check.record.save()


def print_summary(check: Check, counts: dict) -> None:
    """What a person wants to see first."""
    for row in check.record.data["targets"]:
        if row["value"] is not None:
            word = {True: "met", False: "missed", None: "-"}[row["met"]]
            print(f"  {row['name']:45} {row['value']:>12.4g}   gate {row['gate']}: {word}")
    for row in check.record.data["checks"]:
        if row["status"] == "failed":
            print(f"  FAILED {row['step']}: {row['name']}: {row.get('message', '')[:200]}")
    print(f"gpu-check: {counts['passed']} passed, {counts['failed']} failed, "
          f"{counts['skipped']} skipped, {check.clock.spent():.0f} s; "
          f"{check.record.path or 'nothing written'}")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=540, metavar="SECONDS")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="instead of docs/results/")
    parser.add_argument("--build", metavar="FOLDER", help="default: build-cuda; --on-cpu: build")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--steps", nargs="+", choices=[step[0] for step in STEPS], metavar="STEP",
                        help="only these: " + ", ".join(step[0] for step in STEPS))
    parser.add_argument("--age", action="store_true",
                        help="print what the newest record in docs/results/ is, and how old")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--on-cpu", action="store_true")
    args = parser.parse_args()
    if args.out and args.out.resolve() == RESULTS and (args.dry_run or args.on_cpu):
        parser.error("what no GPU has run does not belong in docs/results/")
    args.build = args.build or ("build" if args.on_cpu else "build-cuda")
    return args


def interrupt(*_) -> None:
    """A signal ends the check as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Check, write, say."""
    args = parse_args()
    if args.age:
        print(evidence.line(evidence.newest()))
        return 0
    if not (args.dry_run or args.on_cpu or machine.has_gpu()):
        print("gpu-check: skipped: there is no NVIDIA GPU here; nothing was recorded")
        return NO_GPU
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    check = Check(args)
    try:
        run_steps(check, args.steps)
    finally:
        check.shell.end_all()
        shutil.rmtree(check.work, ignore_errors=True)
    counts = check.record.summarise()
    print_summary(check, counts)
    stopped = any(step["status"] == "interrupted" for step in check.record.data["steps"])
    return 1 if counts["failed"] or stopped else 0


if __name__ == "__main__":
    sys.exit(main())
