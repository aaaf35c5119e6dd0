"""What is left of a notebook that a student made: text, pictures drawn anew, cleaned answers, and nothing that acts."""

import base64
import copy
import io
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.utils import compute_checksum
from PIL import Image, PngImagePlugin
from rich.table import Table

from autograder.answer_html import CLOSE, LONGEST, OPEN, TAGS, as_html
from autograder.commands import _show
from autograder.harmless import _VERDICT, ALL_PIXELS, FULL, LEFT_OUT, MAX_OUTPUTS, MAX_TEXT, harmless
from autograder.judge import Part, Result
from autograder.pictures import MAX_PIXELS, PictureError, redrawn
from autograder.render import to_html
from autograder.student_text import CHARACTERS, LINES, terminal, visible
from autograder.tables import harmless as in_a_table
from autograder.verdicts import _clear
from tests.spellings import ANSWERS, OUTPUT_METADATA, OUTPUTS, PICTURE, PRINTED, metadata

ANSWER = {"nbgrader": {"grade": True, "solution": True, "grade_id": "a-answer", "points": 2, "locked": False}}
CHECK = {"nbgrader": {"grade": True, "solution": False, "grade_id": "a-check", "points": 2, "locked": True}}


class Tags(HTMLParser):
    """The tags of a page, and the attributes of all but the first."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.tags:
            self.attributes += [name for name, _ in attrs]
        else:
            assert (tag, attrs) == ("div", [("class", "tex2jax_ignore mathjax_ignore")])
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def of(outputs: list[dict[str, Any]], marks: dict[str, Any] | None = None, **more: Any) -> NotebookNode:
    """The code cell that is left of one with these outputs."""
    cell = NotebookNode(new_code_cell("x", metadata=marks or {}))
    cell.update(outputs=[NotebookNode(output) for output in outputs], **more)
    notebook = NotebookNode(new_notebook())
    notebook.cells = [cell]
    once = copy.deepcopy(harmless(notebook))
    assert harmless(notebook) == once, "twice is not as once"
    nbformat.validate(once)
    return once.cells[0]


def shown(data: dict[str, Any], marks: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The data that are left of an output with these."""
    cell = of([{"output_type": "display_data", "data": data, "metadata": {}} | more], marks)
    assert cell.outputs[0].metadata == {}
    return dict(cell.outputs[0].data)


def png(width: int = 4, height: int = 3, mode: str = "RGB", **more: Any) -> str:
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, "PNG", **more)
    return base64.b64encode(stream.getvalue()).decode()


class TestAnswers:
    @pytest.mark.parametrize("name", ANSWERS)
    def test_no_spelling_is_more_than_text(self, name: str) -> None:
        self.holds(ANSWERS[name])

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.sampled_from(sorted(ANSWERS.values())) | st.text(max_size=30), max_size=6), st.booleans())
    def test_no_text_is_more_than_text(self, pieces: list[str], lines: bool) -> None:
        self.holds(("\n\n" if lines else "").join(pieces))

    @settings(max_examples=300, deadline=None)
    @given(st.text(alphabet=" \n\t<>/&;#`*_~[]()!|-:$\\\"'=@{}ascript1divp.", max_size=80))
    def test_no_signs_are_more_than_text(self, text: str) -> None:
        self.holds(text)
        self.holds(OPEN + text + CLOSE)

    def holds(self, text: str) -> None:
        block = as_html(text)
        page = Tags(markdown2html_mistune(block))
        assert page.tags.count("div") == 1
        assert set(page.tags[1:]) <= TAGS
        assert page.attributes == []
        assert "\n" not in block
        assert not set("$\\`~@{}[]*_") & set(block.removeprefix(OPEN))  # signs of formulas and of Markdown
        assert as_html(block) == block

    def test_markdown_is_rendered_and_formulas_are_shown(self) -> None:
        text = (
            "Divide by $\\sqrt{d_k}$:\n\n- *large* scores\n- **small** `x_1` ~~no~~\n\n```python\na = 1\n\nb = 2\n```\n"
        )
        page = Tags(markdown2html_mistune(as_html(text)))
        assert {"ul", "li", "em", "strong", "code", "s", "pre"} <= set(page.tags)
        assert "$\\sqrt{d_k}$" in page.text
        assert "a = 1\n\nb = 2" in page.text

    def test_links_and_pictures_are_told_not_followed(self) -> None:
        page = Tags(as_html("[notes](https://a.example/b?c=1&d) ![a plot](p.png) <https://a.example>"))
        assert page.text.strip() == "notes (https://a.example/b?c=1&d) a plot (a picture: p.png) https://a.example"

    def test_a_table_is_one_unless_it_is_a_bomb(self) -> None:
        assert "table" in Tags(as_html("|a|b|\n|---|---|\n|1|2|")).tags
        bomb = "a|" * 2500 + "\n" + "-|" * 2500 + "\n" + "a\n" * 4000
        assert "table" not in Tags(as_html(bomb)).tags

    @pytest.mark.parametrize(
        "piece",
        ["[", "![", "*a ", "_a", "*a **a ", "<", "$", "$a ", "\\(", "[a]: b\n", "[\n", "> ", "- ", "`a``", "&#"],
    )
    def test_no_text_takes_long(self, piece: str) -> None:
        started = time.process_time()
        as_html(piece * (LONGEST // len(piece)))
        as_html(piece * 20_000)
        assert time.process_time() - started < 8  # a second on a quiet core; quadratic ones take minutes

    def test_a_long_text_is_whole(self) -> None:
        text = "word " * LONGEST
        assert text in Tags(as_html(text)).text

    @pytest.mark.parametrize("text", ["", "YOUR ANSWER HERE", " YOUR ANSWER HERE\n"])
    def test_an_empty_answer_stays_what_nbgrader_knows(self, text: str) -> None:
        cell = NotebookNode(new_markdown_cell(text, metadata=copy.deepcopy(ANSWER)))
        checksum = compute_checksum(cell)
        notebook = harmless(NotebookNode(new_notebook(cells=[cell])))
        assert notebook.cells[0].source == text
        assert compute_checksum(notebook.cells[0]) == checksum

    def test_an_answer_loses_its_attachments(self) -> None:
        cell = NotebookNode(new_markdown_cell("![x](attachment:a.png)", metadata=copy.deepcopy(ANSWER)))
        cell.attachments = {"a.png": {"image/png": 'x" onerror="1'}}
        notebook = harmless(NotebookNode(new_notebook(cells=[cell])))
        assert "attachments" not in notebook.cells[0]
        assert notebook.cells[0].source.startswith(OPEN)

    def test_our_own_text_is_left_alone(self) -> None:
        ours = "See $x$ and <img src='figure.svg'>."
        assert harmless(NotebookNode(new_notebook(cells=[new_markdown_cell(ours)]))).cells[0].source == ours


class TestOutputs:
    @pytest.mark.parametrize("name", OUTPUTS)
    def test_only_text_and_pictures_are_left(self, name: str) -> None:
        data = shown(OUTPUTS[name])
        assert set(data) == {"text/plain"}
        if "text/plain" not in OUTPUTS[name]:
            assert data["text/plain"] == LEFT_OUT or "picture is not shown" in data["text/plain"]

    @pytest.mark.parametrize("name", OUTPUT_METADATA)
    def test_no_metadata_is_left(self, name: str) -> None:
        assert set(shown({"image/png": PICTURE, "text/html": "x"}, metadata=OUTPUT_METADATA[name])) == {"image/png"}

    @pytest.mark.parametrize("name", PRINTED)
    def test_what_was_printed_is_text(self, name: str) -> None:
        cell = of([{"output_type": "stream", "name": "stdout", "text": PRINTED[name]}])
        assert visible(cell.outputs[0].text) == cell.outputs[0].text

    def test_colours_go_and_other_codes_are_seen(self) -> None:
        text = "\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link \x1b[2J \u202e\n10%\r20%\r\n"
        cell = of([{"output_type": "stream", "name": "stdout", "text": text}])
        assert cell.outputs[0].text == "red ␛]8;;http://x␇link ␛[2J \\u202e\n20%\n"

    def test_an_error_is_text(self) -> None:
        raised = {"ename": "<b>", "evalue": "\x1b[31m<i>", "traceback": ["\x1b[31mline\x1b[0m", "<script>\u202e"]}
        error = of([{"output_type": "error"} | raised]).outputs[0]
        assert (error.ename, error.evalue, error.traceback) == ("<b>", "<i>", ["line", "<script>\\u202e"])

    @pytest.mark.parametrize("value", ["<b>", "7", -1, 1.5, True, 10**9, ["<b>"], {"a": "b"}])
    def test_a_number_is_a_number(self, value: Any) -> None:
        output = {"output_type": "execute_result", "data": {"text/plain": "1"}, "execution_count": value}
        cell = of([output], execution_count=value)
        assert (cell.execution_count, cell.outputs[0].execution_count) == (None, None)

    @pytest.mark.parametrize(
        "output",
        [
            *({}, {"output_type": "display_data"}, {"output_type": "display_data", "data": []}),
            *({"output_type": "stream"}, {"output_type": "stream", "name": "<b>", "text": {"a": 1}}),
            *({"output_type": "error"}, {"output_type": "error", "traceback": 7}),
            *({"output_type": "<b>", "data": 7}, {"output_type": ["x"], "data": {"text/plain": 7}}),
        ],
    )
    def test_whatever_a_kernel_sent_a_notebook_is_left(self, output: dict[str, Any]) -> None:
        of([output])

    def test_floods_are_cut(self) -> None:
        mixed = [{"output_type": "stream", "name": name, "text": "x"} for name in ("stdout", "stderr")] * 500
        cell = of(mixed)
        assert len(cell.outputs) == MAX_OUTPUTS
        assert cell.outputs[-1].data["text/plain"].endswith("more outputs are not shown.")
        one = of([{"output_type": "stream", "name": "stdout", "text": "x"}] * 500)
        assert [output.text for output in one.outputs] == ["x" * 500]
        long = of([{"output_type": "stream", "name": "stdout", "text": "line\n" * 100_000}]).outputs[0].text
        assert len(long) <= CHARACTERS
        assert long.count("\n") <= LINES
        assert "of 500,000 characters" in long

    def test_a_notebook_has_room_for_so_much(self) -> None:
        output = {"output_type": "stream", "name": "stdout", "text": "x" * 900 + "\n"}
        cells = [NotebookNode(new_code_cell("x")) for _ in range(3 * MAX_TEXT // 20_000)]
        for cell in cells:
            cell.outputs = [NotebookNode(output | {"text": output["text"] * 20})]
        notebook = NotebookNode(new_notebook())
        notebook.cells = cells
        harmless(notebook)
        texts = [cell.outputs[0].text for cell in notebook.cells]
        assert FULL in texts
        assert sum(map(len, texts)) < 1.1 * MAX_TEXT

    def test_a_verdict_stays_as_it_is_and_no_other_html_does(self) -> None:
        said = "Your code raised <img src=x onerror=1>: `$\\href{x}{y}$`."
        result = Result(
            "attention.softmax", [Part("values", 2, "no")], [said], read="01_attention#softmax", notes=["n"]
        )
        html = to_html(result)
        kept = shown({"text/plain": "0", "text/html": html}, CHECK)
        assert kept["text/plain"] == "0"
        squeezed = kept["text/html"].replace(";", "; ").replace(":", ": ")
        ours = html.replace("&#10007;", "✗")
        assert "".join(squeezed.split()) == "".join(ours.split())
        assert 'class="course-check tex2jax_ignore mathjax_ignore"' in kept["text/html"]
        hostile = (
            "<script>1</script><img src=x onerror=1><a href=/x>x</a><p style='position:fixed' onclick=1 id=a>x</p>"
        )
        assert shown({"text/plain": "0", "text/html": hostile}, CHECK)["text/html"] == 'x<p style="">x</p>'
        assert "text/html" not in shown({"text/plain": "0", "text/html": html})
        assert set(_VERDICT["tags"]) < {*TAGS, "div"}

    def test_metadata_is_what_nbgrader_needs(self) -> None:
        hostile = '"><img src=x onerror=1>'
        marks = {"grade_id": "a-b", "points": 2, "grade": True, "solution": True, "more": "x", "checksum": hostile}
        cell = new_code_cell("x")
        cell.metadata = NotebookNode(
            nbgrader=marks, tags=["skip-execution", hostile, 7], raw_mimetype=hostile, jupyter={"source_hidden": True}
        )
        notebook = NotebookNode(new_notebook())
        notebook.metadata = NotebookNode(metadata("notebook"))
        notebook.cells = [cell]
        harmless(notebook)
        kept = notebook.cells[0].metadata
        assert set(kept) == {"nbgrader", "tags", "jupyter"}
        assert set(kept["nbgrader"]) == {"grade_id", "points", "grade", "solution"}
        assert kept["tags"] == ["skip-execution"]
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        assert not [
            text for entry in notebook.metadata.values() for text in entry.values() if set(text) & set("<>\"'&")
        ]

    def test_code_shows_what_reorders_it(self) -> None:
        notebook = harmless(NotebookNode(new_notebook(cells=[new_code_cell("x = 1  # \u202e\u2066é 🙂")])))
        assert notebook.cells[0].source == "x = 1  # \\u202e\\u2066é 🙂"


class TestPictures:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
    def test_its_pixels_are_kept(self, mode: str) -> None:
        data = png(mode=mode)
        made, pixels = redrawn(data)
        assert pixels == 12
        with (
            Image.open(io.BytesIO(base64.b64decode(made))) as new,
            Image.open(io.BytesIO(base64.b64decode(data))) as old,
        ):
            assert new.size == old.size
            assert new.convert("RGBA").tobytes() == old.convert("RGBA").tobytes()

    def test_nothing_but_pixels_is_kept(self) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "<script>")
        made, _ = redrawn(png(pnginfo=info, dpi=(300, 300), icc_profile=b"profile"))
        with Image.open(io.BytesIO(base64.b64decode(made))) as picture:
            assert picture.info == {}
        assert redrawn(made)[0] == made

    def test_a_file_with_another_behind_it_is_cut(self) -> None:
        data = base64.b64encode(base64.b64decode(png()) + b"<script>").decode()
        assert b"script" not in base64.b64decode(redrawn(data)[0])

    @pytest.mark.parametrize("data", ["", "x", "====", '"><script>', base64.b64encode(b"GIF89a").decode(), png()[:40]])
    def test_what_is_no_picture_is_refused(self, data: str) -> None:
        with pytest.raises(PictureError):
            redrawn(data)

    def test_a_picture_in_another_format_is_refused(self) -> None:
        for kind in ("GIF", "BMP", "JPEG", "TIFF", "WEBP"):
            stream = io.BytesIO()
            Image.new("RGB", (2, 2)).save(stream, kind)
            with pytest.raises(PictureError):
                redrawn(base64.b64encode(stream.getvalue()).decode())

    def test_a_bomb_is_not_unpacked(self) -> None:
        head = png()
        data = bytearray(base64.b64decode(head))
        data[16:24] = (9_000).to_bytes(4, "big") * 2  # the size in the header, 81 million pixels
        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
        with pytest.raises(PictureError, match="9000 x 9000 pixels"):
            redrawn(base64.b64encode(bytes(data)).decode())

    def test_there_is_room_for_some(self) -> None:
        side = 2800
        assert side * side < MAX_PIXELS
        picture = {"output_type": "display_data", "data": {"image/png": png(side, side, "1")}, "metadata": {}}
        cell = of([picture] * 4)
        assert ["image/png" in output.data for output in cell.outputs] == [True] * (ALL_PIXELS // side**2) + [False]
        assert "no room for so many" in cell.outputs[-1].data["text/plain"]


class TestTerminal:
    @given(st.text())
    def test_a_text_is_one_line_without_codes(self, text: str) -> None:
        shown = terminal(text)
        assert not [sign for sign in shown if ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 or sign in "\u202e\u2066\xad"]
        assert terminal(shown) == shown

    def test_a_table_shows_markup_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        hostile = "[red]x[/red] [link=http://x]y[/link] :cat: \x1b]0;title\x07 \u202e a\nb"
        table = Table("student", "points")
        table.add_row(terminal(hostile), "1")
        _show(table)
        written = capsys.readouterr().out
        assert "[red]x[/red] [link=http://x]y[/link] :cat: ␛]0;title␇ \\u202e a␊b" in written
        assert "\x1b" not in written


@given(st.text(alphabet="=+-@＝﹦ \t;,|\r\n\"'a1", max_size=12))
def test_no_cell_of_a_table_begins_a_formula(text: str) -> None:
    cell = in_a_table(text)
    assert isinstance(cell, str)
    assert not cell.lstrip(" \t\r\n")[:1] or cell.lstrip(" \t\r\n")[0] not in "=+-@＝﹦"
    assert in_a_table(3) == 3


def test_what_lies_beside_a_notebook_goes(tmp_path: Path) -> None:
    copied, source = tmp_path / "autograded", tmp_path / "source"
    for name in ("page.html", "deep/er/x.svg", "figure.svg", "data/ours.csv", "data/theirs.csv"):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_text("x")
    for name in ("figure.svg", "data/ours.csv"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    _clear(copied, source)
    kept = [str(path.relative_to(copied)) for path in copied.rglob("*")]
    assert sorted(kept) == ["data", "data/ours.csv", "figure.svg"]
    _clear(tmp_path / "none", source)
