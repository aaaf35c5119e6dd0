"""What passes its check becomes the student's own library, and later chapters use it."""

import itertools
import linecache
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import solutions
from autograder import workspace
from autograder.checks import find, register
from autograder.sample import reference_source
from autograder.workspace import earlier, keep
from course.chapters import CourseError
from course.checkpoints import build
from course.workspace import folder, importable, module
from solutions import attention
from solutions.config import TransformerConfig

numbers = itertools.count()
HEADER = "import math\n\nimport torch\nfrom torch import Tensor, nn\nfrom torch.nn import functional as F\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COURSE_WORKSPACE", str(tmp_path))
    return tmp_path / "workspace"


@pytest.fixture
def notebook() -> dict[str, Any]:
    """The namespace of a notebook whose first cell has run."""
    space: dict[str, Any] = {"__name__": "__main__"}
    run(space, HEADER)
    run(space, "from solutions.attention import *\nfrom solutions.attention import Attend, causal_mask, mask_for_heads")
    return space


def run(space: dict[str, Any], source: str) -> None:
    """Run a cell the way a kernel does: its source can be found under a file name that no file has."""
    name = f"/tmp/ipykernel_0/{next(numbers)}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), space)


def kept(space: dict[str, Any], exercise: str, source: str) -> str:
    run(space, source)
    check = find(exercise)
    return keep(check, space[check.symbol])


SOFTMAX = '''
def softmax(x, dim=-1):
    """Mine."""
    e = torch.exp(x - x.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)
'''


class TestKeep:
    def test_writes_a_package_that_can_be_imported(self, place: Path, notebook: dict[str, Any]) -> None:
        assert kept(notebook, "attention.softmax", SOFTMAX) == "Kept in workspace/attention.py; later chapters use it."
        own = module("attention")
        assert own.softmax.__doc__ == "Mine."
        assert own.causal_mask is attention.causal_mask
        assert "workspace" not in sys.modules

    def test_the_rest_of_the_module_uses_it(self, place: Path, notebook: dict[str, Any]) -> None:
        kept(notebook, "attention.softmax", SOFTMAX)
        check = find("attention.scaled_dot_product_attention")
        kept(notebook, check.name, reference_source(check))
        own = module("attention")
        assert own.scaled_dot_product_attention.__globals__["softmax"].__doc__ == "Mine."

    def test_every_reference_can_be_kept_and_every_module_imported(self, place: Path, notebook: dict[str, Any]) -> None:
        for check in register().checks.values():
            modules = [module.name for module in pkgutil.iter_modules(solutions.__path__)]
            run(notebook, "\n".join(f"from solutions.{name} import *" for name in modules))
            said = kept(notebook, check.name, reference_source(check))
            assert said.startswith("Kept in"), (check.name, said)
        for check in register().checks.values():
            name, _, symbol = check.name.rpartition(".")
            assert getattr(module(name), symbol) is not check.reference
        assert len(workspace.record(place)) == len(register().checks)

        model = build("transformer.EncoderDecoder", TransformerConfig(vocab_size=7), "workspace")
        for part in model.modules():
            assert not type(part).__module__.startswith("solutions."), type(part)
        assert model(torch.tensor([[1, 2]]), torch.tensor([[3]])).shape == (1, 1, 7)

    def test_its_tests_pass_and_fail_with_it(self, place: Path, notebook: dict[str, Any]) -> None:
        kept(notebook, "attention.softmax", SOFTMAX)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(place / "tests")]
        environment = {"PYTHONPATH": f"{place.parent}:{Path(__file__).parent.parent}", "PATH": "/usr/bin:/bin"}
        assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
        file = place / "attention.py"
        file.write_text(file.read_text("utf-8").replace("x.amax(dim, keepdim=True)", "x.amax()"), "utf-8")
        assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 1

    def test_keeps_helpers_and_imports_of_the_same_cell(self, place: Path, notebook: dict[str, Any]) -> None:
        source = (
            "from math import inf\nSTABLE = True\n\ndef peak(x, dim):\n    return x.amax(dim, keepdim=True)\n\n"
            "def softmax(x, dim=-1):\n    e = torch.exp(x - peak(x, dim)) if STABLE else inf\n"
            "    return e / e.sum(dim, keepdim=True)\n\nprint('not kept')\n"
        )
        assert kept(notebook, "attention.softmax", source).startswith("Kept")
        text = (place / "attention.py").read_text("utf-8")
        assert "def peak" in text
        assert "not kept" not in text
        assert torch.equal(module("attention").softmax(torch.zeros(2)), torch.tensor([0.5, 0.5]))

    def test_keeps_a_decorator(self, place: Path, notebook: dict[str, Any]) -> None:
        right = reference_source(find("transformer.greedy_translate")).replace("with torch.no_grad():", "if True:")
        message = kept(notebook, "transformer.greedy_translate", f"@torch.no_grad()\n{right}")
        assert message == "Kept in workspace/transformer.py; later chapters use it."
        assert "@torch.no_grad()\ndef greedy_translate" in (place / "transformer.py").read_text("utf-8")

    def test_says_which_name_of_another_cell_it_needs(self, place: Path, notebook: dict[str, Any]) -> None:
        run(notebook, "def peak(x, dim):\n    return x.amax(dim, keepdim=True)\n")
        said = kept(notebook, "attention.softmax", SOFTMAX.replace("x.amax(dim, keepdim=True)", "peak(x, dim)"))
        assert said == (
            "It passed, but was not kept in workspace/ for later chapters: it uses `peak`, which is defined in another "
            "cell. Define that in the cell of `softmax`."
        )
        assert not place.exists()

    def test_does_not_keep_what_fails_by_itself(self, place: Path, notebook: dict[str, Any]) -> None:
        kept(notebook, "attention.softmax", SOFTMAX)
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        said = kept(notebook, "attention.softmax", SOFTMAX.replace("x.amax(dim, keepdim=True)", "0"))
        assert "as a module of its own it fails its check" in said
        assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    def test_a_newer_version_replaces_the_older(self, place: Path, notebook: dict[str, Any]) -> None:
        kept(notebook, "attention.softmax", SOFTMAX)
        kept(notebook, "attention.softmax", SOFTMAX.replace("Mine.", "Newer."))
        assert module("attention").softmax.__doc__ == "Newer."

    def test_nothing_is_kept_where_there_is_no_workspace(
        self, monkeypatch: pytest.MonkeyPatch, notebook: dict[str, Any]
    ) -> None:
        monkeypatch.setenv("COURSE_WORKSPACE", "")
        assert folder() is None
        assert kept(notebook, "attention.softmax", SOFTMAX) == ""

    def test_a_folder_that_cannot_be_written_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notebook: dict[str, Any]
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("COURSE_WORKSPACE", str(tmp_path / "file"))
        assert kept(notebook, "attention.softmax", SOFTMAX).startswith("It passed, but could not be kept in ")


class TestEarlier:
    def test_gives_the_courses_where_nothing_is_kept(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert earlier("attention.softmax") is attention.softmax
        assert earlier("attention.softmax", "attention.causal_mask") == (attention.softmax, attention.causal_mask)
        assert capsys.readouterr().out == ""

    def test_gives_the_students_own_and_says_so(
        self, place: Path, notebook: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        kept(notebook, "attention.softmax", SOFTMAX)
        own, others = earlier("attention.softmax", "attention.causal_mask")
        assert own.__doc__ == "Mine."
        assert others is attention.causal_mask
        assert capsys.readouterr().out == "Yours: softmax. The course's: causal_mask.\n"

    def test_a_broken_library_does_not_stop_a_chapter(self, place: Path, notebook: dict[str, Any]) -> None:
        kept(notebook, "attention.softmax", SOFTMAX)
        (place / "attention.py").write_text("1 / 0\n")
        assert earlier("attention.softmax") is attention.softmax
        with pytest.raises(CourseError, match=r"cannot be imported: ZeroDivisionError"):
            module("attention")

    def test_a_library_that_is_not_there_is_named(self, place: Path) -> None:
        with pytest.raises(CourseError, match=r"There is no workspace/block.py"):
            module("block")


def test_importable_puts_everything_back(place: Path, notebook: dict[str, Any]) -> None:
    kept(notebook, "attention.softmax", SOFTMAX)
    path, loaded = list(sys.path), set(sys.modules)
    with importable(place):
        import workspace as own

        assert own.__file__ == str(place / "__init__.py")
    assert path == sys.path
    assert not [name for name in set(sys.modules) - loaded if name.startswith("workspace")]
