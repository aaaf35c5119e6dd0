"""Rebuilds a submitted notebook from the released one, so that a student's slip with cells costs nothing.

The result holds exactly the released cells in the released order. From the submission come the code of the exercises,
the text of the answers, and the code cells that are the student's own, each where it stood.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import pairwise

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell

from autograder.cells import Cell
from autograder.exercise_code import Block, Taken, Wanted, assign
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
        digest: of everything that was read.
        refused: why nothing can be graded; empty if it can.
    """

    notebook: NotebookNode | None
    repairs: list[str]
    flags: list[Flag]
    sources: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    refused: str = ""


def rebuild(submission: Submission, release: NotebookNode, student_release: NotebookNode) -> Normalised:
    """Put a student's work into the released notebook; never raises for what the student sent.

    Args:
        submission: what was read.
        release: the instructor's edition, with the hidden part of the checks.
        student_release: what the student was given.
    """
    result = Normalised(None, list(submission.repairs), list(submission.flags), digest=submission.digest)
    result.refused = submission.refused
    if not result.refused:
        places = [Place(ours, given.source) for ours, given in zip(release.cells, student_release.cells, strict=True)]
        _Rebuilding(submission.cells, places, result).run(release, submission.chapter)
    return result


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
        self.notes: dict[int, list[str]] = {}  # place -> text cells of the student's own behind it

    def run(self, release: NotebookNode, chapter: str) -> None:
        self._limit()
        self._sort()
        self._compare_marks()
        taken = self._exercises()
        if not any(self.places[i].grade_id for i in self.at) and not any(one.given for one in taken.values()):
            self.result.refused = f"It holds no cell of chapter {chapter}. Hand in the chapter's own notebook."
            return
        self._complain_of_missing(taken)
        self._complain_of_order()
        for place in self.places:
            if place.is_solution:
                one = taken[place.name]
                self.result.sources[place.name] = one.source
                self.result.repairs += one.repairs
                for kind, message in one.flags:
                    self._flag(kind, place.grade_id, message)
            elif place.is_answer:
                self.result.written[place.name] = self._answer(place)
        self._look_for_hidden_changes()
        self.result.repairs = list(dict.fromkeys(self.result.repairs))[:MAX_SAID]
        self.result.notebook = self._assemble(release)

    def _limit(self) -> None:
        """Empty cells that are far too long, graded cells last, so that what follows takes little time and memory."""
        if self.submitted > MAX_CELLS:
            self._flag("size", "", f"The notebook holds {self.submitted:,} cells. The first {MAX_CELLS:,} were read.")
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
            self._flag("size", "", f"The notebook holds more than {MAX_CODE:,} characters of text. Some was left out.")

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
                # What a student changed in a released cell may be needed further down (an import, a helper), so their
                # version runs behind ours. Ours runs too: nobody loses what the chapter itself defines.
                if self.places[place].is_open or self.places[place].is_as_given(cell):
                    continue
            if cell.kind == "code" and cell.source.strip():
                self.own.append(_Own(cell, after))
            elif cell.kind == "markdown" and place is None:
                self.notes.setdefault(after, []).append(cell.source)
        if len(self.own) > MAX_OWN_CELLS:
            del self.own[MAX_OWN_CELLS:]
            self._flag("size", "", f"The student's own code cells were read up to number {MAX_OWN_CELLS}.")
            self.result.repairs.append(f"Only the first {MAX_OWN_CELLS} code cells of your own were kept.")

    def _compare_marks(self) -> None:
        """The released marks always count; that others were handed in is worth a look."""
        known = {place.grade_id for place in self.places if place.grade_id}
        for cell, i in zip(self.cells, self.found, strict=True):
            place = self.places[i] if i is not None else None
            if place is None or not place.grade_id:
                claims = cell.marks.get("grade") is True or bool(cell.marks.get("points"))
                if claims and cell.grade_id not in known:
                    self._flag("metadata", cell.grade_id[:80], "A cell that was not released claims points.")
                continue
            ours = place.cell.metadata["nbgrader"]
            changed = [name for name in _MARKS if name in cell.marks and cell.marks[name] != ours.get(name)]
            changed += ["grade_id"] if cell.grade_id not in ("", place.grade_id) else []
            if changed:
                message = f"The cell's marks were changed ({', '.join(changed)}). The released ones were used."
                self._flag("metadata", place.grade_id, message)

    def _flag(self, kind: str, cell: str, message: str) -> None:
        flag = Flag(kind, cell, message)
        if len(self.result.flags) < MAX_SAID and flag not in self.result.flags:
            self.result.flags.append(flag)

    def _exercises(self) -> dict[str, Taken]:
        """Find the code of each exercise; cells of the student's own that were used for it are no longer apart."""
        wanted = [
            Wanted(i, place.name, place.given, self.at.get(i, [])[-MAX_VERSIONS:])
            for i, place in enumerate(self.places)
            if place.is_solution
        ]
        loose = [Block(own.cell.source, own.after) for own in self.own]
        taken = assign(wanted, loose)
        self.own = [own for own, block in zip(self.own, loose, strict=True) if block.used_in is None]
        return taken

    def _answer(self, place: Place) -> str:
        """The text of an answer: all that was written in its cells, else what stands in cells of one's own below."""
        i = self.places.index(place)
        cells = self.at.get(i, [])[-MAX_VERSIONS:]
        if any(cell.pictures for cell in cells):
            self.result.repairs.append(
                f"The pictures in the answer to `{place.name}` were left out: write it in words."
            )
        texts = list(dict.fromkeys(cell.source for cell in cells if cell.source.strip()))
        texts = [text for text in texts if text.strip() not in (place.given.strip(), place.cell.source.strip())]
        if not texts and i in self.notes:
            texts = self.notes[i]
            self.result.repairs.append(f"The answer to `{place.name}` was taken from the cell below its own.")
        return "\n\n".join(texts)[:MAX_CELL]

    def _complain_of_missing(self, taken: dict[str, Taken]) -> None:
        others = 0
        for i, place in enumerate(self.places):
            if i in self.at:
                continue
            if place.is_solution and not taken[place.name].given:
                said = "was missing. It was put back as released, so the exercise counts as not written"
                self.result.repairs.append(f"The cell of `{place.name}` {said}.")
            elif place.is_answer:
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
                self._flag("hidden", grade_id, message)

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
