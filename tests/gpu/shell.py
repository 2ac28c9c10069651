"""Runs commands with time limits, and writes down each one."""

import os
import queue
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from record import ROOT, Clock, OutOfTime


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with code 0."""
        return self.code == 0 and not self.timed_out

    def why(self) -> str:
        """What went wrong, shortly: the end of what it said."""
        if self.timed_out:
            return f"not finished after {self.seconds:.0f} s"
        lines = [line for line in (self.err + "\n" + self.out).splitlines() if line.strip()]
        said = [line for line in lines if "error" in line.lower()] or lines
        return f"exit code {self.code}: " + " | ".join(said[-3:])[-600:]


class Shell:
    """Commands in the repository, none longer than the step that runs it."""

    def __init__(self, clock: Clock, log: Path, env: dict):
        self.clock = clock
        self.env = {**os.environ, **env}
        self.live: set[subprocess.Popen] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = open(log, "w", encoding="utf-8")  # noqa: SIM115 - open as long as this object

    def start(self, command: list, env: dict, **pipes) -> subprocess.Popen:
        """Start a process in a group of its own, so that all of it can be ended."""
        process = subprocess.Popen(
            [str(word) for word in command], cwd=ROOT, env=self.env | env, text=True,
            errors="replace", start_new_session=True, **pipes,
        )
        self.live.add(process)
        return process

    def end(self, process: subprocess.Popen) -> None:
        """End a process that was started here, with its children."""
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.live.discard(process)

    def end_all(self) -> None:
        """End whatever is still running."""
        for process in list(self.live):
            self.end(process)

    def run(self, command: list, limit: float = 600, env: dict | None = None) -> Done:
        """Run to the end, or to the limit."""
        limit = min(limit, self.clock.left_in_step())
        begin = time.monotonic()
        timed_out = False
        try:
            process = self.start(
                command, env or {}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            return Done(127, "", str(error), 0)
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            timed_out = True
            self.end(process)
            out, err = process.communicate()
        finally:
            self.end(process)
        done = Done(process.returncode, out, err, time.monotonic() - begin, timed_out)
        self.write(command, env or {}, done)
        return done

    def run_all(self, jobs: list, workers: int) -> list:
        """Run (command, limit, env) side by side; a Done for each, None where time was up."""

        def one(job):
            try:
                return self.run(*job)
            except OutOfTime:
                return None

        pool = ThreadPoolExecutor(max_workers=workers)
        try:
            return list(pool.map(one, jobs))
        except BaseException:
            self.end_all()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def write(self, command: list, env: dict, done: Done) -> None:
        """Append to the log."""
        words = [f"{key}={value}" for key, value in env.items()] + [str(word) for word in command]
        self.log.write(f"$ {' '.join(words)}\n[code {done.code}, {done.seconds:.1f} s]\n")
        self.log.write(f"{done.out[-4000:]}{done.err[-4000:]}\n")
        self.log.flush()


class Conversation:
    """A process that answers every line it is given with a line."""

    def __init__(self, shell: Shell, command: list):
        self.shell = shell
        self.process = shell.start(
            command, {}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=shell.log, bufsize=1,
        )
        self.lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def say(self, line: str) -> None:
        """Send a line."""
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended; hear() will say so

    def hear(self, limit: float) -> str | None:
        """The next line; None when the process has ended, OutOfTime when it takes too long."""
        try:
            line = self.lines.get(timeout=min(limit, self.shell.clock.left_in_step()))
        except queue.Empty:
            raise OutOfTime(f"no answer within {limit:.0f} s") from None
        if line is None:
            self.lines.put(None)
        return line

    def close(self) -> None:
        """End the process."""
        self.shell.end(self.process)
