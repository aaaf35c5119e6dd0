"""The judge's end of the socket: asks a kernel about one exercise, and reaches the verdict.

It runs outside the jail, in a process of its own (`autograder.workers`). What arrives may come from anyone inside: it
is length-capped, typed data, read with a time limit, and at worst it is wrong. The time that counts is what the
student's code takes to answer, never what the judge takes to think.
"""

import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autograder.checks import find
from autograder.client import misuse
from autograder.doubts import may_need_more, needs_second_look, tampering
from autograder.judge import Part, Result, judge
from autograder.probe import PATIENCE, SECONDS_PER_CASE
from autograder.wire import MAX_BYTES, WireError, decode, encode

GRACE = 5.0
"""Seconds beyond its own limit in which a probe may report that it reached it."""

MAX_REPLIES = 96 * 2**20
"""Bytes of all the replies to one exercise's cases: the judge keeps them until it has found the mistake."""

Silence = Literal["", "time", "crash", "flood"]

_LENGTH = struct.Struct("!Q")


@dataclass
class Talk:
    """What became of one exercise's conversation.

    Args:
        result: the verdict; None where the kernel never asked for one, or broke off.
        strangers: what else called: sentences for the instructor.
        silent: how the conversation was broken off before its end; empty if it was not.
        waited: the seconds in which the kernel was to answer.
        doubt: why the code should be tried once more in a kernel without the answer; empty if it need not.
        open: whether the definitions alone may be too little for that, and nothing in the code runs out of sight.
        tampering: what of the code changes the course's or PyTorch's own: sentences for the instructor.
    """

    result: Result | None = None
    strangers: list[str] = field(default_factory=list)
    silent: Silence = ""
    waited: float = 0.0
    doubt: str = ""
    open: bool = False
    tampering: list[str] = field(default_factory=list)


class SilenceError(Exception):
    """The kernel's side broke the conversation off, or answered nothing in time."""

    def __init__(self, how: Literal["time", "crash", "flood"]) -> None:
        """Remember which it was."""
        super().__init__(how)
        self.how: Literal["time", "crash", "flood"] = how


@dataclass(frozen=True)
class Question:
    """What a judge is to find out.

    Args:
        exercise: the exercise's name.
        seed: where the hidden inputs come from.
        sources: the code of the notebook up to the check, cell by cell.
    """

    exercise: str
    seed: int
    sources: Sequence[str] = ()


def converse(listener: socket.socket, over: socket.socket, question: Question, seconds: float) -> Talk:
    """Wait for the kernel to call, and examine it.

    Args:
        listener: the bound socket; one conversation at a time uses it.
        over: readable when nobody will call any more.
        question: what to find out.
        seconds: how long the kernel may take to call and to answer, all in all.
    """
    with listener, over:
        return _Examiner(question, seconds).listen(listener, over)


class _Examiner:
    """Talks with one kernel about one exercise."""

    def __init__(self, question: Question, seconds: float) -> None:
        self.check, self.left = find(question.exercise), seconds
        self.seed, self.sources = question.seed, question.sources
        self.talk = Talk()
        self.room = MAX_REPLIES

    def listen(self, listener: socket.socket, over: socket.socket) -> Talk:
        """Answer who calls, until there is a verdict or nobody will call."""
        talk = self.talk
        while talk.result is None and not talk.silent and len(talk.strangers) < 10:
            started = time.monotonic()
            ready = select.select([listener, over], [], [], max(0.0, self.left))[0]
            self._count(time.monotonic() - started)
            if not ready:
                talk.silent = "time"
            elif listener in ready:
                connection, _ = listener.accept()
                with connection:
                    self._answer(connection)
            else:
                break
        return talk

    def _count(self, seconds: float) -> None:
        self.talk.waited += seconds
        self.left -= seconds

    def _answer(self, connection: socket.socket) -> None:
        try:
            asked = decode(self._receive(connection))
            if not isinstance(asked, dict) or asked.get("exercise") != self.check.name:
                raise WireError("another exercise")
        except (WireError, SilenceError):
            self.talk.strangers.append(f"Something other than the check of {self.check.name} spoke to the judge.")
            return
        try:
            self.talk.result = self._examine(connection, str(asked.get("kind")))
        except SilenceError as silence:
            self.talk.silent = silence.how
        else:
            self.talk.tampering = tampering(self.sources)
            if self.talk.result.points:
                self.talk.doubt = needs_second_look(self.check, self.sources)
                self.talk.open = bool(self.talk.doubt) and may_need_more(self.sources)

    def _examine(self, connection: socket.socket, kind: str) -> Result:
        said = misuse(self.check, kind)
        if said:
            parts = [Part(name, points, "not tried") for name, points in self.check.parts.items()]
            return Result(self.check.name, parts, [said], read=self.check.read, seed=self.seed)

        def run(source: str, cases: list[bytes]) -> Iterator[bytes]:
            _send(connection, encode({"probe": source, "seconds": SECONDS_PER_CASE, "patience": PATIENCE}))
            for case in cases:
                _send(connection, case)
                yield self._receive(connection)

        return judge(self.check, run, graded=True, seed=self.seed, trusted=False, sources=self.sources)

    def _receive(self, connection: socket.socket) -> bytes:
        started = time.monotonic()
        try:
            # A byte now and then must not keep the judge waiting for ever.
            deadline = started + min(self.left, PATIENCE * SECONDS_PER_CASE + GRACE)
            (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
            self.room -= length
            if length > MAX_BYTES or self.room < 0:
                raise SilenceError("flood")
            return _exactly(connection, length, deadline)
        finally:
            self._count(time.monotonic() - started)


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
        connection.settimeout(GRACE)
        connection.sendall(_LENGTH.pack(len(message)) + message)
    except OSError as error:
        raise SilenceError("crash") from error


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise SilenceError("time")
        connection.settimeout(left)
        try:
            piece: bytes = connection.recv(min(size - len(data), 2**20))
        except TimeoutError as error:
            raise SilenceError("time") from error
        except OSError as error:
            raise SilenceError("crash") from error
        if not piece:
            raise SilenceError("crash")
        data += piece
    return bytes(data)
