"""Runs beside the student's code: calls it on each case and sends back what it did. Knows no answer.

Everything here can run in a process that holds neither reference nor exercise module: it receives the source of one
probe function and the cases as bytes, and returns bytes.
"""

import atexit
import contextlib
import gc
import importlib
import io
import linecache
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from autograder.origins import LIBRARIES, is_standard
from autograder.settings import fresh_settings
from autograder.watch import unwatched, watching
from autograder.wire import WireError, decode, encode
from solutions.config import TransformerConfig

SECONDS_PER_CASE = 10.0
"""How long one case may take before it counts as a loop without end; the cases of every check take milliseconds."""

PATIENCE = 3.0
"""In grading that is time of the processor's, for others compute beside it; this many times as long may pass."""

ENDING = ("time", "stub")
"""The kinds of error after which no further case is tried."""

_COURSE = Path(__file__).resolve().parents[1]
_NOT_THE_STUDENTS = (*LIBRARIES, *(f"{_COURSE / package}{os.sep}" for package in ("solutions", "course", "autograder")))
MAX_PRINTED = 10_000
MAX_MESSAGE = 300


class OutOfTime(BaseException):
    """Raised inside the student's code when its time is over; not an Exception, so `except Exception` lets it pass."""


class MisfitError(Exception):
    """The student's object cannot be used as the exercise says; the message is for the student."""


def run_probe(
    source: str,
    target: Any,
    cases: list[bytes],
    seconds: float = SECONDS_PER_CASE,
    watch: bool = True,
    patience: float = 1.0,
) -> list[bytes]:
    """Probe the student's function or class with every case.

    Args:
        source: the source of a function `probe(target, case)` that returns data.
        target: what the student handed to the check.
        cases: one message a case, each a dict of inputs as `wire.encode` wrote it.
        seconds: the time that one case may take.
        watch: see what the code calls that may stand for the answer.
        patience: above 1, `seconds` are of the processor's time, and this many times as long may pass.

    Returns:
        One message a case: a dict with `value` or `error`, `changed` (names of inputs that were modified in place),
        `printed` (number of lines) and `used` (what was called beyond the primitives: name -> the line that did). Fewer
        than there are cases where the first answer settles the others.
    """
    probe = compile_probe(source)
    replies: list[bytes] = []
    with fresh_settings():  # reading a case and writing a reply make tensors too
        if isinstance(target, type) and issubclass(target, torch.optim.Optimizer):
            with _quiet(_Printed()):  # the first optimizer loads it: seconds that are not the student's
                importlib.import_module("torch._dynamo")
        for message in cases:
            reply = _probe_case(probe, target, decode(message), _Limit(seconds, patience), watch)
            replies.append(_encode(reply))
            if reply.get("error", {}).get("kind") in ENDING:
                break  # the other cases would only end the same way, and the student waits
    return replies


def _encode(reply: dict[str, Any]) -> bytes:
    try:
        return encode(reply)
    except WireError as error:
        return encode(
            {**reply, "value": None, "error": {"kind": "misfit", "message": f"The result cannot be read: {error}."}}
        )


def compile_probe(source: str) -> Callable[[Any, SimpleNamespace], Any]:
    """Build the probe function in a namespace that holds torch and this module's helpers, and nothing else."""
    namespace: dict[str, Any] = {"torch": torch, "nn": nn, "Tensor": Tensor}
    helpers = (load_weights, gradients, make_config, count_steps, temporary_path)
    namespace |= {helper.__name__: helper for helper in helpers}
    exec(compile(source, "<probe>", "exec"), namespace)
    probe: Callable[[Any, SimpleNamespace], Any] = namespace["probe"]
    return probe


def make_config(**choices: Any) -> TransformerConfig:
    """Build the config that a case describes: only plain values cross to the probe, and a config holds no answer.

    Args:
        choices: the config's fields, by name; those that are left out have their defaults.
    """
    return TransformerConfig(**choices)


def load_weights(module: nn.Module, weights: dict[str, Tensor], strict: bool = True) -> None:
    """Give the student's module known weights, so that its output can be compared.

    Args:
        module: what the student's class made.
        weights: the value of each parameter, by name.
        strict: refuse a module with further parameters; otherwise those become zero.

    Raises:
        MisfitError: a parameter is missing, left over or of another shape; the message names it.
    """
    if not isinstance(module, nn.Module):
        raise MisfitError(f"Calling the class gave a {type(module).__name__}. It must be a subclass of nn.Module.")
    own = dict(module.named_parameters(remove_duplicate=False))
    _require_names(own, weights)
    extra = [name for name in own if name not in weights]
    if extra and strict:
        hint = " Make its layer with bias=False." if extra[0].endswith("bias") else ""
        raise MisfitError(f"The module has a parameter `{extra[0]}` that the exercise does not ask for.{hint}")
    for name, weight in weights.items():
        if own[name].shape != weight.shape:
            shapes = f"{tuple(own[name].shape)}, and {tuple(weight.shape)} is needed"
            raise MisfitError(f"Parameter `{name}` has shape {shapes} (nn.Linear keeps its weight as (out, in)).")
    module.to(next(iter(weights.values())).dtype)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights[name] if name in weights else torch.zeros_like(parameter))


def _require_names(own: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> None:
    for name in weights:
        layer = name.rpartition(".")[0]
        if name not in own and layer in own:
            raise MisfitError(f"`{layer}` is a bare parameter. Make it a layer, nn.Linear, which holds `{name}`.")
        if name not in own:
            have = _nearest(own, name)
            raise MisfitError(f"The module has no parameter `{name}`; {have}. Name the layers as the text does.")
    layers: dict[int, str] = {}
    for name in weights:
        twin = layers.setdefault(id(own[name]), name)
        # Layers tied on purpose come with the same numbers under each name; then one tensor serves them all.
        if twin != name and not torch.equal(weights[twin], weights[name]):
            raise MisfitError(f"`{twin}` and `{name}` are one and the same. Make a layer of its own for each.")


def _nearest(own: dict[str, nn.Parameter], missing: str) -> str:
    """Say what there is where a parameter is missing: a few names beside it, for a whole model has too many to list."""
    parent = missing
    while parent:
        parent = parent.rpartition(".")[0]
        start = f"{parent}." if parent else ""
        beside = [name.removeprefix(start) for name in own if name.startswith(start)]
        if len(beside) > 6:
            beside = list(dict.fromkeys(name.split(".")[0] for name in beside))
        if beside:
            return f"{f'`{parent}`' if parent else 'it'} has {', '.join(f'`{name}`' for name in beside)}"
    return "it has no parameters at all"


def gradients(output: Any, wanted: dict[str, Tensor]) -> dict[str, Tensor | None]:
    """The gradient of a weighted sum of the output with respect to each tensor of `wanted`; None where none arrives."""
    if not isinstance(output, Tensor) or not output.requires_grad:
        return dict.fromkeys(wanted)
    # Unequal weights: the plain sum of a softmax has gradient zero, whatever the code does.
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    with unwatched():
        found = torch.autograd.grad((output * weight).sum(), list(wanted.values()), allow_unused=True)
    return dict(zip(wanted, found, strict=True))


def temporary_path(name: str) -> Path:
    """A path at which there is nothing yet, in a folder of its own that goes when the process ends."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / name


def count_steps(function: Callable[..., Any], *arguments: Any, without: str = "") -> int:
    """Count the lines of Python that a call runs: a measure of its cost that no other program on the machine changes.

    Lines of the standard library do not count: what it remembers from an earlier call, such as a compiled pattern,
    would change the number. Nor is rubbish collected meanwhile: that may run code of objects which others left behind.

    Args:
        function: the student's.
        arguments: what to call it with.
        without: the name of a function whose lines do not count, nor those of what it calls.
    """
    steps, left_out = 0, False
    collects = gc.isenabled()

    def passed_over(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left_out
        left_out = left_out and event != "return"
        return passed_over

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps, left_out
        if left_out:
            return None
        if event == "call" and frame.f_code.co_name == without:
            left_out = True
            return passed_over
        if event == "call" and is_standard(frame.f_code.co_filename):
            return None
        steps += 1
        return trace

    previous = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(previous)
        if collects:
            gc.enable()
    return steps


def _probe_case(
    probe: Callable[..., Any], target: Any, case: dict[str, Any], limit: "_Limit", watch: bool
) -> dict[str, Any]:
    before = {name: _copied(value) for name, value in case.items() if isinstance(value, Tensor | list)}
    printed = _Printed()
    used: dict[str, str] = {}
    reply: dict[str, Any]
    try:
        # The time limit comes last: an alarm that rang while the watch is being set up would leave it half done.
        with (
            _quiet(printed),
            fresh_settings(),
            watching(used) if watch else contextlib.nullcontext(),
            limit.kept(),
        ):
            value = probe(target, SimpleNamespace(**case))
        reply = {"value": value}
    except OutOfTime:
        reply = {"error": {"kind": "time", "seconds": limit.seconds}}
    except MisfitError as misfit:
        reply = {"error": {"kind": "misfit", "message": str(misfit)}}
    except NotImplementedError as error:
        reply = {"error": _describe(error) if str(error) else {"kind": "stub", "function": _raised_in(error)}}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        reply = {"error": _describe(error)}
    reply["changed"] = [name for name, old in before.items() if not _unchanged(old, case[name])]
    reply["printed"] = printed.lines
    reply["used"] = used
    return reply


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else list(value)


def _unchanged(old: Any, new: Any) -> bool:
    if isinstance(old, list):  # of plain values: what they are made of cannot change
        return len(old) == len(new) and all(one is other for one, other in zip(old, new, strict=True))
    return old.shape == new.shape and bool(torch.equal(torch.nan_to_num(old), torch.nan_to_num(new)))


def _describe(error: BaseException) -> dict[str, Any]:
    """Say what was raised and on which line of the student's own code."""
    message = " ".join(str(error).split())
    return {
        "kind": "raised",
        "type": type(error).__name__,
        "message": message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + " ...",
        "line": _students_line(error),
    }


def _raised_in(error: BaseException) -> str:
    """The name of the function that raised, with its class: an exercise may call one that is not written yet."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_qualname


def _students_line(error: BaseException) -> str | None:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(_NOT_THE_STUDENTS) or frame.filename == "<probe>":
            continue
        text = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
        if text:  # code that a library or Python itself made on the way has no text; whoever called it may have
            return text
    return None


class _Printed(io.TextIOBase):
    """Swallows what is printed and counts its lines, holding no more than MAX_PRINTED characters."""

    def __init__(self) -> None:
        self.lines = 0
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._length < MAX_PRINTED:
            self.lines += text.count("\n")
        self._length += len(text)
        return len(text)


@contextlib.contextmanager
def _quiet(printed: _Printed) -> Iterator[None]:
    # A warning or a progress bar must cost nothing: nbgrader gives 0 to a cell that writes to stderr.
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(_Printed()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class _Limit:
    """How long a case may take: seconds on the clock, or with patience seconds of the processor's time."""

    seconds: float
    patience: float

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Raise OutOfTime in the block when the time is over, and again every second if that was swallowed."""
        possible = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        if not possible or not math.isfinite(self.seconds):
            yield  # Windows, or a thread: a loop without end must be interrupted by hand
            return
        rung = False

        def ring(signum: int, frame: FrameType | None) -> None:
            nonlocal rung
            rung = True
            raise OutOfTime

        timers = {signal.SIGALRM: (signal.ITIMER_REAL, self.seconds * self.patience)}
        if self.patience > 1:
            timers[signal.SIGPROF] = (signal.ITIMER_PROF, self.seconds)
        previous = {number: signal.signal(number, ring) for number in timers}
        for timer, seconds in timers.values():
            signal.setitimer(timer, seconds, 1.0)
        try:
            yield
        except OutOfTime:
            raise
        except BaseException:
            if rung:  # raised while the alarm was being handled
                raise OutOfTime from None
            raise
        finally:
            for timer, _ in timers.values():
                signal.setitimer(timer, 0)
            for number, handler in previous.items():
                signal.signal(number, handler)
            sys.stdout.flush()
