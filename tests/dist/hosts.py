"""Hosts without hosts: network namespaces on a bridge, each with a name and an address of its own.

    with hosts.start(4) as cluster:
        process = cluster.mpirun(["build/tests/dist/mpi_check", "ok"])

or from a shell: python3 hosts.py 4 build/tests/dist/mpi_check ok

The bridge lies in a namespace too, so this machine's own network stays as it is, and several of
these may run at once. mpirun starts in the first host; instead of ssh it uses a script that enters
the others. Needs root and iproute2; skip() says what is missing. Everything is removed at the end,
also after an exception or a signal; what a killed process left behind, the next start() removes.
"""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

SUBNET = "10.213.77"  # .0/24
# In the place of ssh: HOST COMMAND ..
AGENT = """#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare -u sh -c 'hostname "$1" && shift && eval "$*"' sh "$host" "$@"
"""


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


def remove(namespace):
    for pid in ip("netns", "pids", namespace, check=False).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    ip("netns", "del", namespace, check=False)
    shutil.rmtree(f"/etc/netns/{namespace}", ignore_errors=True)
    try:
        os.rmdir("/etc/netns")
    except OSError:
        pass  # others use it


def remove_leftovers():
    """Namespaces of processes that were killed before they could remove them."""
    for namespace in set(re.findall(r"^murmur\d+-\w+", ip("netns", "list"), re.M)):
        if not os.path.exists("/proc/" + re.match(r"murmur(\d+)-", namespace)[1]):
            remove(namespace)


def skip():
    """Why there can be no hosts here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "there is no ip command; install iproute2"
    name = f"murmur{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "add", "br0", "type", "bridge")
        ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    finally:
        remove(name)
    return None


class Hosts:
    def __init__(self, count):
        self.prefix = f"murmur{os.getpid()}-"
        self.names = [f"{self.prefix}{i}" for i in range(count)]
        self.switch = self.prefix + "switch"
        self.processes = []
        self.old_handlers = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.old_handlers[number] = signal.signal(number, self._on_signal)
        atexit.register(self.close)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self):
        remove_leftovers()
        self.agent = f"/etc/netns/{self.switch}/enter"  # a folder that goes with the namespace
        os.makedirs(os.path.dirname(self.agent))
        with open(self.agent, "w") as file:
            file.write(AGENT)
        os.chmod(self.agent, 0o755)
        names = "127.0.0.1 localhost\n" + "".join(
            f"{SUBNET}.{i + 1} {name}\n" for i, name in enumerate(self.names))
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")
        for i, name in enumerate(self.names):
            os.makedirs(f"/etc/netns/{name}")
            with open(f"/etc/netns/{name}/hosts", "w") as file:
                file.write(names)  # `ip netns exec` lays it over /etc/hosts
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "add", "eth0", "type", "veth",
               "peer", "name", f"port{i}", "netns", self.switch)
            ip("-n", name, "addr", "add", f"{SUBNET}.{i + 1}/24", "dev", "eth0")
            ip("-n", self.switch, "link", "set", f"port{i}", "master", "br0", "up")
            ip("-n", name, "link", "set", "eth0", "up")

    def enter(self, name, words):
        """A command line that runs `words` on a host."""
        return ["ip", "netns", "exec", name, "unshare", "-u", "sh", "-c",
                'hostname "$0" && exec "$@"', name, *words]

    def mpirun(self, args, per_host=1, extra_mca=(), **popen):
        """`args` as per_host ranks on every host. extra_mca: further words for mpirun."""
        subnet = SUBNET + ".0/24"
        words = ["mpirun", "-n", str(per_host * len(self.names)), "--bind-to", "none",
                 "--oversubscribe", "--host", ",".join(f"{n}:{per_host}" for n in self.names)]
        for name, value in {"plm_rsh_agent": self.agent, "oob_tcp_if_include": subnet,
                            "btl": "tcp,self", "btl_tcp_if_include": subnet}.items():
            words += ["--mca", name, value]
        environment = dict(popen.pop("env", os.environ), OMPI_ALLOW_RUN_AS_ROOT="1",
                           OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        self.processes.append(subprocess.Popen(
            self.enter(self.names[0], [*words, *extra_mca, *args]), env=environment, **popen))
        return self.processes[-1]

    def bytes(self, name):
        """What the host's interface has received and sent, headers of Ethernet and all."""
        link, = json.loads(ip("-n", name, "-s", "-j", "link", "show", "eth0"))
        return link["stats64"]["rx"]["bytes"], link["stats64"]["tx"]["bytes"]

    def close(self):
        """Ends what still runs on the hosts and removes them. May be called again."""
        atexit.unregister(self.close)
        for name in [*self.names, self.switch]:
            remove(name)
        for process in self.processes:
            process.wait()
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)
        self.names, self.processes, self.old_handlers = [], [], {}

    def _on_signal(self, number, _frame):
        self.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def start(count):
    return Hosts(count)


def main():
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        sys.exit("usage: hosts.py COUNT [WORD OF MPIRUN .. --] PROGRAM [ARGUMENT ..]")
    reason = skip()
    if reason:
        print("skipped:", reason)
        sys.exit(77)
    args, extra = sys.argv[2:], []
    if "--" in args:
        extra, args = args[:args.index("--")], args[args.index("--") + 1:]
    with start(int(sys.argv[1])) as cluster:
        began = time.time()
        code = cluster.mpirun(args, extra_mca=extra).wait()
        for name in cluster.names:
            print("%s: received %d bytes, sent %d" % (name, *cluster.bytes(name)))
        print(f"exit code {code} after {time.time() - began:.1f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()
