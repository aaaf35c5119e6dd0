"""What crosses between a check and the student's code: data come back as they were, and nothing else crosses."""

import ast
import inspect
import json
import pickle
import struct
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from autograder import wire
from autograder.wire import MAX_BYTES, Foreign, WireError, decode, encode

settings.register_profile("wire", deadline=None, max_examples=150, derandomize=True)
profile = settings.get_profile("wire")

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same data, bit for bit."""
    if isinstance(a, Tensor):
        if not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.numel():
            return True
        flat = [
            t.detach().resolve_conj().resolve_neg().contiguous().view(-1).as_strided((a.numel(),), (1,)) for t in (a, b)
        ]
        return torch.equal(*(tensor.view(torch.uint8) for tensor in flat))
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or a != a)


def view(tensor: Tensor, kind: str) -> Tensor:
    """The same dtype, seen in another way: most of these are not contiguous."""
    if not tensor.dim():
        return tensor
    match kind:
        case "transposed":
            return tensor.movedim(0, -1)
        case "every other":
            return tensor[::2]
        case "expanded":
            return tensor.unsqueeze(0).expand(3, *tensor.shape)
        case "a part":
            return tensor[1:]
    return tensor


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    tensor = torch.randint(0, 100, shape, generator=generator).to(draw(st.sampled_from(DTYPES)))
    tensor = view(tensor, draw(st.sampled_from(["whole", "transposed", "every other", "expanded", "a part"])))
    return tensor.requires_grad_() if tensor.dtype in (torch.float32, torch.float64) and draw(st.booleans()) else tensor


json_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
scalars = json_scalars | st.binary()
plain_keys = st.integers() | st.text(max_size=5) | st.binary(max_size=5)
keys = plain_keys | st.lists(plain_keys, max_size=3).map(tuple)
values = st.recursive(
    scalars | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["$", "json", "name", "items"]), inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


class TestWhatCrosses:
    @given(values)
    @settings(profile)
    def test_comes_back_as_it_was(self, value: Any) -> None:
        assert same(value, decode(encode(value, strict=True)))
        assert same(value, decode(encode(value)))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)], ids=str)
    def test_every_dtype_and_shape_comes_back(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        tensor = torch.arange(6).reshape(2, 3)[: shape[0] if shape else 1].reshape(-1)[: max(1, len(shape)) * 6]
        tensor = torch.ones(shape).to(dtype) if tensor.numel() != torch.Size(shape).numel() else tensor.to(dtype)
        assert same(tensor.reshape(shape), decode(encode(tensor.reshape(shape), strict=True)))

    def test_numbers_that_are_no_numbers_come_back(self) -> None:
        tensor = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0])
        assert same(tensor, decode(encode(tensor)))
        assert same(float("-inf"), decode(encode(float("-inf"))))

    def test_tensors_that_share_memory_come_back_apart(self) -> None:
        base = torch.arange(6.0)
        first, second, whole = decode(encode([base[:3], base[2:], base]))
        assert same([first, second, whole], [base[:3], base[2:], base])
        first.zero_()
        assert same([second, whole], [base[2:], base])

    def test_what_is_sent_is_a_copy(self) -> None:
        tensor = torch.ones(2)
        message = encode(tensor)
        tensor.zero_()
        assert decode(message).tolist() == [1.0, 1.0]

    def test_lazily_conjugated_and_negated_tensors_come_back(self) -> None:
        numbers = torch.complex(torch.arange(3.0), torch.arange(3.0) + 1)
        assert decode(encode(numbers.conj())).tolist() == [-1j, 1 - 2j, 2 - 3j]
        assert decode(encode(numbers.conj().imag)).tolist() == [-1.0, -2.0, -3.0]

    def test_a_parameter_crosses_as_a_tensor_without_its_history(self) -> None:
        parameter = nn.Parameter(torch.arange(3.0))
        for tensor in (parameter, (parameter * 2) / 2):
            back = decode(encode(tensor, strict=True))
            assert type(back) is Tensor
            assert not back.requires_grad
            assert back.tolist() == [0.0, 1.0, 2.0]


class Evil:
    """Says whether it was run."""

    ran: ClassVar = False

    def __reduce__(self) -> tuple[Any, ...]:
        type(self).ran = True
        return (Evil.run, ())

    @staticmethod
    def run() -> None:
        Evil.ran = True


class Number(int):
    """A subclass may carry behaviour."""


FOREIGN = {
    "numpy array": (np.zeros(2), "numpy array"),
    "numpy number": (np.float64(1), "numpy.float64"),
    "set": ({1}, "set"),
    "bytearray": (bytearray(b"x"), "bytearray"),
    "complex": (1j, "complex"),
    "dict with a key that may not cross": ({1.5: 2}, "dict"),
    "dict with a key that holds one": ({(1, None): 2}, "dict"),
    "subclass of int": (Number(1), f"{__name__}.Number"),
    "function": (len, "builtin_function_or_method"),
    "module": (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    "sparse tensor": (torch.eye(2).to_sparse(), "tensor"),
    "meta tensor": (torch.empty(2, device="meta"), "tensor"),
    "nested tensor": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "tensor"),
    "complex128": (torch.zeros(2, dtype=torch.complex128), "tensor"),
    "complex32": (torch.zeros(2, dtype=torch.complex32), "tensor"),
    "float8_e8m0fnu": (torch.ones(2).to(torch.float8_e8m0fnu), "tensor"),
    "an object": (Evil(), f"{__name__}.Evil"),
}


@pytest.mark.parametrize(("value", "name"), FOREIGN.values(), ids=FOREIGN.keys())
class TestWhatMayNotCross:
    def test_only_the_name_of_its_type_arrives(self, value: Any, name: str) -> None:
        back = decode(encode({"before": 1, "it": [value], "after": "x"}))
        assert type(back["it"][0]) is Foreign
        assert back["it"][0].type_name.startswith(name)
        assert name in repr(back["it"][0])
        assert (back["before"], back["after"]) == (1, "x")

    def test_it_is_refused_where_all_must_cross(self, value: Any, name: str) -> None:
        with pytest.raises(WireError, match="may not cross"):
            encode({"it": [value]}, strict=True)


class TestPickle:
    def test_is_never_written(self) -> None:
        Evil.ran = False
        message = encode([Evil()])
        assert not Evil.ran
        assert b"__reduce__" not in message

    def test_is_never_read(self) -> None:
        message = pickle.dumps(Evil())
        Evil.ran = False
        with pytest.raises(WireError):
            decode(message)
        assert not Evil.ran

    def test_is_not_so_much_as_imported(self) -> None:
        tree = ast.parse(inspect.getsource(wire))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert names == {"json", "typing", "numpy", "torch", "safetensors", "safetensors.torch"}


def message(text: bytes) -> bytes:
    """A well-formed safetensors file whose JSON is this."""
    return save({"json": torch.frombuffer(bytearray(text), dtype=torch.uint8)})


def raw(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file by hand."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"json": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}


BROKEN = {
    "nothing": b"",
    "a long header announced": struct.pack("<Q", 2**63) + b"{}",
    "no entry for the JSON": save({"0": torch.zeros(1)}),
    "no JSON": message(b"{"),
    "not UTF-8": message(b'"\xff\xfe"'),
    "JSON without end": message(b"[" * 100_000),
    "nested without end": message(b'{"$":"list","items":[' * 5_000 + b"]}" * 5_000),
    "no kind": message(b'{"a": 1}'),
    "unknown kind": message(b'{"$": "object", "items": []}'),
    "a kind that is no word": message(b'{"$": ["list"]}'),
    "a dict without items": message(b'{"$": "dict"}'),
    "a dict of a list": message(b'{"$": "dict", "items": [1]}'),
    "a list of nothing": message(b'{"$": "list", "items": null}'),
    "a list of a number": message(b'{"$": "list", "items": 5}'),
    "a tensor that is not there": message(b'{"$": "tensor", "name": "0"}'),
    "a tensor named by a list": message(b'{"$": "tensor", "name": []}'),
    "a number of 5000 digits": message(b"1" * 5_000),
    "JSON in bfloat16": raw(entry("BF16", [1], 2), b"ab"),
    "JSON of a dtype unknown here": raw(entry("F8_E8M0", [2], 2), b"ab"),
    "a shape beyond all bounds": raw(entry("U8", [0, 2**62, 2**40], 0)),
}


class TestBrokenMessages:
    @pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
    def test_raise_a_wire_error(self, broken: bytes) -> None:
        with pytest.raises(WireError):
            decode(broken)

    @given(st.binary(max_size=300))
    @settings(profile)
    def test_random_bytes_raise_a_wire_error(self, garbage: bytes) -> None:
        with pytest.raises(WireError):
            decode(garbage)

    @given(value=values, cut=st.floats(0, 1, exclude_max=True))
    @settings(profile)
    def test_a_truncated_message_raises_a_wire_error(self, value: Any, cut: float) -> None:
        whole = encode(value)
        with pytest.raises(WireError):
            decode(whole[: int(len(whole) * cut)])

    @given(
        value=values, places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)
    )
    @settings(profile, max_examples=400)
    def test_a_corrupted_message_is_read_or_raises_a_wire_error(
        self, value: Any, places: list[tuple[int, int]]
    ) -> None:
        corrupted = bytearray(encode(value))
        for place, byte in places:
            corrupted[place % len(corrupted)] = byte
        try:
            decode(bytes(corrupted))
        except WireError as error:
            assert str(error)

    @given(tree=st.recursive(json_scalars | st.sampled_from([
        "list", "tuple", "dict", "table", "bytes", "tensor", "foreign"
    ]), lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$", "items", "keys", "text", "name", "type"]), inner, max_size=4)
    ), max_leaves=8))  # fmt: skip
    @settings(profile, max_examples=400)
    def test_any_json_is_read_or_raises_a_wire_error(self, tree: Any) -> None:
        text = json.dumps(tree).encode("utf-8", errors="surrogatepass")
        try:
            decode(message(text))
        except WireError as error:
            assert str(error)


class TestSize:
    def test_too_much_is_not_sent(self) -> None:
        half = torch.zeros(MAX_BYTES // 2 + 1, dtype=torch.uint8)
        encode(half)
        with pytest.raises(WireError, match=f"{MAX_BYTES >> 20} MB"):
            encode([half, half])

    def test_a_huge_view_of_little_memory_is_refused_without_being_written_out(self) -> None:
        with pytest.raises(WireError, match="MB"):
            encode(torch.zeros(1).expand(2**45))

    def test_a_number_too_long_to_write_is_refused(self) -> None:
        with pytest.raises(WireError):
            encode(10**5_000)

    def test_a_value_that_contains_itself_is_refused(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(WireError):
            encode(endless)

    def test_too_much_is_not_read(self) -> None:
        with pytest.raises(WireError, match="too long"):
            decode(bytes(2 * MAX_BYTES + 1))
