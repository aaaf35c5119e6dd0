"""Turns the source of a reference into a solution cell: what nbgrader cuts out stands between its markers."""

import ast
import inspect
from typing import Any

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"


def solution_cell(reference: Any) -> str:
    """The source of a function or class with the body of every function marked as solution.

    Signature, docstring and a leading call of `super().__init__()` stay outside the markers, and so in the stub.
    """
    source = inspect.getsource(reference)
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    # A function within a function is a part of the outer one's solution, so only these are marked.
    nodes = definition.body if isinstance(definition, ast.ClassDef) else [definition]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    for function in sorted(functions, key=lambda node: node.lineno, reverse=True):
        _mark(function, lines)
    return "\n".join(lines)


def _mark(function: ast.FunctionDef, lines: list[str]) -> None:
    kept = 0
    while kept < len(function.body) and _is_given(function.body[kept], first=kept == 0):
        kept += 1
    if kept == len(function.body):
        return
    # From the end of what is kept, not from the first statement: a comment above it belongs to the solution.
    start = function.body[kept - 1].end_lineno if kept else function.body[0].lineno - 1
    end = function.body[-1].end_lineno
    assert start is not None and end is not None
    indent = " " * function.body[kept].col_offset
    lines.insert(end, indent + END)
    lines.insert(start, indent + BEGIN)


def _is_given(statement: ast.stmt, *, first: bool) -> bool:
    if not isinstance(statement, ast.Expr):
        return False
    is_docstring = first and isinstance(statement.value, ast.Constant)
    return is_docstring or ast.unparse(statement) == "super().__init__()"
