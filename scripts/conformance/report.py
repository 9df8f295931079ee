"""Judges what the Autobahn testsuite wrote: which cases passed, by rules stricter than its own.

The suite calls a case passed when the server ends a bad connection in any way. Here a server must also *say* why: where a
close code is due, a connection that is only dropped has failed, because a browser then sees 1006 and cannot tell its user.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re

PASSING = {"OK", "NON-STRICT", "INFORMATIONAL"}
PASSING_CLOSE = {"OK", "INFORMATIONAL"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One case as the suite reports it."""

    number: str  # such as "6.4.1"
    behavior: str  # the suite's verdict on what was echoed
    behavior_close: str  # its verdict on how the connection ended
    close_code: int | None  # the code that the server sent
    codes_due: tuple[int, ...]  # codes of which one is expected; empty if the case expects none
    clean: bool  # whether both sides finished the closing handshake
    description: str

    @property
    def silent(self) -> bool:
        """Whether a close code was due and the connection was only dropped."""
        due = bool(self.codes_due) and self.behavior != "INFORMATIONAL"
        return due and not self.clean and self.close_code not in self.codes_due

    def fault(self, codes_due: bool = True) -> str | None:
        """Why the case failed; None if it passed. Without `codes_due`, as lenient about close codes as the suite is."""
        if self.behavior not in PASSING:
            return self.behavior.lower()
        if self.behavior_close not in PASSING_CLOSE:
            return f"close {self.behavior_close.lower()}"
        return "dropped without a close code" if codes_due and self.silent else None

    @property
    def group(self) -> int:
        """The first part of the number."""
        return int(self.number.split(".")[0])


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a run. `faults` has one line for each thing that counts as failed."""

    cases: int
    passed: int
    faults: list[str]
    non_strict: list[str]
    groups: dict[int, collections.Counter[str]]

    @property
    def failed(self) -> int:
        return len(self.faults)


def read(folder: pathlib.Path) -> list[Case]:
    """Reads the report of the one server that the suite tested, in the order of the cases; none if it wrote none."""
    index = folder / "index.json"
    if not index.exists():
        return []
    servers = list(json.loads(index.read_text(encoding="utf-8")).values())
    entries = servers[0] if servers else {}
    cases = [_case(number, entry, folder) for number, entry in entries.items()]
    return sorted(cases, key=lambda case: [int(part) for part in case.number.split(".")])


def _case(number: str, entry: dict, folder: pathlib.Path) -> Case:
    detail = json.loads((folder / entry["reportfile"]).read_text(encoding="utf-8"))
    return Case(
        number=number,
        behavior=entry["behavior"],
        behavior_close=entry["behaviorClose"],
        close_code=entry["remoteCloseCode"],
        codes_due=tuple((detail.get("expectedClose") or {}).get("closeCode") or ()),
        clean=bool(detail.get("wasClean")),
        description=" ".join(re.sub("<[^>]+>", " ", detail.get("description", "")).split()),
    )


def judge(cases: list[Case], expected: int, max_non_strict: int, codes_due: bool = True) -> Verdict:
    """Judges the cases of a run that should have had `expected` of them."""
    passed = 0
    faults = []
    non_strict = []
    groups: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case in cases:
        groups[case.group][case.behavior] += 1
        fault = case.fault(codes_due)
        if fault:
            due = f", due {' or '.join(map(str, case.codes_due))}" if case.codes_due else ""
            faults.append(f"{case.number} {fault} (code {case.close_code}{due}): {case.description[:90]}")
        else:
            passed += 1
            if case.behavior == "NON-STRICT":
                non_strict.append(case.number)
    if len(cases) != expected:
        faults.append(f"{len(cases)} cases ran, {expected} were to run")
    if len(non_strict) > max_non_strict:
        faults.append(f"{len(non_strict)} cases non-strict, {max_non_strict} are allowed")
    return Verdict(len(cases), passed, faults, non_strict, dict(sorted(groups.items())))


def summary(verdict: Verdict) -> str:
    """The outcome in a few lines for a person."""
    lines = [f"  FAILED {fault}" for fault in verdict.faults]
    for group, behaviors in verdict.groups.items():
        lines.append(f"  group {group:<3}" + ", ".join(f"{n} {name}" for name, n in behaviors.most_common()))
    if verdict.non_strict:
        lines.append("  non-strict: " + " ".join(verdict.non_strict))
    return "\n".join(lines)
