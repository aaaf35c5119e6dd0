"""A small class to try grading on, made from the references, the variants, the misconceptions and the stub."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode

from autograder import nbgrader_course
from autograder.checks import Check, of_chapter
from autograder.release import release
from autograder.similar import fingerprints
from course.stubs import solution_cell

MARKER = "sample-class.txt"
"""Stands in each sample submission, so that a real one is never overwritten."""


@dataclass(frozen=True)
class Student:
    """One imaginary student.

    Args:
        name: the folder's name.
        sources: what they write into the solution cell of each exercise; an exercise left out stays a stub.
        answers: whether they answer the questions.
    """

    name: str
    sources: dict[str, str]
    answers: bool


def students(chapter: str) -> Iterator[Student]:
    """The class of a chapter: the reference, the stub, a misconception an exercise, some variants, and two copies.

    The first few already show each kind of result but one, so that a smaller class is worth a look.
    """
    checks = of_chapter(chapter)
    right = {check.name: reference_source(check) for check in checks}
    yield Student("reference", right, answers=True)
    yield Student("stub", {}, answers=False)
    for check in reversed(checks):
        slip = check.misconceptions[0]
        name = f"slip-{check.symbol}".lower().replace("_", "-")
        yield Student(name, right | {check.name: slip.source}, answers=False)
    for index in range(min(len(check.variants) for check in checks)):
        yield Student(f"variant-{index + 1}", {c.name: c.variants[index].source for c in checks}, answers=True)
    same = {check.name: _own_mistake(check) for check in checks}
    yield Student("alike-1", same, answers=False)
    yield Student("alike-2", {name: f"# All my own work.\n{source}" for name, source in same.items()}, answers=False)


def _own_mistake(check: Check) -> str:
    """The misconception that has the least in common with correct solutions: to have made it too is evidence."""
    correct = [reference_source(check), *(variant.source for variant in check.variants)]
    known = frozenset[bytes]().union(*map(fingerprints, correct))
    return max((one.source for one in check.misconceptions), key=lambda source: len(fingerprints(source) - known))


def reference_source(check: Check) -> str:
    """The reference as a student would have written it: without the instructor's markers."""
    lines = solution_cell(check.reference).splitlines()
    return "\n".join(line for line in lines if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION"))


def solve(notebook: NotebookNode, student: Student) -> NotebookNode:
    """Fill in a released notebook as this student would."""
    by_id = {name.replace(".", "-"): source for name, source in student.sources.items()}
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution") and cell.cell_type == "code" and marks["grade_id"] in by_id:
            cell.source = by_id[marks["grade_id"]]
        elif marks.get("solution") and cell.cell_type == "markdown" and student.answers:
            cell.source = "An answer in my own words, which a person will read and grade."
    return notebook


def write_class(chapter: str, size: int | None = None) -> list[Path]:
    """Write the class's submissions of a chapter where nbgrader looks for them.

    Args:
        chapter: the chapter.
        size: how many students; all of them by default.

    Returns:
        The notebooks written; one that a real student handed in under the same name is left alone.
    """
    release(chapter)
    released = nbgrader_course.folder("release") / chapter / f"{chapter}.ipynb"
    written = []
    for student in islice(students(chapter), size):
        place = nbgrader_course.folder("submitted") / student.name / chapter
        if place.exists() and not (place / MARKER).exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        (place / MARKER).write_text("Made by `course sample`; not the work of a student.\n", encoding="utf-8")
        path = place / released.name
        nbformat.write(solve(nbformat.read(released, as_version=4), student), path)
        written.append(path)
    return written
