"""Mutants of a reference, made from its syntax tree: each is the reference with one small fault.

A check that lets a mutant earn full marks would let a student's slip earn them too.
"""

import ast
import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from autograder.checks import build

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}

_TWINS = [
    {"amax", "amin"},
    {"max", "min"},
    {"sum", "mean"},
    {"tril", "triu"},
    {"ones", "zeros"},
    {"sin", "cos"},
    {"exp", "exp2"},
    {"sqrt", "square"},
    {"log", "log1p"},
    {"squeeze", "unsqueeze"},
    {"query", "key", "value"},
    {"float32", "float64"},
    {"argmax", "argmin"},
]
"""Names that are taken for one another; each is replaced by the others of its set."""


@dataclass(frozen=True)
class Mutant:
    """A wrong version of the reference.

    Args:
        label: what was changed, `scope: old -> new`; stable while the code is, and the key of a listed equivalent.
            Where the same statement stands there again, its number follows, such as `[2]`.
        target: the changed function or class.
    """

    label: str
    target: Any


def mutants(reference: Any) -> Iterator[Mutant]:
    """Make every mutant of a function or class.

    Each calls the unchanged rest of its module.
    """
    tree = ast.parse(inspect.getsource(reference))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    _strip(definition)
    original = ast.unparse(tree)
    seen = {original}
    labels: Counter[str] = Counter()
    for label, changed in _changes(tree):
        ast.fix_missing_locations(changed)
        source = ast.unparse(changed)
        if source in seen:
            continue
        seen.add(source)
        labels[label] += 1
        number = f" [{labels[label]}]" if labels[label] > 1 else ""
        try:
            target = build(source, reference)
        except Exception:  # what cannot even be defined, such as a decorator that is none, needs no check to be seen
            continue
        yield Mutant(label + number, target)


def _strip(definition: ast.AST) -> None:
    """Drop docstrings and annotations: changing those changes nothing that runs."""
    for node in ast.walk(definition):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.body = [_without_annotation(statement) for statement in node.body]


def _without_annotation(statement: ast.stmt) -> ast.stmt:
    """An assignment in a function without the type that is written beside it."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return ast.copy_location(ast.Assign([statement.target], statement.value), statement)
    return statement


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    """Apply every rule at every node; the label shows the statement around the node before and after."""
    # The words of an error are for people: a change in them is no fault that a check should see.
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None]
    words = {id(node) for error in raised for node in ast.walk(error)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in words:
            continue
        for rule in _RULES:
            for version in range(rule_versions(rule, node)):
                changed = copy.deepcopy(tree)
                target = list(ast.walk(changed))[index]
                statement = _statement(changed, target)
                before = _first_line(statement)
                replacement = list(rule(target))[version]
                scope = _scope(changed, target)
                _replace(changed, target, replacement)
                after = "(dropped)" if isinstance(replacement, ast.Pass) else _after(statement, target, replacement)
                yield f"{scope}: {before} -> {after}", changed


def rule_versions(rule: "Rule", node: ast.AST) -> int:
    """How many mutants a rule makes at a node."""
    return len(list(rule(copy.deepcopy(node))))


Rule = Callable[[ast.AST], Iterator[ast.AST]]


def _constant(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Constant):
        return
    match node.value:
        case bool():
            yield ast.Constant(not node.value)
        case int() | float():
            yield from (ast.Constant(value) for value in (node.value + 1, node.value - 1))
        case str():
            yield ast.Constant(node.value + "?")


def _operator(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp | ast.BoolOp):
        for other in _OPERATORS.get(type(node.op), ()):
            yield _with(node, op=other())
    if isinstance(node, ast.BinOp):
        yield _with(node, left=node.right, right=node.left)
        yield node.left
        yield node.right
    if isinstance(node, ast.Compare):
        for other in _OPERATORS.get(type(node.ops[0]), ()):
            yield _with(node, ops=[other(), *node.ops[1:]])
    if isinstance(node, ast.UnaryOp):
        yield node.operand


def _name(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Attribute):
        for twins in _TWINS:
            if node.attr in twins:
                yield from (_with(node, attr=other) for other in sorted(twins - {node.attr}))


def _call(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Attribute) and not node.args:
        yield node.func.value  # x.tril() -> x
    if isinstance(node.func, ast.Attribute) and node.args and isinstance(node.func.value, ast.expr):
        yield node.func.value  # x.masked_fill(...) -> x
    for index in range(len(node.args) - 1):
        args = list(node.args)
        args[index], args[index + 1] = args[index + 1], args[index]
        yield _with(node, args=args)
    if len(node.args) > 1:
        yield _with(node, args=node.args[:-1])
    for index in range(len(node.keywords)):
        yield _with(node, keywords=node.keywords[:index] + node.keywords[index + 1 :])
    if len(node.args) == 1 and isinstance(node.func, ast.Name | ast.Attribute):
        yield node.args[0]  # f(x) -> x


def _drop(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.Return):
        yield ast.Pass()


def _branch(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield _with(node, test=ast.Constant(True))
        yield _with(node, test=ast.Constant(False))


def _tuple(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        yield _with(node, elts=node.elts[::-1])
        yield node.elts[0]


_RULES: list[Rule] = [_constant, _operator, _name, _call, _drop, _branch, _tuple]


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
                return
            if isinstance(value, list) and any(item is old for item in value):
                value[next(i for i, item in enumerate(value) if item is old)] = new
                return


def _statement(tree: ast.AST, node: ast.AST) -> ast.stmt:
    """The innermost statement that contains the node."""
    inner: ast.stmt | None = None
    for candidate in ast.walk(tree):  # breadth first, so the last match is the innermost
        if isinstance(candidate, ast.stmt) and any(child is node for child in ast.walk(candidate)):
            inner = candidate
    assert inner is not None
    return inner


def _scope(tree: ast.Module, node: ast.AST) -> str:
    names = [
        outer.name
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.ClassDef) and any(child is node for child in ast.walk(outer))
    ]
    return ".".join(names)


def _after(statement: ast.stmt, target: ast.AST, replacement: ast.AST) -> str:
    return _first_line(replacement if statement is target else statement)


def _first_line(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node)).splitlines()[0]
