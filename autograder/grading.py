"""Grades a class: submissions are rebuilt, examined in a jail, several at once, and entered into nbgrader's gradebook.

A record is complete before its student is entered, and a mark is left when that is done. So a run that was interrupted
is finished by the next one: nothing is examined or entered twice.
"""

import asyncio
import hashlib
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbgrader.api import Gradebook, MissingEntry

from autograder import feedback, manual, nbgrader_course
from autograder.examine import examine
from autograder.harmless import harmless
from autograder.jail import jail_for, kernel_manager
from autograder.judge import GRADING_SEED
from autograder.library import write_library
from autograder.normalise import Normalised, read, rebuild
from autograder.record import Record, load, place
from autograder.release import release
from course.chapters import CourseError, root, source
from course.files import write_whole


@dataclass(frozen=True)
class Options:
    """How a class is graded.

    Args:
        seed: the seed of the hidden inputs; recorded with each grade.
        jobs: how many submissions are examined at once.
        again: examine what has been examined before.
        unsafe: without a jail; only for submissions that you would run yourself.
    """

    seed: int = GRADING_SEED
    jobs: int = 2
    again: bool = False
    unsafe: bool = False


@dataclass
class Grade:
    """What became of one submission.

    Args:
        student: the student's folder name.
        fault: why it could not be graded; empty if it was.
        cells: points by cell, `None` where a person still has to grade.
        score: the sum so far.
        max_score: the sum that can be earned.
        waiting: whether an answer awaits grading by hand.
        flags: how many things about it a person should look at.
    """

    student: str
    fault: str = ""
    cells: dict[str, float | None] = field(default_factory=dict)
    score: float = 0.0
    max_score: float = 0.0
    waiting: bool = False
    flags: int = 0


def submissions(chapter: str, student: str = "*") -> list[Path]:
    """The folders handed in for a chapter.

    Raises:
        CourseError: there is no such chapter, or nothing was handed in.
    """
    source(chapter)
    submitted = nbgrader_course.folder("submitted")
    folders = sorted(folder / chapter for folder in submitted.glob(student))
    found = [folder for folder in folders if os.path.lexists(folder)]  # a link that leads nowhere is a submission too
    if not found:
        path = submitted / ("STUDENT" if student == "*" else student) / chapter / f"{chapter}.ipynb"
        raise CourseError(
            f"No submissions found in {submitted / student / chapter}. Put each student's notebook at {path}, or make "
            f"a sample class with `course sample {chapter}`. Nothing was changed."
        )
    return found


class Desk:
    """What is needed to examine the submissions of one chapter: the released notebooks, and kernels to run them in."""

    def __init__(self, chapter: str, options: Options) -> None:
        """Read the notebooks and write what the kernels may import.

        Args:
            chapter: the chapter, released.
            options: how to grade.
        """
        self.chapter, self.options = chapter, options
        name = f"{chapter}/{chapter}.ipynb"
        self._release = nbformat.read(nbgrader_course.folder("source") / name, as_version=4)
        self._student_release = nbformat.read(nbgrader_course.folder("release") / name, as_version=4)
        self.rules = rules(chapter)
        self._library = tempfile.TemporaryDirectory(prefix="course-library-")
        Path(self._library.name).chmod(0o755)  # the kernel has a user of its own
        write_library(chapter, Path(self._library.name))
        self._kernels = partial(_kernels, Path(self._library.name), options.unsafe)

    def warm(self) -> None:
        """Open the jail from this thread, with which it ends: for those who examine from one that ends sooner."""
        if not self.options.unsafe:
            jail_for(Path(self._library.name))

    def kept(self, folder: Path) -> Record | None:
        """The record that is kept, if it is of this very submission."""
        return self._kept(folder, self._rebuilt(folder)[1])

    async def examined(self, folder: Path) -> Record:
        """Examine a submission, or take the record that is kept of it."""
        student = folder.parent.name
        submission, digest, moment = self._rebuilt(folder)
        kept = self._kept(folder, digest)
        if kept and not self.options.again:
            return kept
        record = await examine(submission, self.chapter, student, self.options.seed, self._kernels)
        record.digest, record.handed_in = digest, f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""
        mark_path(self.chapter, student).unlink(missing_ok=True)
        if submission.notebook is not None:
            text = nbformat.writes(await asyncio.to_thread(harmless, submission.notebook))
            write_whole(executed_path(self.chapter, student), lambda path: path.write_text(text, encoding="utf-8"))
        record.save(place(self.chapter, student))
        return record

    def _kept(self, folder: Path, digest: str) -> Record | None:
        record = load(place(self.chapter, folder.parent.name))
        return record if record and record.digest == digest else None

    def _rebuilt(self, folder: Path) -> tuple[Normalised, str, datetime | None]:
        """A student's notebook on the released one, the digest of all that its verdict follows from, and its time."""
        submission = read(folder, self.chapter)
        rebuilt = rebuild(submission, self._release, self._student_release)
        said = f"{submission.digest} {self.rules} {self.options.seed}"
        return rebuilt, hashlib.sha256(said.encode()).hexdigest(), submission.handed_in


_desks: dict[str, Desk] = {}
"""The desks of this process by chapter: a jail takes seconds to open, so it stays open for the next submission."""


def desk_for(chapter: str, options: Options | None = None) -> Desk:
    """The desk of a chapter: the one there is, unless something that verdicts follow from has changed since.

    Args:
        chapter: the chapter, released.
        options: how to grade; None for whatever is in use.
    """
    desk = _desks.get(chapter)
    if desk is None or desk.rules != rules(chapter) or options not in (None, desk.options):
        desk = _desks[chapter] = Desk(chapter, options or Options())
    return desk


def executed_path(chapter: str, student: str) -> Path:
    """Where the notebook is kept as it was executed."""
    return place(chapter, student).with_suffix(".ipynb")


def mark_path(chapter: str, student: str) -> Path:
    """What is left when a record has been entered into the gradebook: a file with the record's digest."""
    return place(chapter, student).with_suffix(".entered")


def grade(
    chapter: str, folders: list[Path], options: Options = Options(), done: Callable[[], None] = lambda: None
) -> Iterator[Grade]:
    """Grade submissions, several at once; each is entered into the gradebook as soon as it is examined.

    Args:
        chapter: the chapter.
        folders: as `submissions` lists them.
        options: how to grade.
        done: called after each, for a progress bar.
    """
    release(chapter)  # also sees that the gradebook is free and knows the chapter
    for folder, outcome in _each(desk_for(chapter, options), folders):
        grade = _entered(chapter, folder, outcome) if isinstance(outcome, Record) else _failed(folder, outcome)
        done()
        yield grade


def _each(desk: Desk, folders: list[Path]) -> Iterator[tuple[Path, Record | BaseException]]:
    """Examine folders in another thread, `jobs` at once, and hand over each as it is ready."""
    ready: queue.Queue[tuple[Path, Record | BaseException]] = queue.Queue()

    async def one(folder: Path, room: asyncio.Semaphore) -> None:
        async with room:
            try:
                outcome: Record | BaseException = await desk.examined(folder)
            except Exception as error:  # whatever it is, the others must be graded
                outcome = error
            ready.put((folder, outcome))

    async def everyone() -> None:
        room = asyncio.Semaphore(desk.options.jobs)
        async with asyncio.TaskGroup() as group:  # when it is cancelled, it waits until every kernel has ended
            for folder in folders:
                group.create_task(one(folder, room))

    loop = asyncio.new_event_loop()
    task = loop.create_task(everyone())

    def work() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=work, name="examines submissions")
    thread.start()
    try:
        for _ in folders:
            yield ready.get()
    finally:  # also when a person or an error stops it: the kernels in use are ended
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def _entered(chapter: str, folder: Path, record: Record) -> Grade:
    """Enter a record into the gradebook by nbgrader itself, write the feedback, and leave the mark."""
    student = folder.parent.name
    mark = mark_path(chapter, student)
    if record.refused:
        feedback.write(record, manual.of_student(chapter, student), feedback.place(chapter, student))
        return Grade(student, record.refused, flags=len(record.flags))
    if not mark.exists() or mark.read_text() != record.digest:
        _lay_out(chapter, record)
        config = nbgrader_course.configuration()
        config.CourseDirectory.submitted_directory = "grading/rebuilt"
        nbgrader = nbgrader_course.api(config)
        fault = nbgrader_course.run(nbgrader.autograde, chapter, student, create=True)
        if fault:
            return Grade(student, fault)
        write_whole(mark, lambda path: path.write_text(record.digest))
    # Each time: a person may have given points or comments meanwhile.
    feedback.write(record, manual.of_student(chapter, student), feedback.place(chapter, student))
    grade = recorded(chapter, student)
    grade.flags = len(record.flags)
    return grade


def _lay_out(chapter: str, record: Record) -> None:
    """Put the rebuilt notebook, and nothing else that a student sent, where nbgrader will read it."""
    folder = root() / "grading" / "rebuilt" / record.student / chapter
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(executed_path(chapter, record.student), folder / f"{chapter}.ipynb")
    if record.handed_in:
        (folder / "timestamp.txt").write_text(record.handed_in)


def _failed(folder: Path, error: BaseException) -> Grade:
    if isinstance(error, CourseError | OSError):
        raise error  # the jail, the disk: nobody else could be graded either
    return Grade(folder.parent.name, f"the grader failed: {type(error).__name__}: {error}")


def _kernels(library: Path, unsafe: bool, folder: Path, environment: dict[str, str]) -> AsyncKernelManager:
    return kernel_manager(library, folder, unsafe, environment | {"PYTHONPATH": str(library)})


def rules(chapter: str) -> str:
    """A digest of what verdicts follow from besides the submission: references, checks, judge, release."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted([*here.rglob("*.py"), *(here.parent / "solutions").glob("*.py")]):
        digest.update(path.read_bytes())
    for step in ("source", "release"):
        digest.update((nbgrader_course.folder(step) / chapter / f"{chapter}.ipynb").read_bytes())
    return digest.hexdigest()


def recorded(chapter: str, student: str) -> Grade:
    """What the gradebook holds for a student."""
    with Gradebook(nbgrader_course.database()) as gradebook:
        try:
            submission = gradebook.find_submission(chapter, student)
        except MissingEntry:
            return Grade(student, "the gradebook has no submission")
        cells = {
            grade.name: None if grade.needs_manual_grade else grade.score
            for notebook in submission.notebooks
            for grade in notebook.grades
        }
        return Grade(student, "", cells, submission.score, submission.max_score, bool(submission.needs_manual_grade))
