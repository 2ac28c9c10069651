"""In one line: what the newest GPU check in docs/results/ is, and how old."""

import json

from machine import git
from record import ROOT

NONE = "no GPU evidence yet: the CUDA engine has only been run by the CPU emulation"


def newest() -> dict | None:
    """The newest record of a GPU, by its date."""
    found = []
    for path in (ROOT / "docs" / "results").glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            print(f"evidence: {path.name} cannot be read")
            continue
        if record.get("kind") == "gpu-check" and not record.get("emulated"):
            found.append(record)
    return max(found, key=lambda record: record["date"], default=None)


def age(commit: str) -> str:
    """How many commits ago that was, and how many of them touched the engine."""
    count = git("rev-list", "--count", f"{commit}..HEAD")
    touched = git("rev-list", "--count", f"{commit}..HEAD", "--", "tensor/cuda")
    if not count:
        return "age unknown"
    return f"commits since then: {count}, in tensor/cuda/: {touched}"


def line(record: dict | None) -> str:
    """The line."""
    if record is None:
        return NONE
    counts = record["summary"]
    gpu = record["machine"].get("gpu", {}).get("name", "unknown GPU")
    dirty = " with changes" if record.get("dirty") else ""
    return (f"GPU evidence: {record['date'][:10]}, {gpu}, commit {record['commit']}{dirty} "
            f"({age(record['commit'])}): {counts['passed']} passed, {counts['failed']} failed, "
            f"{counts['skipped']} skipped")
