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
from rich.markup import escape

CHARACTERS = 20_000
LINES = 400
WIDTH = 1_000

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, escape codes of terminals among them
    r"\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # what reorders text, or takes no room
    r"\ud800-\udfff\ufffe\uffff]"  # what no file in UTF-8, or no page, can hold
)
_LIGHT = "a11y-high-contrast-light"
_DARK = "a11y-high-contrast-dark"
Data = TypeVar("Data")


def visible(text: str) -> str:
    """The text with each character that cannot be seen written out, such as ␛ or \\u202e."""
    return _UNSEEN.sub(_written_out, text.replace("\r\n", "\n"))


def terminal(text: str) -> str:
    """The text fit for a terminal by way of rich: visible, and nothing in it taken for rich's own marks."""
    return escape(visible(text))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else f"\\u{code:04x}"


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


def shortened(text: str) -> tuple[str, str]:
    """The text, cut where it is too long to read, and a sentence that says so; empty where it is whole."""
    kept = "\n".join(line[:WIDTH] for line in text[:CHARACTERS].split("\n")[:LINES])
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
