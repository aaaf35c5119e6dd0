"""The names of students' folders, and the identifiers under which files and the gradebook keep them.

A folder may have any name: what a learning platform writes, or what a student thought funny. A name that every file
system, shell, URL and nbgrader's patterns take as it is stays as it is. Every other has an identifier made of it. The
mapping needs no memory: an identifier that is made can be told from a plain name, so it is never another's name.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9_-]|[A-Za-z0-9]")
_MADE = re.compile(r"-x[0-9a-f]{12}", re.IGNORECASE)
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows opens no file of this name


def is_plain(name: str) -> bool:
    """Whether a name can be used as it is: in a file's name, a URL, a pattern, and as a student's id in nbgrader."""
    return bool(_PLAIN.fullmatch(name)) and not _MADE.search(name) and not _DEVICE.fullmatch(name)


def made_of(name: str) -> str:
    """An identifier for a name that cannot be used as it is: readable, not too long, and never the same for two."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:24].strip("-")
    return f"{readable or 'student'}-x{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def former(name: str, identifier: str) -> set[str]:
    """Other identifiers that may have stood for this name, and for no other; a gradebook holds only Unicode."""
    own = not _MADE.search(name) and name == name.encode("utf-8", "ignore").decode()
    return {made_of(name), *([name] if own else [])} - {identifier}


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """The identifier of each name of a class.

    No two are the same, not even where upper and lower case are: of names that differ in nothing else, at most the one
    in lower case keeps its own.
    """
    names = list(names)
    folded = Counter(name.casefold() for name in names if is_plain(name))
    return {
        name: name if is_plain(name) and (folded[name.casefold()] == 1 or name == name.lower()) else made_of(name)
        for name in names
    }


def identifier(folder: Path) -> str:
    """The identifier of a student, who has this folder among those of the class.

    Args:
        folder: `grading/submitted/STUDENT`; it need not exist.
    """
    if not is_plain(folder.name):
        return made_of(folder.name)  # whoever else is there
    others = {path.name for path in folder.parent.iterdir()} if folder.parent.is_dir() else set()
    return identifiers(others | {folder.name})[folder.name]
