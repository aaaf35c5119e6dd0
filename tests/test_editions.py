"""The notebooks are derived from the chapter, the references and the register, and say what those say."""

import ast
import inspect
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.notebooknode import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator
from torch import nn

from autograder.catalogue import catalogue
from autograder.release import drifted, release
from course.chapters import CourseError, names, plain, section_title, source
from course.editions import instructor_edition
from course.markdown import Translator, blocks
from course.stubs import solution_cell
from solutions import attention
from tests.course_fixtures import (
    CHAPTER,
    CHECKS,
    NOTEBOOK,
    REFLECTIONS,
    SYMBOLS,
    chapter_text,
    course_in,
    make_course,
    run_course,
    snapshot,
)

FIGURE = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'

MIDDLE = """
% a comment to editors

$$ E = mc^2
$$ (first)

$$ a = b
$$ (second)

See {eq}`second` and {ref}`the softmax <softmax>`, {term}`query <queries>`, {doc}`here <../index>`.
Shown by {cite:t}`vaswani2017`, and later {cite:p}`two2020,vaswani2017`; see [the preface](../preface.md#start).

:::{note}
Mind the `dim`.
:::

:::{admonition} Three {term}`questions`
:class: tip
Answer them.
:::

:::{dropdown} A hint
Subtract the maximum.
:::

:::{figure} picture.svg
:name: fig-picture
:alt: Nothing to see
A caption with
{term}`terms`.
:::

```{code-cell} ipython3
:tags: [book-only]
"only in the book"
```

```{code-cell} ipython3
:tags: [hide-input]
:mystnb:
:  figure:
:    caption: A drawn {term}`figure`.
"folded"
```
"""


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Path]:
    """A course that has not been released yet."""
    with course_in(make_course(tmp_path)) as folder:
        yield folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A released course that no test changes."""
    with course_in(make_course(tmp_path_factory.mktemp("released"))) as folder:
        assert len(release(CHAPTER)) == 2
    yield folder


@pytest.fixture
def copied(released: Path, tmp_path: Path) -> Iterator[Path]:
    """A released course of one's own; a copy, because a new gradebook takes nbgrader four seconds."""
    with course_in(Path(shutil.copytree(released, tmp_path / "course"))) as folder:
        yield folder


@pytest.fixture
def student(released: Path) -> NotebookNode:
    return nbformat.read(released / NOTEBOOK, as_version=4)


@pytest.fixture
def instructor(released: Path) -> NotebookNode:
    return nbformat.read(released / "grading" / "source" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)


def write(folder: Path, text: str) -> None:
    (folder / "book" / "chapters" / f"{CHAPTER}.md").write_text(text, encoding="utf-8")


def edition() -> NotebookNode:
    """The instructor's notebook, made anew."""
    return instructor_edition(CHAPTER, catalogue(CHAPTER))[0]


def marked(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The cells that nbgrader knows, by its id."""
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


def sources(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells)


def body_of(reference: Any) -> set[str]:
    """The lines of a reference that are its solution: all but signatures, docstrings and calls of super()."""
    lines = inspect.getsource(reference).splitlines()
    kept: set[int] = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            for statement in node.body:
                if not isinstance(statement, ast.Expr):
                    kept |= set(range(statement.lineno - 1, statement.end_lineno or 0))
    return {lines[index].strip() for index in kept if lines[index].strip() not in ("", "else:")}


def nothing(a: int) -> None:
    """Do nothing at all."""


def undocumented(a):  # type: ignore[no-untyped-def]
    b = a
    return b + 1


class Several(nn.Module):
    """Two methods."""

    size = 3

    def __init__(self) -> None:
        """Begin."""
        super().__init__()
        self.a = 1

    def forward(self, x: int) -> int:
        """Add."""

        def inner(y: int) -> int:
            return y + 1

        return inner(x) + self.a


class TestSolutionCell:
    @pytest.mark.parametrize("symbol", SYMBOLS)
    def test_runs_and_is_the_reference_between_markers(self, symbol: str) -> None:
        cell = solution_cell(getattr(attention, symbol))
        lines = [line for line in cell.splitlines() if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION")]
        assert "\n".join(lines) == inspect.getsource(getattr(attention, symbol)).rstrip("\n")

    @pytest.mark.parametrize("symbol", SYMBOLS)
    def test_markers_come_in_pairs_and_hold_the_whole_body(self, symbol: str) -> None:
        cell = solution_cell(getattr(attention, symbol))
        outside, inside = split(cell)
        assert body_of(getattr(attention, symbol)) <= {line.strip() for line in inside}
        assert not body_of(getattr(attention, symbol)) & {line.strip() for line in outside}
        assert any(line.lstrip().startswith(("def ", "class ")) for line in outside)
        assert any('"""' in line for line in outside)

    def test_a_function_without_a_docstring_keeps_its_signature_alone(self) -> None:
        outside, inside = split(solution_cell(undocumented))
        assert [line.partition("  #")[0] for line in outside] == ["def undocumented(a):"]
        assert inside == ["    b = a", "    return b + 1"]

    def test_a_function_with_nothing_to_solve_has_no_markers(self) -> None:
        assert "###" not in solution_cell(nothing)

    def test_a_class_keeps_super_and_loses_the_body_of_every_method(self) -> None:
        outside, inside = split(solution_cell(Several))
        assert "        super().__init__()" in outside
        assert "    size = 3" in outside
        assert "        self.a = 1" in inside
        assert "        return inner(x) + self.a" in inside

    def test_a_function_within_a_method_is_a_part_of_its_solution(self) -> None:
        cell = solution_cell(Several)
        assert cell.count("### BEGIN SOLUTION") == cell.count("### END SOLUTION") == 2


def split(cell: str) -> tuple[list[str], list[str]]:
    """The lines outside and inside the markers."""
    outside: list[str] = []
    inside: list[str] = []
    current = outside
    for line in cell.splitlines():
        if line.strip() == "### BEGIN SOLUTION":
            assert current is outside
            current = inside
        elif line.strip() == "### END SOLUTION":
            assert current is inside
            current = outside
        else:
            current.append(line)
    assert current is outside
    return outside, inside


class TestStudentNotebook:
    def test_holds_no_line_of_any_solution(self, student: NotebookNode) -> None:
        lines = {line.strip() for cell in student.cells for line in cell.source.splitlines()}
        for symbol in SYMBOLS:
            assert body_of(getattr(attention, symbol))
            assert not body_of(getattr(attention, symbol)) & lines

    def test_keeps_signature_and_docstring_of_every_reference(self, student: NotebookNode) -> None:
        cells = marked(student)
        for symbol in SYMBOLS:
            stub = cells[f"attention-{symbol}"].source
            assert f'"""{inspect.getdoc(getattr(attention, symbol)).splitlines()[0]}' in stub
            assert "# YOUR CODE HERE\n" in stub
            assert "raise NotImplementedError" in stub
            ast.parse(stub)

    def test_its_stubs_run_and_raise_not_implemented(self, student: NotebookNode) -> None:
        namespace: dict[str, Any] = {}
        exec("import math\nimport torch\nfrom torch import Tensor, nn", namespace)
        for symbol in SYMBOLS:
            exec(marked(student)[f"attention-{symbol}"].source, namespace)
            with pytest.raises(NotImplementedError):
                namespace[symbol](*[1] * len(inspect.signature(namespace[symbol]).parameters))

    def test_holds_neither_hidden_tests_nor_markers_nor_rubrics(self, released: Path, student: NotebookNode) -> None:
        text = (released / NOTEBOOK).read_text(encoding="utf-8")
        for word in ("HIDDEN", "graded=", "SOLUTION", "from solutions"):
            assert word not in text
        for question in REFLECTIONS.values():
            for line in question.rubric.splitlines():
                assert not line or line not in sources(student)

    def test_each_check_cell_calls_its_check_and_is_locked(self, student: NotebookNode) -> None:
        cells = marked(student)
        for symbol in SYMBOLS:
            cell = cells[f"attention-{symbol}-check"]
            assert cell.source == f'check("attention.{symbol}", {symbol})'
            assert cell.metadata.nbgrader.locked
            assert cell.metadata.nbgrader.grade

    def test_a_check_cell_follows_its_solution_cell(self, student: NotebookNode) -> None:
        order = list(marked(student))
        for symbol in SYMBOLS:
            assert order[order.index(f"attention-{symbol}") + 1] == f"attention-{symbol}-check"

    def test_is_valid_for_nbformat_and_nbgrader(self, student: NotebookNode, instructor: NotebookNode) -> None:
        for notebook in (student, instructor):
            nbformat.validate(notebook)
            for cell in notebook.cells:
                MetadataValidator().validate_cell(cell)
                marks = cell.metadata.get("nbgrader", {"schema_version": 3})
                assert marks["schema_version"] == 3
            ids = [cell.id for cell in notebook.cells]
            assert len(set(ids)) == len(ids)
            assert all(re.fullmatch(r"[\w-]{1,64}", one) for one in ids)

    def test_has_no_outputs_and_no_counts(self, student: NotebookNode) -> None:
        code = [cell for cell in student.cells if cell.cell_type == "code"]
        assert code
        assert all(cell.outputs == [] and cell.execution_count is None for cell in code)

    def test_its_points_are_those_of_the_register(self, student: NotebookNode) -> None:
        points = {
            name: cell.metadata.nbgrader.points
            for name, cell in marked(student).items()
            if cell.metadata.nbgrader.grade
        }
        checks = {f"{name.replace('.', '-')}-check": check.points for name, check in CHECKS.items()}
        answers = {f"{name.replace('.', '-')}-answer": one.points for name, one in REFLECTIONS.items()}
        assert points == checks | answers
        words = student.cells[1].source
        assert f"up to {sum(checks.values())} points, the written answers up to {sum(answers.values())}" in words

    def test_says_points_difficulty_and_time_of_each_exercise(self, student: NotebookNode) -> None:
        text = sources(student)
        for name, check in CHECKS.items():
            points = f"{check.points} point{'s' * (check.points > 1)}"
            facts = f"{points} · difficulty {check.difficulty} of 3 · about {check.minutes} minutes"
            assert f"#### Exercise: `{name}`\n\n{facts}" in text

    def test_questions_can_be_answered_and_are_graded_by_hand(self, student: NotebookNode) -> None:
        for name in REFLECTIONS:
            cell = marked(student)[f"{name.replace('.', '-')}-answer"]
            assert cell.cell_type == "markdown"
            assert cell.source == "YOUR ANSWER HERE"
            assert cell.metadata.nbgrader.solution
            assert cell.metadata.nbgrader.grade

    def test_instructors_see_solutions_hidden_checks_and_rubrics(self, instructor: NotebookNode) -> None:
        cells = marked(instructor)
        for symbol in SYMBOLS:
            assert cells[f"attention-{symbol}"].source == solution_cell(getattr(attention, symbol))
            assert f'check("attention.{symbol}", {symbol}, graded=True)' in cells[f"attention-{symbol}-check"].source
        for name, question in REFLECTIONS.items():
            assert question.rubric in cells[f"{name.replace('.', '-')}-answer"].source


class TestDeriving:
    def test_twice_gives_the_same_bytes(self, copied: Path) -> None:
        before = (copied / NOTEBOOK).read_bytes()
        assert release(CHAPTER) == []
        (copied / NOTEBOOK).unlink()
        assert release(CHAPTER) == [copied / NOTEBOOK]
        assert (copied / NOTEBOOK).read_bytes() == before

    def test_elsewhere_gives_the_same_bytes(self, course: Path, released: Path) -> None:
        release(CHAPTER)
        assert (course / NOTEBOOK).read_bytes() == (released / NOTEBOOK).read_bytes()

    def test_a_cell_inserted_elsewhere_changes_no_other_cells_id(self, course: Path) -> None:
        before = edition()
        write(course, chapter_text("## Another section\n\n```{code-cell} ipython3\n1 + 1\n```\n\nMore words.\n"))
        after = edition()
        old = {cell.id: cell.source for cell in before.cells}
        new = {cell.id: cell.source for cell in after.cells}
        changed = {old[one] for one in old.keys() - new.keys()}
        assert len(new) > len(old)
        assert changed <= {text for text in old.values() if text.startswith("## From scores to weights")}
        assert all(new[one] == old[one] for one in old.keys() & new.keys())
        assert marked(before).keys() == marked(after).keys()

    def test_two_cells_of_the_same_words_get_different_ids(self, course: Path) -> None:
        write(course, chapter_text("```{code-cell} ipython3\n1 + 1\n```\n\n```{code-cell} ipython3\n1 + 1\n```\n"))
        ids = [cell.id for cell in edition().cells]
        assert len(set(ids)) == len(ids)

    @pytest.mark.parametrize("symbol", SYMBOLS)
    def test_a_chapter_that_lacks_an_exercise_is_refused(self, course: Path, symbol: str) -> None:
        write(course, chapter_text(symbols=tuple(one for one in SYMBOLS if one != symbol)))
        before = snapshot(course)
        with pytest.raises(CourseError, match=rf"does not contain attention\.{symbol}\."):
            release(CHAPTER)
        assert snapshot(course) == before

    def test_a_chapter_that_lacks_a_question_is_refused(self, course: Path) -> None:
        write(course, chapter_text(questions=("why_scale",)))
        with pytest.raises(CourseError, match=r"does not contain attention\.choose_mask"):
            release(CHAPTER)

    @pytest.mark.parametrize(
        ("middle", "words"),
        [
            (":::{exercise} attention.hardmax\nWrite.\n:::\n", "no exercise 'attention.hardmax'"),
            (":::{reflection} attention.why\nWhy?\n:::\n", "no reflection 'attention.why'"),
            ("```{code-cell} ipython3\n:tags: [exercise]\nx = 1\n```\n", "must import one exercise's reference"),
            (
                "```{code-cell} ipython3\n:tags: [exercise]\nfrom solutions.attention import math\n```\n",
                "must import one",
            ),
            ("{unknown}`x`\n", "no words for the role {unknown}"),
            (":::{carousel} x\ny\n:::\n", "no form for the directive {carousel}"),
            ("{cite:p}`nobody1999`\n", "no entry 'nobody1999'"),
            ("{eq}`nowhere`\n", "nowhere"),
            (":::{figure} missing.svg\nCaption.\n:::\n", "missing.svg"),
        ],
        ids=["exercise", "question", "cell", "import", "role", "directive", "citation", "equation", "figure"],
    )
    def test_what_has_no_form_in_a_notebook_is_refused(self, course: Path, middle: str, words: str) -> None:
        write(course, chapter_text(middle))
        before = snapshot(course)
        with pytest.raises(CourseError) as raised:
            release(CHAPTER)
        assert words in str(raised.value)
        assert f"{CHAPTER}.md" in str(raised.value)
        assert snapshot(course) == before

    def test_what_earlier_chapters_defined_comes_from_the_student(self, course: Path) -> None:
        imports = "from solutions.attention import a, B\nfrom solutions.x import c"
        cell = f"\n```{{code-cell}} ipython3\n:tags: [earlier]\n{imports}\n```\n"
        write(course, chapter_text(cell))
        (found,) = [cell.source for cell in edition().cells if "earlier(" in cell.source]
        assert found == (
            "from autograder import earlier\n\n# Yours where it passed its check, the course's where not.\n"
            "(\n    a,\n    B,\n    c,\n) = earlier(\n"
            '    "attention.a",\n    "attention.B",\n    "x.c",\n)'
        )
        write(course, chapter_text(cell.replace("a, B\nfrom solutions.x import c", "a")))
        (found,) = [cell.source for cell in edition().cells if "earlier(" in cell.source]
        assert found.endswith('where not.\na = earlier("attention.a")')

    @pytest.mark.parametrize("line", ["import torch", "from torch import nn", "x = 1"])
    def test_a_cell_of_earlier_definitions_holds_nothing_else(self, course: Path, line: str) -> None:
        write(course, chapter_text(f"\n```{{code-cell}} ipython3\n:tags: [earlier]\n{line}\n```\n"))
        with pytest.raises(CourseError, match="a cell tagged `earlier` may only import from solutions"):
            edition()

    def test_the_first_cell_installs_the_course_on_colab_once_it_is_published(
        self, course: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "colab" not in sources(edition())
        monkeypatch.setenv("COURSE_REPOSITORY_URL", "https://github.com/OWNER/COURSE")
        (cell,) = [one for one in edition().cells if "colab" in one.source]
        assert "https://github.com/OWNER/COURSE" in cell.source
        assert cell.cell_type == "code"


class TestTheBooksWords:
    @pytest.fixture
    def text(self, course: Path) -> str:
        (course / "book" / "chapters" / "picture.svg").write_text(FIGURE, encoding="utf-8")
        write(course, chapter_text(MIDDLE))
        self.notebook = edition()
        return sources(self.notebook)

    @pytest.mark.parametrize(
        "words",
        [
            "See (2) and *the softmax*, query, *here*.",
            "Shown by [Vaswani et al. (2017)](https://arxiv.org/abs/1706.03762)",
            "later (First and Second, 2020; [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)); see",
            "; see the preface.",
            "$$ E = mc^2\n\\tag{1} $$",
            "\\tag{2} $$",
            "> **Note**\n>\n> Mind the `dim`.",
            "> **Three questions**\n>\n> Answer them.",
            "<details>\n<summary>A hint</summary>\n\nSubtract the maximum.\n\n</details>",
            "![Nothing to see](picture.svg)\n\n**Figure.** A caption with terms.",
            "**Figure.** A drawn figure.",
            "## From scores to weights",
        ],
    )
    def test_become_plain_markdown(self, text: str, words: str) -> None:
        assert words in text

    @pytest.mark.parametrize(
        "mark",
        [
            "{eq}",
            "{term}",
            "{ref}",
            "{cite",
            "{doc}",
            ":::",
            "(softmax)=",
            "% a comment",
            "only in the book",
            ":class:",
        ],
    )
    def test_leave_no_mark_of_the_book_behind(self, text: str, mark: str) -> None:
        assert mark not in text

    def test_a_figure_stands_beside_both_notebooks(self, text: str, course: Path) -> None:
        release(CHAPTER)
        for folder in (course / NOTEBOOK).parent, course / "grading" / "source" / CHAPTER:
            assert (folder / "picture.svg").read_text(encoding="utf-8") == FIGURE

    def test_a_folded_cell_is_folded(self, text: str) -> None:
        (cell,) = [cell for cell in self.notebook.cells if cell.source == '"folded"']
        assert cell.metadata.jupyter.source_hidden is True

    def test_order_is_kept(self, text: str) -> None:
        marks = [
            "# Attention",
            "From scores to weights",
            "See (2)",
            "Three questions",
            '"folded"',
            "Exercise: `attention.softmax`",
        ]
        places = [text.index(mark) for mark in marks]
        assert places == sorted(places)

    def test_dollars_and_braces_of_formulas_and_code_stay(self, course: Path) -> None:
        kept = "Let $x_{i}$ be `a{b}` and ${\\bf x}$; print(f'{x}`y`') is no role."
        write(course, chapter_text(kept.replace("{x}`y`", "{x} `y`")))
        assert "$x_{i}$ be `a{b}` and ${\\bf x}$" in sources(edition())


def translator(course: Path) -> Translator:
    return Translator(source(CHAPTER), course / "book" / "references.bib")


@pytest.mark.parametrize("text", ["", "plain words\n\nand more", ":::{note}\nx\n:::", "a\n\n```{note}\nx\n```\n\nb"])
def test_blocks_lose_nothing(text: str) -> None:
    words = re.findall(r"\w+", " ".join(f"{block.kind} {block.argument} {block.body}" for block in blocks(text)))
    assert words == re.findall(r"\w+", text)


def test_a_directive_within_a_directive_is_refused_or_translated(course: Path) -> None:
    (outer,) = blocks("::::{note}\n:::{tip}\ninner\n:::\n::::")
    with pytest.raises(CourseError, match="tip"):
        translator(course).render(outer)


class TestCheck:
    def test_passes_right_after_a_release_and_writes_nothing(self, copied: Path) -> None:
        before = snapshot(copied)
        outcome = run_course("release", "--check")
        assert (outcome.exit_code, outcome.stderr) == (0, "")
        assert snapshot(copied) == before

    @pytest.mark.parametrize("where", ["notebook", "chapter", "missing"])
    def test_fails_after_a_drift_and_writes_nothing(self, copied: Path, where: str) -> None:
        changes: dict[str, Callable[[], object]] = {
            "notebook": lambda: (copied / NOTEBOOK).write_text(
                (copied / NOTEBOOK).read_text("utf-8").replace("YOUR ANSWER", "OUR ANSWER"), encoding="utf-8"
            ),
            "chapter": lambda: write(copied, chapter_text("A new sentence.")),
            "missing": lambda: (copied / NOTEBOOK).unlink(),
        }
        changes[where]()
        before = snapshot(copied)
        outcome = run_course("release", "--check", CHAPTER)
        assert outcome.exit_code == 1
        assert str(copied / NOTEBOOK) in outcome.stderr
        assert snapshot(copied) == before

    def test_a_release_mends_a_drift(self, copied: Path) -> None:
        write(copied, chapter_text("A new sentence."))
        assert run_course("release").stdout == f"{CHAPTER}: 2 files written.\n"
        assert run_course("release", CHAPTER).stdout == f"{CHAPTER}: nothing has changed.\n"
        assert "A new sentence." in (copied / NOTEBOOK).read_text("utf-8")
        assert drifted(CHAPTER) == []


class TestChapters:
    def test_are_those_with_a_number(self, course: Path) -> None:
        for name in ("notes.md", "02_more.md", "3_bad.md", "04_text.txt"):
            (course / "book" / "chapters" / name).write_text("x", encoding="utf-8")
        assert names() == [CHAPTER, "02_more"]

    def test_section_titles_are_read_from_the_chapter(self, course: Path) -> None:
        assert section_title(CHAPTER, "softmax") == "From scores to weights"
        assert section_title(CHAPTER, "nowhere") == "nowhere"
        assert section_title("99_none", "softmax") == "softmax"

    @pytest.mark.parametrize(
        ("heading", "words"),
        [
            ("Why divide by $\\sqrt{d_k}$?", "Why divide by √d_k?"),
            ("The `dim` *axis*", "The dim axis"),
            ("Plain", "Plain"),
        ],
    )
    def test_headings_become_plain(self, heading: str, words: str) -> None:
        assert plain(heading) == words


def test_a_notebook_is_json_with_a_final_newline_and_readable_text(released: Path) -> None:
    data = (released / NOTEBOOK).read_bytes()
    assert data.endswith(b"\n")
    assert "·".encode() in data
    assert json.loads(data)["nbformat"] == 4
