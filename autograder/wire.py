"""Data that crosses between a check and the student's code: typed arrays and JSON, never pickle.

A message is one safetensors file in memory. Its arrays are the tensors; its entry `json` holds the rest as UTF-8,
with a reference wherever a tensor stood. Reading a message can therefore run no code.
"""

import json
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

MAX_BYTES = 16 * 2**20
"""A longer message is refused: no check needs a tenth of it."""

MAX_TENSORS = 1000
MAX_HEADER = 256 * 2**10
"""Bytes that name a message's arrays, which are at most so many: each becomes an object of a kilobyte."""

MAX_VALUES = 500_000
"""Counted as brackets, braces and commas: a few megabytes of them become a gigabyte of objects."""

_DTYPES = frozenset(
    (
        torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32,
        torch.int64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32,
        torch.float64, torch.complex64,
    )
)  # fmt: skip
"""What safetensors can write and read back."""

_JSON = "json"


class WireError(ValueError):
    """A message that cannot be sent or was not understood."""


class Foreign:
    """Stands for a value that may not cross: all that is known of it is its type."""

    def __init__(self, type_name: str) -> None:
        """Remember the type's name, for example `list` or `pandas.DataFrame`."""
        self.type_name = type_name

    def __repr__(self) -> str:
        """Name the type."""
        return f"<{self.type_name}>"


def encode(value: Any, *, strict: bool = False) -> bytes:
    """Write a value of dicts, lists, tuples, numbers, strings, bytes, None and dense tensors as one message.

    Args:
        value: what to send.
        strict: raise WireError for a value of another type, instead of sending the name of its type.

    Raises:
        WireError: the message would be longer than MAX_BYTES, or `strict` and a value may not cross.
    """
    tensors: dict[str, Tensor] = {}
    try:
        text = json.dumps(_pack(value, tensors, strict)).encode("utf-8", errors="surrogatepass")
    except WireError:
        raise
    except (RecursionError, ValueError) as error:  # a value within itself; a number of thousands of digits
        raise WireError("a value nested without end, or a number without end, may not cross") from error
    size = len(text) + sum(tensor.nbytes for tensor in tensors.values())
    if size > MAX_BYTES:
        raise WireError(_too_large(size))
    if len(tensors) > MAX_TENSORS or _is_crowded(text):
        raise WireError("it holds more values than may cross")
    tensors[_JSON] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return save(tensors)


def decode(message: bytes) -> Any:
    """Read what `encode` wrote.

    Raises:
        WireError: the message is too long or is not one.
    """
    if len(message) > 2 * MAX_BYTES:
        raise WireError("the message is too long")
    if int.from_bytes(message[:8], "little") > MAX_HEADER:
        raise WireError("the message names too many arrays")
    try:
        tensors = load(message)
        text = tensors.pop(_JSON).numpy().tobytes()
        if _is_crowded(text):
            raise WireError("the message holds too many values")
        tree = json.loads(text.decode("utf-8", errors="surrogatepass"))
        return _unpack(tree, tensors)
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WireError(f"not a message: {type(error).__name__}") from error


def _pack(value: Any, tensors: dict[str, Tensor], strict: bool) -> Any:
    # Exact types only: a subclass may carry behaviour, and behaviour must not cross.
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor) and _is_plain(value):
        if value.nbytes > MAX_BYTES:  # before the copy: an expanded tensor can be larger than the memory
            raise WireError(_too_large(value.nbytes))
        name = str(len(tensors))
        tensors[name] = value.detach().as_subclass(Tensor).cpu().contiguous().clone()
        return {"$": "tensor", "name": name}
    if type(value) in (list, tuple):
        return {"$": type(value).__name__, "items": [_pack(item, tensors, strict) for item in value]}
    if type(value) is bytes:
        return {"$": "bytes", "text": value.decode("latin-1")}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"$": "dict", "items": {key: _pack(item, tensors, strict) for key, item in value.items()}}
    if type(value) is dict and all(_is_key(key) for key in value):
        return {
            "$": "table",
            "keys": [_pack(key, tensors, strict) for key in value],
            "items": [_pack(item, tensors, strict) for item in value.values()],
        }
    if strict:
        raise WireError(f"a value of type {_type_name(value)} may not cross")
    return {"$": "foreign", "type": _type_name(value)}


def _unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    match tree["$"]:
        case "tensor":
            return tensors[tree["name"]]
        case "list":
            return [_unpack(item, tensors) for item in tree["items"]]
        case "tuple":
            return tuple(_unpack(item, tensors) for item in tree["items"])
        case "dict":
            return {key: _unpack(item, tensors) for key, item in tree["items"].items()}
        case "bytes":
            return str(tree["text"]).encode("latin-1")
        case "table":
            keys = (_unpack(key, tensors) for key in tree["keys"])
            return dict(zip(keys, (_unpack(item, tensors) for item in tree["items"]), strict=True))
        case "foreign":
            return Foreign(str(tree["type"]))
        case other:
            raise WireError(f"unknown kind {other!r}")


def _is_key(value: Any) -> bool:
    """Whether a dict's key may cross: whole numbers, strings, bytes, and tuples of them."""
    return type(value) in (int, str, bytes) or (type(value) is tuple and all(map(_is_key, value)))


def values_in(text: bytes) -> int:
    """How many values a JSON text may hold, as far as a count of signs can tell: before any of them is made."""
    return sum(map(text.count, (b",", b"[", b"{")))


def _is_crowded(text: bytes) -> bool:
    return values_in(text) > MAX_VALUES


def _too_large(size: int) -> str:
    return f"it holds {size / 2**20:.0f} MB, and at most {MAX_BYTES / 2**20:.0f} MB may cross"


def _is_plain(tensor: Tensor) -> bool:
    return (
        not tensor.is_nested
        and tensor.dtype in _DTYPES
        and tensor.layout == torch.strided
        and tensor.device.type != "meta"
        and not tensor.is_quantized
    )


def _type_name(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "numpy array"
    if isinstance(value, Tensor):
        return _tensor_name(value)
    kind = type(value)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def _tensor_name(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "tensor that is nested"
    if tensor.layout != torch.strided:
        return f"tensor with layout {tensor.layout}"
    if tensor.device.type == "meta":
        return "tensor without data (device meta)"
    return f"tensor with dtype {tensor.dtype}"
