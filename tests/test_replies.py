"""Replies from beside the student's code: what is one is read, and nothing else gets through."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograder.checks import find
from autograder.judge import judge
from autograder.probe import run_probe
from autograder.replies import read_reply
from autograder.wire import MAX_BYTES, encode
from solutions import attention

HEAD: dict[str, Any] = {"changed": [], "printed": 0, "used": {}}
GOOD = HEAD | {"value": {"y": 1.0}}
UNREADABLE = "What came back could not be read as a result."


def unreadable(reply: dict[str, Any]) -> bool:
    return reply == {"error": {"kind": "misfit", "message": UNREADABLE}, "changed": [], "printed": 0, "used": {}}


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        {"value": {}, "changed": ["x"], "printed": 3, "used": {"torch.softmax": "line"}},
        {
            "error": {"kind": "raised", "type": "E", "message": "m", "line": "l"},
            "changed": [],
            "printed": 0,
            "used": {},
        },
        {
            "error": {"kind": "raised", "type": "E", "message": "m", "line": None},
            "changed": [],
            "printed": 0,
            "used": {},
        },
        {"error": {"kind": "time", "seconds": 0.5}, "changed": [], "printed": 0, "used": {}},
        {"error": {"kind": "stub", "function": "f"}, "changed": [], "printed": 0, "used": {}},
        {"error": {"kind": "misfit", "message": "m"}, "changed": [], "printed": 0, "used": {}},
    ],
)
def test_a_reply_is_read_as_it_is(reply: dict[str, Any]) -> None:
    assert read_reply(encode(reply)) == reply


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00" * 100,
        encode(None),
        encode([1, 2]),
        encode({**GOOD, "printed": -1}),
        encode({**GOOD, "printed": True}),
        encode({**GOOD, "printed": "many"}),
        encode({**GOOD, "changed": "x"}),
        encode({**GOOD, "changed": ["<b>"]}),
        encode({**GOOD, "changed": [torch.ones(1)]}),
        encode({**GOOD, "used": ["torch.softmax"]}),
        encode({**GOOD, "used": {f"torch.f{n}": "line" for n in range(51)}}),
        encode({**GOOD, "used": {"torch.softmax": 3}}),
        encode({**GOOD, "value": None}),
        encode({**GOOD, "value": {"not a name": 1}}),
        encode({**GOOD, "value": torch.ones(2)}),
        encode({"changed": [], "printed": 0, "used": {}}),
        encode({**GOOD, "error": None}),
        encode({**GOOD, "error": {"kind": "passed"}}),
        encode({**GOOD, "error": {"kind": "misfit", "message": 3}}),
        encode({**GOOD, "error": {"kind": "misfit", "message": "m" * 3000}}),
        encode({**GOOD, "error": {"kind": "misfit", "message": "m", "more": 1}}),
        encode({**GOOD, "error": {"kind": ["misfit"]}}),
    ],
)
def test_anything_else_counts_as_unreadable(message: bytes) -> None:
    assert unreadable(read_reply(message))


def test_a_message_beyond_the_limit_is_not_looked_at() -> None:
    assert unreadable(read_reply(bytes(2 * MAX_BYTES + 1)))


@given(st.binary(max_size=400))
def test_random_bytes_never_raise(message: bytes) -> None:
    assert unreadable(read_reply(message))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(torch.ones(2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


EITHER = {"value": anything, "error": anything}


@given(st.fixed_dictionaries(dict.fromkeys(HEAD, anything), optional=EITHER))
def test_random_replies_are_read_or_unreadable(reply: dict[str, Any]) -> None:
    try:
        message = encode(reply)
    except ValueError:
        return
    read = read_reply(message)
    assert unreadable(read) or read.keys() == reply.keys() - ({"value"} if "error" in reply else set())


@pytest.mark.parametrize("value", [{}, {"y": None}, {"other": 1}, {"y": [1, 2]}, {"y": {"a": 1}}, {"y": torch.ones(3)}])
def test_a_reply_without_the_result_is_wrong_and_no_fault_of_the_judge(value: dict[str, Any]) -> None:
    """Only our own probe's replies have the fields that a check looks for."""
    message = encode({"value": value, "changed": [], "printed": 0, "used": {}})
    result = judge(find("attention.softmax"), lambda source, cases: [message] * len(cases), trusted=False)
    assert result.points == 0
    assert {part.status for part in result.parts} == {"no"}


def test_without_distrust_a_fault_of_the_check_is_seen() -> None:
    message = encode({"value": {}, "changed": [], "printed": 0, "used": {}})
    with pytest.raises(AttributeError):
        judge(find("attention.softmax"), lambda source, cases: [message] * len(cases))


def test_replayed_replies_earn_nothing() -> None:
    """Each case has inputs of its own, so the right answer to one is wrong for the others."""
    check = find("attention.softmax")

    def run(source: str, cases: list[bytes]) -> list[bytes]:
        first = run_probe(source, attention.softmax, cases[:1])
        return first * len(cases)

    assert judge(check, run, graded=True, trusted=False).points == 0
