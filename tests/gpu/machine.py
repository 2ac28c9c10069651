"""What machine this is, and which sources were built."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from record import ROOT
from shell import Shell

PACKAGES = ROOT / "build-gpu-packages"
QUERY = [
    "name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.mem",
    "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "ecc.mode.current",
]


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is to be seen."""
    return bool(list(Path("/dev").glob("nvidia[0-9]*"))) or shutil.which("nvidia-smi") is not None


def cuda_tool(name: str) -> str | None:
    """A program of the CUDA toolkit, from PATH or its usual folder."""
    folders = [os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin"]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def gpu_facts(shell: Shell) -> dict:
    """What nvidia-smi says of the first GPU, as text; empty where it says nothing."""
    done = shell.run(["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"], 20)
    if not done.ok or not done.out.strip():
        return {}
    values = [value.strip() for value in done.out.splitlines()[0].split(",")]
    return dict(zip(QUERY, values))


def processor() -> str:
    """Name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.search(r"model name\s*: (.*)", text).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def versions(shell: Shell) -> dict:
    """Versions of the compilers and of cuBLASLt."""
    found = {}
    nvcc = cuda_tool("nvcc")
    for name, command in {"nvcc": [nvcc or "nvcc", "--version"], "g++": ["g++", "--version"],
                          "cmake": ["cmake", "--version"]}.items():
        done = shell.run(command, 20)
        release = re.search(r"V([\d.]+)|(\d+\.\d+\.\d+)", done.out)
        found[name] = release.group(1) or release.group(2) if release else "not found"
    header = Path(nvcc).resolve().parents[1] / "include/cublas_api.h" if nvcc else None
    if header and header.exists():
        text = header.read_text(encoding="utf-8", errors="replace")
        numbers = (re.search(rf"define CUBLAS_VER_{part} (\d+)", text)
                   for part in ("MAJOR", "MINOR", "PATCH"))
        found["cublasLt"] = ".".join(number.group(1) for number in numbers if number)
    return found


def git(*words: str) -> str | None:
    """What git answers; None where it does not."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True,
                              check=False)
    except OSError:
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None


def packed_revision() -> dict:
    """Commit of the tree that was packed; dirty when a file has changed before or since."""
    try:
        words = (PACKAGES / "commit").read_text(encoding="utf-8").split()
        sums = (PACKAGES / "tree.sha256").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {"commit": "unknown", "dirty": True}
    changed = [path for digest, path in (line.split(maxsplit=1) for line in sums)
               if not same_digest(ROOT / path, digest)]
    return {"commit": words[0], "dirty": "dirty" in words or bool(changed),
            "changed": changed[:20]}


def same_digest(path: Path, digest: str) -> bool:
    """Whether the file has this SHA-256."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def revision() -> dict:
    """The commit that is checked, and whether the tree differs from it."""
    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return packed_revision()
    changed = git("status", "--porcelain", "--", ".", ":!docs/results") or ""
    return {"commit": commit, "dirty": bool(changed), "changed": changed.splitlines()[:20]}
