"""How a judge compares what came back with what is right, and says what differs without saying what is right."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autograder.wire import Foreign

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Relative and absolute, in parts of the usual size of the numbers: what float32 can do, also where they are float64.

A solution that makes a constant or an angle in float32, as `torch.tensor(0.5)` does, or works in float32 and converts
back, as Llama's norm does, is right by every textbook. Such solutions were measured to be off by up to 2e-6. A tighter
tolerance would take points for that alone. So a case makes a mistake large instead: it chooses numbers beside which the
mistake is no rounding. Where what comes back must be the very thing, such as a saved weight, use `identical`.
"""


@dataclass(frozen=True)
class Finding:
    """One thing that the judge looked at: whether it is right, and if not what to tell the student."""

    ok: bool
    message: str = ""


RIGHT = Finding(True)


def same(got: Any, expected: Tensor, name: str = "the result") -> Finding:
    """Whether a tensor has the type, shape, dtype and values that are expected.

    Args:
        got: what came back, of any type.
        expected: the reference's tensor.
        name: what to call it in the message, for example "`weights`".
    """
    return _first(got, expected, name, (_same_type, _same_shape, _same_dtype, _same_values))


def is_kind(got: Any, kind: type, wanted: str, name: str = "the result") -> Finding:
    """Whether it is of this very type; `wanted` says in words what to return."""
    return holds(type(got) is kind, _wrong_kind(got, name, wanted))


def same_items(got: Any, expected: Sequence[Any], name: str = "the result") -> Finding:
    """Whether a list has the expected items in the expected order."""
    if type(got) is not list:
        return Finding(False, _wrong_kind(got, name, "a list"))
    if len(got) != len(expected):
        return Finding(False, f"{_sentence(name)} has {len(got)} items; here it should have {len(expected)}.")
    wrong = [place for place, (one, other) in enumerate(zip(got, expected, strict=True)) if not close(one, other)]
    first = f", the first at place {wrong[0]}" if wrong else ""
    return holds(not wrong, f"{_sentence(name)}: {len(wrong)} of {len(got)} items differ{first}.")


def same_table(got: Any, expected: Mapping[Any, Any], name: str = "the result") -> Finding:
    """Whether a dict has the expected keys, in any order, and the expected value under each."""
    if type(got) is not dict:
        return Finding(False, _wrong_kind(got, name, "a dict"))
    missing = [key for key in expected if key not in got]
    if missing:
        return Finding(False, f"{_sentence(name)} lacks {len(missing)} of its {len(expected)} keys.")
    extra = [key for key in got if key not in expected]
    if extra:
        return Finding(False, f"{_sentence(name)} has the key {extra[0]!r}, which does not belong there.")
    wrong = [key for key in expected if not close(got[key], expected[key])]
    example = f", such as that of {wrong[0]!r}" if wrong else ""
    return holds(not wrong, f"{_sentence(name)}: {len(wrong)} of {len(expected)} values are wrong{example}.")


def same_shape(got: Any, expected: Tensor, name: str = "the result") -> Finding:
    """Whether it is a tensor of the expected shape and dtype, whatever its values."""
    return _first(got, expected, name, (_same_type, _same_shape, _same_dtype))


def same_gradients(got: dict[str, Any], expected: dict[str, Tensor | None]) -> Iterator[Finding]:
    """Whether every gradient arrives and has the right values; where it is zero, it need not arrive."""
    for name, gradient in expected.items():
        assert gradient is not None
        if got.get(name) is None and name in got and not gradient.any():
            continue
        yield holds(
            got.get(name) is not None,
            f"No gradient reaches `{name}`. Use torch operations on it: `.detach()`, `.data`, `.item()`, numpy and "
            "`torch.no_grad()` cut the gradient off, and so does not using it at all.",
        )
        yield same(got[name], gradient, f"the gradient with respect to `{name}`")


def holds(condition: bool | Tensor, message: str) -> Finding:
    """Whether a property holds; the message is what to say where it does not."""
    return RIGHT if bool(condition) else Finding(False, message)


def close(a: Any, b: Any) -> bool:
    """Whether two values are the same data, tensors and floats up to rounding; NaN equals NaN."""
    if isinstance(a, float) and isinstance(b, float):
        tolerance = TOLERANCE[torch.float64]
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(a) and math.isnan(b))
    return _alike(a, b, lambda one, other: not _differs(one, other).any(), close)


def identical(a: Any, b: Any) -> bool:
    """Whether two values are the same data to the last digit; NaN equals NaN."""
    return _alike(a, b, lambda one, other: torch.equal(one.nan_to_num(), other.nan_to_num()), identical)


def _alike(a: Any, b: Any, tensors: Callable[[Tensor, Tensor], bool], items: Callable[[Any, Any], bool]) -> bool:
    """Whether two values have the same form, and the same contents by these two comparisons."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(tensors(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(items(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(items(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Foreign) and isinstance(b, Foreign):
        return a.type_name == b.type_name
    return bool(type(a) is type(b) and a == b)


def _first(got: Any, expected: Tensor, name: str, looks: tuple[Callable[[Any, Tensor, str], str], ...]) -> Finding:
    messages = (look(got, expected, name) for look in looks)
    return next((Finding(False, message) for message in messages if message), RIGHT)


def _same_type(got: Any, expected: Tensor, name: str) -> str:
    if isinstance(got, Tensor):
        return ""
    return _wrong_kind(got, name, "a torch.Tensor")


def _wrong_kind(got: Any, name: str, wanted: str) -> str:
    if got is None:
        return f"{_sentence(name)} is None. Does every path through your code end in `return`?"
    kind = got.type_name if isinstance(got, Foreign) else type(got).__name__
    return f"{_sentence(name)} is of type {kind}; return {wanted}."


def _same_shape(got: Tensor, expected: Tensor, name: str) -> str:
    if got.shape == expected.shape:
        return ""
    return f"{_sentence(name)} has shape {tuple(got.shape)}; here it should be {tuple(expected.shape)}."


def _same_dtype(got: Tensor, expected: Tensor, name: str) -> str:
    if got.dtype == expected.dtype:
        return ""
    return f"{_sentence(name)} has dtype {_short(got.dtype)}; for these inputs it should be {_short(expected.dtype)}."


def _same_values(got: Tensor, expected: Tensor, name: str) -> str:
    wrong = _differs(got, expected)
    if not wrong.any():
        return ""
    index = tuple(torch.nonzero(wrong)[0].tolist())
    count = f"{int(wrong.sum())} of {wrong.numel()} entries differ" if wrong.dim() else "the value differs"
    where = f", the first at index {index}" if wrong.dim() else ""
    bad = ~torch.isfinite(got) & torch.isfinite(expected) if got.is_floating_point() else torch.zeros_like(wrong)
    if bad.any():
        return f"{_sentence(name)} contains {'NaN' if got.isnan().any() else 'inf'}: {count}{where}."
    size = f"; largest error {float((got - expected).abs().max()):.2g}" if got.is_floating_point() else ""
    return f"{_sentence(name)}: {count}{where}{size}."


def _differs(got: Tensor, expected: Tensor) -> Tensor:
    if not got.is_floating_point():
        return got != expected
    tolerance = TOLERANCE[got.dtype]
    # What is left where large numbers cancel is as far off as they were rounded, so beside them it has to be seen.
    sizes = expected[torch.isfinite(expected)].abs().double()
    usual = max(1.0, float(sizes.median())) if sizes.numel() else 1.0
    return ~torch.isclose(got, expected, rtol=tolerance, atol=tolerance * usual, equal_nan=True)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sentence(name: str) -> str:
    return name[0].upper() + name[1:]
