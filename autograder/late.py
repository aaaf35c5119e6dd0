"""What lateness costs, worked out from the gradebook as it stands: a due date may be moved after grading."""

from nbgrader.api import SubmittedAssignment, SubmittedNotebook
from nbgrader.preprocessors import AssignLatePenalties

from autograder import nbgrader_course


def is_late(submission: SubmittedAssignment) -> bool:
    """Whether a submission came after its due date, extensions included."""
    return _seconds(submission) > 0


def penalty(submission: SubmittedAssignment) -> float:
    """The points that lateness takes off a submission, by the rule that nbgrader is set to.

    Where there is no due date, what the gradebook says: a date that was taken away counts from the next run.
    """
    if submission.assignment.duedate is None:
        return float(submission.late_submission_penalty or 0.0)
    return sum(_penalty(notebook, _seconds(submission)) or 0.0 for notebook in submission.notebooks)


def renew(submission: SubmittedAssignment) -> bool:
    """Put the penalty of a submission right in the gradebook; says whether it was another, and must be committed."""
    changed = False
    for notebook in submission.notebooks:
        due = _penalty(notebook, _seconds(submission))
        if (notebook.late_submission_penalty or 0.0) != (due or 0.0):
            notebook.late_submission_penalty = due
            changed = True
    return changed


def _seconds(submission: SubmittedAssignment) -> float:
    # nbgrader adds an extension to the due date even where there is none.
    return float(submission.total_seconds_late) if submission.assignment.duedate is not None else 0.0


def _penalty(notebook: SubmittedNotebook, seconds: float) -> float | None:
    if seconds <= 0:
        return None
    rule = AssignLatePenalties(config=nbgrader_course.configuration())
    rule.init_plugin()
    due = rule.plugin_inst.late_submission_penalty(notebook.student.id, notebook.score, seconds)
    return None if due is None else float(rule._check_late_penalty(notebook, due))
