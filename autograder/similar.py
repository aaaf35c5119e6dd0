"""Finds submissions that share more than correct solutions of the same exercises do.

A solution is taken as its syntax tree: comments, docstrings, annotations and imports dropped, and every name that the
student chose replaced by one sign. Each subtree of some size is a fingerprint. What many in the class have, and what
the released stub or a known solution has, is no evidence; what two have and hardly anybody else is.

The outcome is a list to look at, never a verdict: two who learned from the same source look the same.
"""

import ast
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from autograder.syntax import parse, without_docstrings

Prints = frozenset[bytes]

MIN_NODES = 6
"""A smaller subtree, such as `x.size(-1)`, is a phrase of the language and nobody's own."""
EVIDENCE = 25.0
"""The rarity that two must share, summed over fingerprints: about 20 that one in four has, or 5 that one in 150 has."""
COMMON = 0.1
FEW = 4
"""A fingerprint of more than a tenth of the class, and of more than four, is common."""

_CHOSEN = "_"
_DROPPED_FIELDS = {"annotation", "returns", "type_comment", "type_ignores", "ctx", "kind", "decorator_list"}
_DROPPED_NODES = (ast.Import, ast.ImportFrom, ast.Pass)


@dataclass(frozen=True)
class Pair:
    """Two students whose solutions are nearly the same.

    Args:
        first: one student.
        second: the other, later in the order of names.
        share: how much of what is their own they have in common, from 0 to 1.
        exercises: exercise -> the same for it alone; only those that speak for it, most alike first.
    """

    first: str
    second: str
    share: float
    exercises: dict[str, float]


def pairs(
    sources: Mapping[str, Mapping[str, str]],
    stubs: Mapping[str, str],
    threshold: float = 0.6,
    known: Iterable[Mapping[str, str]] = (),
) -> list[Pair]:
    """The pairs of students who share at least this much, most alike first.

    Args:
        sources: student -> exercise -> code.
        stubs: exercise -> the released code, which is nobody's own.
        threshold: the least share to report.
        known: solutions that anybody may arrive at or be shown, such as the reference; what they have is no evidence.
    """
    known = list(known)
    exercises = [
        _Exercise(
            name,
            {student: fingerprints(own[name]) for student, own in sources.items() if name in own},
            fingerprints(stubs.get(name, "")),
            frozenset[bytes]().union(*(fingerprints(one.get(name, "")) for one in known)),
        )
        for name in dict.fromkeys(name for own in sources.values() for name in own)
    ]
    shared: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for exercise in exercises:
        for pair, weight in exercise.shared().items():
            shared[pair][exercise.name] = weight
    found = [_pair(pair, weights, exercises) for pair, weights in shared.items() if sum(weights.values()) >= EVIDENCE]
    return sorted((pair for pair in found if pair.share >= threshold), key=lambda pair: (-pair.share, pair.first))


class _Exercise:
    """One exercise: what each student wrote, and what of it is rare."""

    def __init__(self, name: str, prints: Mapping[str, Prints], stub: Prints, known: Prints) -> None:
        self.name = name
        self.written = {student: own - stub for student, own in prints.items()}
        self.weights = _rarity([own for own in self.written.values() if own], known)

    def shared(self) -> dict[tuple[str, str], float]:
        """The weight that each two students share; only who shares something rare is ever compared."""
        holders: dict[bytes, list[str]] = defaultdict(list)
        for student in sorted(self.written):
            for print_ in self.written[student] & self.weights.keys():
                holders[print_].append(student)
        shared: dict[tuple[str, str], float] = defaultdict(float)
        for print_, students in holders.items():
            for pair in combinations(students, 2):
                shared[pair] += self.weights[print_]
        return shared

    def union(self, first: str, second: str) -> Prints:
        """What either of two students wrote."""
        return self.written.get(first, Prints()) | self.written.get(second, Prints())


def _pair(pair: tuple[str, str], shared: Mapping[str, float], exercises: list[_Exercise]) -> Pair:
    alike: dict[str, float] = {}
    total = size = 0.0
    for exercise in exercises:
        union = exercise.union(*pair)
        # An exercise that both solved as everybody does counts as not alike: one rare line beside it is no copy.
        size += len(union)
        if exercise.name in shared:
            rare = sum(exercise.weights.get(print_, 0.0) for print_ in union)
            alike[exercise.name] = shared[exercise.name] / rare
            total += len(union) * alike[exercise.name]
    ranked = sorted(alike.items(), key=lambda item: -item[1])
    return Pair(*pair, round(total / size, 3), {name: round(share, 3) for name, share in ranked})


def _rarity(written: list[Prints], known: Prints) -> dict[bytes, float]:
    """What each rare fingerprint weighs: the logarithm of how many solved the exercise for each who has it."""
    counts = Counter(print_ for own in written for print_ in own - known)
    most = max(FEW, COMMON * len(written))
    return {print_: math.log((len(written) + 1) / count) for print_, count in counts.items() if count <= most}


def fingerprints(source: str) -> Prints:
    """The fingerprints of a cell's code; none for what is not Python."""
    tree = parse(source)
    if tree is None:
        return frozenset()
    try:
        without_docstrings(tree)
        found: set[bytes] = set()
        _hash(tree, _chosen(tree), found)
        return frozenset(found)
    except RecursionError:  # nobody writes such code by hand
        return frozenset()


def _chosen(tree: ast.Module) -> set[str]:
    """The names that the code itself introduces: variables, parameters, functions, and (with a dot) attributes."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                names.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(f".{name}")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(asname=str(name)):
                names.add(name)
    return names


def _said(node: ast.AST, field: str, item: object, chosen: set[str]) -> str:
    if field in ("id", "name") or (field == "arg" and isinstance(node, ast.arg)):
        return _CHOSEN if item in chosen else repr(item)
    if field == "attr":
        return _CHOSEN if f".{item}" in chosen else repr(item)
    return repr(item)  # a keyword's name is the called function's, so it stays


def _hash(node: ast.AST, chosen: set[str], found: set[bytes]) -> tuple[bytes, int]:
    """Enter the fingerprints of a tree.

    Returns:
        The tree's own, and how many nodes it has.
    """
    digest = hashlib.blake2b(type(node).__name__.encode(), digest_size=8)
    size = 1
    for name, value in ast.iter_fields(node):
        if name in _DROPPED_FIELDS:
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                if isinstance(item, _DROPPED_NODES):
                    continue
                below, nodes = _hash(item, chosen, found)
                digest.update(below)
                size += nodes
            else:
                digest.update(f"{name}={_said(node, name, item, chosen)};".encode("utf-8", "replace"))
    # A module is no phrase of its own: two that differ in one line would differ in it too.
    if size >= MIN_NODES and not isinstance(node, ast.Module):
        found.add(digest.digest())
    return digest.digest(), size
