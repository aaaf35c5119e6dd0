"""Grades a class with stock nbgrader: gradebook, autograded notebooks and feedback are where nbgrader puts them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry

from autograder import nbgrader_course
from autograder.release import release
from course.chapters import CourseError, source


@dataclass
class Grade:
    """What became of one submission.

    Args:
        student: the student's folder name.
        fault: why it could not be graded; empty if it was.
        cells: points by cell, `None` where a person still has to grade.
        score: the sum so far.
        max_score: the sum that can be earned.
        waiting: whether an answer awaits grading by hand.
    """

    student: str
    fault: str = ""
    cells: dict[str, float | None] = field(default_factory=dict)
    score: float = 0.0
    max_score: float = 0.0
    waiting: bool = False


def submissions(chapter: str, student: str = "*") -> list[Path]:
    """The notebooks handed in for a chapter.

    Raises:
        CourseError: there is no such chapter, or nothing was handed in.
    """
    source(chapter)
    submitted = nbgrader_course.folder("submitted")
    found = sorted(submitted.glob(f"{student}/{chapter}/{chapter}.ipynb"))
    if not found:
        place = submitted / ("STUDENT" if student == "*" else student) / chapter / f"{chapter}.ipynb"
        raise CourseError(
            f"No submissions found in {submitted / student / chapter}. Put each student's notebook at {place}, or make "
            f"a sample class with `course sample {chapter}`. Nothing was changed."
        )
    return found


def grade(chapter: str, paths: list[Path], done: Callable[[], None] = lambda: None) -> Iterator[Grade]:
    """Grade submissions one after the other; each is complete in the gradebook before the next begins.

    Args:
        chapter: the chapter.
        paths: notebooks as `submissions` lists them.
        done: called after each, for a progress bar.
    """
    release(chapter)  # also sees that the gradebook is free and knows the chapter
    nbgrader = nbgrader_course.api()
    for path in paths:
        student = path.parent.parent.name
        fault = nbgrader_course.run(nbgrader.autograde, chapter, student, create=True)
        if not fault:
            fault = nbgrader_course.run(nbgrader.generate_feedback, chapter, student)
        done()
        yield Grade(student, fault) if fault else recorded(chapter, student)


def recorded(chapter: str, student: str) -> Grade:
    """What the gradebook holds for a student."""
    with Gradebook(nbgrader_course.database()) as gradebook:
        try:
            submission = gradebook.find_submission(chapter, student)
        except MissingEntry:
            return Grade(student, "the gradebook has no submission")
        cells = {
            grade.name: None if grade.needs_manual_grade else grade.score
            for notebook in submission.notebooks
            for grade in notebook.grades
        }
        return Grade(student, "", cells, submission.score, submission.max_score, bool(submission.needs_manual_grade))
