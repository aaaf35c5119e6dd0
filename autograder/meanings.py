"""What names mean in a student's code: what they were given, what is local, and which conditions never hold."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autograder.facts import Facts
from autograder.forbidden import resolve


@dataclass(frozen=True, eq=False)
class Definition:
    """What a name stands for: a function or class, or the value that was assigned to it.

    Args:
        node: the definition or the value.
        source: the cell.
        names: what names meant at that moment; None for what looks them up only when it is called.
    """

    node: ast.AST
    source: str
    names: "dict[str, Meaning] | None" = None


Meaning = str | bool | Definition | None
"""A dotted path, a constant, a definition of the student's, or nothing that can be known (a loop's variable)."""


LATER: dict[str, Meaning] = {}
"""Stands for the names of a function's body until they are all known."""


PATHS = (ast.Name, ast.Attribute, ast.Call)
"""Expressions that may stand for a dotted path."""


def path_of(node: ast.expr, names: dict[str, Meaning]) -> str:
    """The dotted path that an expression stands for, through imports and through names given to it; else empty."""
    if isinstance(node, ast.Attribute):
        front = path_of(node.value, names)
        return f"{front}.{node.attr}" if front else ""
    match node:
        case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(module)), *_]):
            return module.partition(".")[0]
        case ast.Call(func=function, args=[ast.Constant(value=str(module)), *_]) if not isinstance(function, ast.Call):
            return module if path_of(function, names) == "importlib.import_module" else ""
    meaning = names.get(node.id) if isinstance(node, ast.Name) else None
    if isinstance(meaning, Definition) and isinstance(meaning.node, PATHS) and meaning.names:
        return path_of(meaning.node, meaning.names)
    if meaning is None and isinstance(node, ast.Name) and node.id not in names:
        starred = (f"{module}.{node.id}" for name, module in names.items() if name.startswith("* "))
        return next((path for path in starred if resolve(path) is not None), "")
    return meaning if isinstance(meaning, str) else ""


def imported(statement: ast.Import | ast.ImportFrom) -> dict[str, Meaning]:
    """The names that an import binds, with their paths; `* module` for a star."""
    if isinstance(statement, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else alias.name.partition(".")[0]
            for alias in statement.names
        }
    module = "." * statement.level + (statement.module or "")
    return {
        f"* {module}" if alias.name == "*" else alias.asname or alias.name: (
            module if alias.name == "*" else f"{module}.{alias.name}"
        )
        for alias in statement.names
    }


def local_names(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, names: dict[str, Meaning], source: str, facts: Facts
) -> dict[str, Meaning]:
    """What the names mean that a function binds itself: its arguments, what it assigns, what it imports."""
    found = _arguments(node, facts)
    inner = [child for child in ast.walk(node) if child is not node]
    stored = [child.id for child in inner if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)]
    for child in inner:
        match child:
            case ast.Global(names=shared) | ast.Nonlocal(names=shared):
                for name in shared:
                    found.pop(name, None)
            case ast.Import() | ast.ImportFrom():
                found |= imported(child)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute() | ast.Call() as value):
                path = path_of(value, names | found)
                found[name] = path if path and stored.count(name) == 1 and name not in found else None
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                known = found.get(name, _UNSEEN)
                found[name] = Definition(child, source, LATER) if known is _UNSEEN else None
            case ast.Name(id=name, ctx=ast.Store()):
                if isinstance(found.setdefault(name, None), bool | Definition):
                    found[name] = None
    return found


_UNSEEN: Meaning = "?"


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, facts: Facts) -> dict[str, Meaning]:
    """The names of a function's arguments; a constant where no call gives another than the default."""
    arguments = node.args
    found: dict[str, Meaning] = {
        argument.arg: None for argument in ast.walk(arguments) if isinstance(argument, ast.arg)
    }
    name = getattr(node, "name", "")
    placed = [*arguments.posonlyargs, *arguments.args]
    first = len(placed) - len(arguments.defaults)
    defaults = [(placed[first + i], first + i, default) for i, default in enumerate(arguments.defaults)]
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    for argument, place, default in [*defaults, *((argument, 98, default) for argument, default in named)]:
        value = default.value if isinstance(default, ast.Constant) else None
        if isinstance(value, bool) and facts.never_given(name, argument, place):
            found[argument.arg] = value
    return found


def stored_names(target: ast.AST) -> Iterator[str]:
    """The names that a target gives a value."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of statements within one."""
    for part in (statement, *getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
        yield from (getattr(part, name, []) for name in ("body", "orelse", "finalbody"))


def live(statements: Iterable[ast.stmt], names: dict[str, Meaning], facts: Facts) -> Iterator[ast.stmt]:
    """The statements of a block that can be reached, as far as constants and jumps say."""
    for statement in statements:
        truth = truth_of(statement.test, names, facts) if isinstance(statement, ast.If | ast.While) else None
        if isinstance(statement, ast.If | ast.While) and truth is not None:
            yield from live(statement.body if truth else statement.orelse, names, facts)
            continue
        yield statement
        if isinstance(statement, ast.Return | ast.Raise | ast.Break | ast.Continue):
            return


def truth_of(test: ast.expr, names: dict[str, Meaning], facts: Facts) -> bool | None:
    """Whether a condition always holds, or never; None where that is not known."""
    match test:
        case ast.Constant(value=value):
            return bool(value)
        case ast.Name(id=name):
            meaning = names.get(name)
            if isinstance(meaning, bool):
                return meaning
            is_shared = name not in names or (
                isinstance(meaning, Definition) and isinstance(meaning.node, ast.Constant)
            )
            is_shared = is_shared or meaning == "typing.TYPE_CHECKING"
            return facts.constant(name) if is_shared else None
        case ast.Attribute(attr="TYPE_CHECKING"):
            return False
        case ast.Attribute(attr=name):
            return facts.constant(f".{name}")
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = truth_of(operand, names, facts)
            return None if truth is None else not truth
        case ast.BoolOp(op=operator, values=values):
            truths = [truth_of(value, names, facts) for value in values]
            decides = isinstance(operator, ast.Or)
            if decides in truths:
                return decides
            return None if None in truths else not decides
    return None
