"""How long stock `nbgrader autograde` takes for ten submissions of chapter 01: the baseline for any faster grading."""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import write
from course.chapters import root

CHAPTER = "01_attention"
RUNS = 3


def main() -> None:
    """Grade the sample class RUNS times in a scratch course, and write the median and the spread."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        shutil.copytree(root() / "book", place / "book", ignore=shutil.ignore_patterns("_static"))
        shutil.copy(root() / "nbgrader_config.py", place)
        environment = os.environ | {"COURSE_ROOT": scratch}
        _call(["course", "sample", CHAPTER], environment, place)
        count = len(list((place / "grading" / "submitted").iterdir()))
        seconds = [_graded(environment, place) for _ in range(RUNS)]
    median = statistics.median(seconds)
    row = {
        "case": f"nbgrader autograde, {count} submissions",
        "seconds": round(median, 1),
        "fastest": round(min(seconds), 1),
        "slowest": round(max(seconds), 1),
        "seconds a submission": round(median / count, 2),
        "runs": RUNS,
    }
    write(
        "autograde",
        what="Stock nbgrader grading the sample class of chapter 01: a kernel is started for each submission in turn.",
        command="python -m benchmarks.autograde",
        machine=f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        versions={name: version(name) for name in ("nbgrader", "torch", "ipykernel")},
        rows=[row],
    )


def _graded(environment: dict[str, str], place: Path) -> float:
    start = time.perf_counter()
    _call(["nbgrader", "autograde", CHAPTER, "--force"], environment, place)
    return time.perf_counter() - start


def _call(command: list[str], environment: dict[str, str], place: Path) -> None:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]], env=environment, cwd=place, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed; nothing was written:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
