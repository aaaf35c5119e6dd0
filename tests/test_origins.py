"""What is no student's code is known where the student's code is judged: in the jail."""

import json
from collections.abc import Iterator

import pytest
import torch
from jail import LIGHT, Cell, cell

from autograder.jail import Limits, WarmJail
from autograder.library import write_library
from autograder.origins import INSTALLED, STANDARD, is_standard

CALL = "def probe(target, case):\n    return {'y': target(case.x)}"
HEAD = f"""
import torch, json, random
from torch import nn
from torch.nn import functional as F
from dataclasses import make_dataclass
from autograder.probe import run_probe, count_steps
from autograder.wire import decode, encode
def tried(target):
    [reply] = run_probe({CALL!r}, target, [encode({{"x": torch.ones(3, 4)}})])
    return decode(reply)
Pair = make_dataclass("Pair", ["a", "b"], namespace={{"__post_init__": lambda self: 1 / 0}})
"""

LINES = [
    "torch.ops.aten.mm(x, x)",  # raised in PyTorch's own Python: return self._op(*args, **kwargs)
    "F.linear(x, x.T)",
    "nn.Linear(5, 5)(x)",
    "nn.LayerNorm(3)(x)",
    "torch.einsum('ij,kl,ij', x, x)",
    "torch.func.vmap(torch.mm)(x, x)",
    "nn.Sequential(nn.Linear(5, 5))(x)",
    "torch.testing.assert_close(x, x + 1)",
    "json.loads('{')",
    "random.choice([])",
    "__import__('nowhere')",
    "__import__('numpy').ones(3) @ __import__('numpy').ones(4)",
    "eval('x + y')",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmJail]:
    library = tmp_path_factory.mktemp("library")
    library.chmod(0o755)
    write_library("01_attention", library)
    jail = WarmJail(library, Limits(), imports=("torch", *LIGHT))
    jail.start()
    yield jail
    jail.close()


@pytest.fixture(scope="module")
def kernel(warm: WarmJail) -> Iterator[Cell]:
    with cell(warm) as started:
        assert started.run(HEAD) == ""
        yield started


@pytest.mark.parametrize("line", LINES)
def test_what_a_library_raises_is_told_with_the_students_line(kernel: Cell, line: str) -> None:
    said = kernel.run(f"def target(x):\n    return {line}\nprint(tried(target)['error']['line'])")
    assert said == f"return {line}"


def test_a_call_that_stands_for_the_answer_is_told_with_the_students_line(kernel: Cell) -> None:
    said = kernel.run("def target(x):\n    return nn.Softmax(-1)(x)\nprint(tried(target)['used'])")
    assert said == "{'torch.softmax': 'return nn.Softmax(-1)(x)'}"


def test_steps_of_the_standard_library_do_not_count(kernel: Cell) -> None:
    code = "def target(x):\n    return json.loads(x)\nprint(count_steps(target, '1'), count_steps(target, '[1, 2, 3]'))"
    one, other = kernel.run(code).split()
    assert one == other


def test_the_folders_are_told_apart() -> None:
    assert is_standard(json.__file__)
    assert json.__file__.startswith(STANDARD)
    assert str(torch.__file__).startswith(INSTALLED)
    assert not is_standard(str(torch.__file__))
    assert not is_standard(STANDARD[0].rstrip("/") + "-mine/a.py")
    assert not is_standard("/tmp/ipykernel_1/1.py")
