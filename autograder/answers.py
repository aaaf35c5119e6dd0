"""Finds the text of each answer among a student's cells, wherever they wrote it.

Nothing that may be an answer is passed over: where it cannot be told to which question a text belongs, the person who
grades sees it with every question that has no other.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from autograder.syntax import bound, parse

_SHORTEST = 15
"""Letters of a text that may be an answer though it stands far from its question; a heading has fewer."""

_WORDS = 4
_FOREIGN = 0x2E80  # where the scripts begin that put no space between words
_SAYING = ("print", "display", "Markdown", "HTML", "say")
_ELSEWHERE = "(Nothing stands in the cell of this answer. What the student wrote elsewhere in the notebook:)"
_PICTURE = "(The answer is a picture, which is not shown here. See the notebook as it was handed in.)"


@dataclass(eq=False)
class Text:
    """Something that a student wrote, and that is neither in an answer's own cell nor code of theirs.

    Args:
        text: what was written.
        after: the place of the released cell that it stands in or behind.
        kind: a text cell, a code cell that holds words alone, or comments in one that holds code.
        number: which of the student's own code cells it is; None where it is none.
        picture: whether a picture was pasted into it.
    """

    text: str
    after: int
    kind: Literal["text", "code", "comment"] = "text"
    number: int | None = None
    picture: bool = False
    used: bool = False


@dataclass
class Question:
    """One question, and what was found for it.

    Args:
        name: its name.
        place: where its answer's cell stands in the release.
        first: the nearest released cell above that was handed in; what stands between belongs to this question.
        text: what was written in the answer's own cell; then the whole answer.
        picture: whether a picture was pasted into that cell.
        repairs: sentences for the student.
        flags: sentences for the instructor.
    """

    name: str
    place: int
    first: int
    text: str
    picture: bool = False
    repairs: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def find(questions: list[Question], texts: list[Text]) -> None:
    """Find every question's answer; texts that are taken say that they are used."""
    empty = []
    for question in questions:
        below = [one for one in texts if one.after == question.place and one.kind == "text"]
        if not question.text:
            empty.append(question)
        elif below:
            question.repairs.append(f"What stands below the answer to `{question.name}` was read as part of it.")
            question.text = _joined([question.text, *_taken(below)])
    near = {question.name: _near(question, [one for one in texts if not one.used]) for question in empty}
    for question in empty:
        if near[question.name]:
            question.repairs.append(f"The answer to `{question.name}` was taken from {_where(question, near)}.")
            question.text = _joined(_taken(near[question.name]))
    left = [one for one in texts if not one.used and _stands_alone(one)]
    for question in [one for one in empty if not one.text]:
        _show_the_rest(question, left)
    for question in questions:
        if question.picture or any(one.picture for one in near.get(question.name, [])):
            question.repairs.append(
                f"The pictures in the answer to `{question.name}` were left out: write it in words."
            )
            question.flags.append(f"The answer to `{question.name}` holds a picture, which is in the notebook alone.")


def written_in_code(source: str, own: str) -> tuple[str, Literal["code", "comment"]]:
    """What a code cell says in words, and whether it holds words alone; empty where it says nothing.

    Args:
        source: the cell's.
        own: the lines of it that are not of the release.
    """
    tree = parse(source)
    if tree is None:
        return (own, "code") if _is_wordy(own) else ("", "code")
    named = {name for statement in tree.body if isinstance(statement, ast.Assign) for name in bound(statement)}
    if all(_is_saying(statement, named) for statement in tree.body):
        return own, "code"
    return comments(own), "comment"


def comments(source: str) -> str:
    """The lines of a code cell that are comments."""
    return "\n".join(line.strip() for line in source.split("\n") if line.strip().startswith("#"))


def without(source: str, known: set[str]) -> str:
    """The lines of a text that are not among the known ones; those are compared without space around them."""
    return "\n".join(line for line in source.split("\n") if line.strip() not in known).strip()


def _near(question: Question, texts: list[Text]) -> list[Text]:
    """What stands between the released cells around an answer's place: words, or else comments, the next cell's too."""
    found = [one for one in texts if question.first <= one.after <= question.place]
    words = [one for one in found if one.kind != "comment"]
    said = [one for one in texts if one.kind == "comment" and question.first <= one.after <= question.place + 1]
    return words or [one for one in said if _is_wordy(one.text)]


def _where(question: Question, near: dict[str, list[Text]]) -> str:
    texts = near[question.name]
    if any(one.kind == "comment" for one in texts):
        return "comments in the code beside it"
    if all(one.kind == "text" and one.after == question.place for one in texts):
        return "the cell below its own"
    return f"{'code' if any(one.kind == 'code' for one in texts) else 'text'} beside its own cell"


def _show_the_rest(question: Question, texts: list[Text]) -> None:
    """Show a question's grader all that has no home, if any of it may be the answer."""
    if question.picture:
        question.text = _PICTURE
    elif any(_may_be_an_answer(one) for one in texts):
        question.text = _joined([_ELSEWHERE, *(one.text or _PICTURE for one in texts)])
        question.repairs.append(
            f"No answer stands at `{question.name}`. What you wrote elsewhere is shown to the person who grades it. "
            "Write each answer in its own cell."
        )
        question.flags.append(
            f"No answer stands at `{question.name}`. Text of the student's own that belongs nowhere is shown with it."
        )


def _taken(texts: list[Text]) -> list[str]:
    for one in texts:
        one.used = True
    return [one.text or _PICTURE for one in texts]


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(dict.fromkeys(texts))


def _stands_alone(one: Text) -> bool:
    """Whether a text says something where no question is near: comments, and words in code, mostly do not."""
    return one.kind == "text" or (one.kind == "code" and _is_wordy(one.text))


def _may_be_an_answer(one: Text) -> bool:
    return one.picture or sum(letter.isalpha() for letter in one.text) >= _SHORTEST


def _is_wordy(text: str) -> bool:
    """Whether there is a sentence in a text, or part of one."""
    lines = (line.replace("#", " ").split() for line in text.split("\n"))
    spaced = any(sum(word.strip(".,;:!?()'\"*_`").isalpha() for word in words) >= _WORDS for words in lines)
    return spaced or sum(ord(letter) >= _FOREIGN for letter in text) >= 2 * _WORDS


def _is_saying(statement: ast.stmt, named: set[str]) -> bool:
    """Whether a statement is a string, shows one, or gives one of several words a name.

    Args:
        statement: of a cell.
        named: the names that the cell gives to strings, if it says nothing else.
    """
    match statement:
        case ast.Expr(value=value):
            return _is_said(value, named)
        case ast.Assign(value=ast.Constant(value=str(text))):
            return _is_wordy(text)
    return False


def _is_said(value: ast.expr, named: set[str]) -> bool:
    match value:
        case ast.Constant(value=str()):
            return True
        case ast.Name(id=name):
            return name in named
        case ast.JoinedStr(values=values):
            return all(isinstance(one, ast.Constant) or _is_said(one, named) for one in values)
        case (
            ast.FormattedValue(value=inner)
            | ast.Attribute(value=inner)
            | ast.Call(func=ast.Attribute(value=inner), args=[], keywords=[])
        ):
            return _is_said(inner, named)
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in _SAYING:
            return bool(arguments) and all(_is_said(one, named) for one in arguments)
    return False
