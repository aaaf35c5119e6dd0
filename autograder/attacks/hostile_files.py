"""Attempts by what lies in the folder: files beside the notebook, links, and notebooks that are none."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbformat.notebooknode import NotebookNode

from autograder.attacks.handed import CHAPTER, TOTAL, Handed, first, marked

NAME = f"{CHAPTER}.ipynb"
NOTHING = "Nothing is solved."
UNREAD = "There is no notebook that could be graded; the others are graded all the same."
SOLVED = "The work is the student's own and right."


def _beside(files: dict[str, str]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")

    return write


def _as_text(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / NAME).write_text(text, encoding="utf-8")

    return write


def _cut(folder: Path) -> None:
    path = folder / NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _link_to_another(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / NAME).symlink_to(f"../../reference/{CHAPTER}/{NAME}")


def _link_data(folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "book.db").symlink_to("../../../gradebook.db")


def _link_folder(folder: Path) -> None:
    (folder / NAME).unlink()
    folder.rmdir()
    folder.symlink_to(f"../reference/{CHAPTER}", target_is_directory=True)


def _fifo(folder: Path) -> None:
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)


def _huge(notebook: NotebookNode) -> None:
    marked(notebook, "attention-softmax").source = "#" + "x" * (30 * 2**20)


def _many(notebook: NotebookNode) -> None:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {},
        "source": "import time; time.sleep(1)",
        "outputs": [],
        "execution_count": None,
        "id": "again",
    }
    notebook.cells[2:2] = [dict(cell) for _ in range(5000)]


_SHADOW = "def check(*args, **kwargs):\n    return 12.0\n"

FILES: list[Handed] = [
    Handed(
        "ships-torch",
        "Puts a torch.py beside the notebook.",
        0,
        NOTHING,
        files=_beside({"torch.py": "def __getattr__(name):\n    return lambda *a, **k: True\n"}),
        flags=frozenset({"shadow"}),
    ),
    Handed(
        "ships-autograder",
        "Puts an `autograder` of its own beside the notebook.",
        0,
        NOTHING,
        files=_beside({"autograder/__init__.py": _SHADOW}),
        flags=frozenset({"shadow"}),
    ),
    Handed(
        "ships-startup",
        "Puts files beside the notebook that Python and IPython run when they start.",
        0,
        NOTHING,
        files=_beside(
            {
                "sitecustomize.py": "import os; os._exit(0)",
                ".ipython/profile_default/startup/00.py": "1/0",
                "ipython_kernel_config.py": "1/0",
                "jupyter_config.py": "1/0",
            }
        ),
        flags=frozenset({"shadow"}),
    ),
    Handed(
        "ships-config",
        "Puts an nbgrader_config.py beside the notebook.",
        0,
        NOTHING,
        files=_beside({"nbgrader_config.py": "get_config().Autograde.autograde_preprocessors = []"}),
    ),
    Handed(
        "linked-notebook",
        "Hands in a link to another student's notebook.",
        0,
        UNREAD,
        files=_link_to_another,
        refused=True,
    ),
    Handed(
        "linked-folder", "Hands in a link to another student's folder.", 0, UNREAD, files=_link_folder, refused=True
    ),
    Handed(
        "linked-data",
        "Puts links to the gradebook and to the system's files beside a solved notebook.",
        TOTAL,
        SOLVED,
        solved=True,
        files=_link_data,
        flags=frozenset({"symlink"}),
    ),
    Handed(
        "pipe-for-a-notebook",
        "The notebook is a pipe, which blocks whoever opens it.",
        0,
        UNREAD,
        files=_fifo,
        refused=True,
    ),
    Handed("truncated", "Half of the notebook is missing.", 0, UNREAD, files=_cut, refused=True),
    Handed(
        "not-json", "The notebook is a text.", 0, UNREAD, files=_as_text("I could not open it, sorry."), refused=True
    ),
    Handed(
        "another-json",
        "The notebook is a list of numbers.",
        0,
        UNREAD,
        files=_as_text(json.dumps([1, 2, 3])),
        refused=True,
    ),
    Handed(
        "deep-json",
        "The notebook is a list in a list, a hundred thousand times.",
        0,
        UNREAD,
        files=_as_text("[" * 100_000 + "]" * 100_000),
        refused=True,
    ),
    Handed("huge", "A cell holds 30 MB.", 0, UNREAD, _huge, refused=True),
    Handed("thousands-of-cells", "Adds 5000 cells that sleep for a second each.", 0, UNREAD, _many, refused=True),
    Handed(
        "backdated",
        "Says that it was handed in forty years ago.",
        TOTAL,
        SOLVED,
        solved=True,
        files=_beside({"timestamp.txt": "1986-01-01 00:00:00 UTC"}),
        flags=frozenset({"clock"}),
    ),
    Handed(
        "clock-as-a-path",
        "Puts a path in the place of a time zone.",
        TOTAL,
        SOLVED,
        solved=True,
        files=_beside({"timestamp.txt": "2026-01-01 00:00:00 ../../../etc/passwd"}),
        flags=frozenset({"clock"}),
    ),
    Handed(
        "nothing", "Hands in an empty folder.", 0, UNREAD, files=lambda folder: (folder / NAME).unlink(), refused=True
    ),
    Handed("surrogates", "Writes half a character into a cell.", 0, NOTHING, first("s = '\\ud800'  # \ud800")),
]
