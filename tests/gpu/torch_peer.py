"""PyTorch's side of the benchmark: answers a line of JSON with a line of JSON, and compiles once.

Requests: {"kind": "step", "preset", "batch_size", "block_size", "optimizer", "steps"}, and
{"kind": "attention cudnn" | "attention flash" | "product" | "copy", "tiny": bool}.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import torch  # noqa: E402
import torch_gpt  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention  # noqa: E402


class Steps:
    """Whole training steps; a model is made and compiled once per shape."""

    def __init__(self, device: str, eager: bool):
        self.device, self.eager = device, eager
        self.models: dict = {}

    def model_of(self, preset):
        """The model of a shape, and what is called: compiled, unless everything is eager."""
        if preset not in self.models:
            model = torch_gpt.Gpt(preset).to(self.device)
            compiled = model if self.eager else torch.compile(model, dynamic=False)
            self.models[preset] = (model, compiled)
        return self.models[preset]

    def answer(self, request: dict) -> dict:
        """Run the steps that are asked for."""
        sizes = {key: request[key] for key in ("batch_size", "block_size")}
        preset = replace(torch_gpt.PRESETS[request["preset"]], **sizes)
        args = argparse.Namespace(device=self.device, dtype="bf16", clip=1.0,
                                  steps=request["steps"], optimizer=request["optimizer"])
        timed = torch_gpt.time_steps(*self.model_of(preset), preset, args)
        step_s = statistics.median(timed.seconds)
        return {"step_ms": 1e3 * step_s, "update_ms": 1e3 * timed.update_s, "loss": timed.loss,
                "tokens_per_s": preset.batch_size * preset.block_size / step_s,
                "peak_bytes": torch_gpt.peak_device_bytes(self.device)}


def time_calls(device: str, call, flops: float = 0, moved: float = 0) -> dict:
    """Median, smallest and largest time of samples of several calls, as ops_bench has them."""
    times = []
    for _ in range(3):
        call()
    torch_gpt.synchronize(device)
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(5):
            call()
        torch_gpt.synchronize(device)
        times.append((time.perf_counter() - start) * 1e3 / 5)
    median = statistics.median(times)
    row = {"n": len(times), "median_ms": median, "min_ms": min(times), "max_ms": max(times)}
    rates = {"tflop_s": flops / median * 1e-9, "gb_s": moved / median * 1e-6}
    return row | {key: rate for key, rate in rates.items() if rate}


def attention(device: str, tiny: bool, backend) -> list:
    """Causal attention, forward and backward, with the layout that a GPT has."""
    B, T, H, D = (1, 32, 2, 32) if tiny else (32, 1024, 12, 64)
    qkv = torch.randn(B, T, 3, H, D, device=device, dtype=torch.bfloat16, requires_grad=True)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    shape, flops = f"{B}x{T}x{H}x{D}", 2.0 * B * H * T * T * D
    with sdpa_kernel(backend):
        forward = time_calls(
            device, lambda: scaled_dot_product_attention(q, k, v, is_causal=True), flops)
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        dy = torch.randn_like(y)
        backward = time_calls(
            device, lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True), 2.5 * flops)
    return [{"name": "attention forward", "shape": shape} | forward,
            {"name": "attention backward", "shape": shape} | backward]


def product(device: str, tiny: bool) -> list:
    """A large product of random bf16 matrices."""
    n = 64 if tiny else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    row = time_calls(device, lambda: torch.mm(a, b), 2.0 * n**3)
    return [{"name": "product", "shape": f"{n}x{n}x{n}"} | row]


def copy(device: str, tiny: bool) -> list:
    """A large copy."""
    n = 4096 if tiny else 1 << 30
    x = torch.randn(n, device=device, dtype=torch.bfloat16)
    y = torch.empty_like(x)
    row = time_calls(device, lambda: y.copy_(x), moved=4.0 * n)
    return [{"name": "copy", "shape": str(n)} | row]


def main():
    """Greet, then answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    facts = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if args.device == "cuda":
        facts["cudnn"] = torch.backends.cudnn.version()
    print(json.dumps({"ready": facts}), flush=True)
    torch.manual_seed(1)
    steps = Steps(args.device, args.eager)
    operations = {
        "attention cudnn": lambda tiny: attention(args.device, tiny, SDPBackend.CUDNN_ATTENTION),
        "attention flash": lambda tiny: attention(args.device, tiny, SDPBackend.FLASH_ATTENTION),
        "product": lambda tiny: product(args.device, tiny),
        "copy": lambda tiny: copy(args.device, tiny),
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["kind"] == "step":
                answer = steps.answer(request)
            else:
                answer = {"rows": operations[request["kind"]](request["tiny"])}
        except Exception as error:  # noqa: BLE001 - the peer goes on, the check records it
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        if args.device == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
