"""Reads what a student handed in, and touches nothing else, whatever the folder holds."""

import hashlib
import importlib.util
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from autograder.cells import Cell, NotANotebookError, read_cells
from autograder.checks import of_chapter
from autograder.handed_in import COPIES, MAX_ENTRIES, Folder, RefusedError, opened, shown
from autograder.record import Flag

MAX_BYTES = 20 * 2**20
MAX_NOTEBOOKS = 5
MAX_COPIES = 2

_CLOCK = "timestamp.txt"
_SAMPLE = "sample-class.txt"  # what `autograder.sample` leaves in the folders that it makes
_WORK = {
    ".txt", ".md", ".rst", ".tex", ".rtf", ".doc", ".docx", ".odt", ".pages", ".pdf", ".html", ".htm", ".py", ".png",
    ".jpg", ".jpeg", ".heic", ".webp", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar",
}  # fmt: skip
"""How files end in which students hand in what belongs into the notebook."""

_OLDEST = datetime(2020, 1, 1)  # nbgrader's times are UTC without saying so
_STARTS_PYTHON = ("sitecustomize.py", "usercustomize.py", ".ipython", ".jupyter")
_SETTINGS = re.compile(r"(ipython|jupyter|nbgrader)\w*_config\.(py|json)")


@dataclass
class Beside:
    """A notebook that lies beside the chosen one.

    Args:
        name: its path within the folder.
        cells: its cells; none where it cannot be read.
        notes: what was mended in it, in sentences for the student.
        is_copy: whether Jupyter keeps it for itself; such a one is never graded.
    """

    name: str
    cells: list[Cell]
    notes: list[str]
    is_copy: bool


@dataclass
class Submission:
    """What a student handed in for a chapter.

    Args:
        student: the student's folder name.
        chapter: the chapter.
        name: the notebook's path within the folder.
        cells: the notebook's cells, in order.
        beside: the other notebooks in the folder, Jupyter's copies among them.
        files: names of other files that may hold a student's work.
        handed_in: what `timestamp.txt` says, in UTC; None where it says nothing that can be believed.
        repairs: what was mended, in sentences for the student.
        flags: what the instructor should look at.
        digest: of everything that was read.
        refused: why nothing can be graded; empty if it can.
    """

    student: str
    chapter: str
    name: str = ""
    cells: list[Cell] = field(default_factory=list)
    beside: list["Beside"] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    handed_in: datetime | None = None
    repairs: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    digest: str = ""
    refused: str = ""


def read(folder: Path, chapter: str, released: datetime | None = None) -> Submission:
    """Read a student's folder; never raises for what is in it.

    Args:
        folder: `grading/submitted/STUDENT/CHAPTER`; links above STUDENT are the instructor's own and are followed.
        chapter: the chapter.
        released: when the chapter was released, in UTC without saying so; a submission cannot be older.
    """
    submission = Submission(student=folder.parent.name, chapter=chapter)
    content = b""
    try:
        with opened(folder.parent.parent, folder.parts[-2:]) as handle:
            files = Folder(handle, [f"{chapter}.ipynb", _CLOCK])
            submission.flags = files.flags
            try:
                _read(files, submission, released)
            finally:
                content = files.digest.digest()
    except RefusedError as error:
        submission.refused = str(error)
    except OSError as error:
        submission.refused = f"The submission cannot be read: {error.strerror or type(error).__name__}."
    said = repr((submission.name, submission.refused, submission.repairs, submission.flags, submission.files))
    submission.digest = hashlib.sha256(content + said.encode()).hexdigest()
    return submission


def _read(folder: Folder, submission: Submission, released: datetime | None) -> None:
    if len(folder.entries) >= MAX_ENTRIES:
        folder.flag("size", f"The folder holds {MAX_ENTRIES} files or more. The others were not looked at.")
    links = [shown(name) for name, mode in sorted(folder.entries.items()) if stat.S_ISLNK(mode)]
    if links:
        folder.flag("symlink", f"The folder holds links, which were not followed: {', '.join(links[:5])}.")
    shadows = [shown(name) for name in sorted(folder.entries) if _shadows(name, folder.entries)]
    if shadows:
        names = ", ".join(shadows[:5])
        folder.flag("shadow", f"Files with the names of modules or settings came with the notebook, unused: {names}.")
    if _CLOCK in folder.entries:
        submission.handed_in = _clock(folder, released)
    submission.files = [shown(name) for name in sorted(folder.entries) if _may_be_work(name, folder)]
    try:
        submission.name, (submission.cells, notes) = _notebook(folder, submission)
        submission.repairs += notes
    finally:  # another notebook may hold the work where this one cannot be read
        submission.beside = _beside(folder, submission.name)


def _beside(folder: Folder, chosen: str) -> list[Beside]:
    """The notebooks beside the chosen one, as far as they can be read."""
    named = [name for name in sorted(folder.entries) if _is_notebook(name) and name != chosen]
    copies = [
        name for name in sorted(folder.entries) if _is_notebook(name.replace(f"{COPIES}/", "")) and COPIES in name
    ]
    found = []
    for name in [name for name in [*named[:MAX_NOTEBOOKS], *copies[:MAX_COPIES]] if stat.S_ISREG(folder.entries[name])]:
        try:
            cells, notes = read_cells(folder.content(name, MAX_BYTES // 2))
        except (NotANotebookError, RefusedError, OSError):
            cells, notes = [], []
        found.append(Beside(name, cells, notes, name in copies))
    return found


def _may_be_work(name: str, folder: Folder) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    known = name in (_CLOCK, _SAMPLE) or _is_notebook(name)
    if hidden or known or not stat.S_ISREG(folder.entries[name]) or not folder.sizes[name]:
        return False
    return path.suffix.lower() in _WORK or ".ipynb" in path.name.lower()


def _notebook(folder: Folder, submission: Submission) -> tuple[str, tuple[list[Cell], list[str]]]:
    """Choose the notebook among the files and read it."""
    right = f"{submission.chapter}.ipynb"
    named = sorted(name for name in folder.entries if _is_notebook(name))
    found = [name for name in named if stat.S_ISREG(folder.entries[name])]
    if right in found or (named and not found):
        chosen = right if right in named else named[0]
        return chosen, _cells(folder, chosen)
    if not found:
        held = ", ".join(shown(name) for name in sorted(folder.entries)[:5]) or "nothing"
        raise RefusedError(f"There is no notebook in the folder; it holds {held}. Hand in {right}.")
    near = [name for name in found if PurePosixPath(name).name.lower() == right.lower()]
    if len(found) == 1 or len(near) == 1:
        chosen = found[0] if len(found) == 1 else near[0]
        cells = _cells(folder, chosen)
    else:
        chosen, cells = _of_chapter(folder, submission.chapter, found)
    submission.repairs.append(f"`{shown(chosen)}` was graded. It should be called {right}.")
    return chosen, cells


def _is_notebook(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() == ".ipynb" and not any(part.startswith(".") for part in path.parts)


def _cells(folder: Folder, name: str) -> tuple[list[Cell], list[str]]:
    try:
        return read_cells(folder.content(name, MAX_BYTES))
    except NotANotebookError as error:
        raise RefusedError(
            f"`{shown(name)}` cannot be graded: {error}. Save it in Jupyter, hand it in again."
        ) from error


def _of_chapter(folder: Folder, chapter: str, names: list[str]) -> tuple[str, tuple[list[Cell], list[str]]]:
    """The one of several notebooks that holds cells of the chapter's exercises."""
    wanted = {check.name.replace(".", "-") for check in of_chapter(chapter)}
    matching = []
    for name in names[:MAX_NOTEBOOKS]:
        try:
            cells = _cells(folder, name)
        except (RefusedError, OSError):
            continue
        if any(cell.grade_id in wanted for cell in cells[0]):
            matching.append((name, cells))
    if len(matching) != 1:
        listed = ", ".join(shown(name) for name in names[:MAX_NOTEBOOKS])
        right = f"{chapter}.ipynb"
        raise RefusedError(f"The folder holds several notebooks: {listed}. Hand in one, called {right}.")
    return matching[0]


def _shadows(name: str, entries: dict[str, int]) -> bool:
    """Whether Python or Jupyter, started in this folder, would take a file for a module or for settings of theirs."""
    path = PurePosixPath(name)
    if len(path.parts) != 1:
        return False
    if name in _STARTS_PYTHON or _SETTINGS.fullmatch(name):
        return True
    is_module = path.suffix in (".py", ".pyc", ".so") or f"{name}/__init__.py" in entries
    stem = name.partition(".")[0]
    if not is_module or not stem.isidentifier():
        return False
    try:
        spec = importlib.util.find_spec(stem)
    except (ImportError, ValueError, AttributeError):
        return False
    return spec is not None and spec.origin is not None


def _clock(folder: Folder, released: datetime | None) -> datetime | None:
    """When the submission was handed in, in UTC; None, and a flag, where that cannot be told for certain."""
    try:
        text = folder.content(_CLOCK, 100).decode().strip()
        moment = _moment(text)
    except (RefusedError, OSError, ValueError, OverflowError, ZoneInfoNotFoundError):
        folder.flag(
            "clock",
            f"`{_CLOCK}` does not hold a time that can be read, its zone included (write UTC, "
            "+02:00 or Europe/Paris). No time of submission was recorded.",
        )
        return None
    now = datetime.now(UTC).replace(tzinfo=None)
    if not (released or _OLDEST) <= moment <= now + timedelta(days=1):
        folder.flag("clock", f"`{_CLOCK}` says {moment:%Y-%m-%d %H:%M} UTC, which cannot be the time of submission.")
        return None
    return moment


def _moment(text: str) -> datetime:
    """A time in UTC, read as ISO 8601 with or without a zone, which may also be named as in the tz database.

    More strictly than nbgrader, which reads a zone that it does not know, such as EDT, as UTC.
    """
    when, _, name = text.rpartition(" ")
    named = re.fullmatch(r"[A-Za-z_]+(/[A-Za-z_]+){0,2}", name)  # it becomes a path, so it must lead nowhere else
    moment = datetime.fromisoformat(when if named else re.sub(r" (?=[+-][\d:]+$)", "", text))
    if len(text) <= len("2030-01-01") or (named and moment.tzinfo):
        raise ValueError("no time of the day, or two zones")
    moment = moment.replace(tzinfo=ZoneInfo(name)) if named else moment
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def written(moment: datetime | None) -> str:
    """A time in UTC as nbgrader reads it, to the microsecond; empty where there is none."""
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC" if moment else ""
