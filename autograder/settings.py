"""The settings that hold for a whole process, as they are in a new one, whatever a notebook has set.

An honest notebook may set the default dtype, switch gradients off, or turn warnings into errors. The exercises ask
nothing of that kind, so a check tries the student's code under the settings that PyTorch starts with, and a seed or a
default that a notebook set can neither cost nor earn anything.

This module is sent where the student's code runs: it imports torch, NumPy and the standard library, and holds no
answer.
"""

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.utils._device as devices
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

RECURSION = 1000
"""Python's own limit; a higher one is left, for a right solution may need it."""

_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any], Any], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.is_anomaly_enabled, torch.set_anomaly_enabled, False),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
    (torch.is_warn_always_enabled, torch.set_warn_always, False),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, True),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, True),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp, True),
)
"""How a setting is read, how it is set, and what it is in a new process."""

_DEFAULT = torch._GLOBAL_DEVICE_CONTEXT

_HOOKS: tuple[dict[Any, Any], ...] = tuple(
    found
    for holder in (modules, optimizers)
    for name, found in vars(holder).items()
    if name.startswith("_global_") and isinstance(found, dict)
)
"""What `register_module_forward_hook` and its kind fill: called for every module, also for those of a check."""


@contextlib.contextmanager
def fresh_settings() -> Iterator[None]:
    """Let the block run under the settings of a new process; afterwards they are as they were found."""
    with (
        _as_found(),
        _no_modes(),
        _no_hooks(),
        _start_values(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"),
    ):
        yield


@contextlib.contextmanager
def _as_found() -> Iterator[None]:
    """Leave the random number generators, the number of threads and the folder as they were found."""
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    threads, folder = torch.get_num_threads(), _folder()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.random.set_rng_state(torch_state)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if folder is not None and _folder() != folder:
            with contextlib.suppress(OSError):
                os.chdir(folder)


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # a text, whatever a notebook has made of pathlib
    except OSError:  # it is gone
        return None


@contextlib.contextmanager
def _no_modes() -> Iterator[None]:
    """Take away the default device and every other mode that was left open, and put them back."""
    left_open = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    found = getattr(_DEFAULT, "device_context", None), devices.CURRENT_DEVICE
    _put(None, None, [])
    try:
        yield
    finally:
        _put(*found, left_open)


def _put(context: Any, device: Any, modes: list[Any]) -> None:
    # Not by leaving and entering them: what was left open may be nested in a way that PyTorch refuses to undo.
    for _ in _get_current_function_mode_stack():  # type: ignore[no-untyped-call]
        _pop_mode()  # type: ignore[no-untyped-call]
    for mode in modes:
        _push_mode(mode)  # type: ignore[no-untyped-call]
    _DEFAULT.device_context, devices.CURRENT_DEVICE = context, device


@contextlib.contextmanager
def _no_hooks() -> Iterator[None]:
    """Take away the hooks that are called for every module and every optimiser, and put them back."""
    before = [dict(hooks) for hooks in _HOOKS]
    for hooks in _HOOKS:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, found in zip(_HOOKS, before, strict=True):
            hooks.clear()
            hooks.update(found)


@contextlib.contextmanager
def _start_values() -> Iterator[None]:
    """Give each of `_SETTINGS` the value of a new process, and its own back."""
    before = [read() for read, _, _ in _SETTINGS]
    limit, flushes = sys.getrecursionlimit(), _flushes()
    _give([start for _, _, start in _SETTINGS])
    torch.set_flush_denormal(False)
    sys.setrecursionlimit(max(limit, RECURSION))
    try:
        yield
    finally:
        _give(before)
        torch.set_flush_denormal(flushes)
        sys.setrecursionlimit(limit)


def _give(values: list[Any]) -> None:
    for (read, write, _), value in zip(_SETTINGS, values, strict=True):
        if read() != value:
            write(value)


def _flushes() -> bool:
    """Whether numbers too small for a usual exponent become 0; PyTorch sets it and cannot say it."""
    return sys.float_info.min / 2 == 0.0
