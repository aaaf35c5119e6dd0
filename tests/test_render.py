"""A result as a student sees it: the same facts in a page and in a terminal, and a bare number for nbgrader."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from nbgrader.utils import determine_grade, get_partial_grade

from autograder import check, client
from autograder.judge import Part, Result
from autograder.render import to_html, to_text
from solutions import attention
from tests.course_fixtures import course_in, make_course

VOID = {"br", "hr", "img", "input", "meta", "link"}
HOSTILE = "<script>alert('x')</script> & \"quotes\" <b>bold</b> {{ 7 * 7 }} {% raw %}"

parts = st.builds(
    Part, st.text("abc xyz", min_size=1, max_size=9), st.integers(1, 5), st.sampled_from(["ok", "no", "not tried"])
)
results = st.builds(
    Result,
    exercise=st.text(max_size=20),
    parts=st.lists(parts, max_size=4),
    messages=st.lists(st.text(max_size=60) | st.just(HOSTILE) | st.just("`code` and `<i>`"), max_size=3),
    notes=st.lists(st.text(max_size=30), max_size=2),
    read=st.sampled_from(["", "01_attention#softmax", "01_attention#nowhere"]),
)


@pytest.fixture(scope="module", autouse=True)
def _course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with course_in(make_course(tmp_path_factory.mktemp("course"))) as folder:
        yield folder


class Page(HTMLParser):
    """Reads a fragment strictly: every element that is opened is closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return squeeze("".join(self.texts))


def squeeze(text: str) -> str:
    return " ".join(text.split())


def facts(result: Result) -> list[str]:
    """What both forms must say."""
    said = [f"{result.exercise}: {result.points} of {result.max_points} points"]
    said += [part.name for part in result.parts] + [part.status for part in result.parts]
    return [squeeze(fact) for fact in said + result.messages + result.notes]


class TestBothForms:
    @given(results)
    @settings(deadline=None, max_examples=120, derandomize=True)
    def test_say_the_same(self, result: Result) -> None:
        page, text = Page(to_html(result)), squeeze(to_text(result))
        for fact in facts(result):
            assert fact in text
            assert fact.replace("`", "") in page.text.replace("`", "")
        again = "Read again" in text
        assert again is ("Read again" in page.text)
        assert again is bool(result.read and (result.points < result.max_points or not result.parts))

    @given(results)
    @settings(deadline=None, max_examples=120, derandomize=True)
    def test_a_page_holds_only_the_elements_of_the_template(self, result: Result) -> None:
        page = Page(to_html(result))
        assert set(page.tags) <= {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "code", "em"}
        assert {name for name, _ in page.attributes} <= {"class", "role", "aria-label", "style", "scope"}

    def test_name_the_section_to_read_again(self) -> None:
        result = Result("attention.softmax", [Part("values", 1, "no")], ["Wrong."], read="01_attention#softmax")
        assert "Read again: From scores to weights" in Page(to_html(result)).text
        assert 'Read again: "From scores to weights" in 01_attention' in to_text(result)

    def test_send_nobody_back_who_got_everything_right(self) -> None:
        result = Result("attention.softmax", [Part("values", 1)], read="01_attention#softmax")
        assert "Read again" not in to_html(result) + to_text(result)

    def test_code_stands_between_backticks_in_text_and_in_code_on_a_page(self) -> None:
        result = Result("x", [Part("a", 1, "no")], ["Use `x.sum(dim)`, not `<sum>`."])
        assert "Use `x.sum(dim)`, not `<sum>`." in to_text(result)
        assert "Use <code>x.sum(dim)</code>, not <code>&lt;sum&gt;</code>." in to_html(result)


class TestHostileWords:
    def test_a_script_in_an_exception_is_shown_not_run(self) -> None:
        def softmax(x: object, dim: int = -1) -> object:
            raise ValueError(HOSTILE)

        result = check("attention.softmax", softmax).result
        html = to_html(result)
        assert "<script>" not in html
        assert "<b>" not in html
        assert "&lt;script&gt;" in html
        page = Page(html)
        assert "script" not in page.tags
        assert squeeze(HOSTILE) in page.text
        assert HOSTILE in to_text(result)

    def test_a_script_in_the_exercises_name_is_shown_not_run(self) -> None:
        result = check(f'"><script>{HOSTILE}', None).result
        page = Page(to_html(result))
        assert "script" not in page.tags
        assert {name for name, _ in page.attributes} <= {"class", "role", "aria-label", "style", "scope"}


def output_of(verdict: client.Verdict) -> NotebookNode:
    """A graded cell after a kernel has run it."""
    marks = {"nbgrader": {"grade": True, "points": 2, "grade_id": "x", "solution": False, "schema_version": 3}}
    cell = new_code_cell("check(...)", metadata=marks)
    cell.outputs = [new_output("execute_result", verdict._repr_mimebundle_(), execution_count=1)]
    return cell


class TestInANotebook:
    @pytest.fixture(autouse=True)
    def _kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "_in_kernel", lambda: True)

    def test_the_page_is_shown_and_the_text_is_the_number_alone(self) -> None:
        verdict = check("attention.softmax", attention.softmax)
        bundle = verdict._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html"}
        assert bundle["text/plain"] == "2"
        assert bundle["text/html"] == to_html(verdict.result)

    @pytest.mark.parametrize(
        ("points", "target"),
        [(2, attention.softmax), (1, lambda x, dim=-1: x.exp() / x.exp().sum(dim, keepdim=True)), (0, lambda x: None)],
        ids=["all", "some", "none"],
    )
    def test_nbgrader_takes_the_number_for_the_grade(self, points: int, target: object) -> None:
        cell = output_of(check("attention.softmax", target))
        assert get_partial_grade(cell.outputs[0], 2) == points
        assert determine_grade(cell) == (points, 2)

    def test_an_unknown_exercise_earns_nothing_from_nbgrader(self) -> None:
        assert determine_grade(output_of(check("attention.sotfmax", attention.softmax))) == (0, 2)


def test_in_a_terminal_there_is_text_alone() -> None:
    verdict = check("attention.softmax", attention.softmax)
    assert verdict._repr_mimebundle_() == {"text/plain": to_text(verdict.result)}
    assert repr(verdict) == to_text(verdict.result)
    assert repr(verdict).startswith("attention.softmax: 2 of 2 points\nvalues ok · stable ok")
