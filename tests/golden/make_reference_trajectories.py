"""Write the reference trajectories: 20 steps of the optimizers' public single-file programs.

Usage: python make_reference_trajectories.py [--muon PATH] [--normuon PATH] [--adamuon PATH]
           [--dion PATH] [--soap PATH] [--schedule-free PATH] [--lion PATH] [--out-dir DIR]

Each flag takes a copy of one file, which is run as it is, and writes reference_*.safetensors:

    --muon           KellerJordan/Muon              muon.py                           MIT
    --normuon        zichongli5/NorMuon             normuon.py                        MIT
    --adamuon        Chongjie-Si/AdaMuon            gpt2/models/optimizers/adamuon.py (no licence)
    --dion           microsoft/dion                 dion/dion_simple.py               MIT
                     (scalar_opts.py, which it imports, beside it)
    --soap           nikhilvyas/SOAP                soap.py                           MIT
    --schedule-free  facebookresearch/schedule_free schedulefree/adamw_schedulefree_reference.py
                                                                                      Apache-2.0
    --lion           lucidrains/lion-pytorch        lion_pytorch/lion_pytorch.py      MIT

The commits are in SOURCES below, with a checksum of each file. torch.optim.Muon needs no file and
always runs; the stored files come from PyTorch 2.15.0. Start values and batch come from
ARCH.safetensors. Everything is float64: the programs' own casts to bfloat16 and float32 do nothing
while they run, so that what is written is their mathematics and not the rounding. See README.md
beside this file.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file

import make_golden
from make_golden import MUON_ADAMW, AdamW, clip, loss_and_grads, prefixed, save
from reference_gpt import Config

STEPS = 20
ARCHS = ("gpt2", "modern")


@dataclass(frozen=True)
class Source:
    """A public file that a flag stands for."""

    text: str  # repository, path, commit, licence
    sha256: str


SOURCES = {
    "muon": Source(
        "KellerJordan/Muon muon.py 857d1adc159e098212f828d927460782d3da59e9 MIT",
        "1eece0b562f159e88f3a65da9b6ee8d0ab2dd647cf25c88e355d4f262e796e66",
    ),
    "normuon": Source(
        "zichongli5/NorMuon normuon.py d45c9a4280d758e2cf0b2b8333765d040e953937 MIT",
        "a9bd18a0eaea75864610049fb21c655a87284e16e267dbe565e7d5c70aec242a",
    ),
    "adamuon": Source(
        "Chongjie-Si/AdaMuon gpt2/models/optimizers/adamuon.py "
        "369f0b3bd9d97f82bb8ba81664207ac513e233b0 no licence file",
        "367ffdab51f357ca16935fab13964ee6b363179973b40ce4e9f468aef0532240",
    ),
    "dion": Source(
        "microsoft/dion dion/dion_simple.py 0a059a4542e5aa74b40dcd1dce363836c7afcd48 MIT",
        "22f357516e3b63e460bd8c5fcae70b43b3b05197433abd0bf623df12e5b829af",
    ),
    "soap": Source(
        "nikhilvyas/SOAP soap.py a1e553530fde97d0e6b307d7c82ac6d38b072340 MIT",
        "9e9021335ad02371584622fa256e73fe75f3eb74446a8d8a216e956534148f6b",
    ),
    "schedule_free": Source(
        "facebookresearch/schedule_free schedulefree/adamw_schedulefree_reference.py "
        "70785b53e778d0e872c0bbb75ff4ee54ee10c291 Apache-2.0",
        "e3c07b2d5b93375892ee1e62f3ca586145589444b2b50d314892e58c47433fa3",
    ),
    "lion": Source(
        "lucidrains/lion-pytorch lion_pytorch/lion_pytorch.py "
        "6a74fdc0ba572ab5683dc0270c66c20ecbc02d09 MIT",
        "4463227445bc4e227058128fd589732db97bde57f1bbbe6d690395a5fb175e56",
    ),
    "torch": Source("pytorch/pytorch torch/optim/_muon.py, as installed, BSD-3-Clause", ""),
}


@dataclass(frozen=True)
class Fixture:
    """One trajectory: reference_NAME.safetensors.

    scope: which parameters the program under test gets; AdamW takes the rest.
        matrices  the 2-D weights inside the blocks
        square    those of them that are square
        all       everything, vectors without decay
    """

    name: str
    source: str  # a key of SOURCES
    type_name: str  # of its optimizer class
    settings: dict
    scope: str = "matrices"
    archs: tuple = ARCHS
    unsaid: dict = field(default_factory=dict)  # arguments that are no settings


TORCH_MUON = dict(lr=1e-3, momentum=0.95, nesterov=True, eps=1e-7, weight_decay=0.1)
SOAP = dict(lr=3e-3, betas=(0.95, 0.95), shampoo_beta=0.9, eps=1e-8, weight_decay=0.01,
            precondition_frequency=5)
SCHEDULE_FREE = dict(lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)

FIXTURES = [
    Fixture("muon", "muon", "SingleDeviceMuon", dict(lr=0.02, momentum=0.95, weight_decay=0.01)),
    Fixture("torch_muon_original", "torch", "Muon", TORCH_MUON | {"adjust_lr_fn": "original"}),
    Fixture("torch_muon_match_rms_adamw", "torch", "Muon",
            TORCH_MUON | {"adjust_lr_fn": "match_rms_adamw"}),
    Fixture("normuon", "normuon", "SingleDeviceNorMuon",
            dict(lr=0.02, momentum=0.95, beta2=0.95, weight_decay=0.01)),
    Fixture("adamuon", "adamuon", "AdaMuon",
            dict(lr=0.02, momentum=0.95, nesterov=True, eps=1e-8, weight_decay=0.01),
            unsaid=dict(rank=0, world_size=1)),
    Fixture("dion", "dion", "Dion",
            dict(lr=0.01, mu=0.95, rank=16, epsilon=1e-8, weight_decay=0.01)),
    Fixture("soap_square", "soap", "SOAP", SOAP | {"max_precond_dim": 10000}, scope="square"),
    Fixture("soap_one_sided", "soap", "SOAP", SOAP | {"max_precond_dim": 32}, archs=("gpt2",)),
    Fixture("schedule_free_adamw", "schedule_free", "AdamWScheduleFreeReference",
            SCHEDULE_FREE | {"warmup_steps": 0}, scope="all"),
    Fixture("schedule_free_adamw_warmup", "schedule_free", "AdamWScheduleFreeReference",
            SCHEDULE_FREE | {"warmup_steps": 5}, scope="all"),
    Fixture("lion", "lion", "Lion", dict(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1),
            scope="all"),
]


def load_module(source, path):
    """Check that the file at `path` is the one that is meant, and import it."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = SOURCES[source].sha256
    assert digest == expected, f"{path} is not {SOURCES[source].text}: SHA-256 {digest}"
    package = types.ModuleType("reference_" + source)
    package.__path__ = [str(path.parent)]
    sys.modules[package.__name__] = package
    with mock.patch.object(torch, "compile", lambda *_, **__: lambda function: function):
        return importlib.import_module(f"{package.__name__}.{path.stem}")


def first_q(shape):
    """Dion's first Q of a shape: float32 values held in float64."""
    generator = torch.Generator().manual_seed(make_golden.SEED)
    return torch.normal(0.0, 1.0, shape, generator=generator, dtype=torch.float32).double()


@contextlib.contextmanager
def float64_only():
    """Switch off, inside, what would leave float64, the CPU or this process.

    Casts to shorter floating types keep float64, tensors asked for on a GPU are made here, a gather
    over one process copies, and torch.randn draws Dion's first Q.
    """
    original_to, original_empty = torch.Tensor.to, torch.empty

    def lengthen(value):
        return torch.float64 if value in (torch.bfloat16, torch.float16, torch.float32) else value

    def to(tensor, *args, **kwargs):
        kwargs = {key: lengthen(value) for key, value in kwargs.items()}
        return original_to(tensor, *map(lengthen, args), **kwargs)

    def empty(*size, **kwargs):
        kwargs = {key: lengthen(value) for key, value in kwargs.items()}
        return original_empty(*size, **kwargs | {"device": "cpu"})

    def gather(output, part, async_op=False):
        del async_op
        output.copy_(part.view_as(output))
        return types.SimpleNamespace(wait=lambda: None)

    with contextlib.ExitStack() as stack:
        for target, name, replacement in (
            (torch.Tensor, "bfloat16", lambda tensor: tensor),
            (torch.Tensor, "float", lambda tensor: tensor),
            (torch.Tensor, "to", to),
            (torch, "empty", empty),
            (torch, "randn", lambda shape, **_: first_q(shape)),
            (torch.distributed, "all_gather_into_tensor", gather),
        ):
            stack.enter_context(mock.patch.object(target, name, replacement))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def start(arch):
    """Return (Config, parameters in float64, tokens, targets) of the stored fixture."""
    here = Path(__file__).resolve().parent
    tensors = load_file(here / f"{arch}.safetensors")
    params = {
        name.removeprefix("param."): t.double()
        for name, t in tensors.items() if name.startswith("param.")
    }
    return Config(arch), params, tensors["tokens"].long(), tensors["targets"].long()


def in_scope(fixture, name, p):
    """True when the program under test trains this parameter."""
    if fixture.scope == "all":
        return True
    matrix = name.startswith("h.") and p.dim() == 2
    return matrix and (fixture.scope == "matrices" or p.shape[0] == p.shape[1])


def train(fixture, module, arch):
    """Take STEPS steps; return (losses before each, trained parameters, their other point).

    The other point is where schedule-free training evaluates; elsewhere it is empty.
    """
    cfg, params, tokens, targets = start(arch)
    ours = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()
            if in_scope(fixture, name, p)}
    others = {name: AdamW(**MUON_ADAMW) for name in params if name not in ours}
    groups = list(ours.values())
    if fixture.scope == "all":
        groups = [
            {"params": [p for p in ours.values() if p.dim() == 2]},
            {"params": [p for p in ours.values() if p.dim() == 1], "weight_decay": 0.0},
        ]
    with float64_only():
        optimizer = getattr(module, fixture.type_name)(groups, **fixture.settings, **fixture.unsaid)
    if hasattr(optimizer, "train"):
        optimizer.train()
    losses = []
    for _ in range(STEPS):
        params |= {name: p.detach() for name, p in ours.items()}
        _, loss, grads = loss_and_grads(params, cfg, tokens, targets)
        losses.append(loss.item())
        grads, _ = clip(grads)
        for name, p in ours.items():
            p.grad = grads[name].clone()
        with float64_only():
            optimizer.step()
        for name, rule in others.items():
            params[name] = rule.update(params[name], grads[name])
    trained = {name: p.detach().clone() for name, p in ours.items()}
    assert all(p.dtype == torch.float64 for p in trained.values())
    average = {}
    if hasattr(optimizer, "eval"):
        optimizer.eval()
        average = {name: p.detach().clone() for name, p in ours.items()}
    return losses, trained, average


def check_muon(losses, trained, arch):
    """Assert that the public Muon goes the way of the one in make_golden.py."""
    cfg, params, tokens, targets = start(arch)
    with mock.patch.object(make_golden, "STEPS", STEPS):
        expected_losses, _, expected = make_golden.train(
            params, cfg, tokens, targets, make_golden.muon_rule)
    for loss, expected_loss in zip(losses, expected_losses):
        assert abs(loss - expected_loss) < 1e-10, (loss, expected_loss)
    for name, p in trained.items():
        torch.testing.assert_close(p, expected[name], rtol=0, atol=1e-10)


def stored(name):
    """True for parameters that are written: the first block's are left out, to save space."""
    return not name.startswith("h.0.")


def write(fixture, module, out_dir):
    """Run one program on both architectures and write its fixture."""
    tensors = {}
    metadata = {
        "source": SOURCES[fixture.source].text,
        "class": fixture.type_name,
        "settings": json.dumps(fixture.settings),
        "scope": fixture.scope,
        "others": json.dumps({"AdamW": MUON_ADAMW}),
        "clip_norm": str(make_golden.CLIP_NORM),
        "torch_version": torch.__version__,
    }
    for arch in fixture.archs:
        losses, trained, average = train(fixture, module, arch)
        if fixture.name == "muon":
            check_muon(losses, trained, arch)
        metadata[f"{arch}.losses"] = json.dumps(losses)
        for prefix, values in (("param", trained), ("average", average)):
            kept = {name: p for name, p in values.items() if stored(name)}
            tensors |= prefixed(f"{arch}.{prefix}", kept)
        if fixture.source == "dion":
            tensors |= {f"Q.{p.shape[1]}": first_q((p.shape[1], fixture.settings["rank"]))
                        for p in trained.values()}
        print(f"{fixture.name} {arch}", " ".join(f"{x:.4f}" for x in losses))
    save(out_dir / f"reference_{fixture.name}.safetensors", tensors, metadata)


def main():
    """Parse the command line and write the fixtures of the files that are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for source in SOURCES:
        if source != "torch":
            parser.add_argument("--" + source.replace("_", "-"), type=Path, metavar="PATH",
                                help=SOURCES[source].text)
    parser.add_argument("--out-dir", type=Path, default=Path(__file__).resolve().parent)
    args = parser.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    modules = {"torch": torch.optim}
    for source in SOURCES:
        path = getattr(args, source, None)
        if path is not None:
            modules[source] = load_module(source, path.resolve())
    for fixture in FIXTURES:
        if fixture.source in modules:
            write(fixture, modules[fixture.source], args.out_dir)


if __name__ == "__main__":
    main()
