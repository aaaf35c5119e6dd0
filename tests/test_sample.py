"""The imaginary students of a class: what they hand in can be run where it is handed in."""

import ast
import builtins
import dis
from collections.abc import Iterator
from types import CodeType

import jupytext
import pytest

from autograder.checks import Named, of_chapter, register
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


def given(chapter: str) -> set[str]:
    """The names that a notebook of this chapter has: what its cells import, and its exercises."""
    book = jupytext.reads(chapters.source(chapter).read_text(encoding="utf-8"), fmt="md:myst")
    cells = [cell.source for cell in book.cells if cell.cell_type == "code"]
    return {check.symbol for check in of_chapter(chapter)}.union(*map(imported, cells))


VARIANTS = [(check.chapter, variant) for check in register().checks.values() for variant in check.variants]


@pytest.mark.parametrize(("chapter", "variant"), VARIANTS, ids=lambda value: getattr(value, "name", value))
def test_a_variants_source_finds_all_that_it_names(chapter: str, variant: Named) -> None:
    asked = set(asked_for(compile(variant.source, variant.name, "exec")))
    assert asked - imported(variant.source) - given(chapter) - vars(builtins).keys() <= {"__name__"}
