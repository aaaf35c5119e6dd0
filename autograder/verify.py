"""Tests of the checks themselves: what must pass passes, what must fail fails, for the reason that it should."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch

from autograder.checks import Check, find
from autograder.judge import Result, in_process, judge, passes
from autograder.library_calls import library_calls
from autograder.mutants import mutants
from autograder.package_calls import OTHER_PACKAGES

SEEDS = (1, 2, 3)
"""A check must accept what is right whatever its inputs: each correct solution is tried with several."""

MINIMUM_VARIANTS = 3

RECORD = Path(__file__).with_name("verified.json")
"""What the last complete verification found; the book shows it, and the tests fail where it is no longer true."""


@dataclass
class Report:
    """What the verification of one exercise's check found; each list holds a line a fault."""

    exercise: str
    points: int
    variants: int
    misconceptions: int
    library_calls: int = 0
    mutants: int = 0
    killed: int = 0
    equivalent: int = 0
    false_accepts: list[str] = field(default_factory=list)
    false_rejects: list[str] = field(default_factory=list)
    misdiagnosed: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong with the check, a line each."""
        return self.false_accepts + self.false_rejects + self.misdiagnosed + self.incomplete

    @property
    def kill_rate(self) -> float:
        """The share of mutants that are caught, those listed as equivalent left out."""
        return self.killed / max(1, self.mutants - self.equivalent)


def verify(check: Check, tick: Callable[[], None] = lambda: None) -> Report:
    """Put a check to the test.

    Args:
        check: the check.
        tick: called after each solution tried, for a progress bar.
    """
    report = Report(check.name, check.points, len(check.variants), len(check.misconceptions))
    if len(check.variants) < MINIMUM_VARIANTS:
        report.incomplete.append(f"{len(check.variants)} variants; at least {MINIMUM_VARIANTS} are needed")
    # A mutant may write its files wherever it is.
    with tempfile.TemporaryDirectory(prefix="course-verify-") as folder, contextlib.chdir(folder):
        for step in (_correct_ones, _stub, _misconceptions, _library_calls, _mutants):
            for _ in step(check, report):
                tick()
    return report


def size(check: Check) -> int:
    """How many solutions `verify` will try, counting a mutant as one."""
    given = len(check.variants) + len(check.misconceptions) + len(library_calls(check))
    return 1 + given + 1 + sum(1 for _ in mutants(check.reference))


def verify_all(names: list[str], processes: int, done: Callable[[int], None] = lambda tried: None) -> list[Report]:
    """Put several checks to the test at the same time, each in one process with one thread.

    Args:
        names: the exercises.
        processes: how many run at once.
        done: called with the number of solutions tried after each check, for a progress bar.

    Returns:
        The reports in the order of `names`.
    """
    # Spawned, not forked: torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    with pool:
        sizes = {name: size(find(name)) for name in names}
        largest_first = sorted(names, key=lambda name: -sizes[name])
        running = {pool.submit(_verify_by_name, name): name for name in largest_first}
        reports = {}
        for future in as_completed(running):
            name = running[future]
            reports[name] = future.result()
            done(sizes[name])
    return [reports[name] for name in names]


def _verify_by_name(name: str) -> Report:
    return verify(find(name))


def record(reports: list[Report]) -> None:
    """Keep the table of a complete verification for the book."""
    RECORD.write_text(json.dumps({"columns": COLUMNS, "rows": list(rows(reports))}, indent=1) + "\n", encoding="utf-8")


COLUMNS = (
    "exercise", "points", "variants", "misconceptions", "library calls", "mutants", "equivalent", "kill rate",
    "false accepts", "false rejects", "misdiagnosed",
)  # fmt: skip


def rows(reports: list[Report]) -> Iterator[tuple[str, ...]]:
    """The verification as a table, a row an exercise and one for the sum, in the order of COLUMNS."""
    for report in [*reports, _total(reports)]:
        given = (report.points, report.variants, report.misconceptions, report.library_calls)
        counts = (*given, report.mutants, report.equivalent)
        faults = (len(report.false_accepts), len(report.false_rejects), len(report.misdiagnosed))
        yield (report.exercise, *map(str, counts), f"{report.kill_rate:.0%}", *map(str, faults))


def _total(reports: list[Report]) -> Report:
    total = Report("all", 0, 0, 0)
    for report in reports:
        for name, value in vars(report).items():
            if name != "exercise":
                setattr(total, name, getattr(total, name) + value)
    return total


def _graded(check: Check, target: object, seed: int = SEEDS[0]) -> Result:
    # What a solution calls does not depend on the seed, and watching it takes time.
    return judge(check, in_process(target, watch=seed == SEEDS[0]), graded=True, seed=seed)


def _correct_ones(check: Check, report: Report) -> Iterator[None]:
    solutions = [("the reference", check.reference)] + [(variant.name, variant.target) for variant in check.variants]
    for name, target in solutions:
        for seed in SEEDS:
            result = _graded(check, target, seed)
            if result.points < result.max_points:
                report.false_rejects.append(f"{check.name}: {name} (seed {seed}) loses points: {result.messages}")
        yield


def _stub(check: Check, report: Report) -> Iterator[None]:
    def stub(*args: object, **kwargs: object) -> None:
        raise NotImplementedError

    result = _graded(check, stub)
    if result.points:
        report.false_accepts.append(f"{check.name}: the untouched stub earns {result.points} points")
    if not any("not written yet" in message for message in result.messages):
        report.misdiagnosed.append(f"{check.name}: the untouched stub is told {result.messages}")
    yield


def _misconceptions(check: Check, report: Report) -> Iterator[None]:
    for misconception in check.misconceptions:
        for graded in (True, False):
            result = judge(check, in_process(misconception.target, watch=False), graded=graded)
            seen = "graded" if graded else "visible"
            if result.points == result.max_points:
                report.false_accepts.append(f"{check.name}: {misconception.name!r} earns all points ({seen})")
            elif result.diagnoses != [misconception.name]:
                report.misdiagnosed.append(
                    f"{check.name}: {misconception.name!r} is taken for {result.diagnoses} ({seen})"
                )
        yield


def _library_calls(check: Check, report: Report) -> Iterator[None]:
    for call in library_calls(check):
        report.library_calls += 1
        run, blind = in_process(call.target), in_process(call.target, watch=False)
        ways = {"graded": judge(check, run, graded=True, sources=[call.source])}
        if passes(check, blind):  # what computes the answer must be seen by each of the two looks alone
            ways["source"] = judge(check, blind, sources=[call.source])
            if call.message.removeprefix("uses ") not in OTHER_PACKAGES:  # of these the run may see nothing
                ways["run time"] = judge(check, run)
        for seen, result in ways.items():
            if result.points:
                report.false_accepts.append(f"{check.name}: {call.name!r} earns {result.points} points ({seen})")
            elif result.diagnoses != [call.message]:
                report.misdiagnosed.append(f"{check.name}: {call.name!r} is taken for {result.diagnoses} ({seen})")
        yield


def _mutants(check: Check, report: Report) -> Iterator[None]:
    unused = set(check.equivalent)
    for mutant in mutants(check.reference):
        report.mutants += 1
        caught = not passes(check, in_process(mutant.target, watch=False))
        if mutant.label in check.equivalent:
            unused.discard(mutant.label)
            report.equivalent += 1
            if caught:
                report.incomplete.append(f"{check.name}: listed as equivalent but caught: {mutant.label}")
        elif caught:
            report.killed += 1
        else:
            report.false_accepts.append(f"{check.name}: mutant survives: {mutant.label}")
        yield
    report.incomplete += [f"{check.name}: no such mutant: {label}" for label in sorted(unused)]
