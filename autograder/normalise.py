"""Rebuilds a submitted notebook from the released one, so that a student's slip with cells costs nothing.

The result holds exactly the released cells in the released order. From the submission come the code of the exercises,
the text of the answers, and the code cells that are the student's own, each where it stood. Text of theirs that answers
nothing is kept beside it.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import pairwise

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell

from autograder import answers, choosing
from autograder.answers import Question, Text
from autograder.cells import Cell
from autograder.exercise_code import Block, Taken, Wanted, as_code, assign
from autograder.record import Flag
from autograder.released import Place, recognise
from autograder.submission import Submission, read
from autograder.suspicion import hidden_change

__all__ = ["Normalised", "Submission", "read", "rebuild"]

MAX_CELLS = 2000
MAX_CELL = 50_000
"""Characters of one cell; a long solution has 3,000."""
MAX_CODE = 400_000
MAX_OWN_CELLS = 300
MAX_VERSIONS = 10
MAX_SAID = 50
_SKIP = "skip-execution"
_MARKS = ("grade", "solution", "locked", "points", "schema_version", "task")


@dataclass
class Normalised:
    """A submission on the released notebook.

    Args:
        notebook: what is to be graded; None where it was refused.
        repairs: what was mended, in sentences for the student.
        flags: what the instructor should look at.
        sources: exercise -> the student's code, or the released stub.
        written: question -> the student's text; empty where nothing was written.
        notes: text of the student's own that is no answer.
        digest: of everything that was read.
        refused: why nothing can be graded; empty if it can.
    """

    notebook: NotebookNode | None
    repairs: list[str]
    flags: list[Flag]
    sources: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    digest: str = ""
    refused: str = ""


def rebuild(submission: Submission, release: NotebookNode, student_release: NotebookNode) -> Normalised:
    """Put a student's work into the released notebook; never raises for what the student sent.

    Args:
        submission: what was read.
        release: the instructor's edition, with the hidden part of the checks.
        student_release: what the student was given.
    """
    places = [Place(ours, given.source) for ours, given in zip(release.cells, student_release.cells, strict=True)]
    submission = choosing.chosen(submission, lambda cells: work(cells, places))
    result = Normalised(None, list(submission.repairs), list(submission.flags), digest=submission.digest)
    result.refused = submission.refused
    if not result.refused:
        rebuilding = _Rebuilding(submission.cells, places, result)
        rebuilding.run(release, submission.chapter)
        if submission.files and not all(rebuilding.work().get(place.name) for place in places if place.is_open):
            names = ", ".join(submission.files[:5])
            rebuilding.flag(
                "beside", "", f"There is work beside the notebook, or what may be: {names}. It was not read."
            )
    return result


def work(cells: list[Cell], places: list[Place]) -> dict[str, str]:
    """What a notebook holds of a student's own: exercise or question -> code or text.

    Args:
        cells: the notebook's.
        places: the released cells.
    """
    rebuilding = _Rebuilding(cells, places, Normalised(None, [], []))
    rebuilding.find()
    return rebuilding.work()


@dataclass(eq=False)
class _Own:
    """A code cell of the student's own, or a released one as they changed it, and the place after which it stands."""

    cell: Cell
    after: int


class _Rebuilding:
    def __init__(self, cells: list[Cell], places: list[Place], result: Normalised) -> None:
        self.places = places
        self.result = result
        self.submitted = len(cells)
        self.cells = cells[:MAX_CELLS]
        self.found = recognise(self.cells, places)
        self.at: dict[int, list[Cell]] = {}  # place -> the cells that were recognised as it
        self.own: list[_Own] = []
        self.texts: list[Text] = []
        self.released = {
            line.strip()
            for place in places
            for source in (place.given, place.cell.source)
            for line in source.split("\n")
        }
        self.taken: dict[str, Taken] = {}
        self.questions: list[Question] = []

    def find(self) -> None:
        """Find the code of every exercise and the text of every answer."""
        self._limit()
        self._sort()
        self._compare_marks()
        self._exercises()
        self._answers()

    def work(self) -> dict[str, str]:
        """What was found, by exercise and question; nothing for those that are as released."""
        found = {name: one.source for name, one in self.taken.items() if one.given}
        return found | {one.name: one.text for one in self.questions if one.text}

    def run(self, release: NotebookNode, chapter: str) -> None:
        """Put what is found into the released notebook, or say why nothing can be graded."""
        self.find()
        if not any(self.places[i].grade_id for i in self.at) and not self.work():
            self.result.refused = f"It holds no cell of chapter {chapter}. Hand in the chapter's own notebook."
            return
        self._complain_of_missing()
        self._complain_of_order()
        for place in self.places:
            if place.is_solution:
                one = self.taken[place.name]
                self.result.sources[place.name] = one.source
                self.result.repairs += one.repairs
                for kind, message in one.flags:
                    self.flag(kind, place.grade_id, message)
        for question in self.questions:
            self.result.written[question.name] = question.text[:MAX_CELL]
            self.result.repairs += question.repairs
            for message in question.flags:
                self.flag("answer", self.places[question.place].grade_id, message)
        self.result.notes += [one.text for one in self.texts if one.kind == "text" and not one.used]
        self._look_for_hidden_changes()
        self.result.repairs = list(dict.fromkeys(self.result.repairs))[:MAX_SAID]
        self.result.notebook = self._assemble(release)

    def _limit(self) -> None:
        """Empty cells that are far too long, graded cells last, so that what follows takes little time and memory."""
        if self.submitted > MAX_CELLS:
            self.flag("size", "", f"The notebook holds {self.submitted:,} cells. The first {MAX_CELLS:,} were read.")
            self.result.repairs.append(f"Only the first {MAX_CELLS:,} of {self.submitted:,} cells were read.")
        left = MAX_CODE
        beyond = False
        for i in sorted(range(len(self.cells)), key=lambda i: not self._is_graded(i)):
            cell, size = self.cells[i], len(self.cells[i].source)
            if size <= min(MAX_CELL, left):
                left -= size
                continue
            self.cells[i] = replace(cell, source="")
            if size > MAX_CELL:
                self._say_too_long(i, size)
            else:
                beyond = True
        if beyond:
            self.flag("size", "", f"The notebook holds more than {MAX_CODE:,} characters of text. Some was left out.")

    def _is_graded(self, i: int) -> bool:
        place = self.found[i]
        return place is not None and bool(self.places[place].grade_id)

    def _say_too_long(self, i: int, size: int) -> None:
        place = self.found[i]
        what = f"A cell of `{self.places[place].name}`" if place is not None and self._is_graded(i) else "A cell"
        self.result.repairs.append(
            f"{what} holds {size:,} characters, and at most {MAX_CELL:,} are read. It was graded as if empty."
        )

    def _sort(self) -> None:
        """Tell the released cells from the student's own, and remember where those stand."""
        after = -1
        for cell, place in zip(self.cells, self.found, strict=True):
            after = after if place is None else place
            if place is not None:
                self.at.setdefault(place, []).append(cell)
            self._keep_words(cell, place, after)
            # What a student changed in a released cell may be needed further down (an import, a helper), so their
            # version runs behind ours. Ours runs too: nobody loses what the chapter itself defines.
            if place is not None and (self.places[place].is_open or self.places[place].is_as_given(cell)):
                continue
            if cell.kind == "code" and cell.source.strip():
                self.own.append(_Own(cell, after))
        if len(self.own) > MAX_OWN_CELLS:
            del self.own[MAX_OWN_CELLS:]
            self.flag("size", "", f"The student's own code cells were read up to number {MAX_OWN_CELLS}.")
            self.result.repairs.append(f"Only the first {MAX_OWN_CELLS} code cells of your own were kept.")

    def _keep_words(self, cell: Cell, i: int | None, after: int) -> None:
        """Remember what a cell says in words that are the student's own; an answer's own cell is read later."""
        place = self.places[i] if i is not None else None
        if place is not None and place.is_answer:
            return
        source = cell.source
        own = answers.without(source, self.released)
        if cell.kind == "code":
            text, kind = answers.written_in_code(source, own)
            if text and not (place is not None and place.is_solution):
                self.texts.append(Text(text, after, kind, len(self.own) if kind == "code" else None))
            return
        if place is None:
            own = source if own else ""
        elif place.is_solution:  # words in the place of code answer no question
            self.result.notes += [source] if own and not as_code(source) else []
            return
        if own.strip() or (cell.pictures and place is None):
            self.texts.append(Text(own, after, picture=cell.pictures))

    def _compare_marks(self) -> None:
        """The released marks always count; that others were handed in is worth a look."""
        known = {place.grade_id for place in self.places if place.grade_id}
        for cell, i in zip(self.cells, self.found, strict=True):
            place = self.places[i] if i is not None else None
            if place is None or not place.grade_id:
                claims = cell.marks.get("grade") is True or bool(cell.marks.get("points"))
                if claims and cell.grade_id not in known:
                    self.flag("metadata", cell.grade_id[:80], "A cell that was not released claims points.")
                continue
            ours = place.cell.metadata["nbgrader"]
            changed = [name for name in _MARKS if name in cell.marks and cell.marks[name] != ours.get(name)]
            changed += ["grade_id"] if cell.grade_id not in ("", place.grade_id) else []
            if changed:
                message = f"The cell's marks were changed ({', '.join(changed)}). The released ones were used."
                self.flag("metadata", place.grade_id, message)

    def flag(self, kind: str, cell: str, message: str) -> None:
        """Note something for the instructor."""
        flag = Flag(kind, cell, message)
        if len(self.result.flags) < MAX_SAID and flag not in self.result.flags:
            self.result.flags.append(flag)

    def _exercises(self) -> None:
        """Find the code of each exercise; cells of the student's own that were used for it are no longer apart."""
        wanted = [
            Wanted(i, place.name, place.given, self.at.get(i, [])[-MAX_VERSIONS:])
            for i, place in enumerate(self.places)
            if place.is_solution
        ]
        loose = [Block(own.cell.source, own.after) for own in self.own]
        self.taken = assign(wanted, loose)
        left = [one for one in wanted if not self.taken[one.name].given]
        # Where an exercise has no code in any code cell, a text cell may hold it.
        texts = [one for one in self.texts if one.kind == "text" and as_code(one.text)] if left else []
        blocks = [Block(as_code(one.text), one.after) for one in texts]
        self.taken |= {name: one for name, one in assign(left, blocks).items() if one.given}
        for one, block in zip(texts, blocks, strict=True):
            one.used = block.used_in is not None
        used = {i for i, block in enumerate(loose) if block.used_in is not None}
        self.texts = [one for one in self.texts if one.number not in used]
        self._without_own(used)

    def _without_own(self, used: set[int]) -> None:
        """Take cells of the student's own away, by number; the texts that were found in others keep theirs right."""
        kept = [i for i in range(len(self.own)) if i not in used]
        self.own = [self.own[i] for i in kept]
        for one in self.texts:
            one.number = kept.index(one.number) if one.number in kept else None

    def _answers(self) -> None:
        """Find the text of each answer: what was written in its cells, else beside them, else anywhere."""
        for i, place in enumerate(self.places):
            if not place.is_answer:
                continue
            cells = self.at.get(i, [])[-MAX_VERSIONS:]
            given = (place.given.strip(), place.cell.source.strip())
            texts = dict.fromkeys(cell.source for cell in cells if cell.source.strip() not in ("", *given))
            first = max((other for other in self.at if other < i), default=-1)
            picture = any(cell.pictures for cell in cells)
            self.questions.append(Question(place.name, i, first, "\n\n".join(texts), picture))
        answers.find(self.questions, self.texts)
        self._without_own(
            {one.number for one in self.texts if one.used and one.kind == "code" and one.number is not None}
        )

    def _complain_of_missing(self) -> None:
        others = 0
        for i, place in enumerate(self.places):
            if i in self.at:
                continue
            if place.is_solution and not self.taken[place.name].given:
                said = "was missing. It was put back as released, so the exercise counts as not written"
                self.result.repairs.append(f"The cell of `{place.name}` {said}.")
            elif place.is_answer:
                found = self.work().get(place.name, "")
                if not found:
                    self.result.repairs.append(f"The answer cell of `{place.name}` was missing. It was put back.")
            elif place.grade_id and not place.is_open:
                self.result.repairs.append(
                    f"The check of `{place.name}` was missing. It was put back and costs nothing."
                )
            elif not place.is_open:
                others += 1
        if others:
            cells, were = ("cells", "were") if others > 1 else ("cell", "was")
            self.result.repairs.append(f"{others} {cells} of the released notebook {were} missing and {were} put back.")

    def _complain_of_order(self) -> None:
        first = list(dict.fromkeys(place for place in self.found if place is not None))
        if any(one > other for one, other in pairwise(first)):
            self.result.repairs.append("The cells stood in another order. They were put back into the released one.")
        for i, cells in self.at.items():
            place = self.places[i]
            if place.grade_id and not place.is_open and not any(place.is_as_given(cell) for cell in cells):
                self.result.repairs.append(f"The check of `{place.name}` was changed. The released one was used.")

    def _look_for_hidden_changes(self) -> None:
        for cell, i in zip(self.cells, self.found, strict=True):
            place = self.places[i] if i is not None else None
            if cell.kind != "code" or (place is not None and cell.source in (place.given, place.cell.source)):
                continue
            name = hidden_change(cell)
            if name:
                grade_id = place.grade_id if place else ""
                message = f"A cell gives `{name}` another meaning, out of sight of who reads the notebook."
                self.flag("hidden", grade_id, message)

    def _assemble(self, release: NotebookNode) -> NotebookNode:
        notebook = deepcopy(release)
        notebook.cells = []
        own = 0
        for i in range(-1, len(self.places)):
            if i >= 0:
                notebook.cells.append(self._filled(self.places[i]))
            for mine in self.own:
                if mine.after == i:
                    own += 1
                    metadata = {"tags": [_SKIP]} if mine.cell.skipped else {}
                    notebook.cells.append(new_code_cell(mine.cell.source, id=f"own-{own}", metadata=metadata))
        return notebook

    def _filled(self, place: Place) -> NotebookNode:
        cell = deepcopy(place.cell)
        if place.is_solution:
            cell.source = self.result.sources[place.name]
        elif place.is_answer:
            cell.source = self.result.written[place.name] or place.given
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        return cell
