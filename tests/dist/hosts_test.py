"""Training runs of several processes, on this machine and, as root, on four hosts of hosts.py.

    hosts_test.py PATH/OF/murmur

What counts is what the ranks leave behind: whatever carried their messages, however many of them
there were and whatever ended some of them, files and losses are those of an undisturbed run.

Exit code 77: mpirun is missing.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import hosts
from mpi_test import complaints, expect, failures, output_of

STRATEGIES = ("sharded", "fsdp", "all_reduce", "local_sgd", "gradient_tracking")
OWN_WEIGHTS = ("local_sgd", "gradient_tracking")  # ranks go ways of their own
# In each of which a rank sends, on average, (N-1)/N of the parameters.
COLLECTIVES = {"sharded": 2, "all_reduce": 2}
RANKS = 4
DEADLINE = 5


class Runs:
    """Runs of one small model, in folders of their own."""

    def __init__(self, murmur, folder):
        self.murmur, self.folder = murmur, folder
        words = random.Random(1)
        text = " ".join("".join(words.choices("abcdefghij", k=words.randint(1, 6)))
                        for _ in range(9000))
        with open(f"{folder}/text", "w") as file:
            file.write(text[:40000])
        subprocess.run([murmur, "data", "prepare", f"{folder}/text", "--tokenizer", "byte", "--out",
                        f"{folder}/data"], check=True, stdout=subprocess.DEVNULL)

    def out(self, name):
        return f"{self.folder}/{name}"

    def train(self, name, strategy, *words, steps=12, width=32):
        """The words of murmur's command line."""
        words = ["train", "--data", self.out("data"), "--out", self.out(name), "--strategy",
                 strategy, "--n-layer", "2", "--n-head", "2", "--n-embd", str(width),
                 "--block-size", "16", "--batch-size", "12", "--optimizer", "normuon", "--warmup",
                 "3", "--eval-batches", "2", "--steps", str(steps), *words]
        return words + (["--strategy.inner-steps", "5"] if strategy == "local_sgd" else [])

    def start(self, words, cores=1):
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1",
                           OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS=str(cores),
                           OMP_WAIT_POLICY="passive")
        return subprocess.Popen(words, env=environment, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def here(self, words, cores=1):  # in one process
        return self.start([self.murmur, *words], cores)

    def launch(self, words, ranks=RANKS, survive=False):
        return self.start([self.murmur, "launch", "-n", str(ranks),
                           *(["--survive"] if survive else []), "--", *words])

    def mpirun(self, words, ranks=RANKS):
        return self.start(["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none",
                           self.murmur, *words])

    def on(self, cluster, words, extra=()):
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        return cluster.mpirun([self.murmur, *words], extra_mca=extra, env=environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)

    def losses(self, name):
        """The columns of the log, as they are written."""
        try:
            with open(self.out(name) + "/log.jsonl") as file:
                return re.findall(r'"(train_loss|val_loss)":([^,}]+)', file.read())
        except FileNotFoundError:
            return []

    def file(self, name, step, which):
        path = f"{self.out(name)}/checkpoint/step-{step:08}/{which}.safetensors"
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def parameters(self, name, step):
        model = self.file(name, step, "model")  # 8 bytes: the header's size; header; fp32 values
        return (len(model) - 8 - int.from_bytes(model[:8], "little")) // 4


def finished(process, what):
    code, output, _ = output_of(process, 120)
    expect(code == 0, f"{what}: exit code {code}", output)
    return output


def expect_same(runs, name, reference, what, steps=12, output=""):
    for which in ("model", "optimizer"):
        mine, theirs = runs.file(name, steps, which), runs.file(reference, steps, which)
        expect(mine is not None and mine == theirs, f"{what}: {which}.safetensors differs", output)
    mine, theirs = runs.losses(name), runs.losses(reference)
    expect(mine and mine == theirs, f"{what}: losses differ", f"{mine}\n{theirs}\n{output}")


def expect_close(runs, name, reference, what):
    mine, theirs = runs.losses(name), runs.losses(reference)
    pairs = [(float(a), float(b)) for (_, a), (_, b) in zip(mine, theirs)]
    worst = max((abs(a - b) / abs(b) for a, b in pairs), default=1)
    expect([k for k, _ in mine] == [k for k, _ in theirs] and worst < 1e-5,
           f"{what}: losses differ by {worst:.2g}", f"{mine}\n{theirs}")
    return worst


def environment_of(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().decode(errors="replace").split("\0")
    except OSError:
        return []


def ranks_of(runs, name):
    """The processes that write to a run's folder: {rank: pid}."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if runs.out(name) in words and words[0] == runs.murmur:
            for variable in environment_of(pid):
                if variable.startswith("OMPI_COMM_WORLD_RANK="):
                    found[int(variable.split("=")[1])] = int(pid)
    return found


def strike(process, runs, name, number, step, rank=2):
    """Sends a signal to a rank as soon as there is a checkpoint of a step. Its process, or None."""
    limit = time.monotonic() + 60
    while not os.path.isdir(f"{runs.out(name)}/checkpoint/step-{step:08}"):
        if process.poll() is not None or time.monotonic() > limit:
            return None
        time.sleep(0.01)
    pid = ranks_of(runs, name).get(rank)
    if pid:
        os.kill(pid, number)
    return pid


def expect_nobody(runs, name, what):
    limit = time.monotonic() + 5
    while ranks_of(runs, name) and time.monotonic() < limit:
        time.sleep(0.05)
    left = ranks_of(runs, name)
    expect(not left, f"{what}: ranks are left running: {left}")
    for pid in left.values():
        os.kill(pid, signal.SIGKILL)


LONG = 400  # steps of the runs that are disturbed
EVERY = ("--checkpoint-every", "20", "--eval-every", "0")


def undisturbed(runs):
    finished(runs.here(runs.train("undisturbed", "sharded", *EVERY, "--nodes", str(RANKS),
                                  "--transport", "threads", steps=LONG)), "an undisturbed run")


def a_rank_is_killed(runs, name, start, resume, what, one_line):
    """start and resume: functions of the words of a run."""
    words = runs.train(name, "sharded", *EVERY, "--deadline", str(DEADLINE), steps=LONG)
    process = start(words)
    pid = strike(process, runs, name, signal.SIGKILL, 20)
    code, output, seconds = output_of(process, 60)
    expect(pid is not None, f"{what}: it ran until its rank could be killed", output)
    expect(code not in (0, None), f"{what}: exit code {code}", output)
    expect(seconds < DEADLINE + 4, f"{what}: ended after {seconds:.1f} s", output)
    if one_line:
        line = ("murmur: launch: rank 2 was ended by signal 9; the others are ended; --resume goes "
                "on from the last checkpoint")
        expect(code == 1 and complaints(output) == [line] and "-----" not in output,
               f"{what}: one line, exit code 1, not {code}", output)
    else:
        named = re.search(r"murmur: rank \d+: .*rank 2 is missing|rank 2 .* on\s+signal 9", output)
        expect(named, f"{what}: who was killed is said", output)
    expect_nobody(runs, name, what)
    expect(runs.file(name, LONG, "model") is None, f"{what}: it had not come to its end", output)
    output = finished(resume(words + ["--resume"]), what + ", resumed")
    expect("going on after step" in output, f"{what}: resumed from a checkpoint", output)
    expect_same(runs, name, "undisturbed", what + ", resumed", LONG, output)
    print(f"{what}: ended in {seconds:.1f} s with exit code {code}, resumed to the same files")


def a_rank_is_stopped(runs, name, start, what):
    deadline = 3
    words = runs.train(name, "sharded", *EVERY, "--deadline", str(deadline), steps=100000)
    process = start(words)
    pid = strike(process, runs, name, signal.SIGSTOP, 20)
    expect(pid is not None, f"{what}: it ran until its rank could be stopped")
    missing = r"murmur: rank [013]: step \d+: .*: ranks? (\d, )*2(, \d)* (is|are) missing"
    began, said, output = time.monotonic(), float("inf"), ""
    guard = threading.Timer(30, process.terminate)
    guard.start()
    for line in process.stdout:
        output += line
        if re.search(missing, line):
            said = min(said, time.monotonic() - began)
    code = process.wait()
    guard.cancel()
    seconds = time.monotonic() - began
    expect(deadline - 1 < said < deadline + 2, f"{what}: who is missing is said in time", output)
    # mpirun takes up to 4 s to end what is left on several hosts.
    expect(code == 1 and seconds < deadline + 7, f"{what}: exit code {code} in {seconds:.1f} s",
           output)
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, TypeError):
        pass
    expect_nobody(runs, name, what)
    print(f"{what}: said after {said:.1f} s, ended after {seconds:.1f} s with exit code {code}")


GRAPH = ("--topology", "ring", "--checkpoint-every", "100", "--eval-every", "100")


def undisturbed_graph(runs):
    finished(runs.here(runs.train("undisturbed.graph", "gradient_tracking", *GRAPH, "--nodes",
                                  str(RANKS), "--transport", "threads", steps=LONG)),
             "an undisturbed run over a graph")


def last_validation(runs, name):
    return float([loss for kind, loss in runs.losses(name) if kind == "val_loss"][-1])


def a_node_dies(runs, name, start, rank, what):
    """The others go on without it, soon, and train a model as good."""
    words = runs.train(name, "gradient_tracking", *GRAPH, "--deadline", str(DEADLINE), steps=LONG)
    process = start(words)
    pid = strike(process, runs, name, signal.SIGKILL, 100, rank)
    began, again = time.monotonic(), None
    while process.poll() is None and again is None and time.monotonic() < began + 60:
        with open(runs.out(name) + "/log.jsonl") as log:
            if '"nodes":3' in log.read():
                again = time.monotonic() - began
        time.sleep(0.02)
    code, output, _ = output_of(process, 120)
    expect(pid is not None, f"{what}: it ran until its node could be killed", output)
    expect(code == 0, f"{what}: exit code {code}", output)
    expect(f"node {rank} lost" in output and "3 of 4 go on, edges dropped" in output,
           f"{what}: it says who was lost and what was done", output)
    # Ten more steps are in this time: then the log gets its lines.
    expect(again is not None and again < DEADLINE + 1.5, f"{what}: on again after {again} s",
           output)
    with open(runs.out(name) + "/log.jsonl") as log:
        steps = [int(step) for step in re.findall(r'"step":(\d+),', log.read())]
    expect(steps == sorted(set(steps)) and steps[-1] == LONG and len(steps) > LONG - 12,
           f"{what}: the log has its steps", str(steps))
    ratio = last_validation(runs, name) / last_validation(runs, "undisturbed.graph")
    expect(ratio < 1.02, f"{what}: validation loss {ratio:.4f} of the undisturbed run's", output)
    expect_nobody(runs, name, what)
    print(f"{what}: on again after {again or 0:.2f} s (deadline {DEADLINE} s), validation loss "
          f"{ratio:.4f} of the undisturbed run's")


def on_one_host(runs):
    """Every strategy: threads = mpirun = murmur launch, with any number of cores."""
    for strategy in STRATEGIES:
        train = lambda name: runs.train(f"{name}.{strategy}", strategy, "--eval-every", "5")
        nodes = ["--nodes", str(RANKS), "--transport", "threads"]
        finished(runs.here(train("threads") + nodes, cores=2), f"threads, {strategy}")
        finished(runs.here(train("core") + nodes), f"threads on one core, {strategy}")
        for name, start in (("mpi", runs.mpirun), ("launch", runs.launch)):
            output = finished(start(train(name)), f"{name}, {strategy}")
            expect(f"{RANKS} ranks (mpi, {strategy})" in output, f"{name}: {strategy}", output)
        for name in ("core", "mpi", "launch"):
            expect_same(runs, f"{name}.{strategy}", f"threads.{strategy}", f"{name}, {strategy}")
    print("one host: threads, mpirun and launch:", ", ".join(STRATEGIES))


def resumed_elsewhere(runs):
    """What four ranks of one strategy saved, three of another go on from, and one."""
    words = runs.train("four", "fsdp", "--checkpoint-every", "6", "--eval-every", "4")
    finished(runs.mpirun(words), "four ranks")
    worst = []
    for name, strategy, start in (("three", "sharded", lambda words: runs.mpirun(words, ranks=3)),
                                  ("one", "local", runs.here)):
        shutil.copytree(runs.out("four"), runs.out(name))
        words = ["train", "--out", runs.out(name), "--resume-from", "6", "--strategy", strategy]
        output = finished(start(words), f"four ranks, resumed by {name}")
        expect("going on after step 6" in output, f"resumed by {name}", output)
        worst.append(expect_close(runs, name, "four", f"four ranks, resumed by {name}"))
    print("four ranks of fsdp, resumed by three of sharded and by one: losses within "
          f"{max(worst):.1g}")


def on_four_hosts(runs, cluster):
    finished(runs.here(runs.train("self", "local", "--eval-every", "5")), "one rank")
    worst = []
    for strategy in STRATEGIES:
        name = f"hosts.{strategy}"
        finished(runs.on(cluster, runs.train(name, strategy, "--eval-every", "5")),
                 f"4 hosts, {strategy}")
        expect_same(runs, name, f"threads.{strategy}", f"4 hosts, {strategy}")
        if strategy not in OWN_WEIGHTS:
            worst.append(expect_close(runs, name, "self", f"4 hosts, {strategy}, or one rank"))
    print(f"4 hosts: the files of one process; losses within {max(worst):.1g} of one rank")


def bytes_on_the_wire(runs, cluster):
    short, long = 2, 22
    for strategy, collectives in COLLECTIVES.items():
        sent = []
        for steps in (short, long):  # the difference: without start, evaluation and checkpoint
            before = [cluster.bytes(host)[1] for host in cluster.names]
            name = f"bytes.{strategy}.{steps}"
            words = runs.train(name, strategy, "--eval-every", "0", "--checkpoint-every", "0",
                               steps=steps, width=128)
            finished(runs.on(cluster, words), f"{steps} steps of {strategy}")
            sent.append([cluster.bytes(host)[1] - b for host, b in zip(cluster.names, before)])
        count = runs.parameters(name, long)
        payload = collectives * (RANKS - 1) / RANKS * 4 * count
        ratios = [(b - a) / (long - short) / payload for a, b in zip(*sent)]
        mean = sum(ratios) / RANKS
        expect(1 < mean < 1.05, f"{strategy}: {mean:.4f} of the predicted bytes", str(sent))
        print(f"{strategy}: a rank sends {payload / 1e6:.2f} MB a step ({count} parameters) and "
              f"{100 * (mean - 1):.2f} % of headers; single ranks", *(f"{r:.3f}" for r in ratios))


def launch_on(runs, cluster, words):
    """murmur launch --hosts, told by the environment how to reach them."""
    hostfile = runs.out("hostfile")
    with open(hostfile, "w") as file:
        file.writelines(f"{name} slots=1\n" for name in cluster.names)
    subnet = hosts.SUBNET + ".0/24"
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_plm_rsh_agent=cluster.agent,
                       PRTE_MCA_plm_ssh_agent=cluster.agent,  # Open MPI 5
                       OMPI_MCA_btl="tcp,self", OMPI_MCA_btl_tcp_if_include=subnet,
                       OMPI_MCA_oob_tcp_if_include=subnet)
    command = [runs.murmur, "launch", "-n", str(RANKS), "--hosts", hostfile, "--", *words]
    return subprocess.Popen(cluster.enter(cluster.names[0], command), env=environment, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def main():
    if not shutil.which("mpirun"):
        print("skipped: there is no mpirun; install openmpi-bin")
        return 77
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(os.path.realpath(sys.argv[1]), folder)
        on_one_host(runs)
        resumed_elsewhere(runs)
        undisturbed(runs)
        a_rank_is_killed(runs, "killed", runs.launch, runs.launch, "launch, a rank is killed", True)
        a_rank_is_stopped(runs, "stopped", runs.mpirun, "a rank is stopped")
        undisturbed_graph(runs)
        survive = lambda words: runs.launch(words, survive=True)
        a_node_dies(runs, "graph.launch", survive, 2, "launch --survive, a node dies")
        a_node_dies(runs, "graph.first", survive, 0, "launch --survive, the first node dies")
        reason = hosts.skip()
        if reason:
            print("skipped: four hosts:", reason)
        else:
            with hosts.start(RANKS) as cluster:
                there = lambda words: runs.on(cluster, words)
                launched = lambda words: launch_on(runs, cluster, words)
                on_four_hosts(runs, cluster)
                bytes_on_the_wire(runs, cluster)
                a_rank_is_killed(runs, "killed.hosts", there, there, "4 hosts, a rank is killed",
                                 False)
                a_rank_is_killed(runs, "killed.launch", launched, there,
                                 "launch on 4 hosts, a rank is killed", True)
                a_rank_is_stopped(runs, "stopped.hosts", there, "4 hosts, a rank is stopped")
                a_node_dies(runs, "graph.hosts",
                            lambda words: runs.on(cluster, words, ["--enable-recovery"]), 2,
                            "4 hosts, a node dies")
    seconds = time.monotonic() - began
    print(f"{len(failures)} failed" if failures else "all passed", f"in {seconds:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
