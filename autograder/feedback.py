"""The feedback page of one submission: what was earned, what was tried, what went wrong, where to read again.

It is made from the record and from what people gave, and holds nothing else: no hidden check, no expected value.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

from markupsafe import Markup

from autograder import nbgrader_course
from autograder.checks import Rng, register
from autograder.judge import VISIBLE_SEED
from autograder.manual import Manual
from autograder.record import Answer, How, Record
from autograder.render import template
from autograder.roster import shown
from autograder.standing import Item, answered, standing
from autograder.student_text import all_visible, colours, highlighted, shortened
from course.chapters import plain, root, section_title, title
from course.files import write_whole
from course.markdown import Translator, blocks
from course.repository import Repository, of_course, page_url

MAX_MESSAGE = 2_000

_ENDINGS: dict[How, str] = {
    "answered": "",
    "not tried": "This exercise could not be tried: when its turn came, the notebook had no `{symbol}` to try.",
    "time": "Time ran out while `{symbol}` was tried, so it was stopped. Look for a loop that never ends.",
    "crash": "Python itself ended while `{symbol}` was tried. Calling `exit`, or a recursion without end, does that.",
    "memory": "`{symbol}` asked for more memory than there is. Look for a tensor that grows in a loop, or that is far "
    "larger than its inputs.",
    "flood": "`{symbol}` printed more than can be kept. Look for a `print` in a loop that never ends.",
}
_ALONE = " It costs points in this exercise alone: the others were graded as usual."


def write(record: Record, manual: Manual, path: Path) -> None:
    """Write the page of a submission whole or not at all.

    Args:
        record: what grading found out.
        manual: what people gave, from `manual.of_student`.
        path: the file; `place` says where nbgrader puts its own.

    Raises:
        OSError: it cannot be written; an older page is still there.
    """
    html = page(record, manual)
    write_whole(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))


def place(chapter: str, identifier: str) -> Path:
    """Where nbgrader keeps the feedback page of a student's chapter."""
    return nbgrader_course.folder("feedback") / identifier / chapter / f"{chapter}.html"


def page(record: Record, manual: Manual) -> str:
    """The page as HTML: complete in itself, the same for the same record."""
    record, manual = all_visible(replace(record, student=shown(record.student))), all_visible(manual)
    so_far = standing(record, manual)
    open_points = [item for item in so_far.exercises.values() if (item.points or 0) < item.max_points]
    in_order = sorted(so_far.questions, key=[*record.written, *so_far.questions].index)  # as in the notebook
    repo = of_course()
    return template("feedback.html.j2").render(
        record=record,
        title=title(record.chapter),
        standing=so_far,
        exercises=[_exercise(item, record.answers.get(name), repo) for name, item in so_far.exercises.items()],
        questions=[_question(so_far.questions[name], record) for name in in_order],
        next_item=open_points[0] if open_points else None,
        colours=colours(),
    )


def _exercise(item: Item, answer: Answer | None, repo: Repository | None) -> dict[str, object]:
    symbol = _symbol(item.name)
    view: dict[str, object] = {"item": item, "symbol": symbol, "id": _id(item.name), "tried": _tried(item.name)}
    if answer is None:
        return view | {"answer": None, "ending": _ENDINGS["not tried"].format(symbol=symbol)}
    result = answer.result
    messages = [_short(message) for message in result.messages]
    code, cut = shortened(answer.source)
    return view | {
        "answer": answer,
        "complete": bool(result.parts) and result.points == result.max_points,
        "ending": _ending(answer),
        "instead": [_symbol(name) for name in answer.instead],
        # The judge puts what a tutor would say of each misconception first, and what was tried last.
        "mistakes": messages[: len(result.diagnoses)],
        "findings": messages[len(result.diagnoses) :],
        "read": _read(result.read, repo),
        "code": highlighted(code) if code.strip() else Markup(""),
        "cut": cut,
    }


def _ending(answer: Answer) -> str:
    sentence = _ENDINGS[answer.how].format(symbol=_symbol(answer.result.exercise))
    return sentence + _ALONE if answer.how not in ("answered", "not tried") else sentence


def _question(item: Item, record: Record) -> dict[str, object]:
    text = record.written.get(item.name, "")
    seen, cut = shortened(text) if answered(text) else ("", "")
    asked = _asked(record.chapter, item.name)
    return {"item": item, "id": f"{_id(item.name)}-answer", "asked": asked, "text": seen, "cut": cut}


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} …"


def _symbol(exercise: str) -> str:
    return exercise.rpartition(".")[2]


def _id(name: str) -> str:
    return name.replace(".", "-")


def _read(section: str, repo: Repository | None) -> dict[str, str | None]:
    """The section to read again: its heading, and its address where the book is published."""
    chapter, _, label = section.partition("#")
    if not label:
        return {}
    return {"heading": section_title(chapter, label), "url": page_url(repo, chapter, label)}


@cache
def _tried(exercise: str) -> dict[str, list[str]]:
    """What the check in the student's own notebook tries, by part."""
    titles: dict[str, list[str]] = {}
    check = register().checks.get(exercise)
    for case in check.prepare(Rng(VISIBLE_SEED)) if check else ():
        if not case.hidden:
            titles.setdefault(case.part, []).append(case.title)
    return titles


@cache
def _asked(chapter: str, question: str) -> str:
    """A question as the chapter asks it, in plain characters; empty where the book's sources are not at hand."""
    path = root() / "book" / "chapters" / f"{chapter}.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for block in blocks(text):
        if block.kind == "reflection" and block.argument == question:
            return plain(Translator(path, root() / "book" / "references.bib").inline(block.body))
    return ""
