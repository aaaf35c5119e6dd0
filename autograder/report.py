"""What a class's records say together: grades, what went well, which mistakes are common, what a person should look at.

Everything is worked out here as plain data; `report_files` writes it as a page and as a table.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import nbformat

from autograder import manual, nbgrader_course
from autograder.checks import Check, of_chapter, register
from autograder.judge import Part
from autograder.library import reference_source
from autograder.record import Answer, Flag, How, Record, load, places
from autograder.roster import shown
from autograder.similar import Pair, pairs
from autograder.standing import Standing, answered, standing
from autograder.student_text import all_visible
from course.chapters import CourseError, source, title


@dataclass
class Row:
    """One student's line in the table of grades."""

    student: str
    standing: Standing
    record: Record

    @property
    def mistakes(self) -> list[str]:
        """The misconceptions found, as `exercise: name`."""
        return [f"{name}: {one}" for name, answer in self.record.answers.items() for one in answer.result.diagnoses]

    @property
    def stopped(self) -> list[tuple[str, How]]:
        """The exercises whose examination was cut short, and by what."""
        ends = [(name, answer.how) for name, answer in self.record.answers.items()]
        return [(name, how) for name, how in ends if how not in ("answered", "not tried")]


@dataclass
class Success:
    """How many students earned all, some or none of the points of an exercise, and who passed each of its parts."""

    exercise: str
    full: int
    some: int
    none: int
    parts: list[tuple[str, int, int]]
    """Name, students who passed it, students who were judged."""


@dataclass
class Mistake:
    """A misconception: what a tutor would say of it, and who has it."""

    exercise: str
    name: str
    message: str
    students: list[str] = field(default_factory=list)


@dataclass
class ClassReport:
    """Everything that the report says of a chapter.

    Args:
        chapter: the chapter.
        title: its heading.
        rows: the students, sorted.
        success: by exercise, in the chapter's order.
        mistakes: the commonest first.
        unexplained: student, exercise and message of each loss of points that no known misconception explains.
        repairs: sentence -> the students whose notebooks were mended so.
        flags: what a person should look at, with the student.
        pairs: submissions that are nearly the same; None where they were not compared.
        unreadable: records that could not be read.
        anonymous: whether students have pseudonyms; then nothing that a student wrote is in it.
    """

    chapter: str
    title: str
    rows: list[Row]
    success: list[Success]
    mistakes: list[Mistake]
    unexplained: list[tuple[str, str, str]]
    repairs: dict[str, list[str]]
    flags: list[tuple[str, Flag]]
    pairs: Sequence[Pair] | None = None
    unreadable: list[str] = field(default_factory=list)
    anonymous: bool = False

    @property
    def graded(self) -> list[Row]:
        """The students whose submission was not refused."""
        return [row for row in self.rows if not row.record.refused]

    @property
    def refused(self) -> list[Row]:
        """The students whose submission was refused."""
        return [row for row in self.rows if row.record.refused]

    @property
    def max_points(self) -> float:
        """The most that a student can earn."""
        return max((row.standing.max_points for row in self.rows), default=0.0)

    @property
    def median(self) -> float:
        """The median of the points so far, over the submissions that could be graded."""
        return statistics.median([row.standing.points for row in self.graded] or [0.0])

    @property
    def distribution(self) -> list[tuple[str, int]]:
        """How many students have how many points: at most 21 bars, each of the same whole number of points."""
        width = int(self.max_points) // 21 + 1
        counts = Counter(int(row.standing.points) // width for row in self.graded)
        starts = range(0, int(self.max_points) + 1, width)
        labels = {start: f"{start}" if width == 1 else f"{start}–{start + width - 1}" for start in starts}
        return [(label, counts[start // width]) for start, label in labels.items()]


def records(chapter: str) -> tuple[list[Record], list[str]]:
    """The records of a chapter, and the names of the files that could not be read.

    Raises:
        CourseError: there is no such chapter, or nothing has been graded.
    """
    source(chapter)
    read = {path: load(path) for path in sorted(places(chapter).glob("*.json"))}
    newest: dict[str, Record] = {}
    for record in sorted((record for record in read.values() if record), key=lambda record: record.graded):
        newest[record.student] = record  # an older one may lie under an identifier that stood for the student before
    if not newest:
        why = f"No record of grading can be read in {places(chapter)}"
        raise CourseError(f"{why}. Grade the class first: `course grade {chapter}`. Nothing was changed.")
    return list(newest.values()), [path.name for path, record in read.items() if record is None]


def similar_pairs(found: list[Record]) -> list[Pair]:
    """The submissions that are nearly the same, by the students' names."""
    names = {one.identifier: shown(one.student) for one in found}
    sources = {one.identifier: {name: answer.source for name, answer in one.answers.items()} for one in found}
    alike = pairs(sources, _stubs(found[0].chapter), known=_known(found[0].chapter))
    return [replace(pair, first=names[pair.first], second=names[pair.second]) for pair in alike]


def _known(chapter: str) -> list[dict[str, str]]:
    """The course's own solutions: what they have in common with a student's is no evidence."""
    checks = of_chapter(chapter)
    variants = max(len(check.variants) for check in checks)
    own = [{check.name: reference_source(check) for check in checks}]
    return own + [
        {check.name: check.variants[number].source for check in checks if number < len(check.variants)}
        for number in range(variants)
    ]


def _stubs(chapter: str) -> dict[str, str]:
    """What the released notebook gives to start from, by exercise."""
    path = nbgrader_course.folder("release") / chapter / f"{chapter}.ipynb"
    cells = nbformat.read(path, as_version=4).cells if path.exists() else []
    by_id = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source for cell in cells}
    names = {check.name: check.name.replace(".", "-") for check in of_chapter(chapter)}
    return {name: by_id[grade_id] for name, grade_id in names.items() if grade_id in by_id}


def gather(
    found: list[Record],
    given: dict[str, manual.Manual],
    *,
    pairs: Sequence[Pair] | None = None,
    unreadable: Sequence[str] = (),
    pseudonym: Callable[[str], str] | None = None,
    by_points: bool = False,
) -> ClassReport:
    """Work out the report of a chapter.

    Args:
        found: the records.
        given: identifier -> what people gave.
        pairs: submissions that are nearly the same.
        unreadable: records that could not be read.
        pseudonym: gives each student another name; then what only the instructor may see is left out.
        by_points: sort the students by their points, the most first, not by name.
    """
    visible = [all_visible(_anonymous(one, pseudonym) if pseudonym else _one_line(one)) for one in found]
    rows = [
        Row(record.student, standing(record, given.get(original.identifier, manual.Manual())), record)
        for record, original in zip(visible, found, strict=True)
    ]
    rows.sort(key=lambda row: row.student)
    if by_points:
        rows.sort(key=lambda row: -row.standing.points)  # a stable sort: equals stay in the order of their names
    chapter = found[0].chapter
    judged = [row for row in rows if not row.record.refused]
    return ClassReport(
        chapter=chapter,
        title=title(chapter),
        rows=rows,
        success=[_success(check, judged) for check in of_chapter(chapter)],
        mistakes=_mistakes(judged),
        unexplained=[] if pseudonym else _unexplained(judged),
        repairs=_repairs(judged),
        flags=[(row.student, flag) for row in rows for flag in row.record.flags],
        pairs=None if pseudonym or pairs is None else all_visible(list(pairs)),
        unreadable=[] if pseudonym else all_visible(list(unreadable)),
        anonymous=pseudonym is not None,
    )


def _one_line(record: Record) -> Record:
    return replace(record, student=shown(record.student))


def _anonymous(record: Record, pseudonym: Callable[[str], str]) -> Record:
    """The record without what the student wrote and without what only the instructor may see."""
    return Record(
        chapter=record.chapter,
        student=pseudonym(record.student),
        seed=record.seed,
        digest="",
        answers={name: Answer(answer.result, answer.how) for name, answer in record.answers.items()},
        written={name: "an answer" for name, text in record.written.items() if answered(text)},
        refused="It could not be graded." if record.refused else "",
    )


def _success(check: Check, rows: list[Row]) -> Success:
    points = [row.standing.exercises[check.name].points or 0 for row in rows]
    full = sum(earned >= check.points for earned in points)
    none = sum(earned == 0 for earned in points)
    parts = [(name, *_passed(check.name, name, rows)) for name in check.parts]
    return Success(check.name, full, len(points) - full - none, none, parts)


def _passed(exercise: str, part: str, rows: list[Row]) -> tuple[int, int]:
    judged = [_part(row.record, exercise, part) for row in rows]
    return sum(one is not None and one.status == "ok" for one in judged), len(judged)


def _part(record: Record, exercise: str, name: str) -> Part | None:
    parts = record.answers[exercise].result.parts if exercise in record.answers else []
    return next((part for part in parts if part.name == name), None)


def _mistakes(rows: list[Row]) -> list[Mistake]:
    found: dict[tuple[str, str], Mistake] = {}
    for row in rows:
        for exercise, answer in row.record.answers.items():
            for name in answer.result.diagnoses:
                mistake = found.setdefault((exercise, name), Mistake(exercise, name, _sentence(exercise, name)))
                mistake.students.append(row.student)
    return sorted(found.values(), key=lambda mistake: (-len(mistake.students), mistake.exercise, mistake.name))


def _sentence(exercise: str, misconception: str) -> str:
    check = register().checks.get(exercise)
    known = {one.name: one.message for one in check.misconceptions} if check else {}
    return known.get(misconception, "")


def _unexplained(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [
        (row.student, exercise, answer.result.messages[-1])
        for row in rows
        for exercise, answer in row.record.answers.items()
        if answer.result.points < answer.result.max_points and answer.result.messages and not answer.result.diagnoses
    ]


def _repairs(rows: list[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        for repair in row.record.repairs:
            found.setdefault(repair, []).append(row.student)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))
