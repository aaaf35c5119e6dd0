"""Reads a student's folder and rebuilds its notebook, in a process apart: what is read may be made to cost much."""

from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode

from autograder import workers
from autograder.normalise import Normalised, read, rebuild

SECONDS = 60.0
"""How long that may take; a long notebook takes a fifth of a second."""


@dataclass(frozen=True)
class Released:
    """The two editions of a chapter's notebook.

    Args:
        source: the instructor's.
        student: the one that students were given.
    """

    source: Path
    student: Path


@dataclass
class Intake:
    """A submission, rebuilt on the released notebook.

    Args:
        notebook: the rebuilt notebook and what was found on the way.
        handed_in: when it was handed in, in UTC; None where that is not known.
    """

    notebook: Normalised
    handed_in: datetime | None = None


def begin(folder: Path, chapter: str, released: Released) -> "Future[Intake]":
    """Begin to read and rebuild a submission.

    Args:
        folder: `grading/submitted/STUDENT/CHAPTER`.
        chapter: the chapter.
        released: its notebooks.
    """
    return workers.submit(_rebuilt, folder, chapter, released, seconds=SECONDS)


def result_of(future: "Future[Intake]", folder: Path) -> Intake:
    """Wait for what `begin` began; a submission that took too much is refused."""
    try:
        return workers.result_of(future)
    except workers.OverrunError:
        return _refused(folder)


async def finished(future: "Future[Intake]", folder: Path) -> Intake:
    """The same in an event loop."""
    try:
        return await workers.finished(future)
    except workers.OverrunError:
        return _refused(folder)


def _rebuilt(folder: Path, chapter: str, released: Released) -> Intake:
    submission = read(folder, chapter)
    editions = (_notebook(path, path.stat().st_mtime_ns) for path in (released.source, released.student))
    return Intake(rebuild(submission, *editions), submission.handed_in)


@lru_cache(maxsize=8)  # the same for a whole class
def _notebook(path: Path, changed: int) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    return notebook


def _refused(folder: Path) -> Intake:
    why = "The notebook takes more time or memory to read than any honest one. Clear its outputs, and hand it in again."
    times = sorted(str(path.lstat().st_mtime_ns) for path in folder.iterdir())
    return Intake(Normalised(None, [], [], digest=f"not read {' '.join(times)}", refused=why))
