"""Finds code that stands out of sight and gives names of the course or of torch another meaning.

The verdict does not hang on it: the judge works elsewhere. It tells the instructor what was tried.
"""

import ast

from autograder.cells import Cell
from autograder.syntax import bound, parse

_MODULES = ("torch", "np", "numpy", "nn", "F", "autograder", "builtins", "sys")
_NAMES = ("check", "display", "print")
_FAR = 120
"""Columns or blank lines that push code out of the window; no honest line starts so far to the right."""


def hidden_change(cell: Cell) -> str:
    """What a cell gives another meaning while its source is out of sight; empty where there is nothing of the kind."""
    if not (cell.folded or _is_pushed_away(cell.source)):
        return ""
    tree = parse(cell.source)
    return next((name for node in ast.walk(tree) if (name := _changed(node))), "") if tree is not None else ""


def _is_pushed_away(source: str) -> bool:
    return " " * _FAR in source or "\t" * (_FAR // 4) in source or "\n" * _FAR in source


def _changed(node: ast.AST) -> str:
    if isinstance(node, ast.stmt):
        names = sorted(bound(node) & set(_NAMES))
        if names:
            return names[0]
    match node:
        case ast.Attribute(ctx=ast.Store()):
            return _of_module(node)
        case ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=module), *_]) if module in _MODULES:
            return module
    return ""


def _of_module(node: ast.Attribute) -> str:
    """`torch.nn.x` for an attribute of a known module; empty for one of any other object."""
    parts = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if isinstance(value, ast.Name) and value.id in _MODULES:
        return ".".join([value.id, *reversed(parts)])[:80]
    return ""
