"""Executes single cells in a kernel that may do anything: with limits, and a way to start again.

Whatever happens in a cell is that cell's ending. What a kernel says may be anything too: it is counted before it is
read, and only outputs of the usual form are kept.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete, DeadKernelError
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from autograder.wire import values_in

MAX_OUTPUT = 4 * 2**20
"""Bytes that one cell may make its kernel send before it counts as a flood."""
MAX_MESSAGES = 4000
MAX_VALUES = 200_000
"""Counted as brackets, braces and commas: a megabyte of them becomes a hundred of objects."""
WAITING = 64
"""Messages of a kernel that may wait on our side: when nobody reads, they must wait on its own."""

SECONDS_TO_START = 60
SECONDS_TO_SETTLE = 10
PATIENCE = 3.0
"""How many times its seconds a cell may take that computes and does not get the processor."""
IDLE = 0.1
"""Who uses less of the processor than this share sleeps."""
POLL = 0.2

Ending = Literal["", "time", "crash", "memory", "flood"]
"""How a cell ended: empty where it ran to its end, with or without an exception."""

Kernels = Callable[[Path, dict[str, str]], AsyncKernelManager]
"""Makes the manager of a kernel that lives in this folder and has these environment variables."""


class _FloodError(Exception):
    """A cell has made its kernel say too much, or what no kernel says."""


class _Gate:
    """Counts what comes from a kernel while one cell is executed."""

    def __init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Begin to count anew."""
        self.flooded = False
        self.room, self.messages, self.values = MAX_OUTPUT, MAX_MESSAGES, MAX_VALUES

    def admit(self, parts: list[bytes]) -> None:
        """Count a message before it is read."""
        self.messages -= 1
        self.room -= sum(map(len, parts))
        if self.room >= 0:  # otherwise it may be long
            self.values -= sum(map(values_in, parts))
        if min(self.room, self.messages, self.values) < 0:
            self.refuse()

    def refuse(self) -> None:
        """Let nothing more in."""
        self.flooded = True
        raise _FloodError


def _channel(gate: _Gate) -> type[AsyncZMQSocketChannel]:
    """A kind of channel through which messages come that this gate has counted."""

    class Channel(AsyncZMQSocketChannel):
        async def _recv(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
            parts = await self.socket.recv_multipart(**kwargs)
            gate.admit(parts)
            try:
                message: dict[str, Any] = self.session.deserialize(self.session.feed_identities(parts)[1])
                message["parent_header"].get("msg_id")
            except Exception:  # no kernel says this, unless somebody has taught it to
                gate.refuse()
            return message

    return Channel


class _Client(NotebookClient):
    """nbclient that takes what usual outputs are made of, and remembers whether the kernel was told to go."""

    leaving = False

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        usual = _usual(msg)
        if usual is None:
            return None
        try:
            return super().process_message(usual, cell, cell_index)
        except CellExecutionComplete:
            raise
        except Exception:  # an update of what is not there, for example
            return None


def _usual(msg: dict[str, Any]) -> dict[str, Any] | None:
    """The message with what an output is made of and nothing else; None where that is not all there."""
    content, kind = msg.get("content"), msg.get("msg_type")
    if not isinstance(content, dict):
        return None
    kept: dict[str, Any]
    match kind, content:
        case "status", {"execution_state": str(state)}:
            kept = {"execution_state": state}
        case "stream", {"name": "stdout" | "stderr" as name, "text": str(text)}:
            kept = {"name": name, "text": text}
        case "error", {"ename": str(name), "evalue": str(value), "traceback": list(lines)}:
            kept = {"ename": name, "evalue": value, "traceback": [line for line in lines if isinstance(line, str)]}
        case "clear_output", _:
            kept = {"wait": content.get("wait") is True}
        case "display_data" | "execute_result" | "update_display_data", {"data": dict(data)}:
            texts = {name: text for name, text in data.items() if isinstance(text, str)}
            transient = content.get("transient")
            label = transient.get("display_id") if isinstance(transient, dict) else None
            kept = {"data": texts, "metadata": {}, "transient": {"display_id": label} if isinstance(label, str) else {}}
            kept |= {"execution_count": None} if kind == "execute_result" else {}
        case "execute_input", {"execution_count": int(count)}:
            kept = {"execution_count": count}
        case _:
            return None
    header = {"msg_type": kind}
    return {"header": header, "msg_type": kind, "parent_header": msg["parent_header"], "content": kept, "metadata": {}}


class _Clock:
    """The seconds of a cell: it has had them when they have passed, unless it computed and was kept waiting."""

    def __init__(self, seconds: float, used: Callable[[], float | None]) -> None:
        self._seconds, self._used = seconds, used
        self._started, self._had = time.monotonic(), used()

    def is_over(self) -> bool:
        """Whether the cell has had its time."""
        passed = time.monotonic() - self._started
        if passed < self._seconds:
            return False
        used, had = self._used(), self._had
        if used is None or had is None or passed > PATIENCE * self._seconds:
            return True
        return used - had >= self._seconds or used - had < IDLE * passed


class Kernel:
    """A kernel that executes one cell after the other and can be replaced by a new one."""

    def __init__(self, kernels: Kernels, folder: Path, environment: dict[str, str]) -> None:
        """Say how to start it; `start` does.

        Args:
            kernels: makes a kernel's manager.
            folder: private to this submission.
            environment: variables for the kernel.
        """
        self._kernels, self._folder, self._environment = kernels, folder, environment
        self._gate = _Gate()
        self._manager: Any = None
        self._client: Any = None
        self._context: zmq.asyncio.Context | None = None

    async def start(self) -> None:
        """Start a kernel, in place of the one there may be.

        Raises:
            RuntimeError: it does not start.
        """
        await self.stop()
        self._manager = self._kernels(self._folder, self._environment)
        await self._manager.start_kernel(env=os.environ | self._environment, cwd=str(self._folder))
        channel = _channel(self._gate)
        kinds = {f"{name}_channel_class": channel for name in ("shell", "iopub", "control")}
        self._context = zmq.asyncio.Context()
        # A longer message than a cell may send ends the connection before it is in our memory.
        self._context.setsockopt(zmq.MAXMSGSIZE, MAX_OUTPUT)
        self._context.setsockopt(zmq.RCVHWM, WAITING)
        client = self._manager.client(context=self._context, **kinds)
        client.start_channels(stdin=False)  # nobody is there to answer `input`
        self._gate.open()
        await client.wait_for_ready(timeout=SECONDS_TO_START)
        self._client = _Client(
            new_notebook(), km=self._manager, allow_errors=True, iopub_timeout=10, raise_on_iopub_timeout=True
        )
        self._client.on_cell_executed = self._look_at_reply
        self._client.kc = client

    async def stop(self) -> None:
        """End the kernel and all that it started."""
        if self._client is not None:
            self._client.kc.stop_channels()
        if self._context is not None:
            self._context.destroy(linger=0)
        if self._manager is not None:
            await self._manager.shutdown_kernel(now=True)
            self._manager.cleanup_connection_file()
        self._client = self._manager = self._context = None

    async def execute(self, cell: NotebookNode, seconds: float) -> Ending:
        """Execute a cell and put its outputs into it. After an ending that is not empty, start again.

        Args:
            cell: a code cell.
            seconds: how long it may take.
        """
        cell.outputs, cell.execution_count = [], None
        self._client.nb.cells = [cell]
        self._client.reset_execution_trackers()  # an output of an earlier cell is not there to be updated
        self._client.leaving = False
        self._gate.open()
        ending = await self._executed(cell, _Clock(seconds, self._cpu_seconds))
        if not ending and self._client.leaving:
            ending = "crash"  # at once: not under whichever cell is executed when the kernel has gone
        return ending or await self._settled()

    async def _executed(self, cell: NotebookNode, clock: _Clock) -> Ending:
        task = asyncio.ensure_future(self._client.async_execute_cell(cell, 0))
        over = False
        try:
            while not (await asyncio.wait({task}, timeout=POLL))[0]:
                if clock.is_over():
                    over = True
                if over or self._gate.flooded:
                    await self._manager.provisioner.kill()
            task.result()
        except DeadKernelError:
            return "flood" if self._gate.flooded else "time" if over else self._cause()
        except Exception:  # outputs that never came to their end, because they were too long to be let in
            return "time" if over else "flood"
        finally:
            task.cancel()
        return "flood" if self._gate.flooded else ""

    async def _settled(self) -> Ending:
        """Wait for a word from the kernel: one that was told to go within the cell is gone then."""
        try:
            asked = asyncio.ensure_future(self._client.kc.kernel_info(reply=True, timeout=SECONDS_TO_SETTLE))
            while not (await asyncio.wait({asked}, timeout=POLL))[0]:
                if not await self._manager.is_alive():
                    asked.cancel()
                    return self._cause()
            asked.result()
        except Exception:
            return "flood" if self._gate.flooded else self._cause()
        return ""

    async def _look_at_reply(self, execute_reply: dict[str, Any], **_: Any) -> None:
        content = execute_reply.get("content")
        payload = content.get("payload") if isinstance(content, dict) else None
        said = [item.get("source") for item in payload or () if isinstance(item, dict)]
        self._client.leaving = "ask_exit" in said

    def end(self) -> None:
        """Kill the kernel under the cell that it executes."""
        self._ending = asyncio.ensure_future(self._manager.provisioner.kill())

    def companions(self) -> int:
        """How many processes the kernel has started that still run, as far as its jail can tell."""
        kernel = getattr(self._manager.provisioner, "kernel", None)
        return kernel.companions() if kernel else 0

    async def run(self, source: str, seconds: float) -> Ending:
        """Execute code that belongs to no cell."""
        return await self.execute(new_code_cell(source), seconds)

    def _cpu_seconds(self) -> float | None:
        kernel = getattr(self._manager.provisioner, "kernel", None)
        return kernel.cpu_seconds() if kernel else None

    def _cause(self) -> Ending:
        provisioner = self._manager.provisioner
        kernel = getattr(provisioner, "kernel", None)
        reason = kernel.reason if kernel else getattr(provisioner, "reason", "")
        return {"memory": "memory", "cpu time": "time"}.get(reason, "crash")  # type: ignore[return-value]
