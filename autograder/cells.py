"""Reads the cells of a notebook from bytes that anybody may have written.

nbformat's own reader expects a notebook that is nearly right. Here only what grading needs is taken from the text (each
cell's kind, source, id and marks), so a fault anywhere else costs nothing.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

MAX_VALUES = 2_000_000
"""Counted as brackets, commas and strings: a few megabytes of them become a gigabyte of objects."""

_TOKEN = re.compile(r'[\[{,]|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_FOLDED = ("hide_input", "hide-input", "remove-input", "hide-cell", "remove-cell", "collapsed")
_SKIPPED = "skip-execution"
_SENTENCE = 5  # words
_TOOLS = (
    "kernelspec", "language_info", "widgets", "nbgrader", "jupytext", "papermill", "colab", "vscode", "toc", "rise",
    "tags", "varInspector", "execution", "mystnb", "hide_input",
)  # fmt: skip


class NotANotebookError(Exception):
    """The bytes hold no cells that can be read; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class Cell:
    """What grading needs of one submitted cell.

    Args:
        kind: what the cell holds.
        source: its text, with plain line ends.
        id: its id; empty where it has none.
        marks: nbgrader's metadata, whatever is in it.
        folded: its metadata hides its source.
        skipped: its tags say that grading need not run it.
        pictures: files were pasted into it.
    """

    kind: Literal["code", "markdown", "raw"]
    source: str
    id: str = ""
    marks: dict[str, Any] = field(default_factory=dict)
    folded: bool = False
    skipped: bool = False
    pictures: bool = False

    @property
    def grade_id(self) -> str:
        """The name that nbgrader knows the cell by; empty where it has none."""
        return _text(self.marks.get("grade_id"))


def read_cells(data: bytes) -> tuple[list[Cell], list[str]]:
    """Read the cells of a notebook.

    Returns:
        The cells, and a sentence for the student about each thing that was mended.

    Raises:
        NotANotebookError: there are none to be read.
    """
    notes: list[str] = []
    notebook = _parse(_decode(data, notes))
    if not isinstance(notebook, dict):
        raise NotANotebookError("it holds data, but not a notebook")
    if notebook.get("nbformat") != 4:
        notes.append("The file is not in version 4 of the notebook format. What could be read of it was graded.")
    raw = list(_raw_cells(notebook))
    cells = [_cell(item) for item in raw if isinstance(item, dict)]
    if not cells:
        raise NotANotebookError("it is a notebook without cells")
    if len(cells) < len(raw):
        notes.append("Some entries among the cells are not cells. They were left out.")
    # Words that stand nowhere else may be an answer; Jupyter itself writes none there.
    words = dict.fromkeys(
        _sentences([notebook.get("metadata"), *(item.get("metadata") for item in raw if isinstance(item, dict))])
    )
    return [*cells, *(Cell("raw", text) for text in words)], notes


def _decode(data: bytes, notes: list[str]) -> str:
    encoding = json.detect_encoding(data)  # UTF-8, with or without a byte order mark, UTF-16 or UTF-32
    text = data.decode(encoding, errors="replace")
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(
            f"The file is written in {encoding.upper()} where a notebook is written in UTF-8. It was converted."
        )
    elif "\ufffd" in text and b"\xef\xbf\xbd" not in data:
        notes.append("The file contains bytes that are not text. Each was replaced by \ufffd.")
    return text


def _parse(text: str) -> Any:
    if next(islice(_TOKEN.finditer(text), MAX_VALUES, None), None):
        raise NotANotebookError(f"it holds more than {MAX_VALUES:,} values, and a notebook holds some thousand")
    try:
        # Of two equal keys the last one counts, as in Jupyter, so what is graded is what the student saw.
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotANotebookError(
            f"its text is damaged or breaks off, at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise NotANotebookError("its lists stand within each other too deep to be read") from error
    except ValueError as error:
        raise NotANotebookError("it holds a number of thousands of digits") from error


def _raw_cells(notebook: dict[str, Any]) -> Iterator[Any]:
    sheets = notebook.get("worksheets")  # version 3 of the format keeps the cells in these
    holders = [notebook, *_list(sheets)]
    found = [holder["cells"] for holder in holders if isinstance(holder, dict) and "cells" in holder]
    lists = [cells for cells in found if isinstance(cells, list)]
    if not lists:
        raise NotANotebookError("it has no list of cells, so it is not a notebook")
    for cells in lists:
        yield from cells


def _sentences(values: list[Any]) -> Iterator[str]:
    """The texts of several words in metadata, but for what Jupyter and its friends keep there."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [inner for key, inner in value.items() if key not in _TOOLS]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and len(value.split()) >= _SENTENCE:
            yield _source(value)


def _cell(raw: dict[str, Any]) -> Cell:
    kind = raw.get("cell_type")
    metadata = _dict(raw.get("metadata"))
    tags = [tag for tag in _list(metadata.get("tags")) if isinstance(tag, str)]
    hides = _dict(metadata.get("jupyter")).get("source_hidden") is True
    return Cell(
        kind="code" if kind == "code" else "markdown" if kind in ("markdown", "heading") else "raw",
        source=_source(raw.get("source", raw.get("input"))),  # version 3 calls the source of a code cell its input
        id=_text(raw.get("id")),
        marks=_dict(metadata.get("nbgrader")),
        folded=hides or any(metadata.get(name) is True or name in tags for name in _FOLDED),
        skipped=_SKIPPED in tags,
        pictures=bool(raw.get("attachments")),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _source(value: Any) -> str:
    pieces = value if isinstance(value, list) else [value]
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    # Half a surrogate pair and NUL can be written in JSON, but neither in a file of Python nor in a page.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return text.replace("\r\n", "\n").replace("\r", "\n")
