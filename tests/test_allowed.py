"""Honest spellings stay free: each earns every point, is refused nowhere, and needs no second look."""

import linecache
import textwrap
from itertools import count
from typing import Any

import pytest

from autograder.checks import find
from autograder.doubts import needs_second_look
from autograder.judge import in_process, judge
from autograder.source import given_to, in_source

HEAD = """
import collections
import dataclasses
import functools
import heapq
import itertools
import math
import operator
import re
import types
from typing import TYPE_CHECKING

import numpy as np
import regex
import torch
import torch.nn.functional as F
from torch import Tensor, nn
"""
_END = "    e = torch.exp(x - x.amax(dim, keepdim=True))\n    return e / e.sum(dim, keepdim=True)\n"
_SOFTMAX = f"def softmax(x, dim=-1):\n{_END}"
_INIT = """
class LayerNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
"""
_CENTRE = "        c = x - x.mean(-1, keepdim=True)\n"
_MASKED = """
def scaled_dot_product_attention(query, key, value, mask=None):
    scores = SCORES / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = WEIGHTS
    if mask is not None:
        weights = weights * mask
    return OUTPUT, weights
"""
_STEP = """
class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise ValueError
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is None:
                    continue
                s = self.state[p]
                if not s:
                    s["step"], s["m"], s["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
                s["step"] += 1
                b1, b2 = g["betas"]
                UPDATE
        return loss
"""
_CE = """
def cross_entropy(logits, targets, ignore_index=-100, label_smoothing=0.0):
    if logits.shape[:-1] != targets.shape:
        raise ValueError
    keep = targets != ignore_index
    rows, ids = logits[keep], targets[keep]
    if len(ids) == 0:
        return logits.sum() * 0
    BODY
    return (1 - label_smoothing) * -chosen.mean() - label_smoothing * log_p.mean()
"""


def attention(scores: str = "query @ key.mT", weights: str = "softmax(scores)", output: str = "weights @ value") -> str:
    return _SOFTMAX + _MASKED.replace("SCORES", scores).replace("WEIGHTS", weights).replace("OUTPUT", output)


HONEST: dict[str, tuple[str, str]] = {
    # an exponential, a maximum and a sum, in many ways
    "logsumexp": ("attention.softmax", "def softmax(x, dim=-1):\n"
    "    return (x - x.logsumexp(dim, keepdim=True)).exp()"),
    "in place on an own copy": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    e = (x - x.amax(dim, keepdim=True)).exp_()\n"
        "    return e.clone().div_(e.sum(dim, keepdim=True))",
    ),
    "a root of numpy's": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    e = (x - x.amax(dim, keepdim=True)).exp() * np.sqrt(4.0)\n"
        "    return e / e.sum(dim, keepdim=True)",
    ),
    "einsum": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    y = x.movedim(dim, -1)\n    e = torch.exp(y - y.max(-1, keepdim=True).values)\n"
        "    return torch.einsum('...i,...->...i', e, 1 / e.sum(-1)).movedim(-1, dim)",
    ),
    "a loop": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    rows = [r - r.max() for r in x.movedim(dim, -1).reshape(-1, x.size(dim))]\n"
        "    out = torch.stack([r.exp() / sum(r.exp()) for r in rows])\n"
        "    return out.view(x.movedim(dim, -1).shape).movedim(-1, dim)",
    ),
    "vmap": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    y = x.movedim(dim, -1)\n"
        "    one = lambda r: torch.exp(r - r.max()) / torch.exp(r - r.max()).sum()\n"
        "    return torch.vmap(one)(y.reshape(-1, y.size(-1))).reshape(y.shape).movedim(-1, dim)",
    ),
    "cumsum": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    e = torch.exp(x - x.amax(dim, keepdim=True))\n"
        "    return e / e.cumsum(dim).narrow(dim, x.size(dim) - 1, 1)",
    ),
    "a custom autograd function": (
        "attention.softmax",
        "class Soft(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x, dim):\n"
        "        e = torch.exp(x - x.amax(dim, keepdim=True))\n        y = e / e.sum(dim, keepdim=True)\n"
        "        ctx.save_for_backward(y)\n        ctx.dim = dim\n        return y\n"
        "    @staticmethod\n    def backward(ctx, g):\n        (y,) = ctx.saved_tensors\n"
        "        return y * (g - (g * y).sum(ctx.dim, keepdim=True)), None\n"
        "def softmax(x, dim=-1):\n    return Soft.apply(x, dim)",
    ),
    "a namespace with a member called softmax": (
        "attention.softmax",
        f"def mine(x, dim=-1):\n{_END}ns = types.SimpleNamespace(softmax=mine)\n"
        "def softmax(x, dim=-1):\n    return ns.softmax(x, dim)",
    ),
    "a class with a method called softmax": (
        "attention.softmax",
        f"class Tools:\n    @staticmethod\n    def softmax(x, dim=-1):\n{textwrap.indent(_END, '    ')}\n"
        "def softmax(x, dim=-1):\n    return Tools.softmax(x, dim)",
    ),
    "a dataclass": (
        "attention.softmax",
        "@dataclasses.dataclass\nclass Along:\n    dim: int\n    def __call__(self, x):\n        dim = self.dim\n"
        + textwrap.indent(_END, "    ")
        + "def softmax(x, dim=-1):\n    return Along(dim)(x)",
    ),
    "reduce and a partial": (
        "attention.softmax",
        "def _sum(e, dim):\n    return functools.reduce(operator.add, e.unbind(dim)).unsqueeze(dim)\n"
        "def softmax(x, dim=-1):\n    e = torch.exp(x - x.amax(dim, keepdim=True))\n"
        "    return e / functools.partial(_sum, dim=dim)(e)",
    ),
    "a comparison beside it": (
        "attention.softmax",
        _SOFTMAX + "x = torch.randn(3, 4)\nassert torch.allclose(softmax(x), torch.softmax(x, -1))\n"
        "torch.testing.assert_close(softmax(x), F.softmax(x, -1))",
    ),
    "a test function beside it": (
        "attention.softmax",
        _SOFTMAX + "def test():\n    x = torch.randn(3)\n"
        "    return (softmax(x) - nn.Softmax(-1)(x)).abs().max()\ntest()",
    ),
    "a dead definition before it": (
        "attention.softmax", "def softmax(x, dim=-1):\n    return F.softmax(x, dim)\n\n" + _SOFTMAX
    ),
    "a dead definition within it": (
        "attention.softmax",
        f"def softmax(x, dim=-1):\n    def library(x):\n        return F.softmax(x, dim)\n{_END}",
    ),
    "a dead method": (
        "layers.LayerNorm",
        _INIT + "    def compare_with_pytorch(self, x):\n        return F.layer_norm(x, x.shape[-1:]) - self(x)\n"
        f"    def forward(self, x):\n{_CENTRE}"
        "        return c / (c.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias",
    ),
    "a dead import": ("attention.softmax", "from torch.nn.functional import softmax as theirs\n" + _SOFTMAX),
    "a debug branch": (
        "attention.softmax",
        "DEBUG = False\ndef softmax(x, dim=-1):\n    if DEBUG:\n        print(F.softmax(x, dim))\n" + _END,
    ),
    "a debug argument": (
        "attention.softmax",
        "def softmax(x, dim=-1, debug=False):\n    if debug:\n        return F.softmax(x, dim)\n" + _END,
    ),
    "if __debug__": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    e = torch.exp(x - x.amax(dim, keepdim=True))\n"
        "    y = e / e.sum(dim, keepdim=True)\n"
        "    if __debug__:\n        assert torch.allclose(y, F.softmax(x, dim))\n    return y",
    ),
    "an assertion": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    e = torch.exp(x - x.amax(dim, keepdim=True))\n"
        "    y = e / e.sum(dim, keepdim=True)\n"
        "    assert (y - torch.softmax(x, dim)).abs().max() < 1e-3, 'not alike'\n    return y",
    ),
    "assert_close": (
        "attention.softmax",
        "def softmax(x, dim=-1):\n    e = torch.exp(x - x.amax(dim, keepdim=True))\n"
        "    y = e / e.sum(dim, keepdim=True)\n"
        "    torch.testing.assert_close(y, F.softmax(x, dim=dim))\n    return y",
    ),
    "if False": (
        "attention.softmax", "def softmax(x, dim=-1):\n    if False:\n        return x.softmax(dim)\n" + _END
    ),
    "TYPE_CHECKING": (
        "attention.softmax",
        "if TYPE_CHECKING:\n    from torch import softmax as theirs\n" + _SOFTMAX,
    ),
    "words in strings and comments": (
        "attention.softmax",
        'def softmax(x, dim=-1):\n    """As torch.softmax(x, dim), or F.softmax."""\n    # not x.softmax(-1)\n' + _END,
    ),
    "an argument called softmax": (
        "attention.softmax",
        f"def apply(x, dim, softmax):\n    return softmax(x, dim)\ndef mine(x, dim):\n{_END}"
        "def softmax(x, dim=-1):\n    return apply(x, dim, mine)",
    ),
    "annotations and isinstance": (
        "attention.softmax",
        "def softmax(x: Tensor, dim: int = -1, like: nn.Softmax | None = None) -> 'torch.softmax':\n"
        "    if isinstance(like, nn.Softmax) or type(like) is nn.LogSoftmax:\n        dim = like.dim\n" + _END,
    ),
    # matrix products
    "matmul": ("attention.scaled_dot_product_attention", attention("torch.matmul(query, key.transpose(-2, -1))")),
    "einsum of two": (
        "attention.scaled_dot_product_attention",
        attention("torch.einsum('...qd,...kd->...qk', query, key)", output=
                  "torch.einsum('...qk,...kd->...qd', weights, value)"),
    ),
    "PyTorch's softmax": ("attention.scaled_dot_product_attention", attention(weights="F.softmax(scores, dim=-1)")),
    "a product and a sum": (
        "attention.scaled_dot_product_attention",
        attention("(query.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1)", output=
                  "(weights.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2)"),
    ),
    "bmm": (
        "attention.scaled_dot_product_attention",
        "def _bmm(a, b):\n    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])\n"
        "    one, two = (t.expand(*shape, *t.shape[-2:]).reshape(-1, *t.shape[-2:]) for t in (a, b))\n"
        "    return torch.bmm(one, two).reshape(*shape, a.size(-2), b.size(-1))\n"
        + attention("_bmm(query, key.mT)", output="_bmm(weights, value)"),
    ),
    # norms
    "var_mean": (
        "layers.LayerNorm",
        _INIT + "    def forward(self, x):\n        v, m = torch.var_mean(x, -1, correction=0, keepdim=True)\n"
        "        return (x - m) * torch.rsqrt(v + self.eps) * self.weight + self.bias",
    ),
    "baddbmm": (
        "layers.LayerNorm",
        _INIT + f"    def forward(self, x):\n{_CENTRE}"
        "        y = c / (c.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()\n"
        "        flat = y.reshape(1, -1, y.size(-1))\n"
        "        return torch.baddbmm(self.bias.expand_as(flat), flat, torch.diag(self.weight)[None]).view_as(x)",
    ),
    "two helpers in another class": (
        "layers.LayerNorm",
        "class Moments(nn.Module):\n    def norm(self, x, eps):\n        c = x - x.mean(-1, keepdim=True)\n"
        "        return c / (c.square().mean(-1, keepdim=True) + eps).sqrt()\n"
        + _INIT + "        self.moments = Moments()\n"
        "    def forward(self, x):\n        return self.moments.norm(x, self.eps) * self.weight + self.bias",
    ),
    "a buffer": (
        "layers.LayerNorm",
        _INIT + "        self.register_buffer('one', torch.ones(()), persistent=False)\n"
        f"    def forward(self, x):\n{_CENTRE}"
        "        return c / (c.square().mean(-1, keepdim=True) + self.eps * self.one).sqrt() * self.weight + self.bias",
    ),
    "linalg": (
        "layers.RMSNorm",
        "class RMSNorm(nn.Module):\n    def __init__(self, d_model, eps=1e-5):\n        super().__init__()\n"
        "        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps\n    def forward(self, x):\n"
        "        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.size(-1)\n"
        "        return x / (square + self.eps).sqrt() * self.weight",
    ),
    # activations
    "erf and tanh": (
        "layers.gelu",
        "def gelu(x, approximate='none'):\n    if approximate == 'none':\n"
        "        return x * 0.5 * (1 + torch.erf(x / 2**0.5))\n"
        "    if approximate == 'tanh':\n"
        "        return x * 0.5 * (1 + torch.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * torch.pow(x, 3))))\n"
        "    raise ValueError(approximate)",
    ),
    "where": (
        "layers.gelu",
        "def gelu(x, approximate='none'):\n"
        "    phi = {'none': lambda: torch.special.ndtr(x), 'tanh': lambda: torch.sigmoid(\n"
        "        2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))}\n    if approximate not in phi:\n"
        "        raise ValueError\n    return torch.where(x == 0, x, x * phi[approximate]())",
    ),
    "scripted": (
        "layers.gelu",
        "@torch.jit.script\ndef _exact(x):\n    return x * 0.5 * (1.0 + torch.erf(x / 1.4142135623730951))\n"
        "def gelu(x, approximate='none'):\n    if approximate == 'none':\n        return _exact(x)\n"
        "    if approximate != 'tanh':\n        raise ValueError\n"
        "    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))",
    ),
    # losses
    "gather": (
        "training.cross_entropy",
        _CE.replace("BODY", "log_p = rows - rows.logsumexp(-1, keepdim=True)\n"
        "    chosen = log_p.gather(-1, ids[:, None])"),
    ),
    "log_softmax": (
        "training.cross_entropy",
        _CE.replace("BODY", "log_p = F.log_softmax(rows, dim=-1)\n    chosen = log_p[torch.arange(len(ids)), ids]"),
    ),
    "one_hot": (
        "training.cross_entropy",
        _CE.replace("BODY", "log_p = rows - torch.logsumexp(rows, -1, keepdim=True)\n"
                    "    chosen = (log_p * F.one_hot(ids, rows.size(-1)).to(rows.dtype)).sum(-1)"),
    ),
    "take_along_dim": (
        "training.cross_entropy",
        _CE.replace("BODY", "top = rows.max(-1, keepdim=True).values\n"
                    "    log_p = rows - top - (rows - top).exp().sum(-1, keepdim=True).log()\n"
                    "    chosen = torch.take_along_dim(log_p, ids.unsqueeze(-1), dim=-1)"),
    ),
    # optimisers
    "lerp and addcdiv": (
        "training.AdamW",
        _STEP.replace("UPDATE", """p.mul_(1 - g["lr"] * g["weight_decay"])
                s["m"].lerp_(p.grad, 1 - b1)
                s["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                root = (s["v"] / (1 - b2 ** s["step"])).sqrt_().add_(g["eps"])
                p.addcdiv_(s["m"], root, value=-g["lr"] / (1 - b1 ** s["step"]))"""),
    ),
    "foreach": (
        "training.AdamW",
        _STEP.replace("UPDATE", """p.mul_(1 - g["lr"] * g["weight_decay"])
                torch._foreach_mul_([s["m"]], b1)
                torch._foreach_add_([s["m"]], [p.grad], alpha=1 - b1)
                s["v"] = b2 * s["v"] + (1 - b2) * p.grad**2
                m, v = s["m"] / (1 - b1 ** s["step"]), s["v"] / (1 - b2 ** s["step"])
                p.data -= g["lr"] * m / (v**0.5 + g["eps"])"""),
    ),
    "a long vector": (
        "training.clip_gradients",
        "def clip_gradients(parameters, max_norm):\n    grads = [p.grad for p in parameters if p.grad is not None]\n"
        "    if not grads:\n        return torch.tensor(0.0)\n"
        "    total = torch.cat([g.flatten() for g in grads]).norm()\n"
        "    for g in grads:\n        g.mul_(torch.clamp(max_norm / (total + 1e-6), max=1.0))\n    return total",
    ),
    # positions and masks
    "bucketize": (
        "attention.causal_mask",
        "def causal_mask(length):\n    places = torch.arange(length)\n"
        "    return torch.bucketize(places, places)[None, :] <= places[:, None]",
    ),
    "scatter": (
        "generation.repetition_penalty",
        "def repetition_penalty(logits, ids, penalty):\n    if penalty < 1:\n        raise ValueError\n"
        "    seen = logits.gather(1, ids)\n    seen = torch.where(seen > 0, seen / penalty, seen * penalty)\n"
        "    return logits.scatter(1, ids, seen)",
    ),
    "sorted shares": (
        "generation.top_k_filter",
        "def top_k_filter(logits, k):\n    if not 1 <= k <= logits.shape[-1]:\n        raise ValueError\n"
        "    lowest = torch.sort(logits, dim=-1, descending=True)[0][..., k - 1 : k]\n"
        "    return torch.where(logits < lowest, -torch.inf, logits)",
    ),
    # texts
    "a Counter": ("tokenization.count_pairs", "def count_pairs(ids):\n"
    "    return collections.Counter(zip(ids, ids[1:]))"),
    "pairwise": (
        "tokenization.count_pairs",
        "def count_pairs(ids):\n    found = {}\n    for pair in itertools.pairwise(ids):\n"
        "        found[pair] = found.get(pair, 0) + 1\n    return found",
    ),
    "a heap": (
        "tokenization.most_common_pair",
        "def most_common_pair(pairs, vocab):\n"
        "    most = heapq.nlargest(1, pairs, key=lambda p: (pairs[p], vocab[p[0]], vocab[p[1]]))\n    return most[0]",
    ),
    "a regular expression": (
        "tokenization.wordpiece",
        "def wordpiece(word, vocab, unknown='[UNK]'):\n    pieces, start = [], 0\n    while start < len(word):\n"
        "        head = '##' if start else ''\n        for end in range(len(word), start, -1):\n"
        "            if head + word[start:end] in vocab:\n"
        "                pieces.append(re.sub('^', head, word[start:end], count=1))\n                break\n"
        "        else:\n            return [unknown]\n        start = end\n    return pieces",
    ),
    "math": (
        "training.warmup_cosine",
        "def warmup_cosine(step, max_lr, min_lr, warmup_steps, total_steps):\n    if total_steps <= warmup_steps:\n"
        "        raise ValueError\n    if step < warmup_steps:\n        return max_lr * step / warmup_steps\n"
        "    part = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))\n"
        "    return float(min_lr + (max_lr - min_lr) * 0.5 * (1 + np.cos(np.pi * part)))",
    ),
}  # fmt: skip

_cells = count()


def target_of(source: str, symbol: str) -> Any:
    """Run a cell as a notebook does, so that its lines can be found again."""
    name = f"<honest {next(_cells)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), namespace)
    return namespace[symbol]


def test_there_are_enough() -> None:
    assert len(HONEST) >= 40
    assert len({exercise for exercise, _ in HONEST.values()}) >= 10


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_spelling_earns_all_points(name: str) -> None:
    exercise, source = HONEST[name]
    check = find(exercise)
    source = HEAD + "\n" + source + "\n"
    assert in_source([source], check.symbol, check.builds_on, given_to(check)) == []
    result = judge(check, in_process(target_of(source, check.symbol)), graded=True, sources=[source])
    assert (result.points, result.messages) == (result.max_points, [])


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_spelling_needs_no_second_look(name: str) -> None:
    exercise, source = HONEST[name]
    may = {"a namespace with a member called softmax", "a class with a method called softmax"}
    reason = needs_second_look(find(exercise), [HEAD, source])
    assert not reason or name in may


class TestComparisons:
    """What an assertion within the definition may not do: keep what it compares with."""

    @pytest.mark.parametrize(
        "line",
        [
            "assert kept.append(F.softmax(x, dim)) is None",
            "assert torch.softmax(x, dim, out=y) is y",
            "assert y.copy_(F.softmax(x, dim)) is y",
            "assert (z := F.softmax(x, dim)) is not None; y = z",
            "assert cache.add(F.softmax(x, dim)) is None",
            "assert keep(F.softmax(x, dim))",
            "assert torch.allclose(y, y) or keep(F.softmax(x, dim))",
            "assert True, f'{keep(F.softmax(x, dim))}'",
        ],
    )
    def test_a_result_that_goes_elsewhere_is_a_use(self, line: str) -> None:
        source = HEAD + f"def softmax(x, dim=-1):\n    y = torch.empty_like(x)\n    {line}\n    return y\n"
        assert {use.name for use in in_source([source], "softmax")} == {"torch.softmax"}

    def test_a_debug_switch_that_is_turned_on_is_live(self) -> None:
        body = "def softmax(x, dim=-1):\n    if DEBUG:\n        return F.softmax(x, dim)\n    return x.exp()\n"
        for switch in (
            "DEBUG = False\nDEBUG = True\n",
            "DEBUG = 1\n",
            "def on():\n    global DEBUG\n    DEBUG = True\n",
        ):
            assert in_source([HEAD, "DEBUG = False\n" if "def" in switch else "", switch, body], "softmax")

    def test_a_debug_argument_that_somebody_gives_is_live(self) -> None:
        body = "def soft(x, dim, fast=False):\n    if fast:\n        return F.softmax(x, dim)\n    return x.exp()\n"
        for call in ("soft(x, dim, True)", "soft(x, dim, fast=True)", "soft(*[x, dim, True])", "soft(**dict(x=x))"):
            assert in_source([HEAD, body, f"def softmax(x, dim=-1):\n    return {call}\n"], "softmax"), call
