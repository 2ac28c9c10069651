"""Commands that are printed and not run, with answers made up so that every step finds some."""

import json
import sys
from pathlib import Path

from shell import Done, Shell

XML = """<?xml version="1.0" encoding="UTF-8"?>
<doctest binary="test_cuda" version="2.4.9"><TestSuite>
<TestCase name="one that passes" filename="a_test.cpp" line="1">
<OverallResultsAsserts successes="3" failures="0" test_case_success="true" duration="0.1"/>
</TestCase>
<TestCase name="one, that is skipped" filename="a_test.cpp" line="9">
<Message type="WARNING" filename="a_test.cpp" line="10">
<Text>skipped: not a Hopper GPU</Text></Message>
<OverallResultsAsserts successes="0" failures="0" test_case_success="true" duration="0"/>
</TestCase>
</TestSuite></doctest>
"""
STEP = {"step_ms": 100.0, "tokens_per_s": 6e5, "flops_per_token": 8e8, "peak_bytes": 2e10,
        "fresh_blocks_after_warmup": 0, "ops": [{"name": "matmul", "ms": 60, "calls": 290}]}
OPERATION = {"shape": "1x1", "n": 5, "median_ms": 1.0, "min_ms": 0.9, "max_ms": 1.2,
             "tflop_s": 300.0, "gb_s": 3500.0}
ROWS = ("product", "copy", "attention forward", "attention backward", "newton-schulz products",
        "update, muon")


class DryShell(Shell):
    """Prints every command."""

    def run(self, command: list, limit: float = 600, env: dict | None = None) -> Done:
        """The answer that the program would give if all went well."""
        self.clock.left_in_step()
        words = [str(word) for word in command]
        said = " ".join([*(f"{key}={value}" for key, value in (env or {}).items()), *words])
        sys.stdout.write(f"    $ {said[:200]}\n")
        out = self.answer(Path(words[0]).name, words)
        return Done(0, out, "", 0.0)

    def answer(self, program: str, words: list) -> str:
        """What a program prints; it leaves the files that are looked at later."""
        report = next((word[3:] for word in words if word.startswith("-o=")), None)
        if report:
            Path(report).write_text(XML, encoding="utf-8")
        if program == "compute-sanitizer":
            return "[doctest] test cases: 1 | 1 passed\n========= ERROR SUMMARY: 0 errors"
        if program == "test_cuda":
            return XML
        if program == "ops_bench":
            only = words[words.index("--only") + 1] if "--only" in words else ""
            return json.dumps([OPERATION | {"name": r} for r in ROWS if r.startswith(only)])
        if program == "nccl_check":
            return "rank 0 of 1: 3 checks passed, 0 bytes sent"
        if "bench" in words:
            return json.dumps(STEP)
        if "train" in words:
            self.train(words)
        return ""

    def train(self, words: list) -> None:
        """A run folder as `murmur train` leaves it."""
        out = Path(words[words.index("--out") + 1])
        count = int(words[words.index("--steps") + 1]) if "--steps" in words else 20
        folder = out / "checkpoint" / f"step-{count:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("model.safetensors", "optimizer.safetensors"):
            (folder / name).write_bytes(b"the same")
        rows = [{"train_loss": 3 + 2 / (i + 1), "step_ms": 3.0} for i in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (out / "log.jsonl").write_text(text, encoding="utf-8")
