"""Times Murmur's steps and operations, beside PyTorch in the same run, against the targets."""

import json
from dataclasses import dataclass

from record import ROOT, OutOfTime, Record, Skip, spread
from runs import prepare, step_times, train
from shell import Conversation

ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """A whole training step that is timed."""

    preset: str
    batch: int
    time: int
    optimizer: str

    @property
    def name(self) -> str:
        """Name of its timings."""
        return f"step {self.preset} B={self.batch} T={self.time} bf16 {self.optimizer}"


# What matters most comes first: a round may be cut short.
FULL = [
    Case("gpt2", 32, 1024, "muon"), Case("gpt2", 64, 1024, "muon"),
    Case("gpt2", 64, 1024, "adamw"), Case("baby", 64, 256, "adamw"),
    Case("gpt2", 32, 1024, "adamw"), Case("baby", 64, 256, "muon"),
]
TINY = [Case("nano", 1, 16, "adamw")]


def parsed(done) -> dict | list:
    """The JSON that a command printed."""
    if not done.ok:
        raise RuntimeError(done.why())
    return json.loads(done.out)


# ------------------------------------------------------------------------------------- operations


def operations(check, only: str = "", label: str = "operations") -> None:
    """The rows of ops_bench as timings."""
    command = [check.ops, *(["--tiny"] if check.tiny else []), *(["--only", only] if only else [])]
    for suffix, env in [("", {}), *([("-hopper", {"MURMUR_HOPPER": "1"})] if not only else [])]:
        if suffix and not check.hopper_good:
            check.record.check(label, "operations with Hopper's kernels", "skipped",
                               "not timed: their tests did not pass")
            continue
        for row in parsed(check.shell.run(command, 90, env)):
            add_operation(check.record, label, row, "murmur" + suffix)


def add_operation(record: Record, label: str, row: dict, contender: str) -> None:
    """One row: a timing, or a failed check with its error."""
    name = f"{row['name']} {row['shape']}"
    if "error" in row:
        record.check(label, name, "failed", row["error"])
        return
    more = {key: row[key] for key in ("tflop_s", "gb_s") if key in row}
    record.data["timings"].append({
        "name": name, "contender": contender, "unit": "ms", "n": row["n"],
        "median": row["median_ms"], "min": row["min_ms"], "max": row["max_ms"], **more,
    })


# ------------------------------------------------------------------------------------------ steps


class Peer:
    """PyTorch, in a process that lives through all rounds, so that it compiles once."""

    def __init__(self, check):
        self.check = check
        script = ROOT / "tests" / "gpu" / "torch_peer.py"
        device = "cpu" if check.emulated else "cuda"
        eager = ["--eager"] if check.tiny else []
        self.talk = Conversation(check.shell, [check.python, script, "--device", device, *eager])
        self.facts: dict | None = None
        self.reason = ""
        self.waiting = 1  # answers that were asked for and not yet heard; the first is a greeting

    def send(self, request: dict) -> None:
        """Ask for something without waiting."""
        self.talk.say(json.dumps(request))
        self.waiting += 1

    def settle(self) -> None:
        """Hear all answers that are due; nothing is then under way on the GPU."""
        try:
            while self.waiting and (line := self.talk.hear(600)) is not None:
                self.waiting -= 1
                self.facts = self.facts or json.loads(line).get("ready")
        except OutOfTime:
            self.talk.close()
            raise

    def ask(self, request: dict, limit: float) -> dict | None:
        """The answer to a request; None, and a reason, where there will be none."""
        self.send(request)
        answer = None
        while self.waiting:
            try:
                line = self.talk.hear(limit)
            except OutOfTime as late:
                self.check.clock.left_in_step()  # the end of the budget ends everything
                self.reason = str(late)
                self.talk.close()
                return None
            if line is None:
                self.reason = self.reason or "PyTorch is not there, or has ended"
                return None
            self.waiting -= 1
            answer = json.loads(line)
            self.facts = self.facts or answer.get("ready")
        if "error" in answer:
            self.reason = answer["error"]
            return None
        return answer


def start_peer(check) -> None:
    """Let PyTorch start and compile while other things are checked."""
    check.peer = Peer(check)
    for preset, batch, time in dict.fromkeys((c.preset, c.batch, c.time) for c in check.cases):
        check.peer.send({"kind": "step", "preset": preset, "batch_size": batch, "block_size": time,
                         "optimizer": "adamw", "steps": 1})


def murmur_step(check, case: Case, env: dict) -> dict:
    """One run of `murmur bench step`."""
    shape = ["--preset", case.preset, "--batch-size", case.batch, "--block-size", case.time]
    command = [check.murmur, "bench", "step", *(check.settings.shape or shape), "--optimizer",
               case.optimizer, "--device", "cuda", "--dtype", "bf16", "--steps",
               check.settings.timed_steps, "--json"]
    done = check.shell.run(command, 90, env)
    if done.timed_out:
        check.clock.left_in_step()  # the end of the budget is no failure
    return parsed(done)


def torch_step(check, case: Case) -> dict:
    """The same by PyTorch."""
    if not check.peer or check.peer.reason:
        raise Skip(check.peer.reason if check.peer else "PyTorch was not started")
    answer = check.peer.ask(
        {"kind": "step", "preset": case.preset, "batch_size": case.batch, "block_size": case.time,
         "optimizer": case.optimizer, "steps": check.settings.timed_steps}, 120)
    if answer is None:
        reason, check.peer.reason = check.peer.reason, ""
        raise Skip(reason)
    return answer


def steps(check) -> None:
    """The contenders take turns, in another order every round."""
    contenders = {"murmur": lambda case: murmur_step(check, case, {}),
                  "torch-compile": lambda case: torch_step(check, case)}
    if check.hopper_good:
        contenders["murmur-hopper"] = lambda c: murmur_step(check, c, {"MURMUR_HOPPER": "1"})
    results: dict = {}
    failed: dict = {}
    try:
        for turn in range(check.settings.rounds):
            for case in check.cases:
                names = list(contenders)
                for name in names[turn % len(names):] + names[:turn % len(names)]:
                    if (case, name) not in failed:
                        take_turn(contenders[name], case, name, results, failed)
    finally:
        add_steps(check, results, failed)


def take_turn(contender, case: Case, name: str, results: dict, failed: dict) -> None:
    """One run of one contender; what cannot be run once is not tried again."""
    try:
        result = contender(case)
    except (Skip, RuntimeError, ValueError) as reason:
        failed[case, name] = str(reason)
        return
    results.setdefault((case, name), []).append(result)
    print(f"    {case.name}: {name} {result['step_ms']:.2f} ms", flush=True)


def add_steps(check, results: dict, failed: dict) -> None:
    """Timings, ratios and op tables of what was run."""
    for (case, name), reason in failed.items():
        status = "failed" if name.startswith("murmur") else "skipped"
        check.record.check("steps", f"{case.name}: {name}", status, reason)
    for (case, name), rows in results.items():
        last = rows[-1]
        kept = ("flops_per_token", "parameters", "peak_bytes", "fresh_blocks_after_warmup",
                "loss", *(["update_ms"] if name.startswith("torch") else []))
        more = {key: last[key] for key in kept if key in last}
        more["tokens_per_s"] = spread([row["tokens_per_s"] for row in rows])["median"]
        check.record.timing(case.name, name, "ms", [row["step_ms"] for row in rows], **more)
        if "ops" in last:
            check.record.data["tables"][f"{case.name}: {name}"] = last["ops"]


def baby_in_training(check) -> None:
    """Steps of the small model as `murmur train` does them, captured and not."""
    prepare(check)
    count = check.settings.train_steps
    shape = check.settings.shape or ["--preset", "baby", "--batch-size", "64"]
    for kind in ("false", "true"):
        flags = [*shape, "--device", "cuda", "--dtype", "bf16", "--optimizer", "adamw",
                 "--steps", count, "--cuda-graph", kind]
        done = check.shell.run(*train(check, f"speed-{kind}", flags, save_every=0))
        if not done.ok:
            check.record.check("steps", f"baby in training, captured {kind}", "failed", done.why())
            continue
        times = step_times(check, f"speed-{kind}")[count // 3:-2]
        name = "step baby B=64 T=256 bf16 adamw, in training"
        check.record.timing(name, "murmur-captured" if kind == "true" else "murmur", "ms", times)


def peer_operations(check) -> None:
    """Attention and a product by PyTorch, in the shapes of ops_bench."""
    for what in ("attention cudnn", "attention flash", "product", "copy"):
        answer = check.peer.ask({"kind": what, "tiny": check.tiny}, 60) if check.peer else None
        if answer is None:
            reason = check.peer.reason if check.peer else "PyTorch was not started"
            check.record.check("steps", f"torch {what}", "skipped", reason)
            if check.peer:
                check.peer.reason = ""
            continue
        for row in answer["rows"]:
            add_operation(check.record, "steps", row, f"torch {what}")
    check.record.data["machine"]["torch"] = check.peer.facts if check.peer else None


def benchmark(check) -> None:
    """Everything that is timed beside PyTorch; what is left out for want of time is said."""
    try:
        baby_in_training(check)
        peer_operations(check)
        steps(check)
    except OutOfTime:
        check.record.check("steps", "the rest of the rounds", "skipped", "out of time")
        raise
    finally:
        if check.peer:
            check.peer.talk.close()


# ---------------------------------------------------------------------------------------- targets


def value_of(record: Record, prefix: str, key: str, contenders=("murmur", "murmur-hopper")):
    """The best figure of a key among the timings whose names begin so, of bytes and blocks the
    largest; None when there is none."""
    found = [row[key] for row in record.data["timings"]
             if row["name"].startswith(prefix) and row["contender"] in contenders and key in row]
    return (min if key == "median" else max)(found) if found else None


def over(record: Record, prefix: str, peer: str = "torch-compile"):
    """How many times faster than the peer, of the same timings; None without both."""
    ours, theirs = value_of(record, prefix, "median"), value_of(record, prefix, "median", (peer,))
    return theirs / ours if ours and theirs else None


def update_over_torch(record: Record):
    """Muon's whole update beside torch.optim.Muon's."""
    ours = value_of(record, "update, muon", "median")
    theirs = value_of(record, "step gpt2 B=32 T=1024 bf16 muon", "update_ms", ("torch-compile",))
    return theirs / ours if ours and theirs else None


def share_of_ceiling(record: Record):
    """The step's products and attention over the largest product, in operations a second."""
    rate = value_of(record, "product", "tflop_s")
    best = [row["tokens_per_s"] * row["flops_per_token"] * 1e-12
            for row in record.data["timings"]
            if row["name"].startswith("step gpt2") and "flops_per_token" in row]
    return max(best) / rate if rate and best else None


def fastest_muon(record: Record):
    """Tokens a second of the better of the two batches."""
    names = [f"step gpt2 B={batch} T=1024 bf16 muon" for batch in (32, 64)]
    rates = [value_of(record, name, "tokens_per_s") for name in names]
    return max(filter(None, rates), default=None)


def scaled(value, factor: float):
    """value * factor, or None."""
    return None if value is None else value * factor


def add_targets(record: Record) -> None:
    """Every target with what was reached; met is None where nothing was measured."""
    b32, b64 = "step gpt2 B=32 T=1024 bf16", "step gpt2 B=64 T=1024 bf16"
    peak = scaled(value_of(record, b64 + " muon", "peak_bytes"), 1e-9)
    rows = [  # name, value, gate, stretch, whether less is better
        ("124M muon, tokens/s", fastest_muon(record), 575e3, 645e3, False),
        ("124M muon B=32, times torch.compile", over(record, b32 + " muon"), 1.2, 1.4, False),
        ("124M muon B=64, times torch.compile", over(record, b64 + " muon"), 1.2, 1.4, False),
        ("124M adamw B=32, times torch.compile", over(record, b32 + " adamw"), 1.2, 1.4, False),
        ("124M adamw B=64, times torch.compile", over(record, b64 + " adamw"), 1.2, 1.4, False),
        ("124M, share of the product ceiling", share_of_ceiling(record), 0.58, 0.66, False),
        ("124M muon update, ms", value_of(record, "update, muon", "median"), 4, 2.9, True),
        ("124M muon update, times torch.optim.Muon", update_over_torch(record), 5, 10, False),
        ("Newton-Schulz products, TFLOP/s", value_of(record, "newton-schulz products", "tflop_s"),
         500, 900, False),
        ("attention forward, TFLOP/s", value_of(record, "attention forward", "tflop_s"),
         229, 290, False),
        ("attention backward, TFLOP/s", value_of(record, "attention backward", "tflop_s"),
         170, 240, False),
        ("attention forward, times cuDNN", over(record, "attention forward",
                                                "torch attention cudnn"), None, 1, False),
        ("attention backward, times cuDNN", over(record, "attention backward",
                                                 "torch attention cudnn"), None, 1, False),
        ("layer norm forward, GB/s", value_of(record, "layer norm of", "gb_s"), 3400, 3700, False),
        ("layer norm backward, GB/s", value_of(record, "layer norm back", "gb_s"),
         3400, 3700, False),
        ("rms norm forward, GB/s", value_of(record, "rms norm of", "gb_s"), 3400, 3700, False),
        ("rms norm backward, GB/s", value_of(record, "rms norm back", "gb_s"), 3400, 3700, False),
        ("classifier, GB/s", value_of(record, "cross entropy", "gb_s"), 3500, 3900, False),
        ("baby step, ms", value_of(record, "step baby B=64 T=256 bf16 adamw", "median",
                                   ("murmur", "murmur-hopper", "murmur-captured")), 4, 2.5, True),
        ("baby, times torch.compile", over(record, "step baby B=64 T=256 bf16 adamw"), 3, 5, False),
        ("memory asked for after warm-up, blocks",
         value_of(record, "step gpt2", "fresh_blocks_after_warmup"), 0, 0, True),
        ("124M B=64 peak memory, GB", peak, 30, 25, True),
    ]
    record.data["targets"] = [target(*row) for row in rows]


def target(name: str, value, gate, stretch, less: bool) -> dict:
    """One row of the targets."""

    def met(bound):
        if value is None or bound is None:
            return None
        return value <= bound if less else value >= bound

    return {"name": name, "value": value, "gate": gate, "met": met(gate), "stretch": stretch,
            "stretch_met": met(stretch)}
