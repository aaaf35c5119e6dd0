"""Reads code without running it: what a definition can reach that is neither a primitive nor allowed."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch

from autograder.checks import Check
from autograder.comparing import is_comparison
from autograder.facts import facts_of
from autograder.meanings import (
    LATER,
    Definition,
    Meaning,
    blocks,
    imported,
    live,
    local_names,
    path_of,
    stored_names,
    truth_of,
)
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


class _Reader:
    def __init__(self, sources: Iterable[str], allowed: frozenset[str], given: frozenset[str]) -> None:
        self.names: dict[str, Meaning] = dict(USUAL)
        self.attached: dict[str, list[Definition]] = {}
        self.allowed, self.given = allowed, given
        trees = [(parse(source) or ast.Module([], []), source) for source in sources]
        self.facts = facts_of(tree for tree, _ in trees)
        for tree, source in trees:
            self._enter(tree.body, source)
            self._enter_shared(tree, source)

    def read(self, symbol: str) -> Reading:
        """Everything that the symbol's definition can reach."""
        reading = Reading()
        waiting: list[Meaning] = [self.names.get(symbol), *self.attached.get(symbol, [])]
        seen = set[int]()
        while waiting:
            definition = waiting.pop(0)
            if not isinstance(definition, Definition) or id(definition) in seen:
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
                    self.names |= imported(statement)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    self.names[name] = Definition(statement, source)
                    self.attached.pop(name, None)
                case ast.Assign(targets=targets, value=value):
                    meaning = Definition(value, source, dict(self.names))
                    for target in targets:
                        self._assign(target, meaning)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.names[name] = Definition(value, source, dict(self.names))
                case _:
                    for block in blocks(statement):
                        self._enter(block, source)

    def _assign(self, target: ast.expr, meaning: Definition) -> None:
        names = list(stored_names(target))
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
                    for name in (name for target in node.targets for name in stored_names(target) if name in shared):
                        self.attached.setdefault(name, []).append(Definition(node.value, source))
                        self.names.setdefault(name, Definition(node.value, source))


class _Visit:
    """Walks through one definition; `mentioned` is what it uses of the student's own, `named` what it calls by name."""

    def __init__(self, reader: _Reader, source: str) -> None:
        self.reader, self.facts, self.source = reader, reader.facts, source
        self.found: list[Use] = []
        self.unclear: list[str] = []
        self.mentioned: list[Definition] = []
        self.named: list[str] = []

    def look_into(self, definition: Definition, names: dict[str, Meaning]) -> None:
        """Look for uses in a definition, its body included."""
        match definition.node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._function(definition.node, names)
            case ast.ClassDef() as node:
                self._class(node, names)
            case node:
                self.look(node, names)

    def look(self, node: ast.AST, names: dict[str, Meaning]) -> None:
        """Look for uses in a node, where names have these meanings."""
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if node.decorator_list or not isinstance(names.get(name), Definition):
                    self.look_into(Definition(node, self.source), names)  # else it counts where it is mentioned
            case ast.Lambda():
                self._function(node, names)
            case ast.Assert() | ast.Expr() if is_comparison(
                node, lambda owner: path_of(owner, names).partition(".")[0] == "torch", self.facts.own
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
                names.get(name) == path_of(value, names) != ""
            ):
                pass  # it counts where the name is used
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass")):
                self._look_at_all(node.args[:1], names)
            case ast.Compare(left=left, comparators=others):
                self._look_at_all([one for one in (left, *others) if not path_of(one, names)], names)
            case ast.MatchClass(patterns=patterns, kwd_patterns=more):
                self._look_at_all([*patterns, *more], names)
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(attribute)), *rest]) if (
                attribute.isidentifier()
            ):
                made = ast.copy_location(ast.Attribute(owner, attribute, ast.Load()), node)
                self._look_at_all([made, *rest], names)
            case ast.ImportFrom() | ast.Import():
                pass  # it counts where the name is used
            case ast.Call() if path_of(node, names):
                if name := self.reader.refused(path_of(node, names)):
                    self._add(name, node)
            case ast.Attribute() | ast.Name(ctx=ast.Load()):
                self._reference(node, names)
            case _:
                self._look_at_all(ast.iter_child_nodes(node), names)

    def _look_at_all(self, nodes: Iterable[object], names: dict[str, Meaning]) -> None:
        for node in nodes:
            if isinstance(node, ast.AST):
                self.look(node, names)

    def _block(self, node: ast.stmt, names: dict[str, Meaning]) -> None:
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and name in ("body", "orelse", "finalbody"):
                self._look_at_all(live(value, names, self.facts), names)
            else:
                self._look_at_all(value if isinstance(value, list) else [value], names)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, names: dict[str, Meaning]) -> None:
        arguments = node.args
        defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
        self._look_at_all([*defaults, *getattr(node, "decorator_list", [])], names)
        inner = names | local_names(node, names, self.source, self.facts)
        for name, meaning in inner.items():
            if isinstance(meaning, Definition) and meaning.names is LATER:
                inner[name] = Definition(meaning.node, meaning.source, inner)
        body = [node.body] if isinstance(node, ast.Lambda) else list(live(node.body, inner, self.facts))
        self._look_at_all(body, inner)

    def _class(self, node: ast.ClassDef, names: dict[str, Meaning]) -> None:
        self._look_at_all([*node.bases, *node.keywords, *node.decorator_list], names)
        for statement in live(node.body, names, self.facts):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                if self.facts.is_reached(statement.name) or statement.name in self.reader.given:
                    self._function(statement, names)
            else:
                self.look(statement, names)

    def _reference(self, node: ast.Attribute | ast.Name, names: dict[str, Meaning]) -> None:
        path = path_of(node, names)
        if path and (name := self.reader.refused(path)):
            self._add(name, node)
        elif isinstance(node, ast.Name):
            self.named.append(node.id)
            if isinstance(meaning := names.get(node.id), Definition):
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
