"""What a notebook calls: `check("attention.softmax", softmax)`."""

import inspect
import os
from typing import Any

from autograder.checks import Check, UnknownExerciseError, find
from autograder.judge import GRADING_SEED, Part, Result, in_process, judge
from autograder.render import to_html, to_text
from autograder.workspace import cell_sources, keep


class Verdict:
    """A result that shows itself: a table in a notebook, text in a terminal, a number to nbgrader."""

    def __init__(self, result: Result) -> None:
        """Wrap a result."""
        self.result = result

    def __repr__(self) -> str:
        """The result as text."""
        return to_text(self.result)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        if not _in_kernel():
            return {"text/plain": to_text(self.result)}
        # nbgrader reads partial credit from the plain text of the last result: a number and nothing else.
        return {"text/plain": str(self.result.points), "text/html": to_html(self.result)}


def check(exercise: str, target: Any, *, graded: bool = False) -> Verdict:
    """Check your solution of an exercise and say what is right, what is not, and where to look.

    Args:
        exercise: the exercise's name, for example `attention.softmax`.
        target: your function or class itself, not a call of it.
        graded: try the hidden cases too, with other inputs; the grader's copy of the notebook sets it.
    """
    try:
        found = find(exercise)
    except UnknownExerciseError as error:
        return Verdict(_refusal(exercise, [], str(error)))
    said = misuse(found, "class" if inspect.isclass(target) else "function" if callable(target) else "neither")
    if said:
        return Verdict(_refusal(exercise, _untried(found), said))
    try:
        result = judge(
            found, in_process(target), graded=graded, seed=_grading_seed(), sources=cell_sources(found, target)
        )
    except KeyboardInterrupt:
        return Verdict(_refusal(exercise, _untried(found), "The check was interrupted before it had an answer."))
    if result.points == result.max_points and not graded and _in_kernel():
        result.notes += filter(None, [keep(found, target)])
    return Verdict(result)


def misuse(found: Check, kind: str) -> str:
    """What is wrong with handing over a thing of this kind; empty if nothing is.

    Args:
        found: the exercise's check.
        kind: "class", "function" or "neither".
    """
    call = f'check("{found.name}", {found.symbol})'
    if inspect.isclass(found.reference) and kind != "class":
        return f"Hand over the class itself, without making an object of it: {call}."
    if kind == "neither":
        return f"Hand over the function itself, without calling it: {call}."
    return ""


def _refusal(exercise: str, parts: list[Part], message: str) -> Result:
    return Result(exercise=exercise, parts=parts, messages=[message])


def _untried(found: Check) -> list[Part]:
    return [Part(name, points, "not tried") for name, points in found.parts.items()]


def _grading_seed() -> int:
    return int(os.environ.get("COURSE_GRADING_SEED", GRADING_SEED))


def _in_kernel() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")
