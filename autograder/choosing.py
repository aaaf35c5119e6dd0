"""Chooses among the notebooks of a folder the one that holds the student's work, and says what lay beside it."""

from collections.abc import Callable
from dataclasses import replace

from autograder.cells import Cell
from autograder.handed_in import shown
from autograder.record import Flag
from autograder.submission import Beside, Submission

Work = dict[str, str]
"""Exercise or question -> the student's code or text."""


def chosen(submission: Submission, work: Callable[[list[Cell]], Work]) -> Submission:
    """The submission with the notebook that is to be graded.

    The rightly named one, if it holds work; else the one that holds most. Nothing that lies beside it goes untold.

    Args:
        submission: as it was read; it stays as it is.
        work: what the cells of a notebook hold of the student's own.
    """
    if not submission.beside:
        return submission
    mine = work(submission.cells) if submission.cells and not submission.refused else {}
    found = {id(one): work(one.cells) if one.cells else {} for one in submission.beside}
    busy = [one for one in submission.beside if found[id(one)] and not one.is_copy]
    result = replace(submission, repairs=list(submission.repairs), flags=list(submission.flags))
    if not mine and busy and (len(busy) == 1 or not submission.refused):
        best = max(busy, key=lambda one: len(found[id(one)]))
        _take(result, best)
        mine = found[id(best)]
        busy.remove(best)
    others = [one for one in busy if not found[id(one)].items() <= mine.items()]
    if not mine:
        others += [one for one in submission.beside if not one.cells or (one.is_copy and found[id(one)])]
    if others:
        _tell(result, others)
    return result


def _take(submission: Submission, best: Beside) -> None:
    right, other = f"{submission.chapter}.ipynb", submission.name
    why = f"`{shown(other)}` holds no work" if other else "no other notebook could be graded"
    submission.flags.append(Flag("several", "", f"`{shown(best.name)}` was graded: {why}."))
    submission.repairs = [
        f"`{shown(best.name)}` was graded, for {why}. Hand in one notebook, called {right}.",
        *best.notes,
    ]
    submission.name, submission.cells, submission.refused = best.name, best.cells, ""


def _tell(submission: Submission, others: list[Beside]) -> None:
    names = ", ".join(f"`{shown(one.name)}`" for one in others)
    what = (
        f"`{shown(submission.name)}` was graded" if submission.name and not submission.refused else "Nothing was graded"
    )
    submission.flags.append(Flag("several", "", f"{what}. Beside it lay, with other work or unreadable: {names}."))
    if any(not one.is_copy for one in others):
        submission.repairs.append(f"{what}, and not {names}. Hand in one notebook, called {submission.chapter}.ipynb.")
