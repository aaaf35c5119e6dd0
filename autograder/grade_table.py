"""What `course grade` says of a class: a table, and below it what a person should know or do."""

import unicodedata
from collections import Counter

from rich.cells import cell_len, set_cell_size
from rich.table import Table

from autograder.entering import Grade
from autograder.roster import shown, strays
from autograder.student_text import terminal, visible

WIDTH = 32
"""How much of a name is shown, in characters of the terminal."""
NAMED = 10
"""How many students a note names."""


def table(chapter: str, grades: list[Grade]) -> Table:
    """The table of a class's points, one line a student."""
    cells = list(dict.fromkeys(cell for one in grades for cell in one.cells))
    alike = Counter(unicodedata.normalize("NFC", shown(one.student)) for one in grades)
    made = Table(title=f"{chapter}: {len(grades)} submissions")
    made.add_column("student", overflow="fold", min_width=12)
    for cell in cells:
        words = cell.removesuffix("-check").partition("-")[2].replace("_", " ").replace("-", " ")
        made.add_column(words, justify="right", overflow="fold", min_width=5)
    made.add_column("score", justify="right", no_wrap=True)
    for one in grades:
        points = ["–" if one.cells.get(cell) is None else f"{one.cells[cell]:g}" for cell in cells]
        name = _short(one.student)
        if alike[unicodedata.normalize("NFC", shown(one.student))] > 1:
            name += f" ({one.identifier})"
        made.add_row(terminal(name), *points, _score(one))
    return made


def notes(chapter: str, grades: list[Grade]) -> tuple[list[str], list[str]]:
    """What stands below the table: notes, and what went wrong."""
    said = []
    if any(one.waiting for one in grades):
        said.append("* An answer awaits grading by hand: open formgrader in JupyterLab (Nbgrader menu).")
    flagged = sum(one.flags > 0 for one in grades)
    if flagged:
        said.append(f"! {flagged} of the submissions hold something to look at: see `course report {chapter}`.")
    if any(one.late for one in grades):
        said.append("late: handed in after the due date in the gradebook; points taken off for it are left out above.")
    if any(one.identifier != one.student for one in grades):
        said.append(
            "Where an id is not the folder's name, autograded notebooks, feedback and the gradebook go by the id: "
            "grading/students.csv lists them."
        )
    again = [one for one in grades if one.again]
    if again:
        said.append(
            f"Entered again from the records, because the gradebook did not hold them as they were: {_named(again)}."
        )
    faults = [
        f"{_short(one.student)}: not graded: {visible(' '.join(one.fault.split()))}" for one in grades if one.fault
    ]
    lost = strays(chapter)
    if lost:
        faults.append(
            f"Not looked at, because it lies in no student's folder for {chapter}: {_listed(lost)}. Put a notebook at "
            f"grading/submitted/STUDENT/{chapter}/{chapter}.ipynb."
        )
    return said, faults


def _score(one: Grade) -> str:
    if one.fault:
        return "not graded" + " !" * (one.flags > 0)
    late = f", late{f' (−{one.penalty:g})' if one.penalty else ''}" if one.late else ""
    return f"{one.score:g} of {one.max_score:g}{late}" + " *" * one.waiting + " !" * (one.flags > 0)


def _short(name: str) -> str:
    seen = shown(name)
    return seen if cell_len(seen) <= WIDTH else f"{set_cell_size(seen, WIDTH - 1).rstrip()}…"


def _named(grades: list[Grade]) -> str:
    return _listed([_short(one.student) for one in grades])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
