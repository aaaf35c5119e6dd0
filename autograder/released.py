"""The released cells, and which submitted cell is which of them."""

from dataclasses import dataclass

from nbformat.notebooknode import NotebookNode

from autograder.cells import Cell
from autograder.syntax import same_code


@dataclass(frozen=True, eq=False)
class Place:
    """One released cell.

    Args:
        cell: as the instructor has it.
        given: its source as the student was given it.
    """

    cell: NotebookNode
    given: str

    @property
    def grade_id(self) -> str:
        """Its name in the gradebook; empty where it has none."""
        return str(self.cell.metadata.get("nbgrader", {}).get("grade_id", ""))

    @property
    def is_solution(self) -> bool:
        """Whether an exercise is solved here."""
        return bool(self.is_open and self.cell.cell_type == "code")

    @property
    def is_answer(self) -> bool:
        """Whether a question is answered here."""
        return bool(self.is_open and self.cell.cell_type != "code")

    @property
    def is_open(self) -> bool:
        """Whether the student writes here."""
        return bool(self.cell.metadata.get("nbgrader", {}).get("solution"))

    @property
    def name(self) -> str:
        """The exercise or question, as the register calls it; a module's name has no hyphen, so the first divides."""
        return self.grade_id.removesuffix("-check").removesuffix("-answer").replace("-", ".", 1)

    def is_as_given(self, cell: Cell) -> bool:
        """Whether a submitted cell differs from this one in no code, or in no text."""
        sources = {self.given, self.cell.source}
        if cell.source.strip() in [source.strip() for source in sources]:
            return True
        if cell.kind != "code" or self.cell.cell_type != "code":
            return False
        return any(same_code(cell.source, source) for source in sources)


def recognise(cells: list[Cell], places: list[Place]) -> list[int | None]:
    """For each submitted cell the place of the released cell that it is; None for one of the student's own.

    A cell is known by its grade_id, else by its id, which survives the loss of metadata, else by its unchanged source.
    """
    by_name = {place.grade_id: i for i, place in enumerate(places) if place.grade_id}
    by_id = {place.cell.id: i for i, place in enumerate(places)}
    found = [by_name.get(cell.grade_id, by_id.get(cell.id)) for cell in cells]
    taken = set(found)
    by_source: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        if i not in taken:
            for source in {place.given.strip(), place.cell.source.strip()}:
                by_source.setdefault(source, []).append(i)
    for index, cell in enumerate(cells):
        equal = by_source.get(cell.source.strip(), [])
        while found[index] is None and equal:
            i = equal.pop(0)
            if i not in taken:
                found[index] = i
                taken.add(i)
    return found
