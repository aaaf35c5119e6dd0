"""Lets stock `nbgrader export` write a table that is only a table: nbgrader's own quotes nothing."""

from pathlib import Path

from nbgrader.api import Assignment, Gradebook, MissingEntry, Student
from nbgrader.plugins import CsvExportPlugin

from autograder import late, tables
from autograder.tables import Cell

HEADS = [
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email", "raw_score",
    "late_submission_penalty", "score", "max_score",
]  # fmt: skip


class GradesExport(CsvExportPlugin):  # type: ignore[misc]
    """Exports the same columns as nbgrader's plugin, with the penalties as the due dates are now."""

    def export(self, gradebook: Gradebook) -> None:
        """Write the table to `to`, which `nbgrader_config.py` and `--to` set."""
        path = Path(self.to or "grades.csv")
        students, assignments = {str(one) for one in self.student}, {str(one) for one in self.assignment}
        rows = [
            _row(gradebook, assignment, student)
            for assignment in gradebook.assignments
            if not assignments or assignment.name in assignments
            for student in gradebook.students
            if not students or student.id in students
        ]
        self.log.info("Exporting grades to %s", path)
        path.write_text(tables.text([HEADS, *rows], quoted=False), encoding="utf-8", newline="")


def _row(gradebook: Gradebook, assignment: Assignment, student: Student) -> list[Cell]:
    names = [student.last_name, student.first_name, student.email]
    try:
        submission = gradebook.find_submission(assignment.name, student.id)
        off = late.penalty(submission)
        time, points = submission.timestamp, [submission.score, off, max(0.0, submission.score - off)]
    except MissingEntry:
        time, points = None, [0.0, 0.0, 0.0]
    whose: list[object] = [assignment.name, assignment.duedate, time, student.id, *names]
    return [*("" if one is None else str(one) for one in whose), *points, assignment.max_score]
