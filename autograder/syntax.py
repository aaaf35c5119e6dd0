"""Looks at a student's code without running it."""

import ast
import hashlib
import re
import threading
import warnings
from functools import lru_cache

_TARGETS = re.compile(r"[\w ,]*")
_PYTHON_BODY = ("%%time", "%%timeit", "%%capture", "%%prun")
"""Cell magics below which there is Python; below the others there is another language."""

_BUILDING = threading.Lock()


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a cell, IPython's magics included; None where it is not Python."""
    tree = _tree(source)
    return tree if tree is not None else _tree(_without_magics(source))


def same_code(one: str, other: str) -> bool:
    """Whether two cells differ in nothing but comments, docstrings and layout."""
    return one.strip() == other.strip() or _fingerprint(one) == _fingerprint(other)


def defined(tree: ast.Module) -> dict[str, list[tuple[int, int]]]:
    """What a cell defines at its top level: name -> first and last line of each statement that gives it a value."""
    found: dict[str, list[tuple[int, int]]] = {}
    for statement in tree.body:
        start = first_line(statement)
        for name in bound(statement):
            found.setdefault(name, []).append((start, statement.end_lineno or start))
    return found


def first_line(statement: ast.stmt) -> int:
    """The line on which a statement starts, its decorators included."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def text_of(source: str, statement: ast.stmt) -> str:
    """The lines of a statement at the top level of a source, its decorators included."""
    return "\n".join(source.splitlines()[first_line(statement) - 1 : statement.end_lineno])


def bound(statement: ast.stmt) -> set[str]:
    """The names that a definition or an assignment gives a value; imports are not work, so they do not count."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return {name}
    return set()


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree itself, after its docstrings and other lone strings were taken out."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [statement for statement in node.body if not _is_docstring(statement)]
    return tree


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str)


@lru_cache(maxsize=512)  # each submission is compared with the same released cells
def _fingerprint(source: str) -> str:
    """The same for two sources with the same code; the source itself where it is not Python."""
    tree = parse(source)
    if tree is None:
        return source
    try:
        return hashlib.sha256(ast.dump(without_docstrings(tree)).encode("utf-8", "replace")).hexdigest()
    except RecursionError:
        return source


def _tree(source: str) -> ast.Module | None:
    # Python up to 3.11.7 keeps the depth of all the trees it is building in one place, and the submissions of a class
    # are examined in one thread while another enters the gradebook: https://github.com/python/cpython/issues/106905
    with _BUILDING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the student's, for example of an unknown escape in a string
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            return None


def _without_magics(source: str) -> str:
    """Put a string where a magic stands, so that the lines keep their numbers and a changed magic is a change."""
    lines = source.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("%%") and first.split()[0] not in _PYTHON_BODY:
        return source
    return "\n".join(map(_without_magic, lines))


def _without_magic(line: str) -> str:
    """The line, or a string in its place where IPython would read it as something else than Python."""
    body = line.lstrip()
    targets, sign, value = body.partition("=")
    is_magic = (
        body.startswith(("%", "!", "?"))
        or (body.endswith("?") and "#" not in body)
        or (sign and value.lstrip().startswith(("%", "!")) and _TARGETS.fullmatch(targets))
    )
    return line[: len(line) - len(body)] + repr(body) if is_magic else line
