"""What hostile submissions get, and what stock nbgrader gives them: each in turn, on the same notebooks.

Stock nbgrader runs in a mount and process namespace of its own, so that this machine survives; what would take the
machine down all the same is not run there.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from rich.progress import track

from autograder.attacks import CHAPTER, HOSTILE, Handed
from autograder.record import load
from benchmarks import scratch
from benchmarks.results import path_of, write

SECONDS = 300


def main() -> None:
    """Grade every hostile submission both ways and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-stock", action="store_true", help="try stock nbgrader on new submissions alone")
    known = _last_of_stock() if parser.parse_args().keep_stock else {}
    with tempfile.TemporaryDirectory() as folder:
        ours = scratch.make(Path(folder) / "ours")
        stock = scratch.make(Path(folder) / "stock", stock=True)
        for place in (ours, stock):
            scratch.call(["course", "release", CHAPTER], place)
        released = nbformat.read(ours / "notebooks" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
        for attack in HOSTILE:
            attack.write(ours / "grading" / "submitted" / attack.name / CHAPTER, released)
        scratch.call(["course", "grade", CHAPTER], ours, tolerant=True)  # its exit code says that some were refused
        rows = [_row(attack, ours, stock, released, known) for attack in track(HOSTILE, "stock nbgrader")]
    write(
        "attacks",
        what=f"Points that hostile submissions of {CHAPTER} get out of 12: here, and from stock nbgrader.",
        command="python -m benchmarks.attacks",
        machine=f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        versions={name: version(name) for name in ("nbgrader", "torch", "ipykernel")},
        rows=rows,
    )


def _last_of_stock() -> dict[tuple[str, str], str]:
    """What stock nbgrader gave when the table was last made, by the submission and what it does."""
    rows = json.loads(path_of("attacks").read_text(encoding="utf-8"))["rows"]
    return {(row["submission"], row["what it does"]): row["stock nbgrader"] for row in rows}


def _row(
    attack: Handed, ours: Path, stock: Path, released: nbformat.NotebookNode, known: dict[tuple[str, str], str]
) -> dict[str, object]:
    there = "not run: harmful" if attack.harmful else known.get((attack.name, attack.what), "")
    return {
        "submission": attack.name,
        "what it does": attack.what,
        "deserves": "refused" if attack.refused else f"{attack.points:g}",
        "here": _here(ours, attack.name),
        "stock nbgrader": there or _stock(attack, stock, released),
        "why": attack.why,
    }


def _here(course: Path, student: str) -> str:
    record = load(course / "grading" / "records" / CHAPTER / f"{student}.json")
    if record is None:
        return "no record"
    return "refused" if record.refused else _points(course, student)


def _stock(attack: Handed, stock: Path, released: nbformat.NotebookNode) -> str:
    """Grade one submission in a copy of the course, for what it may do to the course itself."""
    course = Path(shutil.copytree(stock, stock.parent / "one"))
    attack.write(course / "grading" / "submitted" / attack.name / CHAPTER, released)
    home = course / "home"
    home.mkdir()
    walls = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-pid", "--proc", "/proc", "--die-with-parent"]
    walls += ["--bind", str(course), str(course)]
    command = [scratch.program("nbgrader"), "autograde", CHAPTER, f"--student={attack.name}"]
    try:
        done = subprocess.run(
            [*walls, *command],
            cwd=course,
            env=scratch.environment(course) | {"HOME": str(home), "TMPDIR": str(home)},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        return _points(course, attack.name) if done.returncode == 0 else "stops with an error"
    except subprocess.TimeoutExpired:
        return "hangs"
    finally:
        shutil.rmtree(course)


def _points(course: Path, student: str) -> str:
    """The automatic points that the gradebook has."""
    with Gradebook(f"sqlite:///{course}/grading/gradebook.db") as gradebook:
        try:
            grades = gradebook.find_submission_notebook(CHAPTER, CHAPTER, student).grades
        except MissingEntry:
            return "none"
        return f"{sum(grade.auto_score or 0 for grade in grades if grade.name.endswith('-check')):g}"


if __name__ == "__main__":
    main()
