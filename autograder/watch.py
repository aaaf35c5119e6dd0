"""Sees what the student's code calls of PyTorch and other packages while it runs, beyond the primitives.

Of every function and operator that runs, the nearest frame on the stack that is no library's is found. What it called
there, and not what that is made of inside, is what counts: `torch.exp` is a primitive, `nn.LayerNorm` is not, although
both end in the same operators. Where the nearest frame is the course's own (a helper from `solutions`, the probe's own
gradients), the call is not the student's. Machinery that calls what it is given (a module's call, `vmap`, a wrapper of
the standard library) is looked through.

What runs beside the student's code can be deceived by it. So the source is read as well, where no student's code runs
(`autograder.source`), and where it leaves a doubt, the exercise is examined once more (`autograder.take_out`).

This module is sent where the student's code runs: it imports torch and the standard library, and holds no answer.
"""

import contextlib
import linecache
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, MethodWrapperType
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from autograder.comparing import only_compares
from autograder.origins import INSTALLED, STANDARD
from autograder.vocabulary import PACKAGES, is_machinery, refused, refused_definition

MOST = 50
"""So many different names are noted; the first one refused is what the student hears of."""

_COURSE = Path(__file__).resolve().parents[1]
_HELPERS = tuple(
    str(_COURSE / name) for name in ("solutions/", "course/", "autograder/probe.py", "autograder/exercises/")
)
_THIS = __file__

_Kind = Literal["student", "helper", "watch", "machinery", "primitive"]


@contextlib.contextmanager
def watching(seen: dict[str, str]) -> Iterator[None]:
    """See what the code in the block calls beyond the primitives.

    Args:
        seen: filled while the block runs: name of what was called -> the student's line that called it, empty if it has
            none.
    """
    # Functions are seen as they are called from Python; some of them no longer exist one level below. Operators are
    # seen there wherever they come from: compiled code, a transformed function, a backward pass.
    with _uncompiled(), _Functions(seen), _Operators(seen):
        yield


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
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # How an attribute of a tensor, such as its shape, is read and set.
        if type(func) is not MethodWrapperType:
            _look(self.seen, _refused(func))
        return func(*args, **kwargs) if kwargs else func(*args)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, seen: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would load PyTorch's compiler at the first operator, which takes two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        _look(self.seen, _refused(func))
        return func(*args, **kwargs) if kwargs else func(*args)


_A_FUNCTION = _Functions.__torch_function__.__code__
_names: dict[Any, str] = {}
_kinds: dict[int, tuple[CodeType, str]] = {}


def _refused(func: Any) -> str:
    """As `vocabulary.refused`, and remembered."""
    try:
        name = _names.get(func)
    except TypeError:
        return ""
    if name is None:
        name = _names[func] = refused(func)
    return name


def _look(seen: dict[str, str], name: str) -> None:
    """Find who called what is being called, and note it if it is refused.

    Args:
        seen: as for `watching`.
        name: of the function or operator itself, if it is refused.
    """
    frame: FrameType | None = sys._getframe(2)
    if name.startswith("torch._C.") and frame is not None and _kind(frame.f_code) != "student":
        name = ""  # what PyTorch's machinery does with its own inside
    while frame is not None:
        kind = _kind(frame.f_code)
        if kind == "student":
            if name and len(seen) < MOST and not seen.get(name):
                _note(seen, name, frame)
            return
        if kind in ("helper", "watch"):
            return  # the course's call, or within a call that was looked at as it began
        if kind == "primitive":
            name = ""
        elif kind != "machinery":
            name = kind
        frame = frame.f_back


def _note(seen: dict[str, str], name: str, frame: FrameType) -> None:
    file = frame.f_code.co_filename
    if not only_compares("".join(linecache.getlines(file)), frame.f_lineno, frame.f_globals | frame.f_locals):
        seen[name] = "" if file == "<probe>" else linecache.getline(file, frame.f_lineno).strip()


def _kind(code: CodeType) -> str:
    """A _Kind; or the name of the library's definition that this is the code of, if it is refused."""
    known = _kinds.get(id(code))  # by identity: other code may be equal to a library's
    if known is None or known[0] is not code:
        known = _kinds[id(code)] = (code, _found_kind(code))
    return known[1]


def _found_kind(code: CodeType) -> "_Kind | str":
    file = code.co_filename
    if file == _THIS:
        return "watch" if code is _A_FUNCTION else "machinery"
    if file.startswith(_HELPERS):
        return "helper"
    site = max((place for place in INSTALLED if file.startswith(place)), key=len, default="")
    if not site:
        return "machinery" if file.startswith((*STANDARD, "<frozen ")) else "student"
    module = file.removeprefix(site).removesuffix(".py").removesuffix(f"{os.sep}__init__").replace(os.sep, ".")
    package = module.partition(".")[0]
    if package != "torch":
        return "machinery" if package in PACKAGES else package
    # What a tensor's methods that are written in Python do is seen as the call of the method itself.
    looked_through = is_machinery(module) or module == "torch._tensor" or code.co_name == "_no_grad_wrapper"
    return "machinery" if looked_through else refused_definition(module, code.co_qualname) or "primitive"
