"""What a graded kernel can import: enough for the chapter, and no answer to it."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.checks import Check, of_chapter, register
from autograder.doubts import take_out_call
from autograder.library import given_definitions, library, reference_source, write_library
from course import chapters

CHAPTERS = chapters.names()

ASK = """
import importlib, json, pkgutil, sys
import course, solutions
for module in pkgutil.iter_modules(course.__path__):
    importlib.import_module(f"course.{module.name}")
found = {}
for module in [module.name for module in pkgutil.iter_modules(solutions.__path__)]:
    names = vars(importlib.import_module(f"solutions.{module}"))
    found[module] = {name: type(value).__name__ for name, value in names.items()}
importlib.import_module("autograder")
packages = ("autograder", "course", "solutions")
files = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in packages]
json.dump([found, files], sys.stdout)
"""


def run(folder: Path, code: str) -> str:
    """What a new Python prints that has nothing of the course but the library."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=CHAPTERS, scope="module")
def chapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(chapter: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(chapter)
    write_library(chapter, place)
    return place


def is_body_of(check: Check, text: str) -> bool:
    """Whether a module's text defines an exercise."""
    nodes = ast.parse(text).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == check.symbol for node in nodes)


class TestWhatIsThere:
    def test_no_exercise_of_the_chapter_or_a_later_one_is(self, chapter: str) -> None:
        files = library(chapter)
        for check in register().checks.values():
            module = check.name.partition(".")[0]
            if check.chapter >= chapter:
                assert not is_body_of(check, files[f"solutions/{module}.py"]), check.name

    def test_nothing_says_how_an_exercise_is_checked(self, chapter: str) -> None:
        files = library(chapter)
        assert not [name for name in files if "exercises" in name or "variants" in name or name.endswith("judge.py")]
        assert not any("misconception" in text for text in files.values())

    def test_every_module_can_be_imported_and_the_chapters_exercises_wait(self, chapter: str, folder: Path) -> None:
        found, files = json.loads(run(folder, ASK))
        # An installation that can be edited would give what the library lacks, and the jail has none.
        assert [file for file in files if not Path(file).is_relative_to(folder)] == []
        for check in register().checks.values():
            module, _, symbol = check.name.partition(".")
            if check.chapter == chapter:
                assert found[module][symbol] == "Pending"
            elif check.chapter > chapter:
                assert symbol not in found[module]

    def test_what_the_chapter_imports_is_there(self, chapter: str) -> None:
        given = given_definitions(chapter)
        own = {tuple(check.name.split(".")) for check in of_chapter(chapter)}
        text = chapters.source(chapter).read_text(encoding="utf-8")
        for line in text.splitlines():
            words = line.replace(",", " ").split()
            if words[:1] == ["from"] and words[1].startswith("solutions.") and "(" not in line:
                module = words[1].removeprefix("solutions.")
                assert {(module, name) for name in words[3:]} <= given | own, line

    def test_the_client_and_what_it_uses_know_no_reference(self) -> None:
        for name, text in library("01_attention").items():
            if name.startswith("autograder/"):
                imported = {str(node.module) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
                assert not {one for one in imported if one.startswith("solutions") and one != "solutions.config"}


class TestAdoption:
    def test_a_reference_stands_in_once_its_exercise_is_judged(self, tmp_path: Path) -> None:
        """`make_norm` is given and makes a LayerNorm, which is an exercise of the same chapter."""
        write_library("04_block", tmp_path)
        (layer_norm,) = (check for check in of_chapter("04_block") if check.symbol == "LayerNorm")
        code = f"""
import autograder
from solutions.block import make_norm
from solutions.config import TransformerConfig
try:
    make_norm(TransformerConfig(1, d_model=8))
except NotImplementedError as error:
    print(error)
autograder.adopt({layer_norm.name!r}, {reference_source(layer_norm)!r})
print(type(make_norm(TransformerConfig(1, d_model=8))).__name__)
"""
        first, second = run(tmp_path, code).splitlines()
        assert "layers.LayerNorm is there only after its exercise has been graded" in first
        assert second == "LayerNorm"

    def test_the_answer_can_be_taken_out_before_the_first_cell(self, tmp_path: Path) -> None:
        """Although a cell then switches the watch off, all that it reaches is NaN; the reference is as it was."""
        write_library("01_attention", tmp_path)
        (check,) = (check for check in of_chapter("01_attention") if check.symbol == "softmax")
        code = f"""
{take_out_call(check)}
import contextlib, torch
import autograder, autograder.probe
autograder.probe.watching = lambda seen: contextlib.nullcontext()
x = torch.randn(2, 3)
print(bool(vars(torch)["soft" + "max"](x, -1).isnan().all()))
autograder.adopt({check.name!r}, {reference_source(check)!r}, own := {{}})
print(bool(torch.allclose(own["softmax"](x).sum(-1), torch.ones(2))))
"""
        assert run(tmp_path, code).split() == ["True", "True"]

    def test_every_reference_can_be_adopted_in_order(self, chapter: str, folder: Path) -> None:
        calls = "".join(
            f"autograder.adopt({check.name!r}, {reference_source(check)!r}, own)\n" for check in of_chapter(chapter)
        )
        names = run(folder, f"import autograder\nown = {{}}\n{calls}print(*own)").split()
        assert names == [check.symbol for check in of_chapter(chapter)]

    def test_the_students_own_comes_back(self, folder: Path, chapter: str) -> None:
        check = of_chapter(chapter)[0]
        code = f"""
import autograder
own = {{{check.symbol!r}: "mine"}}
autograder.adopt({check.name!r}, {reference_source(check)!r}, own)
print(own[{check.symbol!r}] == "mine")
autograder.restore([{check.symbol!r}], own)
print(own[{check.symbol!r}] == "mine")
"""
        assert run(folder, code).split() == ["False", "True"]

    def test_the_sources_are_the_references(self, chapter: str) -> None:
        for check in of_chapter(chapter):
            assert reference_source(check) == inspect.getsource(check.reference)
