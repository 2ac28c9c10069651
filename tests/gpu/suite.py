"""Runs the tests of the CUDA engine, whole and, where something failed, case by case."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from machine import cuda_tool
from record import Skip

# Small cases for the sanitizers, which slow a kernel down ten to a hundred times. cuBLASLt's own
# kernels are left out of racecheck.
MEMCHECK = [
    "cuda: every*", "cuda: scale*", "cuda: random*", "cuda: gather*", "cuda: softmax*",
    "cuda: cross entropy*", "cuda: norm*", "cuda: qk_norm*", "cuda: row*", "cuda: sum*",
    "cuda: adam*", "cuda: descend*", "cuda: momentum*", "mma multiplies*", "load_matrices*",
    "copy_async*", "shuffles*", "attention on tensor cores*", "attention row by row*",
    "a symmetric product is*", "symmetric products of every size", "attention of every length*",
    "captured work*",
]
RACECHECK = [
    "cuda: softmax*", "cuda: cross entropy*", "cuda: norm*", "cuda: sum*", "cuda: gather backward*",
    "cuda: qk_norm*", "cuda: normalizers*", "load_matrices*", "copy_async*",
    "attention on tensor cores*", "attention row by row*",
]


@dataclass
class Case:
    """One test case and how it went."""

    name: str
    status: str
    message: str = ""
    seconds: float = 0


def complaint(element: ET.Element) -> str:
    """One failed check, exception or message, in a line."""
    said = " ".join(" ".join(element.itertext()).split())
    place = f"{Path(element.get('filename', '')).name}:{element.get('line', '')}"
    return f"{place}: {said}"[:400]


def case_of(element: ET.Element) -> Case:
    """How a finished <TestCase> went."""
    result = element.find("OverallResultsAsserts")
    passed = result is not None and result.get("test_case_success") == "true"
    messages = [" ".join("".join(m.itertext()).split()) for m in element.iter("Message")]
    seconds = float(result.get("duration") or 0) if result is not None else 0
    if passed:
        skipped = next((m for m in messages if m.startswith("skipped")), "")
        return Case(element.get("name"), "skipped" if skipped else "passed", skipped, seconds)
    bad = [e for e in element.iter("Expression") if e.get("success") != "true"]
    bad += list(element.iter("Exception"))
    bad += [m for m in element.iter("Message") if m.get("type") != "WARNING"]
    return Case(element.get("name"), "failed", "\n".join(complaint(e) for e in bad[:3]), seconds)


def read_report(path: Path) -> tuple[list[Case], str | None]:
    """The cases of doctest's XML, which may be cut off, and the case that was under way then."""
    parser = ET.XMLPullParser(["start", "end"])
    cases, running = [], None
    try:
        parser.feed(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ET.ParseError):
        pass
    try:
        for event, element in parser.read_events():
            if element.tag != "TestCase" or element.get("skipped") == "true":
                continue
            running = element.get("name") if event == "start" else None
            if event == "end":
                cases.append(case_of(element))
    except ET.ParseError:
        pass
    return cases, running


def pattern(name: str) -> str:
    """The filter that selects one case; a comma would make it two."""
    return "-tc=" + name.replace(",", "?").replace("\\", "?")


def names_of_cases(check) -> list[str]:
    """All cases of the test program."""
    done = check.shell.run([check.tests, "-ltc", "-r=xml"], 60)
    if not done.ok:
        raise RuntimeError(f"the list of tests cannot be had: {done.why()}")
    listed = ET.fromstring(done.out[done.out.index("<?xml"):])
    return [name for case in listed.iter("TestCase") if check.takes_case(name := case.get("name"))]


def run_whole(check, names: list[str], label: str, env: dict, limit: float) -> dict[str, Case]:
    """All cases in one process: the cases that ended, and the one that did not."""
    report = check.work / f"{label}.xml"
    report.unlink(missing_ok=True)
    chosen = [] if check.whole_suite else ["-tc=" + ",".join(pattern(n)[4:] for n in names)]
    done = check.shell.run([check.tests, "-r=xml", f"-o={report}", "-d=true", *chosen], limit, env)
    cases, running = read_report(report)
    found = {case.name: case for case in cases}
    if running:
        found[running] = Case(running, "failed", f"under way when the program ended: {done.why()}")
    return found


def run_alone(check, names: list[str], label: str, env: dict) -> dict[str, Case]:
    """Each case in a process of its own: one that breaks the device cannot make others fail."""
    reports = [check.work / f"{label}-{i}.xml" for i in range(len(names))]
    jobs = [([check.tests, "-r=xml", f"-o={report}", "-d=true", pattern(name)], 30, env)
            for name, report in zip(names, reports)]
    found = {}
    for name, report, done in zip(names, reports, check.shell.run_all(jobs, check.workers)):
        cases, _ = read_report(report)
        if done is None:
            found[name] = Case(name, "skipped", "no time left to run it")
        elif cases:
            found[name] = cases[0]
        else:
            found[name] = Case(name, "failed", done.why())
        report.unlink(missing_ok=True)
    return found


def conformance(check, label: str, env: dict, limit: float) -> bool:
    """Record every case; True when none failed. What fails among others is run again alone."""
    names = names_of_cases(check)
    whole = run_whole(check, names, label, env, limit)
    again = [n for n in names if n not in whole or whole[n].status == "failed"]
    alone = run_alone(check, again, label, env) if again else {}
    blamed = any(case.status == "failed" for case in alone.values())
    good = True
    for name in names:
        case = alone.get(name) or whole[name]
        if name in whole and case.status == "passed" != whole[name].status and not blamed:
            case = Case(name, "failed", f"only among others: {whole[name].message}")
        more = {}
        if name in alone:
            more["among_others"] = whole[name].message if name in whole else "not reached"
        check.record.check(label, name, case.status, case.message, seconds=case.seconds, **more)
        good = good and case.status != "failed"
    return good


def sanitize(check, tool: str, patterns: list[str]) -> None:
    """Run the chosen cases under a tool of compute-sanitizer."""
    program = cuda_tool("compute-sanitizer") if not check.dry else "compute-sanitizer"
    if not program:
        raise Skip("compute-sanitizer is not there")
    jobs = [([program, "--tool", tool, "--error-exitcode", "99", check.tests, pattern(p)], 45, {})
            for p in patterns]
    for name, done in zip(patterns, check.shell.run_all(jobs, max(4, check.jobs // 2))):
        status, message = verdict(done)
        check.record.check(tool, name, status, message)


def verdict(done) -> tuple[str, str]:
    """What a run under a sanitizer showed."""
    if done is None or done.timed_out:
        return "skipped", "no time left to finish it"
    text = f"{done.out}\n{done.err}"
    if "not supported" in text and "SUMMARY" not in text:
        return "skipped", done.why()
    summary = [line.strip("= ") for line in text.splitlines() if "SUMMARY" in line]
    cases = re.search(r"test cases:\s+(\d+)", text)
    if done.code == 0 and summary and cases:
        if cases.group(1) == "0":
            return "failed", "no test case has such a name"
        return "passed", f"{cases.group(1)} cases, {summary[-1]}"
    first = [line.strip("= ") for line in text.splitlines() if line.startswith("=========")][:12]
    return "failed", " | ".join(first) or done.why()
