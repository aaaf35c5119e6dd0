"""What a student wrote in Markdown, as HTML in which nothing acts: no link, picture, script, style or formula.

nbgrader's pages and JupyterLab render a cell's Markdown by different means, and both let much through. So an answer is
rendered here, cleaned by a sanitiser that lets a short list of bare tags pass, and written as one block of HTML on one
line, in which neither finds anything more to render: every character that either reads as a sign of its own is written
as a number.

Links are shown, not followed. A click on one would be made with the instructor's rights, and formgrader has addresses
that act on a click alone: `/formgrader?path=FOLDER` runs the settings that lie in the folder.
"""

import logging
import re
from functools import cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

from autograder.student_text import visible

OPEN = '<div class="tex2jax_ignore mathjax_ignore">'
CLOSE = "</div>"
TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "pre", "code"),
    *("em", "strong", "s", "table", "thead", "tbody", "tr", "th", "td"),
}
LONGEST = 20_000
"""A longer text is shown as it was typed: Markdown's parsers need more than proportional time for some texts."""
MAX_TABLE = 5_000
"""Cells of a table, as its widest line times the number of lines; a parser fills every line up to the widest."""

_FORMULA = re.compile(r"\$\$[^$]+\$\$|\$[^$\n]+\$|\\\\?\(.{1,1000}?\\\\?\)|\\\\?\[.{1,1000}?\\\\?\]", re.DOTALL)
_SIGNS = re.compile(r"[^\w\s<>/;,.'\"!?=+%()-]|[\n_]")
"""What a second parser might read in the text: signs of Markdown, of formulas, and ends of lines."""
_ENTITY_OR_TAG = re.compile(r"(&[a-z]+;|</?[a-z][a-z0-9]*>)")


def as_html(text: str) -> str:
    """A student's Markdown as one block of HTML; the same block again, if that is what it is.

    Args:
        text: what the student wrote, or what this function made of it before.
    """
    return text if _is_made_here(text) else OPEN + _coded(nh3.clean(_rendered(visible(text)), **_RULES)) + CLOSE


_RULES: dict[str, Any] = {"tags": TAGS, "attributes": {}, "clean_content_tags": {"script", "style"}}


def _is_made_here(text: str) -> bool:
    """Whether the text is such a block. A student who writes one by hand has written what harms nobody."""
    if not (text.startswith(OPEN) and text.endswith(CLOSE)):
        return False
    inner = text[len(OPEN) : -len(CLOSE)]
    return _coded(nh3.clean(inner, **_RULES)) == inner


def _rendered(text: str) -> str:
    if len(text) <= LONGEST:
        try:
            return str(_parser(_has_room_for_tables(text)).render(text))
        except Exception:  # a text that the parser cannot take is shown as it was typed
            logging.getLogger(__name__).warning("An answer could not be rendered; it is shown as typed.")
    return f"<pre><code>{escape(text)}</code></pre>"


def _has_room_for_tables(text: str) -> bool:
    lines = text.split("\n")
    return len(lines) * max(line.count("|") + 1 for line in lines) <= MAX_TABLE


@cache
def _parser(tables: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough")
    parser.disable("reference")  # of no use without links, and slow where there are thousands
    if tables:
        parser.enable("table")
    parser.inline.ruler.before("escape", "formula", _formula)
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("link_close", _link_close)
    parser.add_render_rule("image", _image)
    return parser


def _formula(state: StateInline, silent: bool) -> bool:
    """A formula is shown as it was typed."""
    match = _FORMULA.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        token = state.push("code_inline", "code", 0)
        token.content = match[0]
    state.pos = match.end()
    return True


def _link_open(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return ""


def _link_close(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Where a link leads stands behind its text, unless that is its text."""
    depth, start = 1, index
    while depth:
        start -= 1
        depth += {"link_close": 1, "link_open": -1}.get(tokens[start].type, 0)
    href = str(tokens[start].attrs.get("href", ""))
    shown = "".join(token.content for token in tokens[start + 1 : index])
    return "" if href.removeprefix("mailto:") == shown else f" (<code>{escape(href)}</code>)"


def _image(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    return f"{escape(token.content)} (a picture: <code>{escape(str(token.attrs.get('src', '')))}</code>)"


def _coded(html: str) -> str:
    """Cleaned HTML with every sign in its text as a number, so that it is one line that says nothing in Markdown."""
    pieces = _ENTITY_OR_TAG.split(html)
    # Odd ones are tags and the few names of characters that the sanitiser writes.
    return "".join(_SIGNS.sub(_number, piece) if i % 2 == 0 else piece for i, piece in enumerate(pieces))


def _number(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"
