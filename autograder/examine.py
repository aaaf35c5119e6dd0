"""Runs a rebuilt submission cell by cell and has each exercise examined: one submission, one record.

What happens in one exercise costs that exercise alone. When a cell kills the kernel, floods it or does not end, a new
kernel repeats the cells before it, without the one that did it. An exercise that lost points is replaced by the
reference, after its verdict is sealed, for those that build on it; where the student's own version serves them
better, that counts. What a cell does to the kernel is that cell's own ending, and an exercise under which the kernel
dies is examined once more with nothing else of the student's beside it.
"""

import re
import socket
import tempfile
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_output

from autograder import workers
from autograder.checks import Check, of_chapter
from autograder.definitions import definitions_only
from autograder.doubts import plain_definitions, take_out_call
from autograder.examiner import Question, Talk, listening
from autograder.hearing import hear
from autograder.judge import Result
from autograder.kernel import Ending, Kernel, Kernels
from autograder.library import reference_source
from autograder.lost import ENDED, lost, unasked
from autograder.normalise import Normalised
from autograder.record import Answer, Flag, Record
from autograder.render import to_html

SECONDS_PER_CELL = 30.0
SECONDS_PER_SUBMISSION = 600.0
"""Of the student's code: what the grader takes for itself does not count."""
MAX_KEPT = 16 * 2**20
"""Characters of all the outputs of a notebook that are kept; a notebook with a picture a page has a fifth of it."""
SKIPPED = "skip-execution"
OWN = "own-"
"""How the ids of the student's own cells begin, in a rebuilt notebook."""


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
        self.short: dict[int, str] = {}  # what is executed again in place of a cell that did not end
        self.errors: dict[str, str] = {}
        self.used = 0.0  # seconds of the student's code
        self.room = MAX_KEPT
        self.doubts: dict[str, tuple[str, bool]] = {}
        self.isolated = False  # nothing of the student's may stand beside an exercise any more

    async def all_cells(self) -> None:
        await self.kernel.start()
        for index, cell in enumerate(self.cells):
            check = self.check_of(cell)
            if not _is_executed(cell) or (self.isolated and _is_own(cell)):
                continue
            if check is None:
                await self.cell(index, SECONDS_PER_CELL)
            elif _is_check(cell):
                await self.exercise(index, check)
            else:
                await self.solution(index, check)

    def check_of(self, cell: NotebookNode) -> Check | None:
        """The exercise that is solved or checked in a cell, if it is one of those."""
        return self.checks.get(_grade_id(cell).removesuffix("-check"))

    async def cell(self, index: int, seconds: float) -> Ending:
        """Execute a cell; if it breaks the kernel, go back to where it stood without it."""
        cell = self.cells[index]
        ending = await self.timed(self.kernel.execute(cell, min(seconds, self.left)))
        self.room -= sum(len(str(output)) for output in cell.outputs)
        if self.room < 0:
            said = "The outputs of the cells above fill the page, so this one's were left out.\n"
            cell.outputs = [new_output("stream", name="stderr", text=said)]
        if ending and not _is_own(cell) and self.check_of(cell) is None and not self.isolated:
            # A released cell harms nobody: a thread or an alarm of an earlier cell has ended the kernel under it.
            self.isolated = True
            await self.again(index)
            return await self.cell(index, seconds)
        if ending:
            self.broken.add(index)
            await self.again(index)
        return ending

    async def timed(self, execution: Awaitable[Ending]) -> Ending:
        """Wait for an execution on the student's time."""
        started = time.monotonic()
        try:
            return await execution
        finally:
            self.used += time.monotonic() - started

    async def again(
        self, end: int, alone: Check | None = None, first: str = "", plain: dict[int, str] | None = None
    ) -> None:
        """Start a new kernel and repeat the cells before `end` that do no harm.

        Args:
            end: where to stop.
            alone: an exercise that is to have nothing else of the student's beside it.
            first: code to execute before all of them.
            plain: what to execute in place of cells.
        """
        plain = plain or self.short
        await self.begin(first)
        index = 0
        while index < end:
            cell = self.cells[index]
            check = self.check_of(cell)
            left_out = index in self.broken or (self.isolated and _is_own(cell))
            left_out = left_out or (alone is not None and (_is_own(cell) or check not in (None, alone)))
            ending: Ending = ""
            if not _is_executed(cell):
                pass
            elif check is not None and _is_check(cell):
                await self.adopt(check, everywhere=alone is not None or plain is not self.short)
            elif not left_out:
                source = plain.get(index, cell.source)
                ending = await self.timed(self.kernel.run(source, min(SECONDS_PER_CELL, self.left)))
            if ending:  # it did no harm the first time
                self.broken.add(index)
                await self.begin(first)
            index = 0 if ending else index + 1

    async def begin(self, first: str) -> None:
        """Start a new kernel, and execute this code in it."""
        await self.kernel.start()
        if first:
            await self.kernel.run(first, SECONDS_PER_CELL)

    async def solution(self, index: int, check: Check) -> None:
        """Execute the cell that defines an exercise's solution."""
        ending = await self.cell(index, SECONDS_PER_CELL)
        if ending in ("time", "memory", "flood") and await self.shorten(index, check):
            ending = ""
        if ending:
            self.record.answers[check.name] = lost(
                check, self.record.seed, ending, f"The cell of `{check.symbol}` {ENDED[ending]}"
            )
        errors = [output for output in self.cells[index].outputs if output.output_type == "error"]
        if errors:
            self.errors[check.name] = f"{errors[0].ename}: {' '.join(errors[0].evalue.split())[:200]}".rstrip(": ")

    async def shorten(self, index: int, check: Check) -> bool:
        """Execute what a cell defines, without the demonstrations that kept it from its end; whether that ended."""
        source = self.cells[index].source
        try:
            asked = workers.submit(definitions_only, source, check.symbol, seconds=SECONDS_PER_CELL)
            short = await workers.finished(asked)
        except workers.OverrunError:
            return False
        if not short.strip() or await self.timed(self.kernel.run(short, min(SECONDS_PER_CELL, self.left))):
            await self.again(index)
            return False
        self.short[index] = short
        self.broken.discard(index)
        said = f"The cell of `{check.symbol}` did not come to its end. What it defines was graded alone."
        self.record.repairs.append(said)
        return True

    async def exercise(self, index: int, check: Check) -> None:
        """Have an exercise examined, seal the verdict, and go on with what is right."""
        started = time.monotonic()
        if check.name not in self.record.answers:
            answer = await (self.alone if self.isolated else self.answer)(index, check)
            if answer.how in ("crash", "memory") and not self.isolated:
                answer = await self.isolate(index, check, answer)
            if check.name in self.doubts and answer.result.points:
                answer = await self.second_look(index, check, answer)
            self.record.answers[check.name] = answer
        answer = self.record.answers[check.name]
        answer.source, answer.seconds = self.sources.get(check.name, ""), round(time.monotonic() - started, 3)
        answer.instead = [name for name in answer.instead if _mentions(answer.source, name.rpartition(".")[2])]
        _show(self.cells[index], answer.result)
        if self.kernel.companions():  # they would take time, and speak to the judge, while others are examined
            await self.again(index)
        await self.adopt(check)

    async def isolate(self, index: int, check: Check, died: Answer) -> Answer:
        """Examine an exercise under which the kernel died once more, alone: who killed it may be somebody else.

        A thread or an alarm that an earlier cell has set ends whatever happens to run when its time comes.
        """
        await self.again(index, alone=check)
        answer = await self.examined(index, check)
        if answer.how != "answered" or not answer.result.points:
            await self.again(index)
            return died
        self.isolated = True
        answer.instead = list(self.record.answers)
        said = f"Something beside {check.name} ended the kernel under it. From there on each exercise stands alone."
        self.record.flags.append(Flag("ended", _grade_id(self.cells[index]), said))
        return answer

    async def alone(self, index: int, check: Check) -> Answer:
        """Examine an exercise with nothing of the student's beside it, and with it where it does better so."""
        await self.again(index, alone=check)
        answer = await self.examined(index, check)
        answer.instead = list(self.record.answers)
        if not _lost(answer):
            return answer
        self.isolated = False
        await self.again(index)
        beside = await self.answer(index, check)
        self.isolated = True
        return max(answer, beside, key=lambda one: one.result.points)

    async def second_look(self, index: int, check: Check, answer: Answer) -> Answer:
        """Examine an exercise with what the cells define and nothing else of them; the lower verdict counts.

        What runs beside a student's code can be deceived by it, and this code does not say plainly enough what it does.
        Where the exercise asks to build something that PyTorch has, the kernel's PyTorch has it not.
        """
        doubt, is_open = self.doubts[check.name]
        first = take_out_call(check) if check.instead else ""
        looks: list[Answer] = []
        for plain in [await self.plain(index, check), {}][: 1 + is_open]:
            if all(_lost_against(answer, look) for look in looks):
                await self.again(index, first=first, plain=plain)
                looks.append(await self.examined(index, check, apart=True))
        await self.again(index)
        second = max(looks, key=lambda look: look.result.points)
        if not _lost_against(answer, second):
            return answer
        said = f"What `{check.symbol}` was given points for is not done by what your cells define."
        second.result.messages = [f"{said} {check.instead}".strip()]
        second.result.diagnoses, second.instead = [], answer.instead
        flag = f"{check.name} lost points when its definitions were tried alone, because {doubt}."
        self.record.flags.append(Flag("alone", _grade_id(self.cells[index]), flag))
        return second

    async def plain(self, end: int, check: Check) -> dict[int, str]:
        """What the student's cells before `end` define, for each of them."""
        theirs = [i for i in range(end) if _is_own(self.cells[i]) or self.check_of(self.cells[i]) is not None]
        sources = {i: self.cells[i].source for i in theirs if not _is_check(self.cells[i])}
        asked = workers.submit(_plain, sources, check.symbol, seconds=SECONDS_PER_CELL)
        try:
            return await workers.finished(asked)
        except workers.OverrunError:
            return dict.fromkeys(sources, "")

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

    async def examined(self, index: int, check: Check, apart: bool = False) -> Answer:
        """Execute the check's cell while the judge listens.

        Args:
            index: the cell.
            check: its check.
            apart: call the course's check, whatever the notebook calls so.
        """
        cell = NotebookNode(self.cells[index])
        name = "__import__('autograder').check" if apart else "check"
        cell.source = f'{name}("{check.name}", {check.symbol}, graded=True)'
        before = [cell.source for cell in self.cells[:index] if _is_executed(cell)]
        ending, talk = await hear(
            self.kernel, cell, self.listener, Question(check.name, self.record.seed, before), self.left
        )
        self.used += talk.waited
        self.flag(check, cell, talk)
        if ending:
            await self.again(index, alone=check if self.isolated else None)
        if talk.result is not None:
            return Answer(talk.result)  # sealed, whatever became of the kernel afterwards
        if ending:
            return lost(check, self.record.seed, ending, f"`{check.symbol}` {ENDED[ending]}")
        return lost(check, self.record.seed, "not tried", unasked(check, cell, self.errors.get(check.name, "")))

    def flag(self, check: Check, cell: NotebookNode, talk: Talk) -> None:
        """Note what a person should look at: other callers, and outputs where the check itself shows nothing."""
        if talk.doubt:
            self.doubts[check.name] = talk.doubt, talk.open
        known = {flag.message for flag in self.record.flags}
        self.record.flags += [Flag("tampering", "", said) for said in talk.tampering if said not in known]
        self.record.flags += [Flag("forged", f"{check.name.replace('.', '-')}-check", said) for said in talk.strangers]
        shown = [output for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
        if shown:
            said = f"The check of {check.name} shows a result of its own making; the judge's verdict stands."
            self.record.flags.append(Flag("claim", f"{check.name.replace('.', '-')}-check", said))

    async def adopt(self, check: Check, everywhere: bool = False) -> None:
        """Let the reference stand where the course's code uses the exercise, and where the student's lost points."""
        place = "globals()" if everywhere or _lost(self.record.answers[check.name]) else "None"
        call = f"__import__('autograder').adopt({check.name!r}, {reference_source(check)!r}, {place})"
        await self.kernel.run(call, SECONDS_PER_CELL)

    @property
    def left(self) -> float:
        """The seconds that this submission still has; a little is always left for the next exercise."""
        return max(1.0, SECONDS_PER_SUBMISSION - self.used)


def _grade_id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def _is_check(cell: NotebookNode) -> bool:
    return _grade_id(cell).endswith("-check")


def _is_own(cell: NotebookNode) -> bool:
    return str(cell.get("id", "")).startswith(OWN)


def _is_executed(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and SKIPPED not in cell.metadata.get("tags", [])


def _mentions(source: str, symbol: str) -> bool:
    return re.search(rf"\b{re.escape(symbol)}\b", source) is not None


def _plain(sources: dict[int, str], symbol: str) -> dict[int, str]:
    return {index: plain_definitions(source, symbol) for index, source in sources.items()}


def _lost_against(answer: Answer, other: Answer) -> bool:
    """Whether another verdict on the same exercise is the lower one."""
    return other.result.points < answer.result.points


def _lost(answer: Answer) -> bool:
    return answer.result.points < answer.result.max_points


def _show(cell: NotebookNode, result: Result) -> None:
    """Put the verdict where nbgrader looks for a score and formgrader shows it."""
    data = {"text/plain": str(result.points), "text/html": to_html(result)}
    cell.outputs = [new_output("execute_result", data, execution_count=cell.execution_count)]
