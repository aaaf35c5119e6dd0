"""What a graded kernel can import: as much of the course as its chapter needs, and no answer.

Of `solutions` there are the definitions that the chapters so far name, with all that these use, as files that hold no
more. An exercise of the graded chapter is a `Pending` there: once it is judged, the reference stands in for it.
Of `course` there are the modules that the chapters import. `autograder` is the client of the judge.
"""

import ast
import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

import jupytext

import course
import solutions
from autograder import (
    comparing,
    forbidden,
    jailed,
    origins,
    pending,
    probe,
    settings,
    take_out,
    vocabulary,
    watch,
    wire,
)
from autograder.checks import Check, of_chapter, register
from autograder.syntax import text_of
from course import chapters

Name = tuple[str, str]
"""A definition of `solutions`: its module and its name."""


def write_library(chapter: str, folder: Path) -> None:
    """Write the packages that a kernel grading this chapter may import.

    Args:
        chapter: the chapter that is graded.
        folder: where to; it is made.
    """
    for name, text in library(chapter).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def library(chapter: str) -> dict[str, str]:
    """The files: path below the folder -> text."""
    files = {"autograder/__init__.py": inspect.getsource(jailed)}
    for module in (comparing, forbidden, origins, pending, probe, settings, take_out, vocabulary, watch, wire):
        files[f"autograder/{module.__name__.rpartition('.')[2]}.py"] = inspect.getsource(module)
    files["course/__init__.py"] = inspect.getsource(course)
    for name in sorted(_course_modules(chapter)):
        files[f"course/{name}.py"] = inspect.getsource(importlib.import_module(f"course.{name}"))
    files["solutions/__init__.py"] = inspect.getsource(solutions)
    given, asked = given_definitions(chapter), {_split(check) for check in of_chapter(chapter)}
    for name in _modules():
        files[f"solutions/{name}.py"] = _module_text(name, given, asked)
    return files


def reference_source(check: Check) -> str:
    """The source of a reference, to be run in its module of a library whose kernel has answered the exercise."""
    return inspect.getsource(check.reference)


def given_definitions(chapter: str) -> set[Name]:
    """What a kernel may have: what the chapters so far name and what the references use; no answer, nor what needs one.

    A definition that cannot do without an exercise of the chapter is given, and finds a `Pending` in its place.
    """
    withheld = {_split(check) for check in register().checks.values() if check.chapter >= chapter}
    roots = set().union(*(_named(name) for name in chapters.names() if name <= chapter))
    roots |= {used for check in of_chapter(chapter) for used in _uses()[_split(check)]}
    roots.add(("config", "TransformerConfig"))  # the probe builds it
    given: set[Name] = set()
    waiting = list(roots - withheld)
    while waiting:
        name = waiting.pop()
        if name not in given and name in _uses():
            given.add(name)
            waiting += _uses()[name] - withheld
    # What needs an exercise of a later chapter cannot be there, nor what needs that in turn.
    missing = {_split(check) for check in register().checks.values() if check.chapter > chapter}
    while lacking := {name for name in given if _uses()[name] & missing}:
        given -= lacking
        missing |= lacking
    return given


def _split(check: Check) -> Name:
    module, _, symbol = check.name.rpartition(".")
    return module, symbol


@cache
def _modules() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(solutions.__path__))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(f"solutions.{module}")))


@cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """The names that a module of `solutions` defines, with the statement that does."""
    found: dict[str, ast.stmt] = {}
    for statement in _tree(module).body:
        match statement:
            case ast.FunctionDef() | ast.ClassDef():
                found[statement.name] = statement
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = statement
    return found


@cache
def _imports(module: str) -> dict[str, Name]:
    """The names that a module of `solutions` takes from another one."""
    return {
        alias.name: (str(statement.module).removeprefix("solutions."), alias.name)
        for statement in _tree(module).body
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("solutions.")
        for alias in statement.names
    }


@cache
def _uses() -> dict[Name, set[Name]]:
    """What each definition of `solutions` names of the others."""
    found: dict[Name, set[Name]] = {}
    for module in _modules():
        near = {name: (module, name) for name in _definitions(module)} | _imports(module)
        for name, statement in _definitions(module).items():
            used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            found[module, name] = {near[other] for other in used & near.keys() if near[other] != (module, name)}
    return found


def _imported(chapter: str, package: str) -> set[Name]:
    """What a chapter's cells import from the modules of a package."""
    book = jupytext.reads(chapters.source(chapter).read_text(encoding="utf-8"), fmt="md:myst")
    return {
        (str(node.module).partition(".")[2], alias.name)
        for cell in book.cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package
        for alias in node.names
    }


@cache
def _named(chapter: str) -> set[Name]:
    return _imported(chapter, "solutions")


def _course_modules(chapter: str) -> set[str]:
    """The modules of `course` that the chapters so far import, with those that these import.

    What needs a package of data is left out: only experiments use it, and grading skips them.
    """
    imported = set().union(*(_imported(name, "course") for name in chapters.names() if name <= chapter))
    needed = (_with_imports(module or name) for module, name in imported)
    return set().union(*(modules for modules in needed if modules is not None))


@cache
def _with_imports(name: str) -> frozenset[str] | None:
    """A module of `course` with those that it imports, in their turn; None if there is a package of data among them."""
    module = importlib.import_module(f"course.{name}")
    if hasattr(module, "__path__"):
        return None
    found = {name}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        for other in _of_course(node):
            modules = _with_imports(other)
            if modules is None:
                return None
            found |= modules
    return frozenset(found)


def _of_course(node: ast.AST) -> list[str]:
    """The modules of `course` that a statement imports from."""
    if not isinstance(node, ast.ImportFrom):
        return []
    package, _, module = (node.module or "").partition(".")
    if package != "course":
        return []
    return [module.partition(".")[0]] if module else [alias.name for alias in node.names]


def _module_text(module: str, given: set[Name], asked: set[Name]) -> str:
    source = inspect.getsource(importlib.import_module(f"solutions.{module}"))
    lines = ['"""As much of this module as the graded chapter may use."""', ""]
    definitions = []
    for statement in _tree(module).body:
        text = text_of(source, statement)
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("solutions."):
            origin = str(statement.module).removeprefix("solutions.")
            names = [alias.name for alias in statement.names if (origin, alias.name) in given | asked]
            lines += [f"from {statement.module} import {', '.join(names)}"] if names else []
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            lines.append(text)
        else:
            names = [name for name, its in _definitions(module).items() if its is statement]
            definitions += [text] if names and (module, names[0]) in given else []
    waiting = sorted(name for origin, name in asked if origin == module)
    lines += ["from autograder.pending import Pending", ""] if waiting else [""]
    lines += [f'{name} = Pending("{module}.{name}")' for name in waiting]
    return "\n".join([*lines, *(f"\n\n{text}" for text in definitions)]) + "\n"
