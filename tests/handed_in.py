"""What the tests of reading and rebuilding share: the released editions of a chapter, and ways to change a notebook."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat.notebooknode import NotebookNode

from autograder import nbgrader_course
from autograder.checks import find, of_chapter
from autograder.normalise import Normalised, read, rebuild
from autograder.release import derive
from autograder.sample import reference_source

CHAPTER = "01_attention"
SOFTMAX = "attention-softmax"
CAUSAL = "attention-causal_mask"
PADDING = "attention-padding_mask"
ANSWER = "attention-why_scale-answer"
GOOD = {check.name.replace(".", "-"): reference_source(check) for check in of_chapter(CHAPTER)}

Notebook = dict[str, Any]


class Class:
    """A chapter's two editions, and a folder where students hand in."""

    def __init__(self, folder: Path) -> None:
        derived = derive(CHAPTER, folder / "staging", f"sqlite:///{folder}/gradebook.db")
        name = f"{CHAPTER}/{CHAPTER}.ipynb"
        self.ours = nbformat.reads(derived[nbgrader_course.folder("source") / name].decode(), as_version=4)
        self.given = nbformat.reads(derived[nbgrader_course.folder("release") / name].decode(), as_version=4)
        self.submitted = folder / "submitted"
        self.count = 0

    def blank(self) -> Notebook:
        """The released notebook as JSON has it."""
        notebook: Notebook = json.loads(nbformat.writes(self.given))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
        return notebook

    def solved(self) -> Notebook:
        """The released notebook with the references filled in."""
        notebook = self.blank()
        for name, source in GOOD.items():
            at(notebook, name)["source"] = source
        return notebook

    def folder(self) -> Path:
        """A new student's folder."""
        self.count += 1
        folder = self.submitted / f"student {self.count}" / CHAPTER
        folder.mkdir(parents=True)
        return folder

    def hand_in(self, content: Any, name: str = f"{CHAPTER}.ipynb") -> Path:
        """Hand in a notebook, or anything else that a file can hold."""
        folder = self.folder()
        data = content if isinstance(content, bytes) else json.dumps(content).encode("utf-8", "surrogatepass")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return folder

    def rebuilt(self, content: Any) -> Normalised:
        """Read and rebuild what a student hands in."""
        return self.of(self.hand_in(content))

    def of(self, folder: Path) -> Normalised:
        return rebuild(read(folder, CHAPTER), self.ours, self.given)

    def student_version(self, notebook: NotebookNode) -> NotebookNode:
        """A rebuilt notebook as a student could have handed it in: without what only instructors may see."""
        visible = {cell.id: cell for cell in self.given.cells}
        result = deepcopy(notebook)
        for cell in result.cells:
            if cell.id in visible:
                cell.metadata = visible[cell.id].metadata
                if cell.metadata.get("nbgrader", {}).get("locked"):
                    cell.source = visible[cell.id].source
        return result


def at(notebook: Notebook, name: str) -> dict[str, Any]:
    """The cell with this id."""
    return next(cell for cell in notebook["cells"] if cell.get("id") == name)


def index(notebook: Notebook, name: str) -> int:
    return notebook["cells"].index(at(notebook, name))


def code(source: str, **fields: Any) -> dict[str, Any]:
    """A code cell without marks or id."""
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None} | fields


def symbol(name: str) -> str:
    return find(name.replace("-", ".", 1)).symbol
