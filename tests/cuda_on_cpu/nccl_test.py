#!/usr/bin/env python3
"""Worlds of the transport nccl on the emulated GPU, one process a rank, with the fake library.

  nccl_test.py NCCL_CHECK LIBFAKE_NCCL

Runs every collective and every decentralised strategy with 1, 2 and 3 ranks, and then what can go
wrong: each time the ranks that are left must end in time, with an error that says what happened.
Prints a line for each scenario.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 2.0  # of scenarios in which a rank is missing


@dataclass
class Ended:
    """How a rank ended."""

    code: int
    out: str
    err: str
    seconds: float


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Worlds:
    """Starts worlds, and looks at how their ranks end."""

    def __init__(self, program: str, library: str, folder: Path):
        self.program, self.library, self.folder = program, library, folder

    def run(self, size: int, flags: list = (), env: dict | None = None, ranks: list | None = None,
            env_of: dict | None = None) -> list:
        """One process a rank; `env_of` holds more variables for some of them. A world without
        `size` is started by nobody."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        begin, started = time.monotonic(), []
        for rank in ranks if ranks is not None else range(max(size, 1)):
            mine = {**os.environ, "OMP_NUM_THREADS": "1", "MURMUR_NCCL_LIBRARY": self.library,
                    "MURMUR_FAKE_NCCL_FOLDER": str(self.folder), **(env or {}),
                    **(env_of or {}).get(rank, {})}
            if size:
                mine |= world | {"RANK": str(rank), "WORLD_SIZE": str(size),
                                 "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
            started.append(subprocess.Popen(
                [self.program, *map(str, flags)], env=mine, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE))
        ended = []
        try:
            for process in started:
                out, err = process.communicate(timeout=400)
                ended.append(Ended(process.returncode, out, err, time.monotonic() - begin))
        finally:
            for process in started:
                process.kill()
        return ended

    def aborted(self) -> set:
        """The ranks that have aborted their communicator."""
        return {int(path.name.split("-")[1]) for path in self.folder.glob("aborted-*")}


def expect(condition: bool, ended) -> None:
    """Ends the test with what was seen, unless the condition holds."""
    if not condition:
        raise AssertionError("\n".join(map(str, ended)))


def collectives(worlds: Worlds) -> None:
    """every collective with 1, 2 and 3 ranks, also where the GPU is late"""
    for late in ("0", "1"):
        expect_good(worlds.run(0, env={"MURMUR_CUDA_LATE": late}), 1)
        for size in (1, 2, 3):
            ended = worlds.run(size, ["--nodes", size, "--deadline", 60],
                               {"MURMUR_CUDA_LATE": late})
            expect_good(ended, size)
            expect(not worlds.aborted(), ended)


def strategies(worlds: Worlds) -> None:
    """decentralised strategies with 1, 2 and 3 ranks, beside the CPU, also where the GPU is late"""
    for size, late in ((1, "0"), (2, "1"), (3, "0")):
        ended = worlds.run(size, ["--nodes", size, "--deadline", 60, "--strategies"],
                           {"MURMUR_CUDA_LATE": late})
        expect_good(ended, size)
        expect(not worlds.aborted(), ended)


def expect_good(ended: list, size: int) -> None:
    """All ranks have made all checks."""
    for rank, one in enumerate(ended):
        good = one.code == 0 and one.err == "" and f"rank {rank} of {size}: " in one.out
        expect(good and "checks passed" in one.out, ended)


def early_end(worlds: Worlds) -> None:
    """a rank that ends early, before and after ranks have connected"""
    for late in ("0", "1"):
        for barriers in (0, 3):
            ended = worlds.run(3, ["--deadline", DEADLINE, "--leave", 1, barriers],
                               {"MURMUR_CUDA_LATE": late})
            expect(ended[1].code == 0, ended)
            for rank in (0, 2):
                start = f"nccl_check: error: rank {rank}: step {barriers}: barrier: "
                one = ended[rank]
                expect(one.code == 1 and one.err.startswith(start), ended)
                expect("missing" in one.err and f"{DEADLINE:g} s" in one.err, ended)
                peers = "1, 2" if rank == 0 else "0, 1"
                expect(f"ranks {peers} are missing" in one.err, ended)
                expect(one.seconds < DEADLINE + 3, ended)
            expect(worlds.aborted() == {0, 2}, ended)
    ended = worlds.run(2, ["--deadline", DEADLINE, "--leave", 1, 2])
    expect("rank 0: step 2: barrier: rank 1 is missing: nothing for 2 s" in ended[0].err,
           ended)


def reported_error(worlds: Worlds) -> None:
    """an error that NCCL reports by itself"""
    ended = worlds.run(2, ["--deadline", DEADLINE],
                       env_of={1: {"MURMUR_FAKE_NCCL_ERROR": "5"}})
    expect(ended[1].code == 1 and "rank 0 is missing: NCCL says: remote process exited or there "
           "was a network error (fake nccl: as it was told)" in ended[1].err, ended)
    expect(ended[0].code == 1 and "rank 1 is missing" in ended[0].err, ended)
    expect(worlds.aborted() == {0, 1}, ended)
    ended = worlds.run(0, env={"MURMUR_FAKE_NCCL_ERROR": "0"})
    expect(ended[0].code == 1 and "nccl: ncclCommInitRank: remote process" in ended[0].err, ended)
    expect(worlds.aborted() == {0}, ended)


def missing_rank(worlds: Worlds) -> None:
    """a rank that never comes"""
    ended = worlds.run(3, ["--deadline", DEADLINE], ranks=[0, 2])
    expect("error: rendezvous: 2 of 3 ranks came to 127.0.0.1:" in ended[0].err, ended)
    expect("within 2 s; rank 1 is missing" in ended[0].err, ended)
    expect("error: rendezvous: " in ended[1].err, ended)
    expect(all(one.code == 1 and one.seconds < DEADLINE + 3 for one in ended), ended)


def refused(worlds: Worlds) -> None:
    """requests that cannot be met: one line and exit code 2"""
    asked = [
        ({"MURMUR_NCCL_LIBRARY": "/nowhere/libnccl.so.2"}, [],
         ["nccl: /nowhere/libnccl.so.2: cannot be loaded", "install NCCL 2.28.9 or newer"]),
        ({"MURMUR_NCCL_LIBRARY": "libm.so.6"}, [],
         ["nccl: libm.so.6: has no function ncclGetVersion", "MURMUR_NCCL_LIBRARY"]),
        ({"MURMUR_FAKE_NCCL_VERSION": "22005"}, [],
         ["is version 2.20.5, and this program was built for 2.28.9"]),
        ({}, ["--nodes", 2], ["nodes: 2 are asked for", "1 process"]),
    ]
    for env, flags, parts in asked:
        one = worlds.run(0, flags, env)[0]
        expect(one.code == 2 and one.err.count("\n") == 1, [one])
        expect(all(part in one.err for part in parts), [one])
    ended = worlds.run(2, ["--nodes", 3])
    for one in ended:
        expect(one.code == 2 and "nodes: 3 are asked for" in one.err and "2 ranks" in one.err,
               ended)


def main() -> int:
    """All scenarios; exit code 1 after the first that fails."""
    folder = Path(tempfile.mkdtemp(prefix="fake-nccl-"))
    worlds = Worlds(sys.argv[1], sys.argv[2], folder / "messages")
    try:
        for scenario in (collectives, strategies, early_end, reported_error, missing_rank,
                         refused):
            begin = time.monotonic()
            scenario(worlds)
            print(f"{scenario.__doc__}: as expected, {time.monotonic() - begin:.1f} s", flush=True)
    except AssertionError as error:
        print(f"{scenario.__doc__}: failed:\n{error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
