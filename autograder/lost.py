"""Verdicts on exercises that gave no answer: what is said to a student whose function could not be tried."""

from nbformat.notebooknode import NotebookNode

from autograder.checks import Check
from autograder.judge import Part, Result
from autograder.record import Answer, How

ENDED = {
    "time": "did not finish in time. Look for a loop that never ends.",
    "crash": "ended the kernel. Look for a call that leaves Python, such as `exit` or `os._exit`.",
    "memory": "used more memory than a kernel may have. Look for tensors that grow without need.",
    "flood": "printed more than a page can hold. Remove the print from the loop.",
}


def lost(check: Check, seed: int, how: How, message: str) -> Answer:
    """A verdict without an answer.

    Args:
        check: the exercise's check.
        seed: where the hidden inputs come from.
        how: how the examination ended.
        message: what to tell the student.
    """
    parts = [Part(name, points, "not tried" if how == "not tried" else "no") for name, points in check.parts.items()]
    return Answer(Result(check.name, parts, [message], read=check.read, seed=seed), how)


def unasked(check: Check, cell: NotebookNode, error: str) -> str:
    """Why a check's cell came to its end without a word to the judge.

    Args:
        check: the exercise's check.
        cell: the check's cell, as it was executed.
        error: what the exercise's cell stopped with; empty if nothing.
    """
    if error:
        return f"`{check.symbol}` is not there, because its cell stopped with {error}."
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors and errors[0].ename == "NameError":
        return f"`{check.symbol}` is not defined. Define it in the exercise's cell, under this name."
    return f"`{check.symbol}` was not handed to its check."
