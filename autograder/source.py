"""Reads code without running it: what a definition can reach that is neither a primitive nor allowed."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch

from autograder.checks import Check
from autograder.comparing import is_comparison
from autograder.facts import Facts, facts_of
from autograder.forbidden import resolve
from autograder.syntax import parse
from autograder.vocabulary import refused, refused_path

USUAL = {
    "torch": "torch",
    "nn": "torch.nn",
    "F": "torch.nn.functional",
    "functional": "torch.nn.functional",
    "Tensor": "torch.Tensor",
}
"""What these names mean where no import says so: the notebook's first cell may not be at hand."""

_OURS = ("solutions", "course", "autograder")


@dataclass(frozen=True)
class Use:
    """One place that uses what may not be used.

    Args:
        name: what is used, as `vocabulary.refused` calls it.
        line: the number of the line, counted from 1 in its own source.
        text: the line.
    """

    name: str
    line: int
    text: str


@dataclass
class Reading:
    """What a definition can reach.

    Args:
        uses: what may not be used.
        unclear: names of methods that are the student's own as well as a tensor's.
        reached: the definitions and values that it can reach, itself included.
    """

    uses: list[Use] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    reached: list[ast.AST] = field(default_factory=list)


def in_source(
    sources: Sequence[str], symbol: str, allowed: Collection[str] = (), given: Collection[str] = ()
) -> list[Use]:
    """Find what a definition uses beyond the primitives, in its body and in everything of the sources that it uses.

    Args:
        sources: code cells, in the order in which they ran; one that cannot be read is passed over.
        symbol: the function or class; its last definition counts.
        allowed: names that the exercise allows beside the primitives.
        given: definitions of the course that may be used whatever they are made of, as `block.make_norm`; and names of
            methods that are called from outside.
    """
    return read(sources, symbol, allowed, given).uses


def read(sources: Sequence[str], symbol: str, allowed: Collection[str] = (), given: Collection[str] = ()) -> Reading:
    """As `in_source`, with what is not clear."""
    try:
        reading = _Reader(sources, frozenset(allowed), frozenset(given)).read(symbol)
    except RecursionError:  # nested without end: no person wrote it, and the run sees what it does
        return Reading()
    reading.uses = [use for use in reading.uses if use.name not in allowed]
    return reading


@lru_cache(maxsize=128)
def given_to(check: Check) -> frozenset[str]:
    """What the course gives an exercise: the definitions that its reference uses, and the methods that it must have."""
    reference = check.reference
    tree = ast.parse(textwrap.dedent(inspect.getsource(reference)))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    things = {name: vars(sys.modules[reference.__module__]).get(name) for name in used}
    given = {
        f"{str(thing.__module__).removeprefix('solutions.')}.{name}"
        for name, thing in things.items()
        if str(getattr(thing, "__module__", "")).startswith("solutions.")
    }
    return frozenset(given | (set(vars(reference)) if isinstance(reference, type) else set()))


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


_Meaning = str | bool | _Definition | None
"""A dotted path, a constant, a definition of the student's, or nothing that can be known (a loop's variable)."""


class _Reader:
    def __init__(self, sources: Iterable[str], allowed: frozenset[str], given: frozenset[str]) -> None:
        self.names: dict[str, _Meaning] = dict(USUAL)
        self.attached: dict[str, list[_Definition]] = {}
        self.allowed, self.given = allowed, given
        trees = [(parse(source) or ast.Module([], []), source) for source in sources]
        self.facts = facts_of(tree for tree, _ in trees)
        for tree, source in trees:
            self._enter(tree.body, source)
            self._enter_shared(tree, source)

    def read(self, symbol: str) -> Reading:
        """Everything that the symbol's definition can reach."""
        reading = Reading()
        waiting: list[_Meaning] = [self.names.get(symbol), *self.attached.get(symbol, [])]
        seen = set[int]()
        while waiting:
            definition = waiting.pop(0)
            if not isinstance(definition, _Definition) or id(definition) in seen:
                continue
            seen.add(id(definition))
            reading.reached.append(definition.node)
            visit = _Visit(self, definition.source)
            visit.look_into(definition, self.names if definition.names is None else definition.names)
            reading.uses += visit.found
            reading.unclear += visit.unclear
            waiting += visit.mentioned
            waiting += [one for name in visit.named for one in self.attached.get(name, [])]
        if isinstance(path := self.names.get(symbol), str) and (name := self.refused(path)):
            reading.uses.append(Use(name, 0, ""))  # imported under the exercise's own name
        return reading

    def refused(self, path: str) -> str:
        """The name of what stands at a path and may not be used; empty where it may."""
        package = path.partition(".")[0]
        if package in _OURS:
            return _made_of(path, self.allowed, self.given)
        name = _refused_path(path)
        return "" if name in self.allowed else name

    def _enter(self, statements: Iterable[ast.stmt], source: str) -> None:
        for statement in live(statements, self.names, self.facts):
            match statement:
                case ast.Import() | ast.ImportFrom():
                    self.names |= _imported(statement)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    self.names[name] = _Definition(statement, source)
                    self.attached.pop(name, None)
                case ast.Assign(targets=targets, value=value):
                    meaning = _Definition(value, source, dict(self.names))
                    for target in targets:
                        self._assign(target, meaning)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.names[name] = _Definition(value, source, dict(self.names))
                case _:
                    for block in _blocks(statement):
                        self._enter(block, source)

    def _assign(self, target: ast.expr, meaning: _Definition) -> None:
        names = list(_stored(target))
        if len(names) == 1 and isinstance(target, ast.Name):
            self.attached.pop(target.id, None)
        self.names |= dict.fromkeys(names, meaning)
        owner = target.value if isinstance(target, ast.Attribute | ast.Subscript) else None
        if isinstance(owner, ast.Name):  # Norm.forward = ..., table["softmax"] = ...
            self.attached.setdefault(owner.id, []).append(meaning)

    def _enter_shared(self, tree: ast.Module, source: str) -> None:
        """What functions assign to names of the notebook."""
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            shared = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
            for node in ast.walk(function) if shared else ():
                if isinstance(node, ast.Assign):
                    for name in (name for target in node.targets for name in _stored(target) if name in shared):
                        self.attached.setdefault(name, []).append(_Definition(node.value, source))
                        self.names.setdefault(name, _Definition(node.value, source))


class _Visit:
    """Walks through one definition; `mentioned` is what it uses of the student's own, `named` what it calls by name."""

    def __init__(self, reader: _Reader, source: str) -> None:
        self.reader, self.facts, self.source = reader, reader.facts, source
        self.found: list[Use] = []
        self.unclear: list[str] = []
        self.mentioned: list[_Definition] = []
        self.named: list[str] = []

    def look_into(self, definition: _Definition, names: dict[str, _Meaning]) -> None:
        """Look for uses in a definition, its body included."""
        match definition.node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._function(definition.node, names)
            case ast.ClassDef() as node:
                self._class(node, names)
            case node:
                self.look(node, names)

    def look(self, node: ast.AST, names: dict[str, _Meaning]) -> None:
        """Look for uses in a node, where names have these meanings."""
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if node.decorator_list or not isinstance(names.get(name), _Definition):
                    self.look_into(_Definition(node, self.source), names)  # else it counts where it is mentioned
            case ast.Lambda():
                self._function(node, names)
            case ast.Assert() | ast.Expr() if is_comparison(
                node, lambda owner: _path(owner, names).partition(".")[0] == "torch", self.facts.own
            ):
                pass  # it changes nothing
            case ast.If() | ast.For() | ast.While() | ast.With() | ast.Try():
                self._block(node, names)
            case ast.IfExp(test=test, body=body, orelse=other):
                truth = truth_of(test, names, self.facts)
                self._look_at_all([test, *([] if truth is False else [body]), *([] if truth else [other])], names)
            case ast.BoolOp(op=operator, values=values):
                stops = isinstance(operator, ast.Or)
                for value in values:
                    self.look(value, names)
                    if truth_of(value, names, self.facts) is stops:
                        break
            case ast.AnnAssign(value=value):
                self._look_at_all([value], names)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute() | ast.Call() as value) if (
                names.get(name) == _path(value, names) != ""
            ):
                pass  # it counts where the name is used
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass")):
                self._look_at_all(node.args[:1], names)
            case ast.Compare(left=left, comparators=others):
                self._look_at_all([one for one in (left, *others) if not _path(one, names)], names)
            case ast.MatchClass(patterns=patterns, kwd_patterns=more):
                self._look_at_all([*patterns, *more], names)
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(attribute)), *rest]) if (
                attribute.isidentifier()
            ):
                made = ast.copy_location(ast.Attribute(owner, attribute, ast.Load()), node)
                self._look_at_all([made, *rest], names)
            case ast.ImportFrom() | ast.Import():
                pass  # it counts where the name is used
            case ast.Call() if _path(node, names):
                if name := self.reader.refused(_path(node, names)):
                    self._add(name, node)
            case ast.Attribute() | ast.Name(ctx=ast.Load()):
                self._reference(node, names)
            case _:
                self._look_at_all(ast.iter_child_nodes(node), names)

    def _look_at_all(self, nodes: Iterable[object], names: dict[str, _Meaning]) -> None:
        for node in nodes:
            if isinstance(node, ast.AST):
                self.look(node, names)

    def _block(self, node: ast.stmt, names: dict[str, _Meaning]) -> None:
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and name in ("body", "orelse", "finalbody"):
                self._look_at_all(live(value, names, self.facts), names)
            else:
                self._look_at_all(value if isinstance(value, list) else [value], names)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, names: dict[str, _Meaning]) -> None:
        arguments = node.args
        defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
        self._look_at_all([*defaults, *getattr(node, "decorator_list", [])], names)
        inner = names | _local(node, names, self.source, self.facts)
        for name, meaning in inner.items():
            if isinstance(meaning, _Definition) and meaning.names is _LATER:
                inner[name] = _Definition(meaning.node, meaning.source, inner)
        body = [node.body] if isinstance(node, ast.Lambda) else list(live(node.body, inner, self.facts))
        self._look_at_all(body, inner)

    def _class(self, node: ast.ClassDef, names: dict[str, _Meaning]) -> None:
        self._look_at_all([*node.bases, *node.keywords, *node.decorator_list], names)
        for statement in live(node.body, names, self.facts):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                if self.facts.is_reached(statement.name) or statement.name in self.reader.given:
                    self._function(statement, names)
            else:
                self.look(statement, names)

    def _reference(self, node: ast.Attribute | ast.Name, names: dict[str, _Meaning]) -> None:
        path = _path(node, names)
        if path and (name := self.reader.refused(path)):
            self._add(name, node)
        elif isinstance(node, ast.Name):
            self.named.append(node.id)
            if isinstance(meaning := names.get(node.id), _Definition):
                self.mentioned.append(meaning)
        elif not path:
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if (name := _refused_method(node.attr)) and not own and name not in self.reader.allowed:
                if node.attr in self.facts.own:
                    self.unclear.append(node.attr)
                else:
                    self._add(name, node)
            self.look(node.value, names)

    def _add(self, name: str, node: ast.expr) -> None:
        lines = self.source.splitlines()
        text = lines[node.lineno - 1].strip() if node.lineno <= len(lines) else ""
        self.found.append(Use(name, node.lineno, text))


_LATER: dict[str, _Meaning] = {}
"""Stands for the names of a function's body until they are all known."""


@lru_cache(maxsize=4096)
def _refused_path(path: str) -> str:
    return refused_path(path)


@lru_cache(maxsize=1024)
def _refused_method(name: str) -> str:
    return refused(getattr(torch.Tensor, name, None))


@lru_cache(maxsize=256)
def _made_of(path: str, allowed: frozenset[str], given: frozenset[str]) -> str:
    """The path of a definition of the course's that is made of what may not be used; empty where it may be used."""
    module, _, symbol = path.rpartition(".")
    if not symbol or path.partition(".")[2] in given:
        return ""
    try:
        spec = find_spec(module)
        text = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    except (ImportError, ValueError, OSError):
        return ""
    return path if text and in_source([text], symbol, allowed, given) else ""


_PATHS = (ast.Name, ast.Attribute, ast.Call)
"""Expressions that may stand for a dotted path."""


def _path(node: ast.expr, names: dict[str, _Meaning]) -> str:
    """The dotted path that an expression stands for, through imports and through names given to it; else empty."""
    if isinstance(node, ast.Attribute):
        front = _path(node.value, names)
        return f"{front}.{node.attr}" if front else ""
    match node:
        case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(module)), *_]):
            return module.partition(".")[0]
        case ast.Call(func=function, args=[ast.Constant(value=str(module)), *_]) if not isinstance(function, ast.Call):
            return module if _path(function, names) == "importlib.import_module" else ""
    meaning = names.get(node.id) if isinstance(node, ast.Name) else None
    if isinstance(meaning, _Definition) and isinstance(meaning.node, _PATHS) and meaning.names:
        return _path(meaning.node, meaning.names)
    if meaning is None and isinstance(node, ast.Name) and node.id not in names:
        starred = (f"{module}.{node.id}" for name, module in names.items() if name.startswith("* "))
        return next((path for path in starred if resolve(path) is not None), "")
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


def _local(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, names: dict[str, _Meaning], source: str, facts: Facts
) -> dict[str, _Meaning]:
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
                found |= _imported(child)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute() | ast.Call() as value):
                path = _path(value, names | found)
                found[name] = path if path and stored.count(name) == 1 and name not in found else None
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                known = found.get(name, _UNSEEN)
                found[name] = _Definition(child, source, _LATER) if known is _UNSEEN else None
            case ast.Name(id=name, ctx=ast.Store()):
                if isinstance(found.setdefault(name, None), bool | _Definition):
                    found[name] = None
    return found


_UNSEEN: _Meaning = "?"


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, facts: Facts) -> dict[str, _Meaning]:
    """The names of a function's arguments; a constant where no call gives another than the default."""
    arguments = node.args
    found: dict[str, _Meaning] = {
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


def _stored(target: ast.AST) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of statements within one."""
    for part in (statement, *getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
        yield from (getattr(part, name, []) for name in ("body", "orelse", "finalbody"))


def live(statements: Iterable[ast.stmt], names: dict[str, _Meaning], facts: Facts) -> Iterator[ast.stmt]:
    """The statements of a block that can be reached, as far as constants and jumps say."""
    for statement in statements:
        truth = truth_of(statement.test, names, facts) if isinstance(statement, ast.If | ast.While) else None
        if isinstance(statement, ast.If | ast.While) and truth is not None:
            yield from live(statement.body if truth else statement.orelse, names, facts)
            continue
        yield statement
        if isinstance(statement, ast.Return | ast.Raise | ast.Break | ast.Continue):
            return


def truth_of(test: ast.expr, names: dict[str, _Meaning], facts: Facts) -> bool | None:
    """Whether a condition always holds, or never; None where that is not known."""
    match test:
        case ast.Constant(value=value):
            return bool(value)
        case ast.Name(id=name):
            meaning = names.get(name)
            if isinstance(meaning, bool):
                return meaning
            is_shared = name not in names or (
                isinstance(meaning, _Definition) and isinstance(meaning.node, ast.Constant)
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
