"""Training runs: the same bits twice, captured, resumed; and the CPU's curve."""

import hashlib
import json
import shutil
from pathlib import Path

from record import ROOT

STEPS = 20
CUDA = ["--device", "cuda", "--dtype", "bf16"]
HOPPER = {"MURMUR_HOPPER": "1"}


def corpus(size: int) -> str:
    """Text that is everywhere the same: the project's own sources."""
    text = ""
    for path in sorted(ROOT.glob("[a-z]*/*.cpp")) + sorted(ROOT.glob("tensor/*/*.cpp")):
        if not path.parts[len(ROOT.parts)].startswith("build"):
            text += path.read_text(encoding="utf-8")
    return (text * (size // max(len(text), 1) + 1))[:size]


def prepare(check) -> Path:
    """The data folder."""
    folder = check.work / "data"
    if not (folder / "data.json").exists():
        text = check.work / "text.txt"
        text.write_text(corpus(check.settings.corpus), encoding="utf-8")
        done = check.shell.run([check.cpu_murmur, "data", "prepare", text, "--out", folder], 60)
        if not done.ok:
            raise RuntimeError(f"data prepare: {done.why()}")
    return folder


def train(check, name: str, flags: list, env: dict | None = None, program=None,
          save_every: int = STEPS // 2) -> tuple:
    """The job of one run into a folder of its own, emptied first."""
    out = check.work / "runs" / name
    shutil.rmtree(out, ignore_errors=True)
    command = [program or check.murmur, "train", "--data", check.work / "data", "--out", out]
    command += ["--eval-every", "0", "--checkpoint-every", save_every, "--warmup", "5"]
    command += ["--threads", check.settings.threads, *flags]
    return command, 120, env or {}


def losses(check, name: str) -> list[float]:
    """The training losses of a run, step by step."""
    log = check.work / "runs" / name / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [row["train_loss"] for row in rows]


def step_times(check, name: str) -> list[float]:
    """Milliseconds of each step of a run."""
    log = check.work / "runs" / name / "log.jsonl"
    return [json.loads(line)["step_ms"] for line in log.read_text(encoding="utf-8").splitlines()]


def digests(check, name: str, step: int = STEPS) -> dict[str, str]:
    """SHA-256 of the checkpoint's two files of tensors."""
    folder = check.work / "runs" / name / "checkpoint" / f"step-{step:08d}"
    return {file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
            for file in ("model.safetensors", "optimizer.safetensors")}


def compare(check, title: str, one: str, other: str, whole_log: bool = True) -> None:
    """Two runs must have ended with the same bits, and with the same losses on the way."""
    try:
        a, b = digests(check, one), digests(check, other)
        x, y = losses(check, one), losses(check, other)
    except (OSError, ValueError, KeyError) as error:
        check.record.check("runs", title, "failed", f"a run is missing: {error}")
        return
    differing = [i + 1 for i, (p, q) in enumerate(zip(x, y)) if p != q]
    if a == b and (not whole_log or (len(x) == len(y) and not differing)):
        check.record.check("runs", title, "passed", sha256=a["model.safetensors"], loss=x[-1])
        return
    files = [file for file in a if a[file] != b[file]]
    first = f"; losses differ first at step {differing[0]}: {x[differing[0] - 1]} and " \
            f"{y[differing[0] - 1]}" if differing else ""
    check.record.check("runs", title, "failed", f"differ: {', '.join(files) or 'log only'}{first}")


def report_runs(check, names: list[str], done: list) -> None:
    """A failed check for every run that did not end well."""
    for name, result in zip(names, done):
        if result is None:
            check.record.check("runs", f"run {name}", "skipped", "no time left")
        elif not result.ok:
            check.record.check("runs", f"run {name}", "failed", result.why())


def equal_bits(check) -> None:
    """Twice, captured, resumed, and with Hopper's kernels twice."""
    prepare(check)
    models = {"nano": check.settings.nano, "small": check.settings.small}
    steps = ["--steps", str(STEPS), *CUDA]
    # First one after the other: these runs choose the library's kernels, and the table that the
    # others read is then complete.
    first = [f"{model}-one" for model in models]
    jobs = [train(check, f"{m}-one", [*flags, *steps]) for m, flags in models.items()]
    report_runs(check, first, check.shell.run_all(jobs, 1))
    names, jobs = [], []
    for model, flags in models.items():
        for kind, more, env in [("two", [], {}), ("graph", ["--cuda-graph", "true"], {}),
                                ("hopper-one", [], HOPPER), ("hopper-two", [], HOPPER)]:
            names.append(f"{model}-{kind}")
            jobs.append(train(check, names[-1], [*flags, *steps, *more], env))
        source, copy = check.work / "runs" / f"{model}-one", f"{model}-resumed"
        job = train(check, copy, ["--resume-from", str(STEPS // 2)])
        if source.exists():
            shutil.copytree(source, check.work / "runs" / copy)
        names.append(copy)
        jobs.append(job)
    report_runs(check, names, check.shell.run_all(jobs, check.workers))
    for model in models:
        compare(check, f"{model}: two runs of {STEPS} steps", f"{model}-one", f"{model}-two")
        compare(check, f"{model}: captured and eager", f"{model}-one", f"{model}-graph")
        compare(check, f"{model}: resumed and straight", f"{model}-one", f"{model}-resumed")
        compare(check, f"{model}: two runs with Hopper's kernels", f"{model}-hopper-one",
                f"{model}-hopper-two")
        compare_curves(check, f"{model}: Hopper's kernels and the general ones",
                       f"{model}-one", f"{model}-hopper-one", 5)


def smoothed(values: list[float], width: int) -> list[float]:
    """Means over `width` steps."""
    width = min(width, len(values))
    return [sum(values[i:i + width]) / width for i in range(len(values) - width + 1)]


def compare_curves(check, title: str, want: str, got: str, width: int) -> None:
    """The largest relative difference of two smoothed loss curves must be within 1%."""
    try:
        a, b = smoothed(losses(check, want), width), smoothed(losses(check, got), width)
        worst = max(abs(x - y) / abs(x) for x, y in zip(a, b, strict=True))
    except (OSError, ValueError, TypeError, KeyError) as error:
        check.record.check("runs", title, "failed", f"a run is missing: {error}")
        return
    status = "passed" if worst <= 0.01 else "failed"
    check.record.check("runs", title, status, "" if status == "passed" else f"{worst:.2%} apart",
                       largest_difference=worst, last=[a[-1], b[-1]], smoothed_over=width)


def curves(check) -> None:
    """The curve of `nano` on the GPU, in fp32 and bf16, beside the CPU's."""
    prepare(check)
    steps = [*check.settings.nano, "--steps", str(check.settings.curve_steps)]
    kinds = {"curve-cpu": ["--device", "cpu", "--dtype", "fp32"],
             "curve-fp32": ["--device", "cuda", "--dtype", "fp32"],
             "curve-bf16": ["--device", "cuda", "--dtype", "bf16"]}
    jobs = [train(check, name, [*steps, *kind], program=check.cpu_murmur if "cpu" in name else None)
            for name, kind in kinds.items()]
    report_runs(check, list(kinds), check.shell.run_all(jobs, check.workers))
    for name in ("curve-fp32", "curve-bf16"):
        compare_curves(check, f"nano, {check.settings.curve_steps} steps: {name[6:]} on the GPU "
                       "and fp32 on the CPU", "curve-cpu", name, 20)
