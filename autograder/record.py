"""What grading found out about one submission, as plain data: the one source of scores, feedback and reports.

The record of a student's chapter is one JSON file, `grading/records/CHAPTER/ID.json`, written whole or not at all; ID
is the identifier that stands for the student's folder name.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from autograder.judge import Part, Result
from course.chapters import root
from course.files import write_whole
from course.students import identifiers

VERSION = 1

How = Literal["answered", "not tried", "time", "crash", "memory", "flood"]
"""How an exercise's examination ended: with an answer, never begun, or with what stopped it."""


@dataclass
class Flag:
    """Something about a submission that a person should look at.

    Args:
        kind: a word to count by, for example `claim`, `symlink`, `forged`.
        cell: the cell's grade_id; empty where it concerns the whole submission.
        message: one sentence for the instructor.
    """

    kind: str
    cell: str
    message: str


@dataclass
class Answer:
    """The verdict on one exercise.

    Args:
        result: the judge's verdict; sealed, never changed afterwards.
        how: how the examination ended.
        instead: exercises that had lost points and for which the reference stood in while this one was judged.
        source: the student's code in the exercise's cell.
        seconds: how long the examination took.
    """

    result: Result
    how: How = "answered"
    instead: list[str] = field(default_factory=list)
    source: str = ""
    seconds: float = 0.0


@dataclass
class Record:
    """What became of one submission.

    Args:
        chapter: the chapter.
        student: the student's folder name.
        seed: the seed of the hidden inputs.
        digest: of everything that the verdict follows from: submission, release, checks, seed.
        graded: when it was examined, in UTC, ISO 8601.
        handed_in: when it was handed in, as nbgrader reads it; empty where that is not known.
        answers: exercise -> verdict, in the chapter's order.
        written: question -> the student's text.
        notes: text of the student's own that answers no question.
        flags: what the instructor should look at.
        repairs: what was mended in the notebook before it was graded, in sentences for the student.
        refused: why the submission could not be graded at all; empty if it was.
        identifier: what stands for the student in files' names and in the gradebook.
    """

    chapter: str
    student: str
    seed: int
    digest: str
    graded: str = ""
    handed_in: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    refused: str = ""
    identifier: str = ""

    def __post_init__(self) -> None:
        """Without another word, a student has the identifier that the name alone gives."""
        self.identifier = self.identifier or identifiers([self.student])[self.student]

    @property
    def points(self) -> int:
        """The points that the checks gave."""
        return sum(answer.result.points for answer in self.answers.values())

    @property
    def max_points(self) -> int:
        """The points that the checks could give."""
        return sum(answer.result.max_points for answer in self.answers.values())

    def save(self, path: Path) -> None:
        """Write the record whole or not at all.

        Raises:
            OSError: it cannot be written; an older record is still there.
        """
        text = json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"
        write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def place(chapter: str, identifier: str) -> Path:
    """Where the record of a student's chapter is."""
    return places(chapter) / f"{identifier}.json"


def executed_path(chapter: str, identifier: str) -> Path:
    """Where the notebook is kept as it was executed."""
    return place(chapter, identifier).with_suffix(".ipynb")


def mark_path(chapter: str, identifier: str) -> Path:
    """Where it is noted what was entered into the gradebook."""
    return place(chapter, identifier).with_suffix(".entered")


def places(chapter: str) -> Path:
    """The folder with the records of a chapter."""
    return root() / "grading" / "records" / chapter


def load(path: Path) -> Record | None:
    """Read a record; None where there is none, or none of this version that can be read."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("version") != VERSION:
            return None
        data["answers"] = {name: _answer(answer) for name, answer in data["answers"].items()}
        data["flags"] = [Flag(**flag) for flag in data["flags"]]
        data["identifier"] = path.stem  # a file that was moved stands for whom its name says
        return Record(**data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _answer(data: dict[str, Any]) -> Answer:
    result = data.pop("result")
    parts = [Part(**part) for part in result.pop("parts")]
    return Answer(result=Result(parts=parts, **result), **data)
