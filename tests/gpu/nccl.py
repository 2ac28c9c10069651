"""Transport nccl on one GPU: a world of one, and two ranks that share the GPU as an experiment."""

import re
import socket

from record import Skip

STEP = "nccl"
# NCCL takes two ranks for two hosts' where NCCL_HOSTID differs, and then does not mind that they
# have one GPU. One small kernel each, so that both fit on it and neither waits for the other's.
SHARED = {"NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple", "NCCL_MAX_CTAS": "2",
          "NCCL_SOCKET_IFNAME": "lo"}
DEADLINE = 30


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def seen(done) -> dict:
    """What a rank said at a good end."""
    said = re.search(r"(\d+) checks passed, (\d+) bytes sent", done.out)
    return {"checks": int(said.group(1)), "bytes": int(said.group(2))} if said else {}


# What nccl_check does besides collectives: small runs of decentralised strategies, beside the CPU.
KINDS = {"collectives": [], "decentralised strategies": ["--strategies"]}


def world_of_one(check) -> None:
    """One rank: every collective, NCCL's own sum among them, and every decentralised strategy."""
    for kind, flags in KINDS.items():
        done = check.shell.run([check.nccl, "--nodes", "1", "--deadline", DEADLINE, *flags], 60)
        if done.code == 2:
            raise Skip(done.why())
        status = "passed" if done.ok and seen(done) else "failed"
        check.record.check(STEP, f"one rank, {kind}", status,
                           "" if status == "passed" else done.why(),
                           seconds=round(done.seconds, 1), **seen(done))


def two_on_one_gpu(check) -> None:
    """The same with two ranks on this GPU. NCCL does not promise that this works, so it is written
    down and never counted as a failure."""
    for kind, flags in KINDS.items():
        name, port, jobs = f"two ranks on one GPU (experiment), {kind}", str(free_port()), []
        for rank in ("0", "1"):
            env = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NCCL_HOSTID": f"murmur-{rank}"}
            command = [check.nccl, "--nodes", "2", "--deadline", DEADLINE, *flags]
            jobs.append((command, 90, SHARED | env))
        ranks = check.shell.run_all(jobs, 2)
        if not all(done and done.ok and seen(done) for done in ranks):
            why = [f"rank {rank}: {done.why() if done else 'no time left'}"
                   for rank, done in enumerate(ranks)]
            check.record.check(STEP, name, "skipped", "did not work: " + "; ".join(why))
            return
        check.record.check(STEP, name, "passed", seconds=round(ranks[0].seconds, 1),
                           **seen(ranks[0]))
