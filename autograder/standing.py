"""What a submission has earned so far: the points of its record, joined with those that people gave."""

from dataclasses import dataclass

from autograder.checks import of_chapter, register
from autograder.manual import Manual, ManualGrade
from autograder.record import Record

_PLACEHOLDERS = ("", "YOUR ANSWER HERE")
"""What stands in the cell of a question that nobody has answered."""


@dataclass(frozen=True)
class Item:
    """An exercise or a question with its points.

    Args:
        name: its name.
        points: the points earned; None while a person still has to grade.
        max_points: the points that can be earned.
        comment: what the grader wrote.
        changed: whether a person replaced the points that the checks gave.
    """

    name: str
    points: float | None
    max_points: float
    comment: str = ""
    changed: bool = False


@dataclass(frozen=True)
class Standing:
    """The points of one submission.

    Args:
        exercises: judged by the checks, in the chapter's order.
        questions: graded by hand.
        late_penalty: points taken off because it came late.
    """

    exercises: dict[str, Item]
    questions: dict[str, Item]
    late_penalty: float = 0.0

    @property
    def items(self) -> list[Item]:
        """Everything that gives points."""
        return [*self.exercises.values(), *self.questions.values()]

    @property
    def points(self) -> float:
        """The points earned so far, as nbgrader counts them."""
        return max(0.0, sum(item.points or 0 for item in self.items) - self.late_penalty)

    @property
    def max_points(self) -> float:
        """The points that can be earned."""
        return sum(item.max_points for item in self.items)

    @property
    def waiting(self) -> float:
        """The points that a person has still to decide on."""
        return sum(item.max_points for item in self.items if item.points is None)


def standing(record: Record, manual: Manual) -> Standing:
    """Join a record with what people gave."""
    most = {check.name: check.points for check in of_chapter(record.chapter)}
    most |= {name: answer.result.max_points for name, answer in record.answers.items()}
    exercises = {name: _exercise(record, name, points, manual) for name, points in most.items()}
    asked = [question for question in register().reflections.values() if question.chapter == record.chapter]
    questions = {question.name: _question(record, question.name, question.points, manual) for question in asked}
    return Standing(exercises, questions, manual.late_penalty)


def answered(text: str) -> bool:
    """Whether a student wrote anything in place of a question's empty answer."""
    return text.strip() not in _PLACEHOLDERS


def _exercise(record: Record, name: str, most: int, manual: Manual) -> Item:
    given = manual.grades.get(name, ManualGrade())
    judged = record.answers[name].result.points if name in record.answers else 0
    points = judged if given.points is None else given.points
    return Item(name, points, most, given.comment, changed=points != judged)


def _question(record: Record, name: str, most: int, manual: Manual) -> Item:
    given = manual.grades.get(name, ManualGrade())
    waits = given.points is None and answered(record.written.get(name, ""))
    return Item(name, None if waits else given.points or 0, most, given.comment)
