"""nbgrader's preprocessor for trusted grading: the outputs and the scores of a submission come from its record."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from nbformat.notebooknode import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import parse_utc
from traitlets import Bool

from autograder import nbgrader_course
from autograder.grading import Options, desk_for
from autograder.harmless import harmless
from autograder.record import Record, executed_path, load, place
from course.chapters import CourseError
from course.students import identifier

_CLOCK = "timestamp.txt"


class Verdicts(NbGraderPreprocessor):  # type: ignore[misc]
    """Stands before all that nbgrader does: hands on the executed notebook that belongs to the record.

    Where there is no record of this submission yet, it is examined now. So `nbgrader autograde` and formgrader give
    the same points as `course grade`. Of what was handed in nothing else goes on: no cell, no mark, no file.
    """

    unsafe = Bool(False, help="Examine without a jail.").tag(config=True)
    from_record = Bool(False, help="Take the record there is: `course grade` has just made it.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Replace the notebook by the executed one."""
        chapter, student = resources["nbgrader"]["assignment"], resources["nbgrader"]["student"]
        copied = nbgrader_course.folder("autograded") / student / chapter
        _clear(copied, nbgrader_course.folder("source") / chapter)
        record = load(place(chapter, student)) if self.from_record else self._examined(chapter, student)
        if record is None:
            raise CourseError(f"There is no record of {student}. Run `course grade {chapter}`.")
        if record.refused:
            raise CourseError(record.refused)
        if not self.from_record:
            _set_time(resources["nbgrader"]["db_url"], record)
        _write_clock(copied, record)
        return harmless(nbformat.read(executed_path(chapter, student), as_version=4)), resources

    def _examined(self, chapter: str, student: str) -> Record:
        folder = nbgrader_course.folder("submitted") / student / chapter
        if identifier(folder.parent) != student:
            raise CourseError(
                f"nbgrader cannot keep a student under this folder's name. `course grade {chapter}` grades it, as "
                f"{identifier(folder.parent)}."
            )
        desk = desk_for(chapter, Options(unsafe=True) if self.unsafe else None)
        record = desk.kept(folder)
        if record is None:
            desk.warm()
            with ThreadPoolExecutor(1) as thread:  # formgrader calls from within an event loop
                record = thread.submit(asyncio.run, desk.examined(folder)).result()
        return record


def _set_time(url: str, record: Record) -> None:
    """Have the gradebook hold the time that was decided on: nbgrader reads any zone that it does not know as UTC."""
    with Gradebook(url) as gradebook:
        submission = gradebook.find_submission(record.chapter, record.identifier)
        submission.timestamp = parse_utc(record.handed_in) if record.handed_in else None
        gradebook.db.commit()


def _clear(folder: Path, source: Path) -> None:
    """Remove what nbgrader has copied beside a notebook: formgrader would serve a student's page as one of its own.

    Args:
        folder: where it was copied to.
        source: the instructor's files, which nbgrader puts there over a student's of the same name.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif not (source / path.relative_to(folder)).is_file():
            path.unlink()


def _write_clock(folder: Path, record: Record) -> None:
    """Write the time of submission, by which nbgrader knows the next one for a newer."""
    if record.handed_in:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CLOCK).write_text(record.handed_in)
