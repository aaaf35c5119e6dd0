"""What a call costs: seconds on the clock, and the bytes that its tensors hold at the worst moment."""

import gc
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Cost:
    """What one call costs.

    Args:
        seconds: the fastest of the repeated calls.
        peak_bytes: the most that the tensors made by the call held at one time.
    """

    seconds: float
    peak_bytes: int


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made inside the block and still alive.

    A view shares the memory of its base and costs nothing; so does an input, which was there before. The
    count is the same on every run and every device. Scratch space that a kernel takes and returns on its own
    is not seen.
    """

    def __init__(self) -> None:
        """Start from nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation and count the memory that its results bring."""
        given = {id(storage) for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if id(storage) not in given and id(storage) not in self._alive:
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def forget(_: weakref.ref[torch.UntypedStorage]) -> None:
            self.live_bytes -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, forget)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


def measure(call: Callable[[], object], repeats: int = 3) -> Cost:
    """Measure what `call` costs.

    The first call counts memory and warms the caches; the others are timed, and the fastest is kept, because
    whatever else the machine does can only make a call slower.

    Args:
        call: takes nothing; what it returns is dropped.
        repeats: how many calls are timed.

    Returns:
        Its seconds and its peak bytes.
    """
    with LiveTensors() as tensors:
        call()
    seconds = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeats):
            _wait_for_device()
            start = time.perf_counter()
            call()
            _wait_for_device()
            seconds.append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return Cost(min(seconds), tensors.peak_bytes)


def fit_slope(sizes: list[int], costs: list[float]) -> float:
    """Fit the power p in cost = c * size ** p: the slope of a straight line through the log-log plot."""
    logs = torch.tensor([sizes, costs], dtype=torch.float64).log()
    x, y = logs - logs.mean(1, keepdim=True)
    return float((x * y).sum() / (x * x).sum())


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
