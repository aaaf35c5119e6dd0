"""Processes beside the grader's own, for whatever reads what a student handed in or sent back.

Reading hostile data costs what its author likes. So it is done where a limit of memory holds and whence it can be ended
at any time, and never where other submissions wait for the interpreter.
"""

import asyncio
import atexit
import multiprocessing
import resource
import signal
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from autograder.checks import register

MEMORY = 512 << 20
"""Bytes that a process may take beside what it has when it starts."""

Answer = TypeVar("Answer")

_pools: dict[int, ProcessPool] = {}


class OverrunError(Exception):
    """The work was ended, or failed, because it took too much; the message says of what: "time" or "memory"."""


def start(number: int) -> None:
    """Have this many processes ready; they take seconds to start, so call it early.

    Args:
        number: how many; there are no others meanwhile.
    """
    if number in _pools:
        return
    stop()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["autograder.preload"])
    _pools[number] = ProcessPool(max_workers=number, initializer=_limit, context=context)
    for _ in range(number):
        _pools[number].schedule(_nothing)


def submit(function: Callable[..., Answer], *arguments: Any, seconds: float) -> "Future[Answer]":
    """Have a function of a module called in one of the processes.

    Args:
        function: what to call.
        arguments: plain data, or sockets.
        seconds: how long it may take, waiting for others included.
    """
    if not _pools:
        start(1)
    (pool,) = _pools.values()
    return pool.schedule(function, args=arguments, timeout=seconds)


def result_of(future: "Future[Answer]") -> Answer:
    """Wait for what `submit` began.

    Raises:
        OverrunError: it took too long or too much.
    """
    try:
        return future.result()
    except TimeoutError as error:
        raise OverrunError("time") from error
    except (ProcessExpired, MemoryError, RecursionError) as error:
        raise OverrunError("memory") from error


async def finished(future: "Future[Answer]") -> Answer:
    """Wait for what `submit` began, in an event loop; raises the same."""
    await asyncio.wait({asyncio.wrap_future(future)})
    return result_of(future)


@atexit.register
def stop() -> None:
    """End every process."""
    while _pools:
        pool = _pools.popitem()[1]
        pool.stop()  # type: ignore[no-untyped-call]  # Pebble has no annotations here
        pool.join()


def _limit() -> None:
    """Prepare a new process: its memory is limited, one thread computes, and Ctrl-C is for the grader to answer."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    register()
    most = _taken() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _taken() -> int:
    """Bytes of memory that this process has for data."""
    fields = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in fields if line.startswith("VmData:"))


def _nothing() -> None:
    """Keep a process busy for a moment, so that it starts."""
