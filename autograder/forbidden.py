"""What stands for the answer where an exercise says "build it yourself": families of things that are one and the same.

The rule is the other way round: `autograder.vocabulary` names what is allowed. A family says under which name the
student hears of what was refused, and what the second look takes out of PyTorch (`autograder.take_out`).

This module is sent where the student's code runs: it imports torch and the standard library, and holds no answer.
"""

import importlib
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch


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
        ("softmax", "_softmax", "_safe_softmax", "special_softmax", "_masked_softmax", "_sparse_softmax"),
    ),
    "torch.log_softmax": Entry(
        (
            "nn.functional.log_softmax", "special.log_softmax", "nn.LogSoftmax", "masked.log_softmax",
            "sparse.log_softmax",
        ),
        ("log_softmax",),
        ("log_softmax", "_log_softmax", "special_log_softmax", "_sparse_log_softmax"),
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
        (
            "optim.AdamW", "optim.Adam", "optim.NAdam", "optim.RAdam", "optim.Adamax", "optim.SparseAdam",
            "optim._functional.adam", "optim._functional.sparse_adam",
            *(f"optim.{module}.{prefix}{module}" for module in ("adam", "nadam", "radam", "adamax")
              for prefix in ("", "_single_tensor_", "_multi_tensor_")),
            "optim.adam._fused_adam", "optim.adamw.adamw", "optim._adafactor.Adafactor",
        ),
        (),
        ("_fused_adamw_", "_fused_adam_", "_fused_adamw", "_fused_adam"),
    ),
    "nn.utils.clip_grad_norm_": Entry(
        (
            "nn.utils.clip_grad_norm_", "nn.utils.clip_grad_norm", "nn.utils.clip_grads_with_norm_",
            "nn.utils.get_total_norm", "nn.utils.clip_grad._clip_grads_with_norm_",
            "nn.utils.clip_grad._get_total_norm",
        )
    ),
    "F.group_norm": Entry(
        ("nn.functional.group_norm", "nn.GroupNorm"), (), ("group_norm", "native_group_norm"),
    ),
    "F.batch_norm": Entry(
        (
            "nn.functional.batch_norm", "nn.BatchNorm1d", "nn.BatchNorm2d", "nn.BatchNorm3d", "nn.SyncBatchNorm",
            "nn.LazyBatchNorm1d",
        ),
        (),
        ("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
         "_batch_norm_impl_index", "_batch_norm_with_update", "_batch_norm_no_update", "cudnn_batch_norm"),
    ),
    "F.instance_norm": Entry(
        ("nn.functional.instance_norm", "nn.InstanceNorm1d", "nn.InstanceNorm2d", "nn.InstanceNorm3d"),
        (),
        ("instance_norm",),
    ),
    "F.silu": Entry(("nn.functional.silu", "nn.SiLU"), (), ("silu", "silu_")),
    "F.normalize": Entry(("nn.functional.normalize",)),
    "F.cosine_similarity": Entry(
        ("nn.functional.cosine_similarity", "nn.CosineSimilarity"), (), ("cosine_similarity",)
    ),
    "torch.distributions": Entry(("distributions.Normal", "distributions.Categorical")),
    "nn.TransformerEncoderLayer": Entry(("nn.TransformerEncoderLayer",), (), ("_transformer_encoder_layer_fwd",)),
    "nn.TransformerDecoderLayer": Entry(("nn.TransformerDecoderLayer",)),
    "nn.TransformerEncoder": Entry(("nn.TransformerEncoder",)),
    "nn.TransformerDecoder": Entry(("nn.TransformerDecoder",)),
    "nn.Transformer": Entry(("nn.Transformer",)),
}  # fmt: skip
"""The name that a student knows -> everything that is the same thing."""

SOFTMAXES = ("torch.softmax", "torch.log_softmax")
"""What may be used once softmax has been written."""

PARTS = (*SOFTMAXES, "F.scaled_dot_product_attention", "nn.LayerNorm", "nn.RMSNorm", "F.gelu", "F.silu")
"""What may be used once the parts of a block have been written."""


def resolve(path: str, *, late: bool = False) -> Any:
    """What stands at a dotted path that begins with `torch`, or None. Reads attributes, calls nothing.

    A package may have deleted its module from itself (`torch.optim.adamw`), so modules are looked up by their names.

    Args:
        path: such as `torch.nn.GELU`.
        late: load modules that nobody has loaded yet.
    """
    names = path.split(".")[:9]
    if names[0] != "torch":
        return None
    found: Any = torch
    for place, name in enumerate(names[1:], start=2):
        owner = found
        try:
            found = getattr(owner, name, None)
            if found is None:
                module = ".".join(names[:place])
                found = sys.modules.get(module) or (importlib.import_module(module) if late else None)
        except Exception:  # a module that PyTorch loads late and that cannot be loaded here
            return None
    return found


def paths_of(name: str) -> list[str]:
    """The dotted paths, from `torch` on, of everything in a family that has one."""
    entry = TABLE[name]
    return [f"torch.{path}" for path in (*entry.paths, *(f"Tensor.{method}" for method in entry.methods))]


def family_of_path(path: str) -> str:
    """The family of what stands at a dotted path, by the path alone; empty if it has none."""
    return _paths().get(path, "")


@cache
def _paths() -> dict[str, str]:
    found = {f"torch.{path}": name for name, entry in TABLE.items() for path in (*entry.paths, *entry.operators)}
    for name, entry in TABLE.items():
        for path in entry.paths:
            found |= {path: name, path.replace("nn.functional.", "F."): name, f"torch.{path}": name}
            found |= {f"Tensor.{method}": name for method in entry.methods}
            thing = resolve(f"torch.{path}")
            thing = inspect.unwrap(thing) if inspect.isfunction(thing) else thing
            if inspect.isfunction(thing) or isinstance(thing, type):
                defined = f"{thing.__module__}.{thing.__qualname__}"
                found |= {defined: name, defined.removeprefix("torch."): name}
    return found


@cache
def families() -> dict[Any, str]:
    """Everything that belongs to a family -> its name: functions, classes, methods, and operators below them."""
    things: dict[Any, str] = {}
    for name, entry in TABLE.items():
        paths = [*paths_of(name), *(f"torch.{operator}" for operator in entry.operators)]
        things |= dict.fromkeys(filter(None, map(resolve, paths)), name)
        for packet in filter(None, (resolve(f"torch.ops.aten.{operator}") for operator in entry.operators)):
            things[packet] = name
            things |= {getattr(packet, overload): name for overload in packet.overloads()}
    return things
