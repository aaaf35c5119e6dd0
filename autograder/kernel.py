"""Executes single cells in a kernel that may do anything: with limits, and a way to start again."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

MAX_OUTPUT = 4 * 2**20
"""Characters that one cell may print and show before it counts as a flood."""

SECONDS_TO_START = 60

Ending = Literal["", "time", "crash", "memory", "flood"]
"""How a cell ended: empty where it ran to its end, with or without an exception."""

Kernels = Callable[[Path, dict[str, str]], AsyncKernelManager]
"""Makes the manager of a kernel that lives in this folder and has these environment variables."""


class _Client(NotebookClient):
    """nbclient with a limit on output: what comes after it is dropped, and the kernel is ended."""

    room = MAX_OUTPUT
    ending: "asyncio.Task[None] | None" = None

    def end(self) -> None:
        """Kill the kernel; nbclient finds it dead."""
        if self.ending is None:
            provisioner: Any = self.km.provisioner  # type: ignore[union-attr]
            self.ending = asyncio.ensure_future(provisioner.kill())

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        if msg["msg_type"] in ("stream", "display_data", "execute_result", "error", "update_display_data"):
            self.room -= len(str(msg["content"]))
            if self.room < 0:
                self.end()
                return None
        return super().process_message(msg, cell, cell_index)


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
        self._manager: Any = None
        self._client: Any = None

    async def start(self) -> None:
        """Start a kernel, in place of the one there may be.

        Raises:
            RuntimeError: it does not start.
        """
        await self.stop()
        self._manager = self._kernels(self._folder, self._environment)
        await self._manager.start_kernel(env=os.environ | self._environment, cwd=str(self._folder))
        client = self._manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=SECONDS_TO_START)
        self._client = _Client(new_notebook(), km=self._manager, allow_errors=True, iopub_timeout=30)
        self._client.kc = client

    async def stop(self) -> None:
        """End the kernel and all that it started."""
        if self._client is not None:
            self._client.kc.stop_channels()
        if self._manager is not None:
            await self._manager.shutdown_kernel(now=True)
            self._manager.cleanup_connection_file()
        self._client = self._manager = None

    async def execute(self, cell: NotebookNode, seconds: float) -> Ending:
        """Execute a cell and put its outputs into it. After an ending that is not empty, start again.

        Args:
            cell: a code cell.
            seconds: how long it may take.
        """
        self._client.timeout, self._client.room = seconds, MAX_OUTPUT
        cell.outputs = []
        self._client.nb.cells = [cell]
        try:
            await self._client.async_execute_cell(cell, 0)
        except CellTimeoutError:
            return "flood" if self._client.room < 0 else "time"
        except DeadKernelError:
            return "flood" if self._client.room < 0 else self._cause()
        return "flood" if self._client.room < 0 else ""

    def end(self) -> None:
        """Kill the kernel under the cell that it executes."""
        self._client.end()

    def companions(self) -> int:
        """How many processes the kernel has started that still run, as far as its jail can tell."""
        kernel = getattr(self._manager.provisioner, "kernel", None)
        return kernel.companions() if kernel else 0

    async def run(self, source: str, seconds: float) -> Ending:
        """Execute code that belongs to no cell."""
        return await self.execute(new_code_cell(source), seconds)

    def _cause(self) -> Ending:
        provisioner = self._manager.provisioner
        kernel = getattr(provisioner, "kernel", None)
        reason = kernel.reason if kernel else getattr(provisioner, "reason", "")
        return {"memory": "memory", "cpu time": "time"}.get(reason, "crash")  # type: ignore[return-value]
