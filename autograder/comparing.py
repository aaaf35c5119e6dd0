"""Tells a comparison that cannot change a result from a use: `assert torch.allclose(mine, F.softmax(x, -1))`.

This module is sent where the student's code runs: it imports torch and the standard library, and holds no answer.
"""

import ast
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch

_TELLING = ("abs", "all", "any", "bool", "float", "len", "max", "min", "print")
"""Functions of Python that keep nothing of what they are given."""

_CHANGING = ("out", "generator")


def only_compares(source: str, line: int, names: Mapping[str, Any]) -> bool:
    """Whether a line of running code belongs to a comparison that cannot change a result.

    Args:
        source: the whole cell.
        line: the number of the line, from 1.
        names: what names mean where it runs.
    """
    for first, last, statement in _comparisons(source):
        if first <= line <= last:
            return is_comparison(statement, lambda node: _is_of_torch(node, names))
    return False


def is_comparison(
    statement: ast.stmt, is_library: Callable[[ast.expr], bool], own: Collection[str] = frozenset()
) -> bool:
    """Whether a statement is an assertion that only computes and compares, so that nothing of it goes elsewhere.

    Args:
        statement: any statement.
        is_library: whether an expression names PyTorch or a module of it.
        own: names of attributes that are the student's own.
    """
    called = (node.func for node in ast.walk(statement) if isinstance(node, ast.Call))
    if any(isinstance(function, ast.Attribute) and function.attr in own for function in called):
        return False
    match statement:
        case ast.Assert(test=test, msg=message):
            says = message is None or not any(isinstance(node, ast.Call | ast.NamedExpr) for node in ast.walk(message))
            return says and _is_pure(test, is_library)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr="assert_close")) as call):
            return is_library(owner) and _is_pure(call, is_library)
    return False


def _is_pure(node: ast.AST, is_library: Callable[[ast.expr], bool]) -> bool:
    match node:
        case ast.Constant() | ast.Name(ctx=ast.Load()) | ast.operator() | ast.cmpop() | ast.unaryop() | ast.boolop():
            return True
        case ast.expr_context():
            return True
        case ast.Call(func=function, args=arguments, keywords=keywords):
            given = [*arguments, *(keyword.value for keyword in keywords)]
            if any(keyword.arg is None or keyword.arg in _CHANGING for keyword in keywords):
                return False
            if not _may_be_called(function, given, is_library):
                return False
            return all(_is_pure(value, is_library) for value in given)
        case (
            ast.Attribute()
            | ast.Subscript()
            | ast.Slice()
            | ast.BinOp()
            | ast.UnaryOp()
            | ast.BoolOp()
            | ast.Compare()
            | ast.Tuple()
            | ast.List()
        ):
            return all(_is_pure(child, is_library) for child in ast.iter_child_nodes(node))
    return False


def _may_be_called(function: ast.expr, given: list[ast.expr], is_library: Callable[[ast.expr], bool]) -> bool:
    match function:
        case ast.Name(id=name):
            return name in _TELLING
        case ast.Attribute(value=owner, attr=name) if not name.endswith("_"):
            if is_library(owner):
                return True
            # A method may be one of the student's own, which keeps what it is given.
            is_tensors = hasattr(torch.Tensor, name) and all(_is_constant(value) for value in given)
            return is_tensors and _is_pure(owner, is_library)
        case ast.Call(func=ast.Attribute(value=owner)):  # nn.Softmax(-1)(x)
            return is_library(owner) and _is_pure(function, is_library)
    return False


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def _is_of_torch(node: ast.expr, names: Mapping[str, Any]) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    found = names.get(node.id) if isinstance(node, ast.Name) else None
    return isinstance(found, ModuleType) and found.__name__.partition(".")[0] == "torch"


@lru_cache(maxsize=64)
def _comparisons(source: str) -> tuple[tuple[int, int, ast.stmt], ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Assert | ast.Expr))
    return tuple((node.lineno, node.end_lineno or node.lineno, node) for node in found)
