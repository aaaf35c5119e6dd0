"""What stands for the answer where an exercise says "build it yourself", and how its use is seen while the code runs.

The rule: a use costs the exercise's points if the student's definition makes it. It is looked for twice.

- At run time, while the probe calls the code (`watching`): calls of the functions, methods and modules of TABLE, and of
  the operators below them. A call belongs to the nearest frame on the stack that is not a library's. Where that frame
  is the course's own (a helper from `solutions`, the probe's own gradients), the call is not the student's.
- In the source (`autograder.source`): a mention that the definition can reach, in its body or in a helper that it uses.

So a comparison beside the definition costs nothing, nor does a word in a comment, a string or dead code, nor a function
of the student's own with the same name. A comparison inside the body runs with it, and counts.

What neither sees: a name put together from pieces and called in a thread of its own, or compiled where it leaves no
operator of its own (a norm by `torch.jit.script`). And what runs beside the student's code can be deceived by it, which
takes more doing than the exercise; the source is read where no student's code runs.

This module is sent where the student's code runs: it imports torch and the standard library, and holds no answer.
"""

import contextlib
import inspect
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from autograder.origins import LIBRARIES


@dataclass(frozen=True)
class Entry:
    """One thing of PyTorch's, under all of its names.

    Args:
        paths: functions and classes, from `torch`; other paths to the same objects need not be listed.
        methods: names of methods of a tensor.
        operators: names below `torch.ops.aten`, and of functions of `torch`; seen also where compiled code calls them.
    """

    paths: tuple[str, ...]
    methods: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()


TABLE = {
    "torch.softmax": Entry(
        (
            "nn.functional.softmax", "special.softmax", "nn.Softmax", "nn.Softmax2d", "nn.functional.softmin",
            "nn.Softmin", "nn.functional.gumbel_softmax", "masked.softmax", "sparse.softmax",
        ),
        ("softmax",),
        ("softmax", "_softmax", "_safe_softmax", "special_softmax"),
    ),
    "torch.log_softmax": Entry(
        (
            "nn.functional.log_softmax", "special.log_softmax", "nn.LogSoftmax", "masked.log_softmax",
            "sparse.log_softmax",
        ),
        ("log_softmax",),
        ("log_softmax", "_log_softmax", "special_log_softmax"),
    ),
    "F.scaled_dot_product_attention": Entry(
        ("nn.functional.scaled_dot_product_attention", "nn.attention.flex_attention.flex_attention"),
        (),
        (
            "scaled_dot_product_attention", "_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
            "_flash_attention_forward", "_efficient_attention_forward",
        ),
    ),
    "nn.MultiheadAttention": Entry(
        ("nn.MultiheadAttention", "nn.functional.multi_head_attention_forward"),
        (),
        ("_native_multi_head_attention",),
    ),
    "nn.LayerNorm": Entry(
        ("nn.LayerNorm", "nn.functional.layer_norm"),
        (),
        ("layer_norm", "native_layer_norm"),
    ),
    "nn.RMSNorm": Entry(("nn.RMSNorm", "nn.functional.rms_norm"), (), ("rms_norm", "_fused_rms_norm")),
    "F.gelu": Entry(("nn.functional.gelu", "nn.GELU", "_C._nn.gelu_"), (), ("gelu", "gelu_")),
    "F.cross_entropy": Entry(
        ("nn.functional.cross_entropy", "nn.CrossEntropyLoss", "nn.LinearCrossEntropyLoss"), (), ("cross_entropy_loss",)
    ),
    "F.nll_loss": Entry(
        ("nn.functional.nll_loss", "nn.NLLLoss", "nn.NLLLoss2d"),
        (),
        ("nll_loss", "nll_loss_nd", "nll_loss_forward", "nll_loss2d", "nll_loss2d_forward"),
    ),
    "torch.optim.AdamW": Entry(
        ("optim.AdamW", "optim.Adam", "optim.NAdam", "optim.RAdam", "optim.adamw.adamw", "optim.adam.adam"),
        (),
        ("_fused_adamw_", "_fused_adam_"),
    ),
    "nn.utils.clip_grad_norm_": Entry(
        (
            "nn.utils.clip_grad_norm_", "nn.utils.clip_grad_norm", "nn.utils.clip_grads_with_norm_",
            "nn.utils.get_total_norm",
        )
    ),
    "nn.TransformerEncoderLayer": Entry(("nn.TransformerEncoderLayer",), (), ("_transformer_encoder_layer_fwd",)),
    "nn.TransformerDecoderLayer": Entry(("nn.TransformerDecoderLayer",)),
    "nn.TransformerEncoder": Entry(("nn.TransformerEncoder",)),
    "nn.TransformerDecoder": Entry(("nn.TransformerDecoder",)),
    "nn.Transformer": Entry(("nn.Transformer",)),
}  # fmt: skip
"""The name that a student knows -> everything that is the same thing."""

_COURSE = Path(__file__).resolve().parents[1]
_HELPERS = tuple(str(_COURSE / name) for name in ("solutions/", "autograder/probe.py", "autograder/exercises/"))
_THIS = __file__
_LIBRARIES = LIBRARIES


def named(path: str) -> str:
    """The name in TABLE of what stands at a dotted path, such as `torch.nn.GELU`; empty if it is none of them."""
    try:
        return _paths().get(path) or _things().get(_resolve(path), "")
    except TypeError:  # it is something that cannot be a key
        return ""


def _resolve(path: str) -> Any:
    """What stands at a dotted path that begins with `torch`, or None. Reads attributes, calls nothing."""
    first, *rest = path.split(".")
    found: Any = torch if first == "torch" else None
    for name in rest[:8]:
        try:
            found = getattr(found, name, None)
        except Exception:  # a module that PyTorch loads late and that cannot be loaded here
            return None
    return found


@cache
def _paths() -> dict[str, str]:
    return {f"torch.{path}": name for name, entry in TABLE.items() for path in (*entry.paths, *entry.operators)}


@cache
def _things() -> dict[Any, str]:
    things: dict[Any, str] = {}
    for name, entry in TABLE.items():
        paths = [*entry.paths, *entry.operators, *(f"Tensor.{method}" for method in entry.methods)]
        things |= dict.fromkeys(filter(None, (_resolve(f"torch.{path}") for path in paths)), name)
        for packet in filter(None, (_resolve(f"torch.ops.aten.{operator}") for operator in entry.operators)):
            things[packet] = name
            things |= {getattr(packet, overload): name for overload in packet.overloads()}
    return things


@cache
def _codes() -> dict[CodeType, str]:
    """The code of what is written in Python, and is seen on the stack when it calls an operator."""
    codes: dict[CodeType, str] = {}
    for name, entry in TABLE.items():
        for thing in (_resolve(f"torch.{path}") for path in entry.paths):
            if isinstance(thing, type) and issubclass(thing, torch.optim.Optimizer):
                thing = thing.step
            if inspect.isfunction(thing := inspect.unwrap(thing) if callable(thing) else None):
                codes[thing.__code__] = name
    return codes


@contextlib.contextmanager
def watching(seen: dict[str, str]) -> Iterator[None]:
    """See what the code in the block calls of TABLE.

    Args:
        seen: filled while the block runs: name in TABLE -> the student's line that called it, empty if it has none.
    """

    def called(module: nn.Module, inputs: Any) -> None:
        for kind in type(module).__mro__:
            if kind in things:
                _note(seen, things[kind])

    things = _things()

    hook = register_module_forward_pre_hook(called)
    try:
        # Functions are seen as they are called from Python; some of them no longer exist one level below. Operators
        # are seen there wherever they come from: compiled code, a transformed function, a backward pass.
        with _uncompiled(), _Functions(seen), _Operators(seen):
            yield
    finally:
        hook.remove()


def unwatched() -> contextlib.AbstractContextManager[Any]:
    """Let the gradients of a result be taken without the watch on operators.

    What the check asks for is not the student's use. And while it is watched, PyTorch takes some gradients by another
    formula: where one number is NaN, others then are too, and a known mistake is not known again.
    """
    return _disable_current_modes()


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Let compiled functions run as they were written; the compiler is not loaded for it."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


class _Functions(TorchFunctionMode):
    def __init__(self, seen: dict[str, str]) -> None:
        super().__init__()
        self.seen, self.things = seen, _things()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.things:
            _note(self.seen, self.things[func])
        return func(*args, **kwargs) if kwargs else func(*args)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, seen: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen, self.things = seen, _things()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would load PyTorch's compiler at the first operator, which takes two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.things:
            _note(self.seen, self.things[func])
        if (name := _on_the_stack()) and name not in self.seen:
            _note(self.seen, name)
        return func(*args, **kwargs) if kwargs else func(*args)


def _on_the_stack() -> str:
    """What is written in Python and has led to the operator that is called: the nearest library code on the stack."""
    codes = _codes()
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith((_THIS, *_LIBRARIES)):
        if frame.f_code in codes:
            return codes[frame.f_code]
        frame = frame.f_back
    return ""


def _note(seen: dict[str, str], name: str) -> None:
    if not seen.get(name) and (line := _students_line()) is not None:
        seen[name] = line


def _students_line() -> str | None:
    """The line that made the call that is under way: empty if it has no text, None if it is the course's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_HELPERS):
            return None
        if file != _THIS and not file.startswith(_LIBRARIES):
            return "" if file == "<probe>" else linecache.getline(file, frame.f_lineno).strip()
        frame = frame.f_back
    return None
