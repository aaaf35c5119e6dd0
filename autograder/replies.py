"""Reads what came back from beside the student's code, which may have sent anything."""

from typing import Any

from autograder.watch import MOST
from autograder.wire import WireError, decode

_KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "raised": {"type": (str,), "message": (str,), "line": (str, type(None))},
    "misfit": {"message": (str,)},
    "stub": {"function": (str,)},
    "time": {"seconds": (int, float)},
}
"""The kinds of error that a probe reports, with their fields."""

_LONGEST = 2000


def read_reply(message: bytes) -> dict[str, Any]:
    """Read a probe's reply; whatever is not one counts as a result that cannot be read.

    Returns:
        `value`, a dict of results by name, or `error`, one of the known kinds; always `changed`, `printed` and `used`.
    """
    try:
        reply = decode(message)
    except WireError:
        return _unreadable()
    if not isinstance(reply, dict) or not _is_count(reply.get("printed")) or not _are_names(reply.get("changed")):
        return _unreadable()
    if not _is_used(reply.get("used")):
        return _unreadable()
    head = {name: reply[name] for name in ("changed", "printed", "used")}
    if "error" in reply:
        return {"error": reply["error"], **head} if _is_error(reply["error"]) else _unreadable()
    value = reply.get("value")
    return {"value": value, **head} if isinstance(value, dict) and all(map(str.isidentifier, value)) else _unreadable()


def _unreadable() -> dict[str, Any]:
    error = {"kind": "misfit", "message": "What came back could not be read as a result."}
    return {"error": error, "changed": [], "printed": 0, "used": {}}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _are_names(value: Any) -> bool:
    return type(value) is list and all(type(name) is str and name.isidentifier() for name in value)


def _is_used(value: Any) -> bool:
    """Whether it says what was called beyond the primitives, and on which line."""
    if type(value) is not dict or len(value) > MOST:
        return False
    return all(_is_field(name, (str,)) and _is_field(line, (str,)) for name, line in value.items())


def _is_error(error: Any) -> bool:
    if type(error) is not dict or type(error.get("kind")) is not str or error["kind"] not in _KINDS:
        return False
    fields = _KINDS[error["kind"]]
    return error.keys() == {"kind", *fields} and all(_is_field(error[name], fields[name]) for name in fields)


def _is_field(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds and (type(value) is not str or len(value) <= _LONGEST)
