"""What pages say with texts that nobody here wrote."""

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from course import page


@given(st.text("ab`*_|\\<&[$ ", min_size=1).filter(str.strip))
@example("Return the ``x`` of *args and __init__ | `y`")
def test_a_text_is_shown_letter_for_letter(text: str) -> None:
    parsed = MarkdownIt().enable("table").parse(page.table(["text"], [[page.code(text)]]))
    shown = [part for token in parsed if token.type == "inline" for part in token.children or []]
    assert [(part.type, part.content) for part in shown] == [("text", "text"), ("code_inline", text)]
