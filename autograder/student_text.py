"""What a student wrote, made fit to show: short enough, and with no character that hides or reorders others."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import TypeVar

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

CHARACTERS = 20_000
LINES = 400
WIDTH = 1_000

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, escape codes of terminals among them
    r"\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # what reorders text, or takes no room
    r"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u3164\uffa0"  # letters and marks that nobody sees
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    r"\ud800-\udfff\ufffe\uffff]"  # what no file in UTF-8, or no page, can hold
)
_LIGHT = "a11y-high-contrast-light"
_DARK = "a11y-high-contrast-dark"
Data = TypeVar("Data")


def visible(text: str) -> str:
    """The text with each character that cannot be seen written out, such as ␛ or \\u202e."""
    return _UNSEEN.sub(_written_out, text.replace("\r\n", "\n"))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def terminal(text: str) -> str:
    """The text as one line that a terminal shows and does not obey: no codes, no line's end, no character unseen.

    It is plain text. Where `rich` prints it, the console must not read markup in it: `[red]`, `[link=...]`.
    """
    return visible(text).replace("\n", "␊").replace("\t", "␉")


def all_visible(data: Data) -> Data:
    """The same data with every text in it made visible: in dataclasses, lists, tuples and dicts, at any depth."""
    made: object = data
    if isinstance(data, str):
        made = visible(data)
    elif isinstance(data, list):
        made = [all_visible(item) for item in data]
    elif isinstance(data, tuple):
        made = tuple(all_visible(item) for item in data)
    elif isinstance(data, dict):
        made = {all_visible(key): all_visible(value) for key, value in data.items()}
    elif is_dataclass(data) and not isinstance(data, type):
        made = replace(data, **{field.name: all_visible(getattr(data, field.name)) for field in fields(data)})
    return made  # type: ignore[return-value]  # of the same type as what came in


def shortened(text: str, lines: int = LINES, characters: int = CHARACTERS) -> tuple[str, str]:
    """The text, cut where it is too long to read, and a sentence that says so; empty where it is whole."""
    kept = "\n".join(line[:WIDTH] for line in text[:characters].split("\n")[:lines])
    if kept == text:
        return text, ""
    return kept, f"This is shortened: {len(kept):,} of {len(text):,} characters are shown."


def highlighted(source: str) -> Markup:
    """Python code as HTML, escaped, its parts marked by the classes that `colours` gives colours to."""
    return Markup(highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)))


@cache
def colours() -> Markup:
    """The style sheet of highlighted code under the class `code`: light, and dark for a screen that asks for it."""
    return Markup(f"{_rules(_LIGHT)}\n@media screen and (prefers-color-scheme: dark) {{\n{_rules(_DARK)}\n}}")


def _rules(style: str) -> str:
    with _logging_untouched():
        lines: list[str] = HtmlFormatter(style=style).get_style_defs(".code").splitlines()
    return "\n".join(re.sub(r" */\*.*\*/", "", line) for line in lines if line.startswith(".code ."))


@contextmanager
def _logging_untouched() -> Iterator[None]:
    """The package that holds these styles sets up the logging of the whole program when it is imported."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
