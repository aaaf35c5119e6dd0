"""Who handed in: finds the folders of a chapter, and tells people which identifier stands for which folder."""

import os
import re
from pathlib import Path

from autograder import nbgrader_course, tables
from autograder.student_text import visible
from course.chapters import CourseError, root, source
from course.files import write_whole
from course.students import identifiers

_SPACE = re.compile(r"^ | $|(?<= ) |[^\S ]")
"""Space that nobody sees: at an end, twice, or other than the space bar's."""


def shown(name: str) -> str:
    """A student's name as it can be shown in one line: every character of it is seen."""
    return _SPACE.sub(_written_out, visible(name))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code <= 0x20 else f"\\u{code:04x}"


def submissions(chapter: str, student: str | None = None) -> list[Path]:
    """The folders handed in for a chapter.

    Args:
        chapter: the chapter.
        student: only this student's: the name of a folder, letter for letter, or the identifier that stands for it.

    Raises:
        CourseError: there is no such chapter, or nothing was handed in.
    """
    source(chapter)
    submitted = nbgrader_course.folder("submitted")
    names = _names(submitted)
    if student is not None:
        known = identifiers(names)
        names = [name for name in names if name == student] or [name for name in names if known[name] == student]
    folders = [submitted / name / chapter for name in names]
    found = [folder for folder in folders if os.path.lexists(folder)]  # a link that leads nowhere is a submission too
    if not found:
        place = submitted / ("STUDENT" if student is None else shown(student)) / chapter
        raise CourseError(
            f"No submissions found in {submitted / '*' / chapter if student is None else place}. Put each student's "
            f"notebook at {place / chapter}.ipynb, or make a sample class with `course sample {chapter}`. "
            "Nothing was changed."
        )
    return found


def strays(chapter: str) -> list[str]:
    """What lies where no submission is looked for: files beside the students' folders, and beside the chapter's."""
    submitted = nbgrader_course.folder("submitted")
    found = [name for name in _names(submitted) if _is_file(submitted / name) and not name.startswith(".")]
    for name in _names(submitted):
        if (submitted / name).is_dir() and not os.path.lexists(submitted / name / chapter):
            beside = [file for file in _names(submitted / name) if file.lower().endswith(".ipynb") and chapter in file]
            found += [f"{name}/{file}" for file in beside]
    return [shown(name) for name in found]


def write() -> Path:
    """Write the table that says which identifier stands for which folder: `grading/students.csv`.

    Raises:
        OSError: it cannot be written.
    """
    submitted = nbgrader_course.folder("submitted")
    known = identifiers(name for name in _names(submitted) if not _is_file(submitted / name))
    heads = ["folder in submitted", "student id in the gradebook, folder in autograded and feedback"]
    content = tables.text([heads, *([shown(name), known[name]] for name in known)]).encode("utf-8-sig")
    path = root() / "grading" / "students.csv"
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, lambda temporary: temporary.write_bytes(content))
    return path


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
