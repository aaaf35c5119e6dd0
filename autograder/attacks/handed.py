"""What a made-up student hands in, and the tools to write it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell

from autograder.checks import find, of_chapter
from autograder.sample import reference_source

CHAPTER = "01_attention"
TOTAL = sum(check.points for check in of_chapter(CHAPTER))


@dataclass(frozen=True)
class Handed:
    """One submission.

    Args:
        name: the student's folder name.
        what: what is tried, in a sentence.
        points: what it deserves.
        why: the reason for that score.
        edit: changes the released notebook, of which nothing is solved yet.
        solved: fill in every reference first.
        files: called with the folder after the notebook is written, to add or change files.
        flags: kinds of flags that the instructor must see.
        refused: whether it is turned down as a whole.
        harmful: whether it would take down a machine that does not hold it back.
    """

    name: str
    what: str
    points: int
    why: str
    edit: Callable[[NotebookNode], None] = lambda notebook: None
    solved: bool = False
    files: Callable[[Path], None] = lambda folder: None
    flags: frozenset[str] = field(default_factory=frozenset)
    refused: bool = False
    harmful: bool = False

    def write(self, folder: Path, released: NotebookNode) -> None:
        """Write the submission into `STUDENT/CHAPTER`.

        Args:
            folder: where to; it is made.
            released: the student's edition; it is left as it is.
        """
        notebook = nbformat.from_dict(json.loads(json.dumps(released)))
        if self.solved:
            solve(notebook)
        self.edit(notebook)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{CHAPTER}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        self.files(folder)


def solve(notebook: NotebookNode, *, but: str = "") -> None:
    """Fill in every reference but one."""
    for check in of_chapter(CHAPTER):
        if check.symbol != but:
            solution(notebook, check.symbol).source = reference_source(check)


def solution(notebook: NotebookNode, symbol: str) -> NotebookNode:
    """The cell of an exercise."""
    return marked(notebook, f"attention-{symbol}")


def marked(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    """The cell with this grade_id."""
    found: NotebookNode
    (found,) = (cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)
    return found


def replace(symbol: str, source: str) -> Callable[[NotebookNode], None]:
    """An edit: another solution of one exercise."""

    def edit(notebook: NotebookNode) -> None:
        solution(notebook, symbol).source = source

    return edit


def first(source: str) -> Callable[[NotebookNode], None]:
    """An edit: a cell of the student's own, run before the first exercise."""

    def edit(notebook: NotebookNode) -> None:
        index = notebook.cells.index(solution(notebook, "softmax"))
        notebook.cells.insert(index, new_code_cell(source))

    return edit


def beside(symbol: str, before: str = "", after: str = "") -> Callable[[NotebookNode], None]:
    """An edit: the reference with more code in its cell."""

    def edit(notebook: NotebookNode) -> None:
        source = reference_source(find(f"attention.{symbol}"))
        solution(notebook, symbol).source = "\n\n".join(filter(None, [before, source, after]))

    return edit


def inside(symbol: str, line: str) -> Callable[[NotebookNode], None]:
    """An edit: the reference with a line of code at the start of its body."""

    def edit(notebook: NotebookNode) -> None:
        source = reference_source(find(f"attention.{symbol}"))
        head, mark, body = source.rpartition('    """\n')
        solution(notebook, symbol).source = f"{head}{mark}    {line}\n{body}"

    return edit
