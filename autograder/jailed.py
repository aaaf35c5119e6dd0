"""What `from autograder import check` is in a kernel that is being graded: the judge's hand there. Knows no answer.

The judge runs in another process. It sends the source of a probe and one case after the other over a Unix socket, and
gets back what the student's code did. Nothing that this module says is believed: a student's code may replace it.
"""

import importlib
import inspect
import os
import socket
import struct
from typing import Any

from autograder.pending import Pending
from autograder.probe import run_probe
from autograder.wire import MAX_BYTES, decode, encode

_LENGTH = struct.Struct("!Q")


def check(exercise: str, target: Any, *, graded: bool = False) -> None:
    """Let the judge examine a function or class.

    Args:
        exercise: the exercise's name.
        target: the student's function or class.
        graded: nothing is examined without it, for the judge hears each exercise once.
    """
    if not graded:
        return
    kind = "class" if inspect.isclass(target) else "function" if callable(target) else "neither"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(os.environ["COURSE_JUDGE"])
        _send(connection, encode({"exercise": exercise, "kind": kind}))
        request = decode(_receive(connection))
        while (message := _receive(connection)) != b"":
            replies = run_probe(request["probe"], target, [message], request["seconds"], patience=request["patience"])
            _send(connection, replies[0])


def earlier(*names: str) -> Any:
    """The course's version of what an earlier chapter defined: in grading, everybody builds on the same.

    Args:
        names: exercises, for example `attention.softmax`.
    """
    found = [_definition(name) for name in names]
    return found[0] if len(found) == 1 else tuple(found)


def adopt(exercise: str, source: str, namespace: dict[str, Any] | None = None) -> None:
    """Take the reference of an exercise that has been judged, for what is built on it.

    Args:
        exercise: the exercise's name.
        source: the reference's source.
        namespace: the student's own, where the reference takes the place of a faulty solution; None to leave it.
    """
    module_name, _, symbol = exercise.rpartition(".")
    module = importlib.import_module(f"solutions.{module_name}")
    pending = vars(module).get(symbol)
    # Under the module's own file name: what a reference calls is not held against the student.
    exec(compile(source, str(module.__file__), "exec"), vars(module))
    if isinstance(pending, Pending):
        pending.become(vars(module)[symbol])
    if namespace is not None:
        _own.setdefault(symbol, namespace.get(symbol))
        namespace[symbol] = vars(module)[symbol]


def restore(symbols: list[str], namespace: dict[str, Any]) -> None:
    """Put the student's own definitions back."""
    namespace.update({symbol: _own[symbol] for symbol in symbols if symbol in _own})


_own: dict[str, Any] = {}


def _definition(name: str) -> Any:
    module, _, symbol = name.rpartition(".")
    return getattr(importlib.import_module(f"solutions.{module}"), symbol)


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(message)) + message)


def _receive(connection: socket.socket) -> bytes:
    """The next message; empty at the end."""
    head = _exactly(connection, _LENGTH.size)
    return _exactly(connection, min(_LENGTH.unpack(head)[0], 2 * MAX_BYTES)) if head else b""


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 2**20))
        if not piece:
            return b""
        data += piece
    return bytes(data)
