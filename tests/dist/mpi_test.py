"""The transport mpi, run by mpirun on this machine and, as root, on hosts of network namespaces.

    mpi_test.py PATH/OF/mpi_check PATH/OF/murmur PATH/OF/mpi_weights

Exit code 77: mpirun is missing.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import hosts

MISSING = "step 3: gradients: rank 1 is missing: nothing for 1 s"
failures = []


def expect(condition, what, output=""):
    if not condition:
        failures.append(what)
        print(f"FAILED: {what}\n{output}")


def output_of(process, limit):
    """Exit code, output, and seconds; at `limit` it is ended and the exit code is None."""
    began = time.monotonic()
    try:
        output = process.communicate(timeout=limit)[0]
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.terminate()  # mpirun then ends its ranks
        output, code = process.communicate()[0], None
    return code, output, time.monotonic() - began


def start(words, **environment):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMP_NUM_THREADS="1", **environment)
    if "--enable-recovery" in words:  # else mpirun of Open MPI 5 ends all when one ends with a code
        environment["PRTE_MCA_state_base_error_non_zero_exit"] = "0"
    return subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def mpirun(ranks, *words, limit=60, **environment):
    return output_of(start(["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none",
                            *words], **environment), limit)


def complaints(output):
    return [line for line in output.splitlines() if line.startswith("murmur: ")]


def on_one_host(check):
    for ranks in (1, 2, 3, 4):
        code, output, _ = mpirun(ranks, check, "ok")
        expect(code == 0 and output.split() == ["ok"], f"{ranks} ranks: every collective", output)
    code, output, _ = output_of(start([check, "ok"]), 60)
    expect(code == 0 and output.split() == ["ok"], "without mpirun: one rank", output)

    for ranks in (2, 3, 4):
        code, output, seconds = mpirun(ranks, check, "late")
        expect(code == 1 and MISSING in output and seconds < 15, f"{ranks} ranks: one is late",
               output)
        expect(all(MISSING in line for line in complaints(output)),
               f"{ranks} ranks: all name the one that is late", output)
        # mpirun ends the others about when they reach their deadline; who is first is open.
        code, output, seconds = mpirun(ranks, check, "killed")
        expect(code == 137 and seconds < 15, f"{ranks} ranks: one is killed", output)
        code, output, seconds = mpirun(ranks, check, "throws")
        expect(code == 2 and seconds < 15 and
               complaints(output) == ["murmur: rank 1: data: rank 1 cannot read it"],
               f"{ranks} ranks: one throws", output)
        # mpirun leaves the others alone, so each of them has to end by itself.
        code, output, seconds = mpirun(ranks, "--enable-recovery", check, "killed")
        expect(code is not None and seconds < 15, f"{ranks} ranks: survivors end", output)
        survivors = [f" rank {r}" for r in range(ranks) if r != 1]
        expect(sorted(line.split(":")[1] for line in complaints(output)) == survivors and
               output.count(MISSING) == len(survivors),
               f"{ranks} ranks: each survivor says once who is missing", output)
    for late, said in (("0", [f"rank {r}: 0, 1, 2 are left" for r in range(3)]),
                       ("1.5", ["murmur: rank 0: the others go on without it, since it did not "
                                "answer in time", "rank 1: 1, 2 are left", "rank 2: 1, 2 are left"])):
        code, output, _ = mpirun(3, "--enable-recovery", check, "survivors", late)
        expect(sorted(re.findall("^(?:murmur: )?rank .*", output, re.M)) == said,
               f"a rank that is {late} s late: one answer for all who go on", output)
    code, output, _ = mpirun(4, "--enable-recovery", check, "mixing")
    expect("3 are left" in output and not complaints(output),
           "a rank is killed while others mix: what they have together stays", output)
    code, output, _ = mpirun(3, check, "nodes", "5")
    expect(code == 2 and complaints(output) ==
           ["murmur: nodes: 5 wanted, MPI has 3; start it with mpirun -n 5, or leave --nodes out"],
           "a world of another size: said once", output)
    code, output, _ = mpirun(3, check, "nodes", "3")
    expect(code == 0, "a world of the size that is wanted", output)


def broken_connections(check):
    """Over TCP the others see how the connections of a dead rank break; that ends none of them."""
    environment = dict(OMPI_MCA_btl="tcp,self", OMPI_MCA_btl_tcp_if_include="lo")
    code, output, seconds = mpirun(3, "--enable-recovery", check, "killed", **environment)
    expect(code is not None and seconds < 15 and output.count(MISSING) == 2,
           "3 ranks over TCP: both survivors name the one that was killed", output)


def on_several_hosts(check):
    payload = 64 << 20
    with hosts.start(4) as cluster:
        def run(*words, extra=()):
            return output_of(cluster.mpirun([check, *words], extra_mca=extra, text=True,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT), 60)

        code, output, _ = run("ok")
        # Open MPI may warn of a setpgid that came too late; it did no harm.
        expect(code == 0 and output.splitlines().count("ok") == 1 and not complaints(output),
               "4 hosts: every collective", output)
        before = [cluster.bytes(name) for name in cluster.names]
        code, output, _ = run("bytes", "64")
        expect(code == 0, "4 hosts: a large all_reduce", output)
        for name, old in zip(cluster.names, before):
            for was, now in zip(old, cluster.bytes(name)):
                ratio = (now - was) / (2 * 3 / 4 * payload)
                expect(1 < ratio < 1.05, f"{name}: {ratio:.4f} of the predicted bytes")
        code, output, seconds = run("killed")
        expect(code not in (0, None) and seconds < 30, "4 hosts: one rank is killed", output)
        code, output, seconds = run("killed", extra=["--enable-recovery"])
        expect(code is not None and seconds < 30 and MISSING in output,
               "4 hosts: survivors name the one that was killed", output)


def same_weights(weights):
    """Every decentralised strategy: processes of MPI train what threads train, to the bit."""
    for ranks in (3, 4):
        code, threads, _ = output_of(start([weights, "threads", str(ranks)]), 60)
        expect(code == 0 and threads.count("\n") >= 10, f"{ranks} threads: strategies", threads)
        code, processes, _ = mpirun(ranks, weights, "mpi")
        expect(code == 0 and processes == threads,
               f"{ranks} ranks: strategies on threads and on mpi give the same bits",
               threads + processes)


def launches(check, murmur):
    def launch(*words):
        return output_of(start([murmur, "launch", *words]), 30)

    for words, what in ((["-n", "0", "--", "train"], "-n 0"), (["-n", "2"], "nothing to start"),
                        (["-n", "2", "--", "train", "--transport", "threads"], "one process"),
                        (["-n", "2", "--", "sample", "runs/one"], "'sample' has no ranks"),
                        (["-n", "100000", "--", "train"], "from 1 to 4096"),
                        (["-n", "2", "--hosts", "/none", "--", "train"], "cannot be read")):
        code, output, _ = launch(*words)
        expect(code == 2 and what in output and output.count("\n") == 1, f"launch {words}", output)
    # A wrong flag is every rank's; one of them says so.
    for transport, more in (("mpi", []), ("mpi", ["--survive"]), ("nccl", [])):
        code, output, seconds = launch("-n", "3", *more, "--", "train", "--transport", transport,
                                       "--nodess", "3")
        said = [line for line in complaints(output) if "launch" not in line]
        expect(code == 2 and seconds < 15 and
               said == ["murmur: --nodess: no such flag; did you mean --nodes?"],
               f"launch with {transport}: a wrong flag is said once", output)


def signals(murmur, folder):
    """launch hands signals on: ranks save and go on, or save and stop; and what config files say."""
    with open(f"{folder}/text", "w") as file:
        file.write("the quick brown fox jumps over the lazy dog. " * 100)
    subprocess.run([murmur, "data", "prepare", f"{folder}/text", "--out", f"{folder}/data"],
                   check=True, stdout=subprocess.DEVNULL)
    words = [murmur, "launch", "-n", "2", "--", "train", "--data", f"{folder}/data", "--n-layer",
             "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16", "--batch-size", "4",
             "--steps", "1000000", "--checkpoint-every", "0", "--eval-every", "0"]

    def wait_for(condition):
        limit = time.monotonic() + 20
        while not condition() and time.monotonic() < limit:
            time.sleep(0.01)
        return condition()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        run = f"{folder}/{number}"
        process = start([*words, "--out", run])
        size = lambda: os.path.exists(run + "/log.jsonl") and os.path.getsize(run + "/log.jsonl")
        expect(wait_for(lambda: size() > 500), "launch: the run is under way")
        if number == signal.SIGINT:
            process.send_signal(signal.SIGUSR1)
            expect(wait_for(lambda: os.path.exists(run + "/checkpoint/latest")),
                   "launch: SIGUSR1 saves")
            before = size()
            expect(wait_for(lambda: size() > before), "launch: and the run goes on")
        process.send_signal(number)
        code, output, _ = output_of(process, 20)
        expect(code == 130 and output.count("stopped after step") == 1 and
               os.path.exists(run + "/checkpoint/latest") and "Forwarding" not in output,
               f"launch: signal {number} saves and stops, exit code {code}", output)
    for transport, what in (("threads", "launch: transport threads is one process"),
                            ("nccl", "nccl")):
        with open(f"{folder}/{transport}.toml", "w") as file:
            file.write(f'transport = "{transport}"\n')
        code, output, _ = output_of(
            start([*words, "--out", f"{folder}/none", "--config", f"{folder}/{transport}.toml"]), 20)
        expect(code == 2 and what in output and not os.path.exists(f"{folder}/none"),
               f"launch: transport {transport} in a file", output)


def main():
    check, murmur, weights = sys.argv[1:4]
    if not shutil.which("mpirun"):
        print("skipped: there is no mpirun; install openmpi-bin")
        return 77
    on_one_host(check)
    broken_connections(check)
    same_weights(weights)
    launches(check, murmur)
    with tempfile.TemporaryDirectory() as folder:
        signals(murmur, folder)
    reason = hosts.skip()
    if reason:
        print("several hosts: skipped:", reason)
    else:
        on_several_hosts(check)
    print(f"{len(failures)} failed" if failures else "all passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
