"""What a student's cells say about names: which are always false, which attributes are the student's own."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn, optim

_ALWAYS = {"__debug__": True, "TYPE_CHECKING": False}
_MAKERS = ("namedtuple", "setattr", "make_dataclass", "type")
"""Functions that are given the names of attributes as texts."""

_KNOWN_METHODS = frozenset(dir(nn.Module)) | frozenset(dir(optim.Optimizer)) | {"forward", "backward", "setup_context"}
_UNKNOWN = None


@dataclass
class Facts:
    """What is known of all the cells together.

    Args:
        values: name, or `.name` of an attribute -> what it is given anywhere: True, False, or None where that is not
            known.
        own: names of attributes and methods that the student's own objects have.
        mentioned: names of attributes that are used, and texts that could name one.
        keywords: names of arguments that are given by name in any call.
        places: name of a function -> the most arguments that it is given by place.
    """

    values: dict[str, set[bool | None]] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    mentioned: set[str] = field(default_factory=set)
    keywords: set[str] = field(default_factory=set)
    places: dict[str, int] = field(default_factory=dict)

    def constant(self, name: str) -> bool | None:
        """What a name is wherever it is given a value; None where that is not known.

        Args:
            name: a name of the notebook, or `.name` for an attribute of any object.
        """
        found = self.values.get(name, {_ALWAYS.get(name)})
        return next(iter(found)) if len(found) == 1 else None

    def never_given(self, function: str, argument: ast.arg, place: int) -> bool:
        """Whether no call in the cells gives an argument.

        Args:
            function: the function's name; empty for one without a name.
            argument: the argument.
            place: how many arguments stand before it; those by name alone stand behind all.
        """
        return argument.arg not in self.keywords and bool(function) and self.places.get(function, 0) <= place

    def is_reached(self, method: str) -> bool:
        """Whether a method may be called: by its name, or by Python or PyTorch."""
        if method in self.mentioned or method in _KNOWN_METHODS:
            return True
        return method.startswith("__") and method.endswith("__")


def facts_of(trees: Iterable[ast.Module]) -> Facts:
    """Gather them in one walk over each cell."""
    facts = Facts()
    for tree in trees:
        inner = {
            id(statement)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for statement in ast.walk(node)
            if statement is not node
        }
        shared = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
        for node in ast.walk(tree):
            _gather(facts, node, id(node) in inner, shared)
    return facts


def _gather(facts: Facts, node: ast.AST, inside: bool, shared: set[str]) -> None:
    match node:
        case ast.Assign(targets=targets, value=value):
            truth = bool(value.value) if isinstance(value, ast.Constant) else _UNKNOWN
            for target in targets:
                known = truth if isinstance(target, ast.Name | ast.Attribute) else _UNKNOWN
                _give(facts, target, known, inside, shared)
        case ast.AnnAssign(target=target, value=value):
            if value is not None:
                truth = bool(value.value) if isinstance(value, ast.Constant) else _UNKNOWN
                _give(facts, target, truth, inside, shared)
            elif isinstance(target, ast.Name):
                facts.own.add(target.id)  # a field
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if not inside or name in shared:
            facts.values.setdefault(name, set())
        case ast.Attribute(attr=name, ctx=ast.Load()):
            facts.mentioned.add(name)
        case ast.Attribute(attr=name):
            facts.own.add(name)
            facts.values.setdefault(f".{name}", set())
        case ast.Constant(value=str(text)) if text.isidentifier():
            facts.mentioned.add(text)
        case ast.ClassDef(body=body):
            facts.own |= {item.name for item in body if isinstance(item, ast.FunctionDef | ast.ClassDef)}
            stored = (target for item in body if isinstance(item, ast.Assign) for target in item.targets)
            facts.own |= {target.id for target in stored if isinstance(target, ast.Name)}
        case ast.Call():
            _gather_call(facts, node)
        case ast.AugAssign(target=target) | ast.For(target=target) | ast.NamedExpr(target=target):
            _give(facts, target, _UNKNOWN, inside, shared)
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            for alias in names:
                if (alias.asname or alias.name) != "TYPE_CHECKING":
                    facts.values.setdefault(alias.asname or alias.name, set()).add(_UNKNOWN)


def _give(facts: Facts, target: ast.AST, truth: bool | None, inside: bool, shared: set[str]) -> None:
    for node in ast.walk(target):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) if not inside or name in shared:
                facts.values.setdefault(name, set()).add(truth if node is target else _UNKNOWN)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                facts.values.setdefault(f".{name}", set()).add(truth if node is target else _UNKNOWN)


def _gather_call(facts: Facts, node: ast.Call) -> None:
    names = {keyword.arg for keyword in node.keywords if keyword.arg}
    facts.keywords |= names
    facts.own |= names
    function = node.func
    name = (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )
    starred = any(isinstance(value, ast.Starred) for value in node.args)
    facts.places[name] = max(facts.places.get(name, 0), 99 if starred else len(node.args))
    if any(keyword.arg is None for keyword in node.keywords):
        facts.places[name] = 99
    if name in _MAKERS:
        texts = (child.value for child in ast.walk(node) if isinstance(child, ast.Constant))
        facts.own |= {word for text in texts if isinstance(text, str) for word in text.replace(",", " ").split()}
