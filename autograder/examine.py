"""Runs a rebuilt submission cell by cell and has each exercise examined: one submission, one record.

What happens in one exercise costs that exercise alone. When a cell kills the kernel, floods it or does not end, a new
kernel repeats the cells before it, without the one that did it. An exercise that lost points is replaced by the
reference, after its verdict is sealed, for those that build on it; where the student's own version serves them
better, that counts.
"""

import asyncio
import re
import socket
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_output

from autograder.checks import Check, of_chapter
from autograder.examiner import Examination, listening
from autograder.judge import Part, Result
from autograder.kernel import Ending, Kernel, Kernels
from autograder.library import reference_source
from autograder.normalise import Normalised
from autograder.record import Answer, Flag, How, Record
from autograder.render import to_html

SECONDS_PER_CELL = 30.0
SECONDS_PER_EXERCISE = 120.0
SECONDS_PER_SUBMISSION = 600.0
POLL = 0.2
SKIPPED = "skip-execution"

_ENDED = {
    "time": "did not finish in time. Look for a loop that never ends.",
    "crash": "ended the kernel. Look for a call that leaves Python, such as `exit` or `os._exit`.",
    "memory": "used more memory than a kernel may have. Look for tensors that grow without need.",
    "flood": "printed more than a page can hold. Remove the print from the loop.",
}


async def examine(submission: Normalised, chapter: str, student: str, seed: int, kernels: Kernels) -> Record:
    """Execute a submission's notebook in place and examine its exercises.

    Args:
        submission: what `normalise.rebuild` made; the outputs of its notebook are filled in.
        chapter: the chapter.
        student: the student's folder name.
        seed: the seed of the hidden inputs.
        kernels: makes the kernels to run it in.

    Returns:
        The record, without its digest.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = Record(chapter, student, seed, digest="", graded=now, written=submission.written)
    record.flags, record.repairs, record.refused = submission.flags, submission.repairs, submission.refused
    record.notes = submission.notes
    if submission.notebook is None:
        return record
    # Short: the path of a Unix socket has at most about 100 characters.
    with tempfile.TemporaryDirectory(prefix="g") as name, listening(Path(name) / "judge") as listener:
        kernel = Kernel(kernels, Path(name), {"COURSE_JUDGE": f"{name}/judge", "OMP_NUM_THREADS": "1"})
        run = _Run(submission.notebook.cells, submission.sources, record, kernel, listener)
        try:
            await run.all_cells()
        finally:
            await kernel.stop()
    return record


class _Run:
    """One submission on its way through its cells."""

    def __init__(
        self,
        cells: list[NotebookNode],
        sources: dict[str, str],
        record: Record,
        kernel: Kernel,
        listener: socket.socket,
    ) -> None:
        self.cells, self.sources = cells, sources
        self.record, self.kernel, self.listener = record, kernel, listener
        self.checks = {check.name.replace(".", "-"): check for check in of_chapter(record.chapter)}
        self.broken: set[int] = set()  # cells that are not executed again
        self.errors: dict[str, str] = {}
        self.ends = time.monotonic() + SECONDS_PER_SUBMISSION

    async def all_cells(self) -> None:
        await self.kernel.start()
        for index, cell in enumerate(self.cells):
            if not _is_executed(cell):
                continue
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
            check = self.checks.get(grade_id.removesuffix("-check"))
            if check is None:
                await self.cell(index, SECONDS_PER_CELL)
            elif grade_id.endswith("-check"):
                await self.exercise(index, check)
            else:
                await self.solution(index, check)

    async def cell(self, index: int, seconds: float) -> Ending:
        """Execute a cell; if it breaks the kernel, go back to where it stood without it."""
        ending = await self.kernel.execute(self.cells[index], min(seconds, self.left))
        if ending:
            self.broken.add(index)
            await self.again(index)
        return ending

    async def again(self, end: int) -> None:
        """Start a new kernel and repeat the cells before `end` that do no harm."""
        await self.kernel.start()
        index = 0
        while index < end:
            cell = self.cells[index]
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
            check = self.checks.get(grade_id.removesuffix("-check"))
            ending: Ending = ""
            if _is_executed(cell) and check is not None and grade_id.endswith("-check"):
                await self.adopt(check)
            elif _is_executed(cell) and index not in self.broken:
                ending = await self.kernel.run(cell.source, min(SECONDS_PER_CELL, self.left))
            if ending:  # it did no harm the first time
                self.broken.add(index)
                await self.kernel.start()
            index = 0 if ending else index + 1

    async def solution(self, index: int, check: Check) -> None:
        """Execute the cell that defines an exercise's solution."""
        ending = await self.cell(index, SECONDS_PER_CELL)
        if ending:
            self.record.answers[check.name] = self.lost(check, ending, f"The cell of `{check.symbol}` {_ENDED[ending]}")
        errors = [output for output in self.cells[index].outputs if output.output_type == "error"]
        if errors:
            self.errors[check.name] = f"{errors[0].ename}: {' '.join(errors[0].evalue.split())[:200]}".rstrip(": ")

    async def exercise(self, index: int, check: Check) -> None:
        """Have an exercise examined, seal the verdict, and go on with what is right."""
        started = time.monotonic()
        if check.name not in self.record.answers:
            self.record.answers[check.name] = await self.answer(index, check)
        answer = self.record.answers[check.name]
        answer.source, answer.seconds = self.sources.get(check.name, ""), round(time.monotonic() - started, 3)
        answer.instead = [name for name in answer.instead if _mentions(answer.source, name.rpartition(".")[2])]
        _show(self.cells[index], answer.result)
        if self.kernel.companions():  # they would take time, and speak to the judge, while others are examined
            await self.again(index)
        await self.adopt(check)

    async def answer(self, index: int, check: Check) -> Answer:
        """The better of two verdicts, where there are two: built on the references, or on the student's own."""
        instead = [name for name, earlier in self.record.answers.items() if _lost(earlier)]
        answer = await self.examined(index, check)
        answer.instead = instead
        own = [name for name in instead if self.record.answers[name].how == "answered"]
        if answer.how == "answered" and _lost(answer) and own:
            symbols = [name.rpartition(".")[2] for name in own]
            await self.kernel.run(f"__import__('autograder').restore({symbols!r}, globals())", SECONDS_PER_CELL)
            second = await self.examined(index, check)
            for name in own:
                await self.adopt(self.checks[name.replace(".", "-")])
            if second.how == "answered" and second.result.points > answer.result.points:
                second.instead = [name for name in instead if name not in own]
                answer = second
        return answer

    async def examined(self, index: int, check: Check) -> Answer:
        """Execute the check's cell while the judge listens."""
        before = [cell.source for cell in self.cells[:index] if _is_executed(cell)]
        examination = Examination(self.listener, check, self.record.seed, before)
        cell = NotebookNode(self.cells[index])
        cell.source = f'check("{check.name}", {check.symbol}, graded=True)'
        running = asyncio.create_task(self.kernel.execute(cell, min(SECONDS_PER_EXERCISE, self.left)))
        while not (await asyncio.wait({running}, timeout=POLL))[0]:
            if examination.silent:
                self.kernel.end()  # what it still does concerns nobody
        result = await asyncio.to_thread(examination.finish)
        # Where the judge waited in vain, it was the judge who had the kernel killed.
        ending: Ending = "time" if examination.silent == "time" else running.result() or examination.silent
        self.flag(check, cell, examination.strangers)
        if ending:
            await self.again(index)
        if result is not None:
            return Answer(result)  # sealed, whatever became of the kernel afterwards
        if ending:
            return self.lost(check, ending, f"`{check.symbol}` {_ENDED[ending]}")
        return self.lost(check, "not tried", self.unasked(check, cell))

    def unasked(self, check: Check, cell: NotebookNode) -> str:
        """Why a check's cell came to its end without a word to the judge."""
        if check.name in self.errors:
            return f"`{check.symbol}` is not there, because its cell stopped with {self.errors[check.name]}."
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors and errors[0].ename == "NameError":
            return f"`{check.symbol}` is not defined. Define it in the exercise's cell, under this name."
        return f"`{check.symbol}` was not handed to its check."

    def lost(self, check: Check, how: How, message: str) -> Answer:
        """A verdict without an answer."""
        parts = [
            Part(name, points, "not tried" if how == "not tried" else "no") for name, points in check.parts.items()
        ]
        return Answer(Result(check.name, parts, [message], read=check.read, seed=self.record.seed), how)

    def flag(self, check: Check, cell: NotebookNode, strangers: list[str]) -> None:
        """Note what a person should look at: other callers, and outputs where the check itself shows nothing."""
        self.record.flags += [Flag("forged", f"{check.name.replace('.', '-')}-check", said) for said in strangers]
        shown = [output for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
        if shown:
            said = f"The check of {check.name} shows a result of its own making; the judge's verdict stands."
            self.record.flags.append(Flag("claim", f"{check.name.replace('.', '-')}-check", said))

    async def adopt(self, check: Check) -> None:
        """Let the reference stand where the course's code uses the exercise, and where the student's lost points."""
        place = "globals()" if _lost(self.record.answers[check.name]) else "None"
        call = f"__import__('autograder').adopt({check.name!r}, {reference_source(check)!r}, {place})"
        await self.kernel.run(call, SECONDS_PER_CELL)

    @property
    def left(self) -> float:
        """The seconds that this submission still has; a little is always left for the next exercise."""
        return max(1.0, self.ends - time.monotonic())


def _is_executed(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and SKIPPED not in cell.metadata.get("tags", [])


def _mentions(source: str, symbol: str) -> bool:
    return re.search(rf"\b{re.escape(symbol)}\b", source) is not None


def _lost(answer: Answer) -> bool:
    return answer.result.points < answer.result.max_points


def _show(cell: NotebookNode, result: Result) -> None:
    """Put the verdict where nbgrader looks for a score and formgrader shows it."""
    data = {"text/plain": str(result.points), "text/html": to_html(result)}
    cell.outputs = [new_output("execute_result", data, execution_count=cell.execution_count)]
