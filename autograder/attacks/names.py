"""A class whose folders have names that somebody's code will not like; each student deserves full points."""

import json
import os
from itertools import cycle, islice
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode

from autograder.checks import of_chapter
from autograder.sample import Student, reference_source, solve

AWKWARD = (
    "Smith [group 2]", "x[1]", "[!a]", "a*", "ab", "a?", "?", "*", "**", "{a,b}", "{student_id}", "%s", "%2e%2e",
    "100%", "Ann", "ann", "ANN", "Ann ", " Ann", "Ann\u00a0", "Ann\u2003Lee", "Ann  Lee", "new\nline", "tab\there",
    "car\rriage", "-rf", "--force", ".hidden", "..dots", "...", "dot.", "~", "~root", "#1", "a#b", "a?b=c", "a&b",
    "a;b", "a|b", "$HOME", "`id`", "$(id)", "'quote'", '"quote"', "back\\slash", "comma, name", "=cmd()", "+1",
    "@SUM(A1)", "<script>alert(1)", "<b>bold", "[bold]rich", "[link=x]", "{{ 7 * 7 }}", "\x1b]0;title\x07",
    "\x1b[31mred", "\u202egnirts", "\u200b", "M\u00fcller", "Mu\u0308ller", "latin-\udce9\udcff", "\u674e\u660e",
    "\U0001f600", "\u0410\u043d\u043d\u0430", "n" * 245, "\U0001f600" * 60, "__pycache__", ".ipynb_checkpoints",
    "feedback", "source", "NULL", "None", "con", "nul.txt", "0", "007", "1e3", "Robert'); DROP TABLE student;--",
    "a" * 64, "a" * 65, "x.pyc", "x.json", "gradebook.db", "a-x0123456789ab",
)  # fmt: skip


def write_class(submitted: Path, released: NotebookNode, chapter: str, size: int = len(AWKWARD)) -> list[str]:
    """Write the submissions of a class with awkward names, each right, and the files that lie about beside them.

    Args:
        submitted: `grading/submitted`.
        released: the student's edition of the chapter; it is left as it is.
        chapter: the chapter.
        size: how many students: the first names of the list.

    Returns:
        The names.
    """
    names = list(dict.fromkeys(islice(AWKWARD, size)))
    for name, number in zip(names, cycle(range(4))):
        sources = {
            check.name: check.variants[number - 1].source if number else reference_source(check)
            for check in of_chapter(chapter)
        }
        notebook = solve(nbformat.from_dict(json.loads(json.dumps(released))), Student(name, sources, answers=False))
        folder = submitted / name / chapter
        folder.mkdir(parents=True)
        (folder / f"{chapter}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (submitted / "notes.txt").write_text("a plain file", encoding="utf-8")
    (submitted / ".DS_Store").write_bytes(os.urandom(8))
    (submitted / "late by mail").mkdir(exist_ok=True)
    (submitted / "late by mail" / f"{chapter}.ipynb").write_text(json.dumps(released), encoding="utf-8")
    return names
