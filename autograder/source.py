"""Reads code without running it: what of `autograder.forbidden` a definition can reach."""

import ast
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from autograder.forbidden import TABLE, named
from autograder.syntax import parse

USUAL = {
    "torch": "torch",
    "nn": "torch.nn",
    "F": "torch.nn.functional",
    "functional": "torch.nn.functional",
    "Tensor": "torch.Tensor",
}
"""What these names mean where no import says so: the notebook's first cell may not be at hand."""


@dataclass(frozen=True)
class Use:
    """One place that uses what stands for the answer.

    Args:
        name: its name in `forbidden.TABLE`.
        line: the number of the line, counted from 1 in its own source.
        text: the line.
    """

    name: str
    line: int
    text: str


def in_source(sources: Sequence[str], symbol: str, forbidden: Collection[str]) -> list[Use]:
    """Find what a definition uses, in its body and in everything of the sources that it uses.

    Args:
        sources: code cells, in the order in which they ran; one that cannot be read is passed over.
        symbol: the function or class; its last definition counts.
        forbidden: names in `forbidden.TABLE`.
    """
    try:
        return [use for use in _Reader(sources).uses(symbol) if use.name in forbidden]
    except RecursionError:  # nested without end: no person wrote it, and the run sees what it does
        return []


@dataclass(frozen=True, eq=False)
class _Definition:
    """What a name stands for: a function or class, or the value that was assigned to it.

    Args:
        node: the definition or the value.
        source: the cell.
        names: what names meant at that moment; None for what looks them up only when it is called.
    """

    node: ast.AST
    source: str
    names: "dict[str, _Meaning] | None" = None


_Meaning = str | _Definition | None
"""A dotted path, a definition of the student's, or nothing that can be known (an argument, a loop's variable)."""


class _Reader:
    def __init__(self, sources: Iterable[str]) -> None:
        self.names: dict[str, _Meaning] = dict(USUAL)
        self.own_methods: set[str] = set()
        for source in sources:
            tree = parse(source) or ast.Module([], [])
            self._enter(tree.body, source)
            classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
            functions = [item for node in classes for item in node.body if isinstance(item, ast.FunctionDef)]
            self.own_methods |= {function.name for function in functions}

    def uses(self, symbol: str) -> list[Use]:
        """Every use that the symbol's definition can reach."""
        found: list[Use] = []
        waiting, seen = [self.names.get(symbol)], set[int]()
        while waiting:
            definition = waiting.pop(0)
            if not isinstance(definition, _Definition) or id(definition) in seen:
                continue
            seen.add(id(definition))
            visit = _Visit(definition.source, self.own_methods)
            visit.look(definition.node, self.names if definition.names is None else definition.names)
            found += visit.found
            waiting += visit.mentioned
        if isinstance(path := self.names.get(symbol), str) and named(path):
            found.append(Use(named(path), 0, ""))  # imported under the exercise's own name
        return found

    def _enter(self, statements: Iterable[ast.stmt], source: str) -> None:
        for statement in statements:
            match statement:
                case ast.Import() | ast.ImportFrom():
                    self.names |= _imported(statement)
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    self.names[name] = _Definition(statement, source)
                case ast.Assign(targets=targets, value=value):
                    meaning = _Definition(value, source, dict(self.names))
                    self.names |= {name: meaning for target in targets for name in _stored(target)}
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.names[name] = _Definition(value, source, dict(self.names))
                case _:
                    blocks = (getattr(statement, field, []) for field in ("body", "orelse", "finalbody"))
                    for block in blocks:
                        self._enter(block, source)


class _Visit:
    """Walks through one definition; `mentioned` is what it uses of the student's own."""

    def __init__(self, source: str, own_methods: Collection[str]) -> None:
        self.source = source
        self.methods = {
            method: name for name, entry in TABLE.items() for method in entry.methods if method not in own_methods
        }
        self.found: list[Use] = []
        self.mentioned: list[_Definition] = []

    def look(self, node: ast.AST, names: dict[str, _Meaning]) -> None:
        """Look for uses in a node, where names have these meanings."""
        match node:
            case ast.FunctionDef() | ast.Lambda():
                arguments = node.args
                defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
                self._look_at_all([*defaults, *getattr(node, "decorator_list", [])], names)
                body = [node.body] if isinstance(node, ast.Lambda) else list(_live(node.body))
                self._look_at_all(body, names | _local(node, names, self.source))
            case ast.If() | ast.For() | ast.While() | ast.With() | ast.Try() | ast.ClassDef():
                for field, value in ast.iter_fields(node):
                    if isinstance(value, list) and field in ("body", "orelse", "finalbody"):
                        self._look_at_all(_live(value), names)
                    else:
                        self._look_at_all(value if isinstance(value, list) else [value], names)
            case ast.AnnAssign(value=value):
                self._look_at_all([value], names)
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass")):
                self._look_at_all(node.args[:1], names)
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(attribute)), *rest]) if (
                attribute.isidentifier()
            ):
                made = ast.copy_location(ast.Attribute(owner, attribute, ast.Load()), node)
                self._look_at_all([made, *rest], names)
            case ast.Attribute() | ast.Name(ctx=ast.Load()):
                self._reference(node, names)
            case _:
                self._look_at_all(ast.iter_child_nodes(node), names)

    def _look_at_all(self, nodes: Iterable[object], names: dict[str, _Meaning]) -> None:
        for node in nodes:
            if isinstance(node, ast.AST):
                self.look(node, names)

    def _reference(self, node: ast.Attribute | ast.Name, names: dict[str, _Meaning]) -> None:
        path = _path(node, names)
        if name := named(path):
            self._add(name, node)
        elif isinstance(node, ast.Name):
            if isinstance(meaning := names.get(node.id), _Definition):
                self.mentioned.append(meaning)
        elif not path:
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if node.attr in self.methods and not own:
                self._add(self.methods[node.attr], node)
            self.look(node.value, names)

    def _add(self, name: str, node: ast.expr) -> None:
        lines = self.source.splitlines()
        text = lines[node.lineno - 1].strip() if node.lineno <= len(lines) else ""
        self.found.append(Use(name, node.lineno, text))


def _path(node: ast.expr, names: dict[str, _Meaning]) -> str:
    """The dotted path that an expression stands for, through imports and through names given to it; else empty."""
    if isinstance(node, ast.Attribute):
        front = _path(node.value, names)
        return f"{front}.{node.attr}" if front else ""
    meaning = names.get(node.id) if isinstance(node, ast.Name) else None
    if isinstance(meaning, _Definition) and isinstance(meaning.node, ast.Name | ast.Attribute) and meaning.names:
        return _path(meaning.node, meaning.names)
    if meaning is None and isinstance(node, ast.Name) and node.id not in names:
        starred = (f"{module}.{node.id}" for name, module in names.items() if name.startswith("* "))
        return next((path for path in starred if named(path)), "")
    return meaning if isinstance(meaning, str) else ""


def _imported(statement: ast.Import | ast.ImportFrom) -> dict[str, _Meaning]:
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


def _local(node: ast.FunctionDef | ast.Lambda, names: dict[str, _Meaning], source: str) -> dict[str, _Meaning]:
    """What the names mean that a function binds itself: its arguments, what it assigns, what it imports."""
    arguments = [argument for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
    found: dict[str, _Meaning] = {argument.arg: None for argument in arguments}
    inner = [child for child in ast.walk(node) if child is not node]
    for child in inner:
        match child:
            case ast.Global(names=shared) | ast.Nonlocal(names=shared):
                for name in shared:
                    found.pop(name, None)
            case ast.Import() | ast.ImportFrom():
                found |= _imported(child)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute() as value):
                path = _path(value, names | found)
                found[name] = path or None
            case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.setdefault(name, None)
    return found


def _stored(target: ast.AST) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _live(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a block that can be reached, as far as constants and jumps say."""
    for statement in statements:
        if isinstance(statement, ast.If | ast.While) and isinstance(statement.test, ast.Constant):
            if statement.test.value:
                yield from _live(statement.body)
            else:
                yield from _live(statement.orelse)
            continue
        yield statement
        if isinstance(statement, ast.Return | ast.Raise | ast.Break | ast.Continue):
            return
