"""Enters records into nbgrader's gradebook, by nbgrader itself, and tells what the gradebook holds.

What was entered is noted beside the record. The note is believed only as far as the gradebook agrees: one that was
lost, restored or exchanged for another is filled again from the records.
"""

import json
import shutil
from dataclasses import dataclass, field
from typing import Any

from nbgrader.api import Grade as Cell
from nbgrader.api import Gradebook, MissingEntry, Student, SubmittedAssignment
from nbgrader.apps import NbGraderAPI
from nbgrader.utils import parse_utc
from sqlalchemy import update

from autograder import feedback, late, manual, nbgrader_course
from autograder.record import Record, executed_path, mark_path
from autograder.roster import shown
from course.chapters import root
from course.files import write_whole
from course.students import former

_FOLDER = "(folder)"
"""What stands for a first name beside a folder's name: formgrader shows the two together or not at all."""


@dataclass
class Grade:
    """What became of one submission.

    Args:
        student: the student's folder name.
        identifier: what stands for the student in files' names and in the gradebook.
        fault: why it could not be graded; empty if it was.
        cells: points by cell, `None` where a person still has to grade.
        score: the sum so far, what lateness costs taken off.
        max_score: the sum that can be earned.
        late: whether it came after its due date.
        penalty: the points that were taken off for that.
        waiting: whether an answer awaits grading by hand.
        flags: how many things about it a person should look at.
        again: whether the gradebook had lost it, and it was entered again from its record.
    """

    student: str
    identifier: str
    fault: str = ""
    cells: dict[str, float | None] = field(default_factory=dict)
    score: float = 0.0
    max_score: float = 0.0
    late: bool = False
    penalty: float = 0.0
    waiting: bool = False
    flags: int = 0
    again: bool = False


class Book:
    """A chapter's place in the gradebook, open while a class is graded."""

    def __init__(self, chapter: str) -> None:
        """Open the gradebook, which knows the chapter."""
        self.chapter = chapter
        self._gradebook = Gradebook(nbgrader_course.database())
        self._nbgrader: NbGraderAPI | None = None

    def close(self) -> None:
        """Close the gradebook."""
        self._gradebook.close()

    def enter(self, record: Record) -> Grade:
        """Enter a record where the gradebook does not hold it, bring the penalty up to date, write the feedback."""
        grade = Grade(record.student, record.identifier, record.refused, flags=len(record.flags))
        if not record.refused:
            self._rename(record)
            noted = _noted(record)
            held = noted.get("digest") == record.digest
            if not held or noted.get("entered") != self._held(record):
                grade.fault = self._entered(record, same=held)
                grade.again = held and not grade.fault
        self._settle(record, grade)
        return grade

    def _settle(self, record: Record, grade: Grade) -> None:
        """What people gave, and a due date that was moved, may be new each time."""
        given = manual.Manual()
        submission = self._submission(record.identifier)
        if submission is not None and not record.refused:
            if late.renew(submission):
                self._gradebook.db.commit()
            given = manual.of_submission(submission)
            _fill_in(grade, submission)
        self._gradebook.db.rollback()  # ends the transaction: nbgrader writes by a connection of its own
        if not grade.fault or record.refused:
            path = feedback.place(self.chapter, record.identifier)
            feedback.write(record, given, path)

    def _entered(self, record: Record, *, same: bool) -> str:
        """Enter a record by nbgrader itself; returns what went wrong.

        Args:
            record: the record.
            same: this very record was entered before. Then points that people gave since need no second look.
        """
        reviewed = self._reviewed(record) if same else set()
        _lay_out(record, timed=self._takes_time(record))
        fault = nbgrader_course.run(self._api().autograde, self.chapter, record.identifier, create=True)
        if fault:
            return fault
        submission = self._submission(record.identifier)
        if submission is None:
            return "nbgrader entered nothing into the gradebook"
        submission.timestamp = parse_utc(record.handed_in) if record.handed_in else None
        for cell in _cells(submission):
            if cell.name in reviewed:
                cell.needs_manual_grade = False
        student = submission.student
        if record.identifier != record.student and not (student.last_name or student.first_name):
            student.last_name, student.first_name = _harmless(shown(record.student)), _FOLDER
        self._gradebook.db.commit()
        held = self._held(record)
        lost = {name: points for name, points in _points(record).items() if held["cells"].get(name) != points}
        if lost:
            return f"the gradebook does not hold the points of the record ({', '.join(sorted(lost))})"
        text = json.dumps({"digest": record.digest, "entered": held})
        write_whole(mark_path(self.chapter, record.identifier), lambda path: path.write_text(text, encoding="utf-8"))
        return ""

    def _takes_time(self, record: Record) -> bool:
        """Make ready for nbgrader's run; says whether it can deal with the time of submission."""
        submission = self._submission(record.identifier)
        orphan = submission is not None and submission.extension is not None and submission.assignment.duedate is None
        if submission is not None and orphan:
            submission.timestamp = None  # nbgrader would add the extension to the due date that there is not
        self._gradebook.db.commit()
        return not orphan

    def _held(self, record: Record) -> dict[str, Any]:
        """What the gradebook and its folder hold of a submission, but for what people gave."""
        submission = self._submission(record.identifier)
        graded = nbgrader_course.folder("autograded") / record.identifier / self.chapter / f"{self.chapter}.ipynb"
        if submission is None or not graded.exists():
            return {}
        time = submission.timestamp.isoformat() if submission.timestamp else ""
        return {"cells": {cell.name: cell.auto_score for cell in _cells(submission)}, "time": time}

    def _submission(self, identifier: str) -> SubmittedAssignment | None:
        try:
            return self._gradebook.find_submission(self.chapter, identifier)
        except MissingEntry:
            return None

    def _reviewed(self, record: Record) -> set[str]:
        """The cells to which people gave points, and that wait for nobody."""
        submission = self._submission(record.identifier)
        cells = _cells(submission) if submission else []
        return {cell.name for cell in cells if cell.manual_score is not None and not cell.needs_manual_grade}

    def _rename(self, record: Record) -> None:
        """Give a student who stands here under another identifier the one of now, with all that people gave."""
        db = self._gradebook.db
        before = [one for name in former(record.student, record.identifier) if (one := db.get(Student, name))]
        if not before or db.get(Student, record.identifier):
            return
        old = before[0]
        kept = {name: getattr(old, name) for name in ("first_name", "last_name", "email", "lms_user_id")}
        db.add(Student(id=record.identifier, **kept))
        db.flush()
        moved = update(SubmittedAssignment).where(SubmittedAssignment.student_id == old.id)
        db.execute(moved.values(student_id=record.identifier))
        db.expire_all()
        db.delete(old)
        db.commit()

    def _api(self) -> NbGraderAPI:
        if self._nbgrader is None:
            config = nbgrader_course.configuration()
            config.CourseDirectory.submitted_directory = "grading/rebuilt"
            config.Verdicts.from_record = True
            self._nbgrader = nbgrader_course.api(config)
        return self._nbgrader


def _noted(record: Record) -> dict[str, Any]:
    """What was noted when the record was entered; nothing where there is no note that can be read."""
    try:
        noted = json.loads(mark_path(record.chapter, record.identifier).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _points(record: Record) -> dict[str, float]:
    """The points of a record, by the cell of the gradebook."""
    return {f"{name.replace('.', '-')}-check": answer.result.points for name, answer in record.answers.items()}


def _cells(submission: SubmittedAssignment) -> list[Cell]:
    return [cell for notebook in submission.notebooks for cell in notebook.grades]


def _fill_in(grade: Grade, submission: SubmittedAssignment) -> None:
    """What the gradebook holds for a student."""
    grade.cells = {cell.name: None if cell.needs_manual_grade else cell.score for cell in _cells(submission)}
    grade.late, grade.penalty = late.is_late(submission), late.penalty(submission)
    grade.score, grade.max_score = max(0.0, submission.score - grade.penalty), submission.max_score
    grade.waiting = bool(submission.needs_manual_grade)


def _harmless(name: str) -> str:
    """A name as formgrader can show it: one of its pages takes it for HTML, the others for text."""
    return name.translate({ord("<"): "‹", ord(">"): "›", ord("&"): "＆"})


def _lay_out(record: Record, *, timed: bool) -> None:
    """Put the rebuilt notebook, and nothing else that a student sent, where nbgrader will read it."""
    folder = root() / "grading" / "rebuilt" / record.identifier / record.chapter
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(executed_path(record.chapter, record.identifier), folder / f"{record.chapter}.ipynb")
    if timed and record.handed_in:
        (folder / "timestamp.txt").write_text(record.handed_in, encoding="ascii")
