"""What pages say with texts that nobody here wrote."""

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from course import page

TEXTS = st.text("ab`*_|\\<>&[]()!$~ ", min_size=1).filter(str.strip)
DOCSTRING = "Return the ``x`` of *args and __init__ | `y`, <b>[1](2)</b> &amp; ~~z~~"


def parts_of_cell(markdown: str) -> list[Token]:
    """What stands in the one cell of a table, below its head."""
    parsed = MarkdownIt().enable(["table", "strikethrough"]).parse(page.table(["text"], [[markdown]]))
    (_, cell) = (token for token in parsed if token.type == "inline")
    return cell.children or []


@given(TEXTS)
@example(DOCSTRING)
def test_code_is_shown_letter_for_letter(text: str) -> None:
    assert [(part.type, part.content) for part in parts_of_cell(page.code(text))] == [("code_inline", text)]


@given(TEXTS.map(str.strip))
@example(DOCSTRING)
def test_prose_is_shown_letter_for_letter(text: str) -> None:
    assert [(part.type, part.content) for part in parts_of_cell(page.literal(text))] == [("text", text)]
