"""The judge's end of the socket: asks a kernel about one exercise at a time, and keeps the verdict.

It runs outside the jail. What arrives may come from anyone inside: it is length-capped, typed data, read with a time
limit, and at worst it is wrong.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from autograder.checks import Check
from autograder.client import misuse
from autograder.judge import Part, Result, judge
from autograder.probe import SECONDS_PER_CASE
from autograder.wire import MAX_BYTES, WireError, decode, encode

GRACE = 5.0
"""Seconds beyond its own limit in which a probe may report that it reached it."""

_LENGTH = struct.Struct("!Q")


class SilenceError(Exception):
    """The kernel's side broke the conversation off, or answered nothing in time."""

    def __init__(self, how: Literal["time", "crash"]) -> None:
        """Remember which of the two it was."""
        super().__init__(how)
        self.how: Literal["time", "crash"] = how


class Examination:
    """One exercise's conversation: it waits for the kernel to call, examines it, and seals what it finds."""

    def __init__(self, listener: socket.socket, check: Check, seed: int, sources: Sequence[str] = ()) -> None:
        """Start to listen.

        Args:
            listener: the bound socket; one examination at a time uses it.
            check: the exercise.
            seed: where the hidden inputs come from.
            sources: the code of the notebook up to the check, cell by cell.
        """
        self.strangers: list[str] = []
        """What else called: sentences for the instructor."""
        self.silent: Literal["", "time", "crash"] = ""
        """How the conversation was broken off before its end; empty if it was not."""
        self._listener, self._check, self._seed, self._sources = listener, check, seed, sources
        self._result: Result | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"examines {check.name}", daemon=True)
        self._thread.start()

    def finish(self) -> Result | None:
        """Stop listening; the sealed verdict, or None where the kernel never asked for one."""
        self._over.set()
        self._thread.join()
        return self._result

    def _listen(self) -> None:
        self._listener.settimeout(0.02)
        while self._result is None and not self.silent and len(self.strangers) < 10:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                if self._over.is_set():
                    return
                continue
            with connection:
                connection.settimeout(SECONDS_PER_CASE + GRACE)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            asked = decode(_receive(connection))
            if not isinstance(asked, dict) or asked.get("exercise") != self._check.name:
                raise WireError("another exercise")
        except (WireError, SilenceError):
            self.strangers.append(f"Something other than the check of {self._check.name} spoke to the judge.")
            return
        try:
            self._result = self._examine(connection, str(asked.get("kind")))
        except SilenceError as silence:
            self.silent = silence.how

    def _examine(self, connection: socket.socket, kind: str) -> Result:
        said = misuse(self._check, kind)
        if said:
            parts = [Part(name, points, "not tried") for name, points in self._check.parts.items()]
            return Result(self._check.name, parts, [said], read=self._check.read, seed=self._seed)

        def run(source: str, cases: list[bytes]) -> Iterator[bytes]:
            _send(connection, encode({"probe": source, "seconds": SECONDS_PER_CASE}))
            for case in cases:
                _send(connection, case)
                yield _receive(connection)

        return judge(self._check, run, graded=True, seed=self._seed, trusted=False, sources=self._sources)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A Unix socket at this path, for the kernels of one submission."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o666)  # its folder is private; the kernel has a user of its own
        listener.listen(4)
        yield listener
    path.unlink(missing_ok=True)


def _send(connection: socket.socket, message: bytes) -> None:
    try:
        connection.sendall(_LENGTH.pack(len(message)) + message)
    except OSError as error:
        raise SilenceError("crash") from error


def _receive(connection: socket.socket) -> bytes:
    deadline = time.monotonic() + SECONDS_PER_CASE + GRACE
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    if length > 2 * MAX_BYTES:
        raise SilenceError("crash")
    return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            piece: bytes = connection.recv(min(size - len(data), 2**20))
        except TimeoutError as error:
            raise SilenceError("time") from error
        except OSError as error:
            raise SilenceError("crash") from error
        if not piece:
            raise SilenceError("crash")
        if time.monotonic() > deadline:  # a byte now and then must not keep the judge waiting for ever
            raise SilenceError("time")
        data += piece
    return bytes(data)
