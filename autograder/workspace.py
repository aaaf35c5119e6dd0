"""The student's own library: a solution that has passed its check is kept, and later chapters use it.

`workspace/` holds a module for each module of `solutions` that has exercises. It is that module with every exercise
replaced: by the student's own code where it has passed, by an import of the course's where it has not.
"""

import ast
import builtins
import dis
import importlib
import inspect
import json
import linecache
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from autograder.checks import Check, find, register
from autograder.judge import in_process, judge
from autograder.syntax import text_of
from course.files import write_whole
from course.workspace import PACKAGE, folder, importable, module

RECORD = "kept.json"
STANDARD = {
    "math": "import math",
    "json": "import json",
    "os": "import os",
    "Path": "from pathlib import Path",
    "Any": "from typing import Any",
    "torch": "import torch",
    "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
    "F": "from torch.nn import functional as F",
    "functional": "from torch.nn import functional",
    "partial": "from functools import partial",
    "lru_cache": "from functools import lru_cache",
    "Counter": "from collections import Counter",
    "defaultdict": "from collections import defaultdict",
    "pairwise": "from itertools import pairwise",
} | {
    name: f"from collections.abc import {name}"
    for name in ("Callable", "Collection", "Iterable", "Iterator", "Mapping", "Sequence")
}
"""What a chapter's first cell imports; a kept definition may use it."""


class NotKeptError(Exception):
    """A solution that passed cannot stand on its own; the message says why."""


def keep(check: Check, target: Any) -> str:
    """Keep a solution that has passed its check.

    Args:
        check: the exercise's check.
        target: the student's function or class, defined in a notebook's cell.

    Returns:
        What to tell the student.
    """
    place = folder()
    if place is None:
        return ""
    try:
        source = definition(check, target)
        kept = record(place) | {check.name: source}
        with tempfile.TemporaryDirectory() as scratch:
            trial = Path(scratch) / PACKAGE
            write(trial, kept)
            require_pass(check, trial)
        write(place, kept)
    except NotKeptError as error:
        return f"It passed, but was not kept in {PACKAGE}/ for later chapters: {error}"
    except OSError as error:
        return f"It passed, but could not be kept in {place}: {error.strerror}."
    return f"Kept in {PACKAGE}/{_module_of(check)}.py; later chapters use it."


def earlier(*names: str) -> Any:
    """What earlier chapters defined: your own where it passed its check, the course's where it did not.

    Args:
        names: exercises, such as `attention.softmax`.

    Returns:
        The functions or classes, in the order of the names; a single one by itself.
    """
    place = folder()
    kept = record(place) if place else {}
    found, own = [], []
    for name in names:
        check = find(name)
        mine = _own(check) if name in kept else None
        own += [check.symbol] if mine is not None else []
        found.append(check.reference if mine is None else mine)
    if kept:  # a reader, and a grader, have none of their own and need not be told
        others = [find(name).symbol for name in names if find(name).symbol not in own]
        words = [f"Yours: {', '.join(own)}." if own else "", f"The course's: {', '.join(others)}." if others else ""]
        print(" ".join(filter(None, words)))
    return found[0] if len(found) == 1 else tuple(found)


def _own(check: Check) -> Any:
    try:
        return getattr(module(_module_of(check)), check.symbol)
    except Exception:  # whatever is wrong with it, the chapter can go on with the course's
        return None


def record(place: Path) -> dict[str, str]:
    """The kept definitions: exercise -> source."""
    try:
        kept: dict[str, str] = json.loads((place / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: source for name, source in kept.items() if name in register().checks}


def definition(check: Check, target: Any) -> str:
    """The source of the cell that defines a solution: its imports, definitions and constants.

    Raises:
        NotKeptError: the source cannot be found, or does not define the exercise's name.
    """
    lines = linecache.getlines(_code(target).co_filename)
    if not lines:
        raise NotKeptError("its source is not in this notebook.")
    tree = ast.parse("".join(lines))
    wanted = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    tree.body = [statement for statement in tree.body if isinstance(statement, wanted)]
    if check.symbol not in _defined(tree):
        raise NotKeptError(f"its cell does not define `{check.symbol}`.")
    source = "\n\n\n".join(text_of("".join(lines), statement) for statement in tree.body)
    missing = sorted(_free(source) - STANDARD.keys() - _names_of(_module_of(check)) - _symbols())
    if missing:
        raise NotKeptError(
            f"it uses `{missing[0]}`, which is defined in another cell. Define that in the cell of `{check.symbol}`."
        )
    return source


def cell_sources(check: Check, target: Any) -> list[str]:
    """The cell that defines a solution, as the judge reads it; nothing where it cannot be found."""
    try:
        lines = linecache.getlines(_code(target).co_filename)
    except (NotKeptError, TypeError):  # a class without methods, or no code of Python at all
        return []
    name = getattr(target, "__name__", "")
    other = name.isidentifier() and name != check.symbol
    return ["".join(lines), f"{check.symbol} = {name}"] if other else ["".join(lines)]


def _symbols() -> set[str]:
    """The symbols of all exercises."""
    return {check.symbol for check in register().checks.values()}


def require_pass(check: Check, place: Path) -> None:
    """See that the kept version passes by itself.

    Raises:
        NotKeptError: it does not.
    """
    with importable(place):
        try:
            target = getattr(importlib.import_module(f"{PACKAGE}.{_module_of(check)}"), check.symbol)
        except Exception as error:
            raise NotKeptError(f"as a module of its own it fails: {type(error).__name__}: {error}") from error
        result = judge(check, in_process(target, watch=False))  # it has just been watched
    if result.points < result.max_points:
        raise NotKeptError(f"as a module of its own it fails its check: {result.messages[0]}")


def write(place: Path, kept: dict[str, str]) -> None:
    """Write the package whole, from the record.

    Raises:
        OSError: it cannot be written.
    """
    modules = list(dict.fromkeys(_module_of(check) for check in register().checks.values()))
    files = {
        "__init__.py": f'"""Your own library. The course writes it when a check passes; {RECORD} is its source."""\n'
    }
    for name in modules:
        files[f"{name}.py"] = _module_text(name, modules, kept)
    for name in dict.fromkeys(_module_of(find(exercise)) for exercise in kept):
        files[f"tests/test_{name}.py"] = _tests_text(name, kept)
    files[RECORD] = json.dumps(kept, indent=1) + "\n"
    for name, text in files.items():
        write_whole(place / name, lambda path, text=text: path.write_text(text, "utf-8"))  # type: ignore[misc]


def _module_text(name: str, modules: list[str], kept: dict[str, str]) -> str:
    source = inspect.getsource(importlib.import_module(f"solutions.{name}"))
    checks = {check.symbol: check for check in register().checks.values() if _module_of(check) == name}
    own = [symbol for symbol, check in checks.items() if check.name in kept]
    others = [symbol for symbol in checks if symbol not in own]
    imports, rest = _split(source, modules)
    lines = [f'"""Your own: {", ".join(own) or "nothing yet"}. The course\'s: {", ".join(others) or "nothing"}."""', ""]
    lines += sorted({*imports, *(STANDARD[used] for used in _used(own, checks, kept) if used in STANDARD)})
    lines += _of_other_modules(name, own, checks, kept)
    lines += [f"from solutions.{name} import {', '.join(others)}"] if others else []
    for symbol, text in rest:
        if symbol in own:
            lines += ["", "", f"# Passed: {checks[symbol].name}", kept[checks[symbol].name]]
        elif symbol not in checks:
            lines += ["", "", text]
    return "\n".join(lines) + "\n"


def _of_other_modules(name: str, own: list[str], checks: dict[str, Check], kept: dict[str, str]) -> list[str]:
    """Imports of what the student's code uses from other modules, although the course's version does not."""
    used = _used(own, checks, kept)
    foreign = {check.symbol: _module_of(check) for check in register().checks.values() if _module_of(check) != name}
    return [f"from {PACKAGE}.{foreign[symbol]} import {symbol}" for symbol in sorted(used & foreign.keys())]


def _used(own: list[str], checks: dict[str, Check], kept: dict[str, str]) -> set[str]:
    return {used for symbol in own for used in _free(kept[checks[symbol].name])}


def _split(source: str, modules: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The imports of a module of `solutions`, turned to `workspace`, and its other statements by name."""
    imports, rest = [], []
    for statement in ast.parse(source).body:
        text = text_of(source, statement)
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("solutions."):
            origin = (statement.module or "").removeprefix("solutions.")
            if origin in modules:
                text = text.replace("from solutions.", f"from {PACKAGE}.", 1)
            imports.append(text)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            imports.append(text)
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            rest.append((getattr(statement, "name", ""), text))
    return imports, rest


def _tests_text(name: str, kept: dict[str, str]) -> str:
    lines = [f'"""The checks that your {name} has passed."""', "", "from autograder import check"]
    lines += [f"from {PACKAGE} import {name}"]
    for exercise in (exercise for exercise in kept if _module_of(find(exercise)) == name):
        symbol = find(exercise).symbol
        lines += ["", "", f"def test_{symbol}():", f'    result = check("{exercise}", {name}.{symbol}).result']
        lines += ["    assert result.points == result.max_points, result.messages"]
    return "\n".join(lines) + "\n"


def _module_of(check: Check) -> str:
    return check.name.rpartition(".")[0]


def _names_of(name: str) -> set[str]:
    return set(vars(importlib.import_module(f"solutions.{name}")))


def _code(target: Any) -> CodeType:
    target = inspect.unwrap(target)  # what a decorator makes has the decorator's code
    functions = [target] if inspect.isfunction(target) else [f for f in vars(target).values() if inspect.isfunction(f)]
    if not functions:
        raise NotKeptError("it has no code of its own.")
    code: CodeType = functions[0].__code__
    return code


def _defined(tree: ast.Module) -> set[str]:
    """The names that a module's top level defines."""
    names: set[str] = set()
    for statement in tree.body:
        match statement:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(statement.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                names |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    return names


def _free(source: str) -> set[str]:
    """The global names that a source uses and does not define."""
    used = {name for code in _codes(compile(source, "<kept>", "exec")) for name in _loaded(code)}
    return used - _defined(ast.parse(source)) - set(vars(builtins)) - {"__name__"}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _loaded(code: CodeType) -> Iterator[str]:
    local: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_NAME":
            local.add(str(instruction.argval))  # within a class body
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval not in local:
            yield str(instruction.argval)
