"""Gates on what the CUDA compiler reports: python3 tests/cuda/gates.py BUILD_LOG

BUILD_LOG is the output of a clean build of `murmur` in the `cuda` preset (ptxas -v speaks there). A kernel
fails when it spills, keeps a stack frame, or takes more registers than its ceiling; the build fails
when ptxas serialises wgmma or ignores setmaxnreg, when anything is warned about, when an
architecture is missing, or when the matrix instructions that a file is written for are not in its
PTX. Prints one line per kind of kernel and ends with exit status 1 if any gate is broken.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = {"sm_80", "sm_90a"}

# Ceilings by the kernel's name, first match counts. 65,536 registers per multiprocessor: 255 lets
# 256 threads stay, 128 lets 512, 64 lets 1,024. Tile kernels are written for 256 threads.
CEILINGS = [
    (r"hopper_", 168),  # at launch; setmaxnreg shares them out anew
    (r"symmetric_tile", 96),
    (r"attention_rows", 96),
    (r"attention_", 255),
    (r"QkNormBackward|SoftmaxBackward", 128),  # the longest rows that a warp holds
    (r"NormBackward", 255),
    (r"NormForward|Rope", 96),
    (r"element", 56),
    (r"", 80),
]

# Serialised wgmma, injected waits and arrivals, setmaxnreg ignored.
NOTES = re.compile(r"C7508|C7511|C7517|C7519")

# PTX instructions that a file must hold at least so many times, for one architecture.
EXPECTED = [
    ("tensor/ops/softmax.cpp", "80", r"ld\.global\.v4", 200),  # 16 bytes at a time
    ("tensor/ops/softmax.cpp", "80", r"st\.global\.v4", 100),
    ("tensor/cuda/attention.cu", "80", r"mma\.sync\.aligned\.m16n8k16", 100),
    ("tensor/cuda/attention.cu", "80", r"cp\.async\.cg\.shared", 8),
    ("tensor/cuda/attention.cu", "80", r"ldmatrix\.sync", 50),
    ("tensor/cuda/attention_hopper.cu", "90a", r"wgmma\.mma_async", 40),
    ("tensor/cuda/attention_hopper.cu", "90a", r"cp\.async\.bulk\.tensor", 6),
    ("tensor/cuda/symmetric_hopper.cu", "90a", r"wgmma\.mma_async", 8),
]
FORBIDDEN = re.compile(r"\b(atom|red)\.[a-z.]*global[a-z.]*\.add\.(f32|f16|bf16|f64)")


def read_kernels(log):
    """(architecture, mangled name) -> {"registers", "stack", "spills", "shared"} from ptxas -v."""
    kernels = defaultdict(dict)
    current = None
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            current = kernels[(found[2], found[1])]
        elif current is None:
            continue
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", line):
            current["stack"] = int(found[1])
            current["spills"] = int(found[2]) + int(found[3])
        elif found := re.search(r"Used (\d+) registers", line):
            current["registers"] = int(found[1])
            current = None
    return kernels


def demangle(names):
    """Readable names without arguments."""
    done = subprocess.run(["c++filt", "-p"], input="\n".join(names), text=True, capture_output=True, check=True)
    return dict(zip(names, done.stdout.splitlines()))


def kind(readable):
    """What a kernel's versions share: its name, or that of the functor it runs."""
    plain = re.sub(r"murmur::|cuda::|kernel::|\(anonymous namespace\)::|^void ", "", readable)
    functor = re.match(r"(?:row|element)_kernel<(?:\(By\))?[\d, ]*(\w+)", plain)
    return functor[1] if functor else plain.split("<")[0]


def ptx_of(source, architecture):
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.ptx"
        subprocess.run(
            ["nvcc", "-x", "cu", "-std=c++20", "-O3", "--expt-relaxed-constexpr", "--expt-extended-lambda", "-ptx",
             f"-arch=compute_{architecture}", "-I", str(ROOT), "-I", str(ROOT / "build-cuda" / "generated"),
             str(ROOT / source), "-o", str(target)],
            check=True)
        return target.read_text()


def main():
    log = Path(sys.argv[1]).read_text(errors="replace")
    broken = []
    kernels = read_kernels(log)
    names = demangle(sorted({name for _, name in kernels}))
    groups = defaultdict(lambda: defaultdict(list))
    for (architecture, name), use in kernels.items():
        readable = names[name]
        place = f"{readable} ({architecture})"
        if "registers" not in use or "spills" not in use:
            broken.append(f"{place}: no report")
            continue
        ceiling = next(most for pattern, most in CEILINGS if re.search(pattern, readable))
        if use["spills"]:
            broken.append(f"{place}: spills {use['spills']} bytes")
        if use["stack"]:
            broken.append(f"{place}: stack frame of {use['stack']} bytes")
        if use["registers"] > ceiling:
            broken.append(f"{place}: {use['registers']} registers, at most {ceiling}")
        groups[kind(readable)][architecture].append(use["registers"])
    seen = {architecture for architecture, _ in kernels}
    for architecture in ARCHITECTURES - seen:
        broken.append(f"no kernel was compiled for {architecture}: is {sys.argv[1]} the log of a clean build?")
    for line in log.splitlines():
        if NOTES.search(line) or re.search(r"\bwarning\b", line, re.IGNORECASE):
            broken.append(line.strip())

    print(f"{'kernel':<34}{'versions':>9}   registers" + "".join(f"{a:>12}" for a in sorted(ARCHITECTURES)))
    for group, by_architecture in sorted(groups.items()):
        ranges = [f"{min(r)}-{max(r)}" if (r := by_architecture.get(a)) else "-" for a in sorted(ARCHITECTURES)]
        count = max(len(r) for r in by_architecture.values())
        print(f"{group:<34}{count:>9}            " + "".join(f"{r:>12}" for r in ranges))

    texts = {}
    for source, architecture, pattern, least in EXPECTED:
        key = (source, architecture)
        texts[key] = texts.get(key) or ptx_of(source, architecture)
        count = len(re.findall(pattern, texts[key]))
        print(f"{source}, compute_{architecture}: {count} of {pattern}")
        if count < least:
            broken.append(f"{source}: {count} of {pattern}, at least {least} expected")
    for (source, _), text in texts.items():
        if FORBIDDEN.search(text):
            broken.append(f"{source}: adds floats with atomics, in no fixed order")

    for line in broken:
        print(f"gate broken: {line}")
    print(f"compile gates: {len(kernels)} kernels, {len(broken)} gates broken")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
