"""Code that does nothing of what is asked earns nothing, in any exercise, however well its form fits."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograder.checks import find, register
from autograder.judge import in_process, judge

pytestmark = pytest.mark.by_exercise

Answer = Callable[[list[Any]], Any]
"""What a stub gives back for the arguments of a call."""


class NoAnswerError(Exception):
    """The call has not what this stub gives back."""


def argument(place: int) -> Answer:
    def answer(given: list[Any]) -> Any:
        if place >= len(given):
            raise NoAnswerError
        return given[place]

    return answer


def like_the_first_tensor(make: Callable[[Tensor], Any]) -> Answer:
    def answer(given: list[Any]) -> Any:
        found = next((one for one in given if isinstance(one, Tensor)), None)
        if found is None:
            raise NoAnswerError
        return make(found)

    return answer


def twice(answer: Answer) -> Answer:
    return lambda given: (answer(given), answer(given))


def raising(kind: type[Exception]) -> Answer:
    def answer(given: list[Any]) -> Any:
        raise kind("lazy")

    return answer


CONSTANTS: tuple[Any, ...] = (None, 0, 1, -1, 0.0, 1.0, True, False, [], {}, (), "", b"")

ANSWERS: dict[str, Answer] = (
    {f"returns {value!r}": lambda given, value=value: value for value in CONSTANTS}
    | {f"returns argument {place}": argument(place) for place in range(5)}
    | {f"returns argument {place} twice": twice(argument(place)) for place in range(2)}
    | {
        "returns the first two arguments": lambda given: tuple(given[:2]),
        "returns the first two arguments, exchanged": lambda given: tuple(given[1::-1]),
        "returns the first three arguments": lambda given: tuple(given[:3]),
        "returns a dict of its arguments": lambda given: dict(enumerate(given)),
        "returns its arguments in a list": list,
    }
    | {
        f"returns {name} of the first tensor": like_the_first_tensor(make)
        for name, make in {
            "a copy": torch.clone,
            "zeros_like": torch.zeros_like,
            "ones_like": torch.ones_like,
            "zeros_like, empty": lambda x: x[:0],
            "a zero": lambda x: x.new_zeros(()),
            "a sum": lambda x: x.sum(),
            "a mean": lambda x: x.double().mean().to(x.dtype),
            "all true": lambda x: torch.ones_like(x, dtype=torch.bool),
            "the largest": lambda x: x.argmax(-1) if x.dim() and x.numel() else x,
        }.items()
    }
    | {
        "returns zeros_like of the first tensor twice": twice(like_the_first_tensor(torch.zeros_like)),
        "raises ValueError": raising(ValueError),
        "raises TypeError": raising(TypeError),
        "raises NotImplementedError": raising(NotImplementedError),
        "returns NotImplemented": lambda given: NotImplemented,
    }
)


NO_CLASS = ("returns None", "returns argument 0", "returns argument 1", "raises ValueError")


def call(answer: Answer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return answer([*args, *kwargs.values()])


def lazy_function(answer: Answer) -> Callable[..., Any]:
    return lambda *args, **kwargs: call(answer, args, kwargs)


def with_lazy_methods(kind: type, answer: Answer, names: list[str]) -> type:
    """A class that makes what it should make, and whose methods do nothing with it."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(answer, args, kwargs)

    return type(kind.__name__, (kind,), dict.fromkeys(names, method))


def methods_of(kind: type) -> list[str]:
    return [name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("__")]


def empty_classes() -> Iterator[tuple[str, Any]]:
    yield "class with nothing", type("Lazy", (), {})
    yield "module with nothing", type("Lazy", (nn.Module,), {})
    anything = {"__init__": lambda self, *args, **kwargs: nn.Module.__init__(self)}
    yield "module that takes anything", type("Lazy", (nn.Module,), anything)
    for name, value in {
        "itself": lambda self, *args, **kwargs: self,
        "its input": lambda self, x, *args, **kwargs: x,
    }.items():
        every = dict.fromkeys(("forward", "encode", "decode", "attend", "step", "reorder"), value)
        yield f"module that returns {name}", type("Lazy", (nn.Module,), anything | every)
        yield f"class that returns {name}", type("Lazy", (), {"__init__": lambda self, *args, **kwargs: None} | every)


def stubs(reference: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(reference, type):
        yield from ((name, lazy_function(answer)) for name, answer in ANSWERS.items())
        return
    yield from empty_classes()
    yield from ((f"no class, a function that {name}", lazy_function(ANSWERS[name])) for name in NO_CLASS)
    for name, answer in ANSWERS.items():
        yield f"class of which each method {name}", with_lazy_methods(reference, answer, methods_of(reference))


@pytest.mark.parametrize("name", register().checks)
def test_stubs_that_do_nothing_earn_nothing(name: str) -> None:
    check = find(name)
    earned = {}
    for what, stub in stubs(check.reference):
        # The cases of the notebook alone: grading tries these and more, and a part is earned by all of its cases.
        result = judge(check, in_process(stub, watch=False), explain=False)
        if result.points:
            earned[what] = [part.name for part in result.parts if part.earned]
    assert earned == {}
