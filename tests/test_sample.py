"""The imaginary students of a class: what they hand in can be run where it is handed in."""

import ast
import builtins
import dis
from collections.abc import Iterator
from functools import cache
from types import CodeType

import jupytext
import pytest

from autograder.checks import find, of_chapter
from autograder.sample import students
from course import chapters


def asked_for(code: CodeType) -> Iterator[str]:
    """The names that code looks up outside of its functions, deep down too."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from asked_for(inner)


def imported(source: str) -> set[str]:
    """The names that imports at the top level bind."""
    statements = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name.partition(".")[0] for statement in statements for alias in statement.names}


@cache
def given(chapter: str) -> set[str]:
    """The names that a notebook of this chapter has: what its cells import, and its exercises."""
    book = jupytext.reads(chapters.source(chapter).read_text(encoding="utf-8"), fmt="md:myst")
    cells = [cell.source for cell in book.cells if cell.cell_type == "code"]
    return {check.symbol for check in of_chapter(chapter)}.union(*map(imported, cells))


def handed_in() -> Iterator[tuple[str, str, str]]:
    """All that the sample classes write: the chapter, whose it is, and the source."""
    for chapter in chapters.names():
        for student in students(chapter):
            for exercise, source in student.sources.items():
                yield chapter, f"{exercise} of {student.name}", source


HANDED_IN = list(handed_in())


@pytest.mark.parametrize(("chapter", "name", "source"), HANDED_IN, ids=[name for _, name, _ in HANDED_IN])
def test_what_is_handed_in_finds_all_that_it_names(chapter: str, name: str, source: str) -> None:
    asked = set(asked_for(compile(source, name, "exec")))
    assert asked - imported(source) - given(chapter) - vars(builtins).keys() <= {"__name__"}


def test_a_variant_keeps_the_decorators_below_its_own() -> None:
    sources = [variant.source for variant in find("gpt.perplexity").variants]
    assert any("\n\n@torch.no_grad()\ndef perplexity" in source for source in sources)
