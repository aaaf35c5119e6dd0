"""Grades a class: submissions are rebuilt, examined in a jail, several at once, and entered into nbgrader's gradebook.

A record is complete before its student is entered, and it is noted when that is done. So a run that was interrupted
is finished by the next one: nothing is examined or entered twice. What goes wrong with one submission is said of it and
stops no other; only where the grader's own place is at fault (the disk, the gradebook, the jail) does the run end.
"""

import asyncio
import errno
import hashlib
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbformat.notebooknode import NotebookNode
from sqlalchemy.exc import SQLAlchemyError

from autograder import intake, nbgrader_course, roster, workers
from autograder.entering import Book, Grade
from autograder.examine import examine
from autograder.harmless import harmless
from autograder.intake import Intake, Released
from autograder.jail import jail_for, kernel_manager
from autograder.judge import GRADING_SEED
from autograder.library import write_library
from autograder.record import Record, executed_path, load, mark_path, place, places
from autograder.release import release
from autograder.roster import submissions
from autograder.submission import written
from course.chapters import CourseError
from course.files import write_whole
from course.students import identifier

__all__ = ["Desk", "Grade", "Options", "desk_for", "grade", "rules", "submissions"]

_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip

SECONDS_TO_CLEAN = 60.0


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
        self._released = Released(nbgrader_course.folder("source") / name, nbgrader_course.folder("release") / name)
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
        taken = intake.result_of(intake.begin(folder, self.chapter, self._released), folder)
        return self._kept(folder, self._digest(taken))

    async def examined(self, folder: Path) -> Record:
        """Examine a submission, or take the record that is kept of it."""
        student, key = folder.parent.name, identifier(folder.parent)
        taken = await intake.finished(intake.begin(folder, self.chapter, self._released), folder)
        submission, digest, moment = taken.notebook, self._digest(taken), taken.handed_in
        kept = self._kept(folder, digest)
        if kept and not self.options.again:
            return kept
        record = await examine(submission, self.chapter, student, self.options.seed, self._kernels)
        record.identifier, record.digest, record.handed_in = key, digest, written(moment)
        mark_path(self.chapter, key).unlink(missing_ok=True)
        if submission.notebook is not None:
            text = nbformat.writes(await _harmless(submission.notebook))
            write_whole(executed_path(self.chapter, key), lambda path: path.write_text(text, encoding="utf-8"))
        record.save(place(self.chapter, key))
        return record

    def _kept(self, folder: Path, digest: str) -> Record | None:
        record = load(place(self.chapter, identifier(folder.parent)))
        mine = record is not None and (record.student, record.digest) == (folder.parent.name, digest)
        return record if mine else None

    def _digest(self, taken: Intake) -> str:
        """A digest of all that a submission's verdict follows from."""
        said = f"{taken.notebook.digest} {self.rules} {self.options.seed}"
        return hashlib.sha256(said.encode()).hexdigest()


async def _harmless(notebook: NotebookNode) -> NotebookNode:
    """What may be shown of an executed notebook; without any output where that cannot be found out at little cost."""
    try:
        return await workers.finished(workers.submit(harmless, notebook, seconds=SECONDS_TO_CLEAN))
    except workers.OverrunError:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
        return harmless(notebook)


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


def grade(
    chapter: str, folders: list[Path], options: Options = Options(), done: Callable[[], None] = lambda: None
) -> Iterator[Grade]:
    """Grade submissions, several at once; each is entered into the gradebook as soon as it is examined.

    Args:
        chapter: the chapter.
        folders: as `roster.submissions` lists them.
        options: how to grade.
        done: called after each, for a progress bar.
    """
    release(chapter)  # also sees that the gradebook is free and knows the chapter
    workers.start(options.jobs)
    roster.write()
    book = Book(chapter)
    try:
        for folder, outcome in _each(desk_for(chapter, options), folders):
            grade = _entered(book, folder, outcome)
            done()
            yield grade
    finally:
        book.close()


def _each(desk: Desk, folders: list[Path]) -> Iterator[tuple[Path, Record | BaseException]]:
    """Examine folders in another thread, `jobs` at once, and hand over each as it is ready."""
    ready: queue.Queue[tuple[Path, Record | BaseException]] = queue.Queue()

    async def one(folder: Path, room: asyncio.Semaphore) -> None:
        async with room:
            try:
                outcome: Record | BaseException = await desk.examined(folder)
            except Exception as error:  # whatever it is, the others must be graded
                outcome = error
            except asyncio.CancelledError as error:
                if _is_stopped():
                    raise
                outcome = RuntimeError(f"its examination broke off {error}".strip())
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


def _is_stopped() -> bool:
    """Whether the task that asks was told to end, and not something within it."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _entered(book: Book, folder: Path, outcome: Record | BaseException) -> Grade:
    """Enter what was found out about a submission, or say what went wrong with it."""
    try:
        if isinstance(outcome, BaseException):
            raise outcome
        return book.enter(outcome)
    except SQLAlchemyError as error:
        why = " ".join(str(error).splitlines()[:1])
        raise CourseError(f"The gradebook cannot be used: {why}. What was examined is kept; run this again.") from error
    except Exception as error:
        if isinstance(error, CourseError) or (isinstance(error, OSError) and _is_ours(error, book.chapter)):
            raise  # nobody else could be graded either
        why = f"the grader failed: {type(error).__name__}: {error}"
        return Grade(folder.parent.name, identifier(folder.parent), why)


def _is_ours(error: OSError, chapter: str) -> bool:
    """Whether the machine is at fault, the disk for example, and not something about one submission."""
    if error.errno in _MACHINE:
        return True
    try:
        write_whole(places(chapter) / ".probe", lambda path: path.write_bytes(bytes(2**16)))
        (places(chapter) / ".probe").unlink()
    except OSError:
        return True
    return False


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
