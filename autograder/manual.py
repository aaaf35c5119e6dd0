"""What people gave in nbgrader's gradebook: points for written answers, changed points, comments."""

from dataclasses import dataclass, field
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry, SubmittedAssignment
from sqlalchemy.engine import make_url

from autograder import late, nbgrader_course
from autograder.checks import register


@dataclass(frozen=True)
class ManualGrade:
    """What a person gave for one exercise or question.

    Args:
        points: the points, extra credit included; None where nobody has given any.
        comment: what the grader wrote.
    """

    points: float | None = None
    comment: str = ""


@dataclass(frozen=True)
class Manual:
    """What people gave for one submission.

    Args:
        grades: by the name of the exercise or question.
        late_penalty: points taken off because it came late.
    """

    grades: dict[str, ManualGrade] = field(default_factory=dict)
    late_penalty: float = 0.0


def of_student(chapter: str, student: str, url: str = "") -> Manual:
    """What the gradebook holds for one submission; nothing where it has none.

    Args:
        chapter: the chapter.
        student: the student's identifier.
        url: the gradebook; the course's own by default.
    """
    if not _exists(url or nbgrader_course.database()):
        return Manual()
    with Gradebook(url or nbgrader_course.database()) as gradebook:
        try:
            return of_submission(gradebook.find_submission(chapter, student))
        except MissingEntry:
            return Manual()


def of_class(chapter: str) -> dict[str, Manual]:
    """What the gradebook holds for each student who handed in a chapter, by identifier."""
    if not _exists(nbgrader_course.database()):
        return {}
    with Gradebook(nbgrader_course.database()) as gradebook:
        try:
            submissions = gradebook.assignment_submissions(chapter)
        except MissingEntry:
            return {}
        return {submission.student_id: of_submission(submission) for submission in submissions}


def _exists(database: str) -> bool:
    """Whether there is a gradebook: to open one in SQLite would make it."""
    url = make_url(database)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


def of_submission(submission: SubmittedAssignment) -> Manual:
    """What people gave for a submission, and what lateness costs as the due date is now."""
    names = {_cell(name): name for name in (*register().checks, *register().reflections)}
    points: dict[str, float] = {}
    comments: dict[str, str] = {}
    for notebook in submission.notebooks:
        for grade in notebook.grades:
            question = grade.name.endswith("-answer")
            given = grade.manual_score is not None or bool(grade.extra_credit)
            if _cell(grade.name) in names and (given or (question and not grade.needs_manual_grade)):
                points[names[_cell(grade.name)]] = grade.score
        for comment in notebook.comments:
            if _cell(comment.name) in names and comment.comment:
                comments[names[_cell(comment.name)]] = comment.comment
    grades = {name: ManualGrade(points.get(name), comments.get(name, "")) for name in {**points, **comments}}
    return Manual(grades, late.penalty(submission))


def _cell(name: str) -> str:
    """The part of a cell's grade_id that names the exercise or question."""
    return name.replace(".", "-").removesuffix("-check").removesuffix("-answer")
