"""The answer of each exercise that must be built from primitives, made of a library: what a check must refuse.

Each is what a student would write in the exercise's cell: one template an exercise, with every way to spell the call.
"""

import textwrap

from autograder.checks import Check, Named, build
from autograder.package_calls import FROM_PACKAGES

_IMPORTS = """
import importlib

import torch
from torch import nn
from torch.nn import functional as F
"""

_SOFTMAX = "def softmax(x, dim=-1):\n    return CALL"
_ATTENTION = """
def scaled_dot_product_attention(query, key, value, mask=None):
    size = query.size(-2), key.size(-2)
    allowed = torch.ones(size, dtype=torch.bool) if mask is None else mask
    batch = value.shape[:-2]
    allowed = allowed.expand(*batch, *size)
    identity = torch.eye(key.size(-2), dtype=value.dtype).expand(*batch, -1, -1)
    output, weights = (CALL for value in (value, identity))
    return output, weights
"""
_MULTI_HEAD = """
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, num_heads, num_kv_heads=None, bias=True, dropout=0.0):
        super().__init__()
        self.num_heads, self.d_model = num_heads, d_model
        narrow = d_model // num_heads * (num_kv_heads or num_heads)
        self.query, self.output = (nn.Linear(d_model, d_model, bias=bias) for _ in range(2))
        self.key, self.value = (nn.Linear(d_model, narrow, bias=bias) for _ in range(2))
        BUILT

    def forward(self, x, context=None, mask=None, attend=None):
        context = x if context is None else context
        return CALL
"""
_FUNCTIONAL = """F.multi_head_attention_forward(
            x.mT, context.mT, context.mT, self.d_model, self.num_heads, None, None, None, None, False, 0.0,
            self.output.weight, self.output.bias)[0]"""
_NORM = """
class NAME(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps, self.shape = eps, (d_model,)
        self.weight = nn.Parameter(torch.ones(d_model))
        BIAS

    def forward(self, x):
        return CALL
"""
_LAYER_NORM = _NORM.replace("NAME", "LayerNorm").replace("BIAS", "self.bias = nn.Parameter(torch.zeros(d_model))")
_RMS_NORM = _NORM.replace("NAME", "RMSNorm").replace("BIAS", "pass")
_GELU = """
def gelu(x, approximate="none"):
    if approximate not in ("none", "tanh"):
        raise ValueError(approximate)
    return CALL
"""
_LAYER = "(config.d_model, config.num_heads, batch_first=True)"
_ENCODER_LAYER, _DECODER_LAYER = f"nn.TransformerEncoderLayer{_LAYER}", f"nn.TransformerDecoderLayer{_LAYER}"
_ENCODER, _DECODER = f"nn.TransformerEncoder({_ENCODER_LAYER}, 2)", f"nn.TransformerDecoder({_DECODER_LAYER}, 2)"
_BOTH = "nn.Transformer(config.d_model, config.num_heads, batch_first=True)"


_CROSS_ENTROPY = """
def cross_entropy(logits, targets, ignore_index=-100, label_smoothing=0.0):
    if logits.shape[:-1] != targets.shape:
        raise ValueError
    if (targets == ignore_index).all():
        return logits.sum() * 0
    rows, ids = logits.reshape(-1, logits.size(-1)), targets.flatten()
    log_p = rows - rows.logsumexp(-1, keepdim=True)
    return CALL
"""
_MASKED_LOSS = """
def masked_lm_loss(logits, labels):
    chosen = labels != -100
    if not chosen.any():
        return logits.sum() * 0
    rows, ids = logits[chosen], labels[chosen]
    log_p = rows - rows.logsumexp(-1, keepdim=True)
    return CALL
"""
_NLL = "* (1 - label_smoothing) - label_smoothing * log_p[ids != ignore_index].mean()"
_CLIP = """
def clip_gradients(parameters, max_norm):
    return CALL
"""


_FUNCTIONAL_ADAM = """
from torch.optim.MODULE import NAME
class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state["means"] = [torch.zeros_like(p), torch.zeros_like(p), torch.tensor(0.0)]
                    lists = [p], [p.grad], *([one] for one in state["means"][:2]), [], [state["means"][2]]
                    settings = {
                        "beta1": group["betas"][0], "beta2": group["betas"][1], "lr": group["lr"],
                        "weight_decay": group["weight_decay"], "eps": group["eps"], "maximize": False,
                    }
                    CALL
"""


def _model(name: str) -> str:
    return f"""
class {name}(nn.Module):
    def __init__(self, config, cross_attention=False):
        super().__init__()
        self.inner = CALL

    def forward(self, x, *rest):
        return self.inner(x, *rest)
"""


def _encoders(name: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        ("nn.TransformerEncoder", _model(name), (_ENCODER,)),
        ("nn.TransformerEncoderLayer", _model(name), (_ENCODER_LAYER,)),
        ("nn.Transformer", _model(name), (f"{_BOTH}.encoder",)),
    ]


CALLS: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {
    "attention.softmax": [
        (
            "torch.softmax",
            _SOFTMAX,
            (
                "torch.softmax(x, dim)", "F.softmax(x, dim)", "torch.nn.functional.softmax(x, dim=dim)",
                "torch.special.softmax(x, dim)", "x.softmax(dim)", "torch.Tensor.softmax(x, dim)", "nn.Softmax(dim)(x)",
                "nn.Softmax(dim).forward(x)", "F.softmin(-x, dim)", "nn.Softmin(dim)(-x)",
                "torch._softmax(x, dim, False)",
                "torch._safe_softmax(x, dim)", "torch.masked.softmax(x, dim)", "torch.ops.aten.softmax(x, dim)",
                "torch.ops.aten._softmax.default(x, dim, False)", "getattr(torch, 'softmax')(x, dim)",
                "getattr(x, 'softmax')(dim)", "torch.func.vmap(lambda row: torch.softmax(row, -1))(x.mT).mT "
                "if x.dim() == 2 and dim == 0 else torch.softmax(x, dim)",
            ),
        ),
        (
            "torch.log_softmax",
            _SOFTMAX,
            (
                "F.log_softmax(x, dim).exp()", "torch.log_softmax(x, dim).exp()", "torch.exp(x.log_softmax(dim))",
                "nn.LogSoftmax(dim)(x).exp()", "torch.special.log_softmax(x, dim).exp()",
                "torch._log_softmax(x, dim, False).exp()", "torch.masked.log_softmax(x, dim).exp()",
                "torch.ops.aten.log_softmax(x, dim).exp()",
            ),
        ),
        ("torch._refs.softmax", _SOFTMAX, ("torch._refs.softmax(x, dim)",)),
        ("torch._refs.special.softmax", _SOFTMAX, ("torch._refs.special.softmax(x, dim)",)),
        (
            "torch._decomp.decompositions._softmax", _SOFTMAX,
            ("torch._decomp.decompositions._softmax(x, dim, False)",),
        ),
        ("torch.softmax", "CALL", (
            "def softmax(x, dim=-1):\n    return torch.jit.script(F.softmax)(x, dim)",
            "softmax = torch.compile(F.softmax, backend='eager')",
            "class _Box:\n    run = staticmethod(torch.softmax)\ndef softmax(x, dim=-1):\n    return _Box.run(x, dim)",
            "_table = {'soft': torch.softmax}\ndef softmax(x, dim=-1):\n    return _table['soft'](x, dim)",
            "def softmax(x, dim=-1, library=True):\n"
            "    return F.softmax(x, dim) if library else x.exp() / x.exp().sum(dim, keepdim=True)",
        )),
        ("torch.distributions", _SOFTMAX, (
            "torch.distributions.Categorical(logits=x.movedim(dim, -1)).probs.movedim(-1, dim)",
        )),
        ("scipy", _SOFTMAX, (
            "torch.from_numpy(__import__('scipy.special').special.softmax(x.detach().numpy(), dim))",
            "torch.from_numpy(importlib.import_module('scipy.special').softmax(x.detach().numpy(), dim))",
        )),
    ],
    "attention.scaled_dot_product_attention": [
        (
            "F.scaled_dot_product_attention",
            _ATTENTION,
            (
                "F.scaled_dot_product_attention(query, key, value, allowed)",
                "torch.ops.aten.scaled_dot_product_attention(query, key, value, allowed)",
                "torch._C._nn.scaled_dot_product_attention(query, key, value, attn_mask=allowed)",
                "getattr(F, 'scaled_dot_product_attention')(query, key, value, allowed)",
                "torch._scaled_dot_product_attention_math(query, key, value, allowed)[0]",
                "torch.nn.attention.flex_attention.flex_attention(query[None], key[None], value[None])[0]",
            ),
        ),
        (
            "nn.MultiheadAttention",
            _ATTENTION,
            ("nn.MultiheadAttention(query.size(-1), 1, batch_first=True).double()(query, key, value)[0]",),
        ),
    ],
    "attention.MultiHeadAttention": [
        (
            "nn.MultiheadAttention",
            _MULTI_HEAD.replace("BUILT", "self.inner = nn.MultiheadAttention(d_model, num_heads)"),
            ("self.inner(x, context, context)[0]",),
        ),
        ("nn.MultiheadAttention", _MULTI_HEAD.replace("BUILT", "pass"), (_FUNCTIONAL,)),
    ],
    "layers.LayerNorm": [
        (
            "nn.LayerNorm",
            _LAYER_NORM,
            (
                "F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)",
                "torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps)",
                "torch.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)[0]",
                "torch.ops.aten.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)[0]",
                "nn.LayerNorm(self.shape, self.eps, dtype=x.dtype)(x) * self.weight + self.bias",
            ),
        ),
        ("nn.LayerNorm", "CALL", ("class LayerNorm(nn.LayerNorm):\n    pass", "LayerNorm = nn.LayerNorm")),
        ("F.group_norm", _LAYER_NORM, (
            "F.group_norm(x.reshape(-1, *self.shape), 1, self.weight, self.bias, self.eps).view_as(x)",
            "torch.group_norm(x.reshape(-1, *self.shape), 1, self.weight, self.bias, self.eps).view_as(x)",
            "nn.GroupNorm(1, *self.shape, self.eps, dtype=x.dtype)(x.reshape(-1, *self.shape)).view_as(x) "
            "* self.weight + self.bias",
            "torch.ops.aten.native_group_norm(x.reshape(-1, *self.shape), self.weight, self.bias, "
            "x.numel() // x.size(-1), x.size(-1), 1, 1, self.eps)[0].view_as(x)",
        )),
        ("F.batch_norm", _LAYER_NORM, (
            "F.batch_norm(x.reshape(-1, *self.shape).T, None, None, training=True, eps=self.eps).T.reshape(x.shape) "
            "* self.weight + self.bias",
            "torch.native_batch_norm(x.reshape(-1, *self.shape).T, None, None, None, None, True, 0.0, self.eps)[0]"
            ".T.reshape(x.shape) * self.weight + self.bias",
        )),
        ("F.instance_norm", _LAYER_NORM, (
            "F.instance_norm(x.reshape(1, -1, *self.shape), eps=self.eps).view_as(x) * self.weight + self.bias",
        )),
        ("torch._refs.nn.functional.layer_norm", _LAYER_NORM, (
            "torch._refs.nn.functional.layer_norm(x, self.shape, self.weight, self.bias, self.eps)",
        )),
        ("torch._refs.native_layer_norm", _LAYER_NORM, (
            "torch._refs.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)[0]",
        )),
    ],
    "layers.RMSNorm": [
        (
            "nn.RMSNorm",
            _RMS_NORM,
            (
                "F.rms_norm(x, self.shape, self.weight, self.eps)",
                "torch.rms_norm(x, self.shape, self.weight, self.eps)",
                "torch._fused_rms_norm(x, self.shape, self.weight, self.eps)[0]",
                "torch.ops.aten.rms_norm(x, self.shape, self.weight, self.eps)",
                "nn.RMSNorm(self.shape, self.eps, dtype=x.dtype)(x) * self.weight",
            ),
        ),
        (
            "nn.RMSNorm",
            "CALL",
            (
                "class RMSNorm(nn.RMSNorm):\n"
                "    def __init__(self, d_model, eps=1e-5):\n        super().__init__(d_model, eps=eps)",
            ),
        ),
        ("F.normalize", _RMS_NORM, ("F.normalize(x, dim=-1) * x.size(-1) ** 0.5 * self.weight",)),
        ("transformers", "CALL", (
            "class RMSNorm(nn.Module):\n    def __init__(self, d_model, eps=1e-5):\n        super().__init__()\n"
            "        from transformers.models.llama.modeling_llama import LlamaRMSNorm\n"
            "        self.inner = LlamaRMSNorm(d_model, eps)\n        self.weight = self.inner.weight\n"
            "    def forward(self, x):\n        return self.inner(x)",
        )),
    ],
    "layers.gelu": [
        (
            "F.gelu",
            _GELU,
            (
                "F.gelu(x, approximate=approximate)", "nn.GELU(approximate)(x)",
                "torch._C._nn.gelu(x, approximate=approximate)",
                "torch._C._nn.gelu_(x.clone(), approximate=approximate)",
                "torch.ops.aten.gelu(x, approximate=approximate)", "getattr(F, 'gelu')(x, approximate=approximate)",
                "torch.jit.script(F.gelu)(x, approximate=approximate)",
            ),
        ),
        ("torch._refs.nn.functional.gelu", _GELU, ("torch._refs.nn.functional.gelu(x, approximate)",)),
        ("F.silu", _GELU, ("F.silu(1.702 * x) / 1.702", "nn.SiLU()(1.702 * x) / 1.702")),
        ("transformers", "CALL", (
            "def gelu(x, approximate='none'):\n    from transformers.activations import ACT2FN\n"
            "    return ACT2FN[{'none': 'gelu', 'tanh': 'gelu_new'}[approximate]](x)",
            "def gelu(x, approximate='none'):\n    import transformers.activations as a\n"
            "    return a.GELUActivation()(x) if approximate == 'none' else a.NewGELUActivation()(x)",
        )),
        ("solutions.block._FusedFeedForward", "CALL", (
            "def gelu(x, approximate='none'):\n    from solutions.block import _FusedFeedForward\n"
            "    return _FusedFeedForward(x)",
        )),
    ],
    "training.cross_entropy": [
        (
            "F.cross_entropy",
            _CROSS_ENTROPY,
            (
                "F.cross_entropy(rows, ids, ignore_index=ignore_index, label_smoothing=label_smoothing)",
                "nn.CrossEntropyLoss(ignore_index=ignore_index, label_smoothing=label_smoothing)(rows, ids)",
                "torch.ops.aten.cross_entropy_loss(rows, ids, None, 1, ignore_index, label_smoothing)",
                "getattr(F, 'cross_entropy')(rows, ids, None, None, ignore_index, label_smoothing=label_smoothing)",
            ),
        ),
        (
            "F.nll_loss",
            _CROSS_ENTROPY,
            (
                f"F.nll_loss(log_p, ids, ignore_index=ignore_index) {_NLL}",
                f"nn.NLLLoss(ignore_index=ignore_index)(log_p, ids) {_NLL}",
                f"torch.ops.aten.nll_loss(log_p, ids, None, 1, ignore_index) {_NLL}",
            ),
        ),
        ("F.kl_div", _CROSS_ENTROPY, (
            "F.kl_div(log_p, F.one_hot(ids, rows.size(-1)).to(rows.dtype), reduction='batchmean')",
        )),
        ("nn.AdaptiveLogSoftmaxWithLoss", _CROSS_ENTROPY, (
            "nn.AdaptiveLogSoftmaxWithLoss(4, rows.size(-1), [2])(rows, ids).loss",
        )),
        ("transformers", _CROSS_ENTROPY, (
            "__import__('transformers').trainer_pt_utils.LabelSmoother(label_smoothing)({'logits': rows}, ids)",
        )),
    ],
    "training.AdamW": [
        (
            "torch.optim.AdamW",
            "CALL",
            (
                "class AdamW(torch.optim.AdamW):\n    pass", "AdamW = torch.optim.AdamW",
                "class AdamW(torch.optim.AdamW):\n    def step(self, *rest):\n        return super().step(*rest)",
                "class AdamW(torch.optim.Adam):\n"
                "    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):\n"
                "        super().__init__(params, lr, betas, eps, weight_decay, decoupled_weight_decay=True)",
                _FUNCTIONAL_ADAM.replace("CALL", "adamw(*lists, foreach=False, fused=False, amsgrad=False, **settings)")
                .replace("MODULE", "adamw").replace("NAME", "adamw"),
                _FUNCTIONAL_ADAM.replace("CALL", "_single_tensor_adam(*lists, None, None, amsgrad=False, **settings, "
                    "differentiable=False, capturable=False, has_complex=False, decoupled_weight_decay=True)")
                .replace("MODULE", "adam").replace("NAME", "_single_tensor_adam"),
            ),
        ),
        ("torch.optim.sgd.SGD", "CALL", ("class AdamW(torch.optim.SGD):\n    pass",)),
    ],
    "training.clip_gradients": [
        (
            "nn.utils.clip_grad_norm_",
            _CLIP,
            (
                "nn.utils.clip_grad_norm_(parameters, max_norm)",
                "torch.nn.utils.clip_grad.clip_grad_norm_(parameters, max_norm)",
                "getattr(nn.utils, 'clip_grad_norm_')(parameters, max_norm)",
                "torch.jit.script(nn.utils.clip_grad_norm_)(list(parameters), max_norm)",
                "nn.utils.get_total_norm([p.grad for p in parameters])",
            ),
        ),
    ],
    "block.TransformerBlock": [
        ("nn.TransformerEncoderLayer", _model("TransformerBlock"), (_ENCODER_LAYER,)),
        ("nn.TransformerDecoderLayer", _model("TransformerBlock"), (_DECODER_LAYER,)),
    ],
    "transformer.Encoder": _encoders("Encoder"),
    "transformer.Decoder": [
        ("nn.TransformerDecoder", _model("Decoder"), (_DECODER,)),
        ("nn.TransformerDecoderLayer", _model("Decoder"), (_DECODER_LAYER,)),
        ("nn.Transformer", _model("Decoder"), (f"{_BOTH}.decoder",)),
    ],
    "transformer.EncoderDecoder": [
        ("nn.Transformer", _model("EncoderDecoder"), (_BOTH,)),
        ("nn.TransformerEncoder", _model("EncoderDecoder"), (_ENCODER,)),
        ("nn.TransformerDecoder", _model("EncoderDecoder"), (_DECODER,)),
    ],
    "bert.masked_lm_loss": [
        (
            "F.cross_entropy",
            _MASKED_LOSS,
            (
                "F.cross_entropy(rows, ids)", "nn.CrossEntropyLoss()(rows, ids)",
                "torch.ops.aten.cross_entropy_loss(rows, ids)", "getattr(F, 'cross_entropy')(rows, ids)",
            ),
        ),
        (
            "F.nll_loss",
            _MASKED_LOSS,
            ("F.nll_loss(log_p, ids)", "nn.NLLLoss()(log_p, ids)", "torch.ops.aten.nll_loss(log_p, ids)"),
        ),
    ],
    "bert.MaskedLanguageModel": _encoders("MaskedLanguageModel"),
    "gpt.CausalLanguageModel": _encoders("CausalLanguageModel"),
    "attention.causal_mask": [
        (
            "nn.Transformer",
            "def causal_mask(length):\n    return CALL",
            ("nn.Transformer.generate_square_subsequent_mask(length) == 0",),
        ),
    ],
    "attention.SelfAttention": [
        (
            "nn.MultiheadAttention",
            "class SelfAttention(nn.Module):\n    def __init__(self, d_model, d_head):\n        super().__init__()\n"
            "        self.query, self.key, self.value = (nn.Linear(d_model, d_head, bias=False) for _ in range(3))\n"
            "    def forward(self, x, mask=None):\n        return CALL",
            ("nn.MultiheadAttention(self.query.out_features, 1)(self.query(x), self.key(x), self.value(x))[0]",),
        ),
    ],
    **FROM_PACKAGES,
}  # fmt: skip
"""Exercise -> what is used, a template, and the calls that stand in it."""


def library_calls(check: Check) -> list[Named]:
    """The exercise's answers that use what it forbids; the message is the diagnosis that each must get."""
    made = []
    for used, template, calls in CALLS.get(check.name, []):
        for call in calls:
            source = _IMPORTS + textwrap.dedent(template).replace("CALL", call)
            made.append(Named(call, build(source, check.reference), source, f"uses {used}"))
    return made
