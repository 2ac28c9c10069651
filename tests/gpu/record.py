"""What a GPU check writes down, and the time it has: a JSON file that is whole after every step."""

import json
import os
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]


class OutOfTime(Exception):
    """The step or the whole check has used up its time."""


class Skip(Exception):
    """A step that cannot be done here; the message says why."""


class Clock:
    """The budget of the whole check and the limit of the step under way, in seconds."""

    def __init__(self, budget: float):
        self.begin = time.monotonic()
        self.end = self.begin + budget
        self.step_end = self.end

    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begin

    def left(self) -> float:
        """Seconds left of the budget."""
        return self.end - time.monotonic()

    def start_step(self, limit: float) -> None:
        """Give the step that begins now at most `limit` seconds."""
        self.step_end = min(time.monotonic() + limit, self.end)

    def left_in_step(self) -> float:
        """Seconds left of the step; OutOfTime when there are none."""
        left = self.step_end - time.monotonic()
        if left < 0.5:
            raise OutOfTime("out of time")
        return left


def spread(values: list) -> dict:
    """Median, smallest and largest of some measurements, and how many they are."""
    return {
        "n": len(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


class Record:
    """The JSON of one check."""

    def __init__(self, path: Path | None, **head):
        self.path = path
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.data = {
            "kind": "gpu-check", "date": now, **head, "summary": {}, "machine": {},
            "targets": [], "steps": [], "checks": [], "timings": [], "tables": {},
        }

    def check(self, step: str, name: str, status: str, message: str = "", **values) -> None:
        """One thing that was checked: status is passed, failed or skipped."""
        row = {"step": step, "name": name, "status": status}
        if message:
            row["message"] = message.replace(f"{ROOT}/", "")[:2000]
        self.data["checks"].append(row | values)
        if status == "failed":
            print(f"    failed: {name}: {message.splitlines()[0] if message else ''}", flush=True)

    def timing(self, name: str, contender: str, unit: str, values: list, **more) -> None:
        """One thing that was timed."""
        row = {"name": name, "contender": contender, "unit": unit} | spread(values) | more
        self.data["timings"].append(row)

    def find_timing(self, name: str, contender: str = "murmur") -> dict | None:
        """The timing of that name and contender."""
        for row in self.data["timings"]:
            if row["name"] == name and row["contender"] == contender:
                return row
        return None

    def step(self, name: str, status: str, seconds: float, reason: str = "") -> None:
        """A step has ended: done, skipped, failed, out of time or interrupted."""
        row = {"name": name, "status": status, "seconds": round(seconds, 1)}
        self.data["steps"].append(row | ({"reason": reason} if reason else {}))

    def summarise(self) -> dict:
        """Count the checks."""
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        for row in self.data["checks"]:
            counts[row["status"]] += 1
        unfinished = [s["name"] for s in self.data["steps"] if s["status"] != "done"]
        self.data["summary"] = counts | {"steps_not_done": unfinished}
        return counts

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if not self.path:
            return
        self.summarise()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)
