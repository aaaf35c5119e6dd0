"""Takes what is the answer out of PyTorch, in a kernel in which nothing of the student's has run yet.

A watch can be deceived by the code that it watches; what is not there cannot be called. Operators get a kernel that
gives NaN wherever they are called from (a comparison beside the definition then still runs to its end); what is written
in Python loses its code, so that no other name for it leads to it; packages can no longer be imported.

This module is sent where the student's code runs: it imports torch and the standard library, and holds no answer.
"""

import importlib
import importlib.abc
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn, optim

from autograder.forbidden import TABLE, resolve

PACKAGES = (
    "transformers", "tokenizers", "sentencepiece", "tiktoken", "sentence_transformers", "sklearn", "scipy",
    "torchmetrics", "faiss", "nltk", "einops", "keras", "tensorflow", "jax", "xformers", "fairseq", "torchtext",
)  # fmt: skip

_KEYS = ("CPU", "MkldnnCPU", "NestedTensorCPU", "SparseCPU", "SparseCsrCPU", "QuantizedCPU")
_COPIES = ("torch._refs", "torch._decomp", "torch.masked", "torch.optim", "torch.nn.utils")
"""Where PyTorch keeps functions made of other operators."""

_WRAPPERS = ("torch.nn.functional", "torch.nn.modules")
"""Where it keeps what only calls an operator, and gives NaN once that does."""

_COMPOSED = (
    "nn.MultiheadAttention", "nn.TransformerEncoderLayer", "nn.TransformerDecoderLayer", "nn.TransformerEncoder",
    "nn.TransformerDecoder", "nn.Transformer", "torch.optim.AdamW", "nn.utils.clip_grad_norm_", "F.normalize",
    "torch.distributions",
)  # fmt: skip
"""Families that are made of other operators, so that they must lose their code."""

_LEFT = ("extra_repr", "reset_parameters")
_kept: list[Any] = []


class TakenOutError(RuntimeError):
    """What was called is the answer, and was taken out."""


def take_out(names: Sequence[str]) -> None:
    """Take families of things out of PyTorch, and other packages away.

    Args:
        names: of `forbidden.TABLE`.
    """
    sys.meta_path.insert(0, _NoPackage())
    for package in PACKAGES:
        for module in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[module]
    for place in ("torch._refs", "torch._refs.nn.functional", "torch._refs.special", "torch._decomp.decompositions"):
        importlib.import_module(place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            _take_out_functions(name)
            for operator in TABLE[name].operators:
                _take_out_operator(operator)


class _NoPackage(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a package that is taken away before anything else can, and does not load it.

    PyTorch asks what packages there are, without importing them; so the question is no error.
    """

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.partition(".")[0] in PACKAGES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {spec.name!r}: this exercise is to be built without it")


def _take_out_operator(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    for overload in (getattr(packet, one) for one in packet.overloads()):
        full = overload.name()
        keys = list(_KEYS)
        if torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd"):
            keys += ["AutogradCPU", "AutogradNestedTensor"]
        library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        _kept.append(library)  # its kernels go when it goes
        for key in keys:
            try:
                library.impl(full, _nothing(full, overload._schema), key, allow_override=True)
            except RuntimeError:  # there is no such kernel for this operator
                continue


def _nothing(name: str, schema: Any) -> Callable[..., Any]:
    """A kernel that gives NaN in the form of its first tensor; where it should change something, it refuses."""
    changes = schema.is_mutable or any(str(one.type) != "Tensor" for one in schema.returns)
    count = len(schema.returns)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if changes or given is None or not count or given.is_nested or given.layout is not torch.strided:
            raise TakenOutError(f"{name.removeprefix('aten::')} was taken out: build it yourself")
        dtype = given.dtype if given.is_floating_point() else torch.get_default_dtype()
        made = [torch.full(given.shape, torch.nan, dtype=dtype) for _ in range(count)]
        return made[0] if count == 1 else tuple(made)

    return kernel


def _taken_out(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("this was taken out of PyTorch: build it yourself")


def _take_out_functions(name: str) -> None:
    entry = TABLE[name]
    gives_nan = name not in _COMPOSED
    words = {path.rpartition(".")[2].strip("_") for path in entry.paths} | {one.strip("_") for one in entry.operators}
    for path in entry.paths:
        thing = resolve(f"torch.{path}")
        for function in _functions_of(thing):
            if not (gives_nan and str(function.__module__).startswith(_WRAPPERS)):
                _empty(function)
    for module in [one for place, one in sys.modules.items() if place.startswith(_COPIES)]:
        for word, thing in list(vars(module).items()):
            is_one = word.strip("_") in words and inspect.isfunction(thing)
            if is_one and not (gives_nan and thing.__module__.startswith(_WRAPPERS)):
                _empty(thing)


def _functions_of(thing: Any) -> Iterator[Any]:
    if inspect.isfunction(thing):
        yield thing
    elif isinstance(thing, type):
        is_used_by_others = issubclass(thing, nn.Module | optim.Optimizer)
        for word, value in vars(thing).items():
            if word not in _LEFT and not (is_used_by_others and word.startswith("__")):
                function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                if inspect.isfunction(function):
                    yield function


def _empty(function: Any) -> None:
    """Give a function, and those that it wraps, the code of one that refuses."""
    while isinstance(function, FunctionType):
        inner = getattr(function, "__wrapped__", None)
        if not function.__code__.co_freevars:  # code with a closure cannot be replaced; what it wraps can
            function.__code__ = _taken_out.__code__
        function = inner
