"""Lets a kernel and the judge talk about one exercise, and ends whichever keeps the other waiting."""

import asyncio
import socket

from nbformat.notebooknode import NotebookNode

from autograder import workers
from autograder.examiner import Question, Talk, converse
from autograder.kernel import Ending, Kernel

SECONDS_PER_EXERCISE = 120.0
"""Of the student's code: what the judge takes to think does not count."""
SECONDS_TO_JUDGE = 180.0
SECONDS_TO_END = 5.0


async def hear(
    kernel: Kernel, cell: NotebookNode, listener: socket.socket, question: Question, left: float
) -> tuple[Ending, Talk]:
    """Execute a check's cell while the judge listens.

    Args:
        kernel: where.
        cell: calls the check.
        listener: where the kernel calls.
        question: what the judge is to find out.
        left: the seconds that the submission still has.

    Returns:
        How the cell ended, and what became of the conversation.
    """
    ours, theirs = socket.socketpair()
    seconds = min(SECONDS_PER_EXERCISE, left)
    most = seconds + SECONDS_TO_JUDGE
    with ours, theirs:
        asked = workers.submit(converse, listener, theirs, question, seconds, seconds=most)
        heard = asyncio.ensure_future(workers.finished(asked))
        running = asyncio.ensure_future(kernel.execute(cell, most))
        try:
            await asyncio.wait({heard, running}, return_when=asyncio.FIRST_COMPLETED)
            if heard.done():  # what the kernel still does concerns nobody
                await asyncio.wait({running}, timeout=SECONDS_TO_END if _is_sealed(heard) else 0)
                if not running.done():
                    kernel.end()
            ending = await running
            ours.close()  # nobody will call any more
            talk = await heard
        except workers.OverrunError as overrun:
            return "time" if overrun.args == ("time",) else "memory", Talk(waited=seconds)
        finally:
            running.cancel()
            asked.cancel()
    # Where the judge waited in vain, it was the judge who had the kernel killed.
    return talk.silent if talk.silent in ("time", "flood") else ending or talk.silent, talk


def _is_sealed(heard: "asyncio.Future[Talk]") -> bool:
    return heard.exception() is None and heard.result().result is not None
