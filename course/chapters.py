"""Where the chapters are, and what their sections are called."""

import os
import re
from functools import cache
from pathlib import Path


class CourseError(Exception):
    """The user's mistake, or the machine's state; the message says what is wrong, what to do, and what was changed."""


def root() -> Path:
    """The course's top folder: `COURSE_ROOT`, or the folder that holds this package."""
    return Path(os.environ.get("COURSE_ROOT") or Path(__file__).resolve().parent.parent)


def names() -> list[str]:
    """The chapters, in order, as `NN_name`."""
    return sorted(path.stem for path in (root() / "book" / "chapters").glob("[0-9][0-9]_*.md"))


def source(chapter: str) -> Path:
    """The file that a chapter is written in.

    Raises:
        CourseError: there is no such chapter; the message lists those there are.
    """
    if chapter not in names():
        raise CourseError(
            f"There is no chapter {chapter!r} in {root() / 'book' / 'chapters'}. "
            f"The chapters are: {', '.join(names()) or 'none'}. Nothing was changed."
        )
    return root() / "book" / "chapters" / f"{chapter}.md"


@cache
def section_title(chapter: str, label: str) -> str:
    """The heading under a label, without its markup; the label itself where the book's sources are not at hand."""
    path = root() / "book" / "chapters" / f"{chapter}.md"
    if not path.exists():
        return label
    found = re.search(rf"^\({re.escape(label)}\)=\s*\n+#+ +(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return plain(found[1]) if found else label


@cache
def title(chapter: str) -> str:
    """The chapter's own heading, without its markup; its name where the book's sources are not at hand."""
    path = root() / "book" / "chapters" / f"{chapter}.md"
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.exists() else None
    return plain(found[1]) if found else chapter


def plain(heading: str) -> str:
    """A heading in plain characters: the few formulas that headings hold, written out."""
    text = re.sub(r"\\sqrt\{?([A-Za-z](?:_\w)?)\}?", r"√\1", heading)
    return re.sub(r"[$`*\\]", "", text).replace("{", "").replace("}", "").strip()
