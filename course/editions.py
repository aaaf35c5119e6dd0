"""Derives a chapter's notebook for instructors from the chapter, the references and the register of exercises.

nbgrader's own preprocessors then derive the student's notebook from it. The same sources give the same bytes.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course.chapters import CourseError, root, source
from course.markdown import Block, Translator, blocks
from course.repository import of_course
from course.stubs import solution_cell

_DROPPED = {"book-only", "remove-cell"}
_SKIPPED = "skip-execution"
"""What nbgrader does not run when it grades: an experiment is slow, and no exercise depends on it. JupyterLab does."""
_FOLDED = {"hide-input", "remove-input", "hide-cell"}


@dataclass(frozen=True)
class ExerciseCard:
    """What an edition says of an exercise.

    Args:
        name: `module.symbol`.
        points: the points of its check.
        difficulty: 1 to 3.
        minutes: what a student should expect to need.
        reference: the function or class in `solutions`.
    """

    name: str
    points: int
    difficulty: int
    minutes: int
    reference: Any

    @property
    def symbol(self) -> str:
        """The name under which the notebook defines it."""
        return self.name.rpartition(".")[2]

    @property
    def facts(self) -> str:
        """Points, difficulty, time and compute in one line."""
        points = f"{self.points} point{'s' * (self.points > 1)}"
        return f"{points} · difficulty {self.difficulty} of 3 · about {self.minutes} minutes · CPU, seconds"


@dataclass(frozen=True)
class ReflectionCard:
    """What an edition says of a question that is graded by hand."""

    name: str
    points: int
    rubric: str

    @property
    def facts(self) -> str:
        """Points in one line."""
        return f"{self.points} points · graded by hand · a few sentences"


@dataclass(frozen=True)
class Catalogue:
    """The exercises and questions that chapters may contain, by name."""

    exercises: Mapping[str, ExerciseCard]
    reflections: Mapping[str, ReflectionCard]


def instructor_edition(chapter: str, catalogue: Catalogue) -> tuple[NotebookNode, dict[str, Path]]:
    """The instructor's edition of a chapter: solutions between nbgrader's markers, hidden checks, rubrics.

    Returns:
        The notebook, and the images that must stand beside it: name -> file.

    Raises:
        CourseError: the chapter does not exist, or says something that has no form in a notebook.
    """
    edition = _Edition(chapter, catalogue)
    notebook: NotebookNode = new_notebook(cells=list(edition.cells()))
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    edition.complain_of_missing()
    _give_ids(notebook)
    return notebook, edition.translator.images


class _Edition:
    def __init__(self, chapter: str, catalogue: Catalogue) -> None:
        self.chapter = chapter
        self.path = source(chapter)
        self.catalogue = catalogue
        self.translator = Translator(self.path, root() / "book" / "references.bib")
        self.seen: set[str] = set()

    def cells(self) -> Iterator[NotebookNode]:
        book = jupytext.reads(self.path.read_text(encoding="utf-8"), fmt="md:myst")
        for index, cell in enumerate(book.cells):
            yield from self._code(cell) if cell.cell_type == "code" else self._markdown(cell.source)
            if index == 0:
                yield from self._preamble()

    def complain_of_missing(self) -> None:
        """Every exercise of the chapter must stand in it, or its points could never be earned."""
        missing = [name for name in (*self.catalogue.exercises, *self.catalogue.reflections) if name not in self.seen]
        if missing:
            raise CourseError(f"{self.path}: the chapter does not contain {', '.join(missing)}.")

    def _preamble(self) -> Iterator[NotebookNode]:
        points = sum(card.points for card in self.catalogue.exercises.values())
        minutes = sum(card.minutes for card in self.catalogue.exercises.values())
        written = sum(card.points for card in self.catalogue.reflections.values())
        yield new_markdown_cell(
            "> **How to use this notebook**\n>\n"
            "> Read, run each cell (Shift+Enter), and write your code where it says `YOUR CODE HERE`. Run the check "
            "below each exercise as often as you like: it says what is right, what is not, and where to look. "
            "Cells further down use your functions; until those are written they stop with NotImplementedError.\n>\n"
            f"> The exercises take about {minutes} minutes. "
            f"The checks give up to {points} points, the written answers up to {written}. "
            "Grading repeats each check with other inputs of the same kinds."
        )
        repository = of_course()
        if repository:
            yield new_code_cell(
                "# On Colab this installs the course; everywhere else it does nothing.\n"
                "import sys\n\nif 'google.colab' in sys.modules:\n"
                f"    !git clone -q --depth 1 {repository.url} course-files\n"
                "    %pip install -q -e course-files\n"
                "    sys.path.insert(0, 'course-files')"
            )

    def _code(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        tags = set(cell.metadata.get("tags", []))
        if "exercise" in tags:
            yield from self._exercise_cells(cell.source)
            return
        if "earlier" in tags:
            yield new_code_cell(self._earlier(cell.source))
            return
        if tags & _DROPPED:
            return
        metadata: dict[str, Any] = {"jupyter": {"source_hidden": True}} if tags & _FOLDED else {}
        if "experiment" in tags:
            metadata["tags"] = [_SKIPPED]
        yield new_code_cell(cell.source, metadata=metadata)
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "").strip()
        if caption:
            yield new_markdown_cell(self.translator.caption(caption))

    def _exercise_cells(self, code: str) -> Iterator[NotebookNode]:
        match = re.fullmatch(r"from solutions\.(\w+) import (\w+)", code.strip())
        name = f"{match[1]}.{match[2]}" if match else ""
        if name not in self.catalogue.exercises:
            raise CourseError(
                f"{self.path}: a cell tagged `exercise` must import one exercise's reference, not {code!r}."
            )
        card = self.catalogue.exercises[name]
        self.seen.add(name)
        grade_id = name.replace(".", "-")
        yield new_code_cell(solution_cell(card.reference), metadata=_nbgrader(grade_id, solution=True))
        call = f'check("{name}", {card.symbol}'
        yield new_code_cell(
            f"{call})\n### BEGIN HIDDEN TESTS\n{call}, graded=True)\n### END HIDDEN TESTS",
            metadata=_nbgrader(f"{grade_id}-check", grade=True, locked=True, points=card.points),
        )

    def _earlier(self, code: str) -> str:
        """What earlier chapters defined: in the book the references, in a notebook the student's own if they passed."""
        symbols, names = [], []
        for statement in ast.parse(code).body:
            if not (isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("solutions.")):
                raise CourseError(f"{self.path}: a cell tagged `earlier` may only import from solutions, not {code!r}.")
            module = str(statement.module).removeprefix("solutions.")
            symbols += [alias.name for alias in statement.names]
            names += [f'"{module}.{alias.name}"' for alias in statement.names]
        head = "from autograder import earlier\n\n# Yours where it passed its check, the course's where not.\n"
        if len(symbols) == 1:
            return f"{head}{symbols[0]} = earlier({names[0]})"
        left = "".join(f"    {symbol},\n" for symbol in symbols)
        right = "".join(f"    {name},\n" for name in names)
        return f"{head}(\n{left}) = earlier(\n{right})"

    def _markdown(self, text: str) -> Iterator[NotebookNode]:
        plain: list[Block] = []
        for block in blocks(text):
            if block.kind not in ("exercise", "reflection"):
                plain.append(block)
                continue
            yield from self._plain(plain)
            plain = []
            yield from self._task(block)
        yield from self._plain(plain)

    def _plain(self, plain: list[Block]) -> Iterator[NotebookNode]:
        words = "\n\n".join(filter(None, (self.translator.render(block) for block in plain)))
        if words:
            yield new_markdown_cell(words)

    def _task(self, block: Block) -> Iterator[NotebookNode]:
        name, question = block.argument, self.translator.inline(block.body).strip()
        cards: Mapping[str, ExerciseCard | ReflectionCard] = (
            self.catalogue.exercises if block.kind == "exercise" else self.catalogue.reflections
        )
        if name not in cards:
            raise CourseError(f"{self.path}: there is no {block.kind} {name!r}.")
        card = cards[name]
        title = f"Exercise: `{name}`" if block.kind == "exercise" else "Question"
        grade_id = name.replace(".", "-")
        yield new_markdown_cell(f"#### {title}\n\n{card.facts}\n\n{question}")
        if isinstance(card, ReflectionCard):
            self.seen.add(name)
            answer = f"### BEGIN SOLUTION\n{card.rubric}\n### END SOLUTION"
            yield new_markdown_cell(
                answer, metadata=_nbgrader(f"{grade_id}-answer", grade=True, solution=True, points=card.points)
            )


def _nbgrader(
    grade_id: str, *, grade: bool = False, solution: bool = False, locked: bool = False, points: int | None = None
) -> dict[str, Any]:
    marks: dict[str, Any] = {"grade": grade, "grade_id": grade_id, "locked": locked, "schema_version": 3}
    marks |= {"solution": solution, "task": False}
    if points is not None:
        marks["points"] = points
    return {"nbgrader": marks}


def _give_ids(notebook: NotebookNode) -> None:
    """Name each cell after what it is, so that an edit elsewhere in the chapter changes no other cell's id."""
    used: set[str] = set()
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader")
        name = marks["grade_id"] if marks else hashlib.sha256(cell.source.encode()).hexdigest()[:12]
        while name in used:
            name += "-again"
        used.add(name)
        cell["id"] = name
