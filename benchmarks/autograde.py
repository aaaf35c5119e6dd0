"""How long grading takes: the sample class of chapter 01 by `course grade`, and by stock nbgrader in the same run."""

import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import scratch
from benchmarks.results import write

CHAPTER = "01_attention"
RUNS = 3


def main() -> None:
    """Grade the class RUNS times both ways, in turn, and write the medians and the spread."""
    with tempfile.TemporaryDirectory() as folder:
        ours = scratch.make(Path(folder) / "ours")
        stock = scratch.make(Path(folder) / "stock", stock=True)
        for place in (ours, stock):
            scratch.call(["course", "sample", CHAPTER], place)
        count = len(list((ours / "grading" / "submitted").iterdir()))
        ways = {
            "stock: nbgrader autograde, then generate_feedback": (
                stock,
                [["nbgrader", "autograde", CHAPTER, "--force"], ["nbgrader", "generate_feedback", CHAPTER, "--force"]],
            ),
            "course grade, everything anew": (ours, [["course", "grade", CHAPTER, "--again"]]),
            "course grade, nothing new": (ours, [["course", "grade", CHAPTER]]),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(RUNS):
            for way, (place, commands) in ways.items():
                taken[way].append(_timed(commands, place))
    slowest = statistics.median(next(iter(taken.values())))
    write(
        "autograde",
        what=f"Grading the sample class of chapter 01, {count} submissions, with feedback for each. Stock nbgrader "
        "starts a kernel for each submission in turn; the course forks one, and examines several at once.",
        command="python -m benchmarks.autograde",
        machine=f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        versions={name: version(name) for name in ("nbgrader", "torch", "ipykernel")},
        rows=[_row(way, seconds, count, slowest) for way, seconds in taken.items()],
    )


def _timed(commands: list[list[str]], place: Path) -> float:
    start = time.perf_counter()
    for command in commands:
        scratch.call(command, place)
    return time.perf_counter() - start


def _row(way: str, seconds: list[float], count: int, slowest: float) -> dict[str, object]:
    median = statistics.median(seconds)
    return {
        "case": way,
        "seconds": round(median, 1),
        "fastest": round(min(seconds), 1),
        "slowest": round(max(seconds), 1),
        "seconds a submission": round(median / count, 2),
        "times faster": round(slowest / median, 1),
        "runs": RUNS,
    }


if __name__ == "__main__":
    main()
