"""Leaves of an executed notebook what is harmless to look at, wherever it is shown.

What a student hands in is shown on pages that hold the instructor's rights: formgrader shows it where its own
interface can be called, so a script in an answer or in an output could enter points. Therefore nothing is stored for
nbgrader, and nothing is shown by it, but

- the released cells and the code of the student, which every page shows as text;
- what cells printed, as text without control characters;
- pictures in PNG, drawn anew from their pixels;
- written answers, rendered and cleaned by `answer_html`;
- the verdict of a check, which is ours, with a student's words escaped in it.

All else (other kinds of output, metadata, attachments) is dropped, and said to be. To do it twice changes nothing.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import nh3
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_output

from autograder.answer_html import as_html
from autograder.pictures import MAX_PIXELS, PictureError, redrawn
from autograder.standing import answered
from autograder.student_text import CHARACTERS, LINES, WIDTH, shortened, visible

MAX_OUTPUTS = 40
"""Outputs of one cell that are shown."""
MAX_TEXT = 1_000_000
"""Characters that all cells together print and are shown."""
ALL_PIXELS = 3 * MAX_PIXELS
"""Pixels of all pictures of a notebook."""

FULL = "This is not shown: the notebook has printed more than a page can hold."
LEFT_OUT = "An output that is neither text nor a PNG picture is not shown."

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_WORD = re.compile(r"[\w.-]{1,100}", re.ASCII)
_MARKS = {"schema_version", "grade", "solution", "locked", "task", "points", "grade_id", "checksum", "cell_type"}
_SPEC = {"kernelspec": ("name", "display_name", "language"), "language_info": ("name", "version", "pygments_lexer")}

_VERDICT: dict[str, Any] = {
    "tags": {"div", "p", "strong", "em", "code", "table", "thead", "tbody", "tr", "th", "td"},
    "attributes": {"div": {"role", "aria-label", "style"}, "th": {"scope"}, "*": {"style"}},
    "allowed_classes": {"div": {"course-check", "tex2jax_ignore", "mathjax_ignore"}},
    "clean_content_tags": {"script", "style"},
    "filter_style_properties": {
        *("border-left", "border-collapse", "padding", "margin", "max-width"),
        *("text-align", "line-height", "font-size", "opacity"),
    },
}
"""What `result.html.j2` is made of."""


def harmless(notebook: NotebookNode) -> NotebookNode:
    """Make a rebuilt notebook harmless to look at, in place.

    Args:
        notebook: as `normalise.rebuild` made it and `examine` executed it, or what this function has made of it.

    Returns:
        The same notebook.
    """
    notebook.metadata = NotebookNode(
        {name: _words(notebook.metadata.get(name), keys) for name, keys in _SPEC.items() if name in notebook.metadata}
    )
    room = _Room()
    for cell in notebook.cells:
        cell.pop("attachments", None)
        cell.metadata = _metadata(cell.metadata)
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code":
            cell.source = visible(cell.source)
            is_check = bool(marks.get("grade")) and not marks.get("solution")
            cell.outputs = list(room.shown(cell.outputs, is_check))
            cell.execution_count = _count(cell.get("execution_count"))
        elif marks.get("solution") and answered(cell.source):  # an empty answer stays what nbgrader knows as such
            cell.source = as_html(cell.source)
    return notebook


class _Room:
    """The room that is left for the outputs of a notebook."""

    def __init__(self) -> None:
        self.text = MAX_TEXT
        self.pixels = ALL_PIXELS

    def shown(self, outputs: Any, is_check: bool) -> Iterator[NotebookNode]:
        """What is shown of a cell's outputs."""
        merged = list(_merged(NotebookNode(output) for output in outputs if isinstance(output, dict)))
        fit = merged if len(merged) <= MAX_OUTPUTS else merged[: MAX_OUTPUTS - 1]
        for output in fit:
            yield self.one(output, is_check)
        if len(fit) < len(merged):
            yield _output(
                "display_data", data={"text/plain": f"{len(merged) - len(fit):,} more outputs are not shown."}
            )

    def one(self, output: NotebookNode, is_check: bool) -> NotebookNode:
        """What is shown of one output."""
        kind = output.get("output_type")
        if kind == "stream":
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            return _output("stream", name=name, text=self.plain(output.get("text")))
        if kind == "error":
            raised = {name: self.plain(output.get(name)) for name in ("ename", "evalue")}
            lines = output.get("traceback")
            text = self.plain("\n".join(map(_text, lines)) if isinstance(lines, list) else lines)
            return _output("error", **raised, traceback=text.split("\n"))
        data = output.get("data")
        shown = self.data(data if isinstance(data, dict) else {}, is_check)
        if kind == "execute_result":
            return _output(kind, data=shown, execution_count=_count(output.get("execution_count")))
        return _output("display_data", data=shown)

    def data(self, data: dict[str, Any], is_check: bool) -> dict[str, str]:
        """What is shown of a result in several kinds."""
        shown: dict[str, str] = {}
        said = ""
        if "text/plain" in data:
            shown["text/plain"] = self.plain(data["text/plain"])
        if is_check and "text/html" in data:
            shown["text/html"] = nh3.clean(visible(_text(data["text/html"])), **_VERDICT)
        if "image/png" in data:
            try:
                shown["image/png"], pixels = redrawn(_text(data["image/png"]), self.pixels)
                self.pixels -= pixels
            except PictureError as error:
                said = f"A picture is not shown: {error}."
        elif not shown:
            said = LEFT_OUT
        if said:
            shown["text/plain"] = "\n".join(filter(None, [shown.get("text/plain"), said]))
        return shown

    def plain(self, value: Any) -> str:
        """A text without colours and control characters, cut where it is too long to read."""
        text = visible(_last_written(_COLOUR.sub("", _text(value)).replace("\r\n", "\n")))
        if shortened(text)[1]:
            text = "\n".join(shortened(text, LINES - 1, CHARACTERS - WIDTH))  # with the sentence it is short enough
        if len(text) > self.text:
            text = FULL
        self.text -= len(text)
        return text


def _last_written(text: str) -> str:
    """The text without what a progress bar wrote and overwrote, as nbconvert and JupyterLab show it."""
    if "\r" not in text:
        return text
    lines = (list(filter(None, line.split("\r"))) or [""] for line in text.split("\n"))
    return "\n".join(pieces[-1] for pieces in lines)


def _output(kind: str, **entries: Any) -> NotebookNode:
    made: NotebookNode = new_output(kind, **entries)
    return made


def _merged(outputs: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """The outputs, what was printed in many pieces put together, so that it counts as one."""
    last: NotebookNode | None = None
    pieces: list[str] = []
    for output in outputs:
        if output.get("output_type") == "stream" and last is not None and output.get("name") == last.get("name"):
            pieces.append(_text(output.get("text")))
            continue
        if last is not None:
            yield NotebookNode({**last, "text": "".join(pieces)})
        last, pieces = None, []
        if output.get("output_type") == "stream":
            last, pieces = output, [_text(output.get("text"))]
        else:
            yield output
    if last is not None:
        yield NotebookNode({**last, "text": "".join(pieces)})


def _text(value: Any) -> str:
    """A text as a notebook holds it: whole, or in lines; nothing where it is no text."""
    pieces = value if isinstance(value, list) else [value]
    return "".join(piece for piece in pieces if isinstance(piece, str))


def _count(value: Any) -> int | None:
    """A cell's number, which a kernel can send as anything, and pages print as it is."""
    return value if type(value) is int and 0 <= value < 10**6 else None


def _words(value: Any, keys: Iterable[str]) -> dict[str, str]:
    """The entries that are short texts without signs of markup."""
    entries = value if isinstance(value, dict) else {}
    return {key: re.sub(r"[^\w .()+#-]", "", entries[key])[:100] for key in keys if isinstance(entries.get(key), str)}


def _metadata(metadata: dict[str, Any]) -> NotebookNode:
    """Of a cell's metadata what nbgrader needs, and tags, which become the names of classes on a page."""
    kept: dict[str, Any] = {}
    marks = metadata.get("nbgrader")
    if isinstance(marks, dict):
        kept["nbgrader"] = {name: mark for name, mark in marks.items() if name in _MARKS and _is_plain(mark)}
    tags = metadata.get("tags")
    words = [tag for tag in tags if _is_word(tag)] if isinstance(tags, list) else []
    if words:
        kept["tags"] = words
    kept |= {name: metadata[name] for name in ("deletable", "editable") if isinstance(metadata.get(name), bool)}
    jupyter = metadata.get("jupyter")
    if isinstance(jupyter, dict) and jupyter.get("source_hidden") is True:
        kept["jupyter"] = {"source_hidden": True}
    made: NotebookNode = NotebookNode(kept)
    return made


def _is_plain(mark: Any) -> bool:
    return isinstance(mark, bool | int | float) or _is_word(mark)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None
