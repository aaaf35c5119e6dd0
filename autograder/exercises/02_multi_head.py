"""Checks of chapter 02: heads as reshapes, heads that share keys and values, and multi-head attention as a module."""

from typing import ClassVar

import torch
from torch import Tensor

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, same, same_gradients, same_shape
from autograder.forbidden import SOFTMAXES
from autograder.probe import gradients, load_weights
from solutions import attention

NO_ERROR = "No ValueError was raised, though {}. Without it the mistake shows up later, or not at all."
NO_DIRECTION = "exchanging two axes has no direction"
NOT_NEGATIVE = "a remainder of positive numbers is never negative"


@exercise(
    "attention.split_heads",
    parts={"pieces": 1, "error": 1},
    claims=("error",),
    difficulty=1,
    minutes=10,
    read="02_multi_head#split-and-merge",
)
class SplitHeads(Check):
    """Which component of which position lands where, gradients, and a width that cannot be divided."""

    equivalent: ClassVar = {
        "split_heads: if x.size(-1) % num_heads != 0: -> if x.size(-1) % num_heads > 0:": NOT_NEGATIVE,
        "split_heads: return x.reshape(*x.shape[:-1], num_heads, -1).transpose(1, 2)"
        " -> return x.reshape(*x.shape[:-1], num_heads, -1).transpose(2, 1)": NO_DIRECTION,
    }

    def prepare(self, rng):
        yield Case("2 sequences of 3, 2 heads", {"x": rng.normal(2, 3, 8), "num_heads": 2}, "pieces")
        yield Case("as many heads as positions", {"x": rng.normal(2, 4, 12), "num_heads": 4}, "pieces")
        yield Case("one head", {"x": rng.normal(2, 3, 4), "num_heads": 1}, "pieces")
        yield Case("heads of width 1", {"x": rng.normal(1, 5, 3), "num_heads": 3}, "pieces")
        x = rng.normal(3, 2, 6, dtype=torch.float32)
        yield Case("float32", {"x": x, "num_heads": 3}, "pieces", hidden=True)
        yield Case("a width of 8 for 3 heads", {"x": rng.normal(2, 3, 8), "num_heads": 3}, "error")
        yield Case("a width of 4 for 8 heads", {"x": rng.normal(2, 2, 4), "num_heads": 8}, "error")

    @staticmethod
    def probe(split_heads, case, /):
        try:
            y = split_heads(case.x, case.num_heads)
        except ValueError:
            return {"error": "ValueError"}
        x = case.x.clone().requires_grad_()
        return {"y": y, "gradients": gradients(split_heads(x, case.num_heads), {"x": x})}

    def judge(self, case, got):
        yield from _pieces(case, got, attention.split_heads, "num_heads does not divide the width of x")


def _pieces(case, got, reference, broken):
    """Judge a function of (x, num_heads) that must raise ValueError where `broken` is true."""
    if case.part == "error":
        yield holds(hasattr(got, "error"), NO_ERROR.format(broken))
        return
    yield holds(not hasattr(got, "error"), "A ValueError was raised for sizes that fit.")
    x = case.x.clone().requires_grad_()
    right = reference(x, case.num_heads)
    yield same(got.y, right.detach())
    yield from same_gradients(got.gradients, gradients(right, {"x": x}))


_RESHAPED = "x.reshape(*x.shape[:-1], num_heads, -1).transpose(1, 2)"
slip(
    SplitHeads,
    "reshapes to the wanted shape at once",
    "The shape is right and the contents are not. Reshaping straight to (B, H, T, D/H) deals out the numbers in the order "
    "in which they lie in memory, so that head 0 gets the first positions whole and the last head the last. Cut the last "
    "axis in two first, (B, T, H, D/H), then exchange the middle axes.",
    {_RESHAPED: "x.reshape(x.size(0), num_heads, x.size(1), -1)"},
)
slip(
    SplitHeads,
    "cuts the axis the other way round",
    "Head h got every H-th component. It gets neighbouring ones: cut the last axis into (H, D/H), not (D/H, H).",
    {_RESHAPED: "x.reshape(*x.shape[:-1], -1, num_heads).permute(0, 3, 1, 2)"},
)
slip(
    SplitHeads,
    "axes not exchanged",
    "The axes are (B, T, H, D/H). Exchange the middle two, so that each head has a (T, D/H) matrix of its own.",
    {".transpose(1, 2)": ""},
)
slip(
    SplitHeads,
    "exchanges the last two axes",
    "The last two axes are exchanged as well. Positions come before components: (B, H, T, D/H).",
    {".transpose(1, 2)": ".permute(0, 2, 3, 1)"},
)
slip(
    SplitHeads,
    "no ValueError",
    "A width that num_heads does not divide is not refused with a ValueError. Test for it first, and name both numbers in "
    "the message.",
    {"x.size(-1) % num_heads != 0": "False"},
)
slip(
    SplitHeads,
    "cuts off what is left over",
    "Where num_heads does not divide the width, the components left over are dropped. Raise a ValueError instead.",
    {
        "x.size(-1) % num_heads != 0": "False",
        "x.reshape(": "x[..., : x.size(-1) // num_heads * num_heads].reshape(",
        "num_heads, -1)": "num_heads, x.size(-1) // num_heads)",
    },
)
slip(
    SplitHeads,
    "asserts",
    "An assert raises AssertionError, and Python run with -O skips it. Raise ValueError.",
    {"raise ValueError(": "raise AssertionError("},
)


@exercise("attention.merge_heads", parts={"pieces": 1}, difficulty=1, minutes=5, read="02_multi_head#split-and-merge")
class MergeHeads(Check):
    """Where each piece lands, and gradients."""

    equivalent: ClassVar = {
        "merge_heads: return x.transpose(1, 2).flatten(2) -> return x.transpose(2, 1).flatten(2)": NO_DIRECTION,
    }

    def prepare(self, rng):
        yield Case("2 sequences of 3, 2 heads", {"x": rng.normal(2, 2, 3, 4)}, "pieces")
        yield Case("as many heads as positions", {"x": rng.normal(2, 4, 4, 3)}, "pieces")
        yield Case("one position", {"x": rng.normal(2, 3, 1, 4)}, "pieces")
        yield Case("heads of width 1", {"x": rng.normal(1, 3, 5, 1)}, "pieces")
        yield Case("float32", {"x": rng.normal(3, 3, 2, 2, dtype=torch.float32)}, "pieces", hidden=True)

    @staticmethod
    def probe(merge_heads, case, /):
        x = case.x.clone().requires_grad_()
        return {"y": merge_heads(case.x), "gradients": gradients(merge_heads(x), {"x": x})}

    def judge(self, case, got):
        x = case.x.clone().requires_grad_()
        right = attention.merge_heads(x)
        yield same(got.y, right.detach())
        yield from same_gradients(got.gradients, gradients(right, {"x": x}))


_MERGED = "x.transpose(1, 2).flatten(2)"
slip(
    MergeHeads,
    "reshapes without exchanging the axes",
    "The shape is right and the contents are not: the vectors of different positions run into one another. Exchange the "
    "axes of heads and positions first, then join the last two.",
    {_MERGED: "x.reshape(x.size(0), x.size(2), -1)"},
)
slip(
    MergeHeads,
    "view after transpose",
    "`view` cannot join axes that a transpose has moved apart in memory. Use reshape or flatten, or call .contiguous() "
    "first.",
    {_MERGED: "x.transpose(1, 2).view(x.size(0), x.size(2), -1)"},
)
slip(
    MergeHeads,
    "components before heads",
    "The components of the heads are interleaved. Heads stand side by side: all of head 0, then all of head 1.",
    {_MERGED: "x.permute(0, 2, 3, 1).flatten(2)"},
)
slip(
    MergeHeads,
    "sums the heads",
    "The heads are added up, which loses which head said what. Put them side by side: (B, T, H * d_head).",
    {_MERGED: "x.sum(1)"},
)
slip(
    MergeHeads,
    "axes not joined",
    "The axes are exchanged but not joined: the result has four axes. Join the last two.",
    {".flatten(2)": ""},
)
slip(
    MergeHeads,
    "joins heads and positions",
    "Heads and positions are joined to one axis. Join heads and components: (B, T, H * d_head).",
    {_MERGED: "x.flatten(1, 2)"},
)


@exercise(
    "attention.repeat_heads",
    parts={"sharing": 1, "error": 1},
    claims=("error",),
    difficulty=1,
    minutes=5,
    read="02_multi_head#shared-heads",
)
class RepeatHeads(Check):
    """Which query head gets which shared head, gradients, and a number of heads that cannot be shared out."""

    equivalent: ClassVar = {
        "repeat_heads: if num_heads % x.size(1) != 0: -> if num_heads % x.size(1) > 0:": NOT_NEGATIVE,
    }

    def prepare(self, rng):
        yield Case("4 query heads share 2", {"x": rng.normal(2, 2, 3, 4), "num_heads": 4}, "sharing")
        yield Case("6 query heads share 3", {"x": rng.normal(1, 3, 2, 5), "num_heads": 6}, "sharing")
        yield Case("3 query heads share 1", {"x": rng.normal(2, 1, 3, 2), "num_heads": 3}, "sharing")
        yield Case("each head its own", {"x": rng.normal(2, 3, 4, 2), "num_heads": 3}, "sharing")
        x = rng.normal(2, 2, 1, 3, dtype=torch.float32)
        yield Case("float32", {"x": x, "num_heads": 8}, "sharing", hidden=True)
        yield Case("5 query heads for 2", {"x": rng.normal(2, 2, 3, 4), "num_heads": 5}, "error")
        yield Case("2 query heads for 4", {"x": rng.normal(2, 4, 3, 2), "num_heads": 2}, "error")

    @staticmethod
    def probe(repeat_heads, case, /):
        try:
            y = repeat_heads(case.x, case.num_heads)
        except ValueError:
            return {"error": "ValueError"}
        x = case.x.clone().requires_grad_()
        return {"y": y, "gradients": gradients(repeat_heads(x, case.num_heads), {"x": x})}

    def judge(self, case, got):
        yield from _pieces(case, got, attention.repeat_heads, "num_heads is no multiple of the heads in x")


_REPEATED = "x.repeat_interleave(num_heads // x.size(1), dim=1)"
slip(
    RepeatHeads,
    "repeats the whole row of heads",
    "The heads come in the order 0, 1, 0, 1. Neighbouring query heads share: 0, 0, 1, 1. `repeat` repeats the whole, "
    "`repeat_interleave` each one.",
    {_REPEATED: "x.repeat(1, num_heads // x.size(1), 1, 1)"},
)
slip(
    RepeatHeads,
    "repeats num_heads times",
    "Each head is repeated num_heads times. The result must have num_heads heads in all: repeat each H / H_kv times.",
    {"num_heads // x.size(1), dim": "num_heads, dim"},
)
slip(
    RepeatHeads,
    "repeats positions",
    "Positions are repeated instead of heads. The heads are axis 1.",
    {"dim=1": "dim=2"},
)
slip(RepeatHeads, "repeats nothing", "The heads are not repeated.", {_REPEATED: "x"})
slip(
    RepeatHeads,
    "no ValueError",
    "A number of query heads that is no multiple of the heads in x is not refused with a ValueError. Rounding down gives "
    "too few heads, or none. Test for it first.",
    {"num_heads % x.size(1) != 0": "False"},
)
slip(
    RepeatHeads,
    "asserts",
    "An assert raises AssertionError, and Python run with -O skips it. Raise ValueError.",
    {"raise ValueError(": "raise AssertionError("},
)


def given_attend(query, key, value, mask=None):
    """What the probe hands in as `attend`: no attention at all, so nothing but calling it gives its result."""
    return query * key.mean(2, keepdim=True) + value.mean(2, keepdim=True), None


@exercise(
    "attention.MultiHeadAttention",
    parts={
        "layers": 1, "self-attention": 2, "cross-attention": 1, "masks": 1, "shared heads": 1, "attend": 1, "dropout": 1,
        "errors": 1,
    },
    claims=("errors",),
    difficulty=3,
    minutes=40,
    read="02_multi_head#multi-head-module",
    sections={
        "shared heads": "shared-heads", "attend": "attend", "dropout": "attend", "cross-attention": "cross-attention",
        "masks": "masks-of-heads",
    },
    forbidden=("nn.MultiheadAttention",),
    builds_on=(*SOFTMAXES, "F.scaled_dot_product_attention"),
    instead="Build it from four linear layers, `split_heads`, `repeat_heads`, `attend` and `merge_heads`.",
)  # fmt: skip
class MultiHeadAttention(Check):
    """Parameters by name, output and gradients with known weights, every form of mask, `attend` and dropout."""

    equivalent: ClassVar = {
        "MultiHeadAttention.__init__: if d_model % num_heads != 0: -> if d_model % num_heads > 0:": NOT_NEGATIVE,
        "MultiHeadAttention.__init__: if num_heads % num_kv_heads != 0: -> if num_heads % num_kv_heads > 0:": NOT_NEGATIVE,
    } | {
        f"MultiHeadAttention.__init__: self.{name} = nn.Linear(d_model, num_kv_heads * d_head, bias=bias)"
        f" -> self.{name} = nn.Linear(d_model, d_head * num_kv_heads, bias=bias)": "a product in another order"
        for name in ("key", "value")
    } | {
        "MultiHeadAttention.forward: if self.training and self.dropout.p > 0 and (weights is not None):"
        f" -> if self.training and self.dropout.p {test} and (weights is not None):": (
            "with p = 0 nothing is dropped, and the values are mixed again with the same weights"
        )
        for test in (">= 0", "> -1")
    }  # fmt: skip

    def prepare(self, rng):
        def inputs(heads, d_model, length=5, batch=2, kv=None, keys=None, dtype=torch.float64, **rest):
            options = {"bias": rest.pop("bias", False)} | ({} if kv is None else {"num_kv_heads": kv})
            options |= {"dropout": rest.pop("dropout")} if "dropout" in rest else {}
            narrow = (kv or heads) * (d_model // heads)
            widths = {"query": d_model, "key": narrow, "value": narrow, "output": d_model}
            weights = {f"{name}.weight": rng.normal(width, d_model, dtype=dtype) for name, width in widths.items()}
            if options["bias"]:
                weights |= {f"{name}.bias": rng.normal(width, dtype=dtype) for name, width in widths.items()}
            x = rng.normal(batch, length, d_model, dtype=dtype)
            context = None if keys is None else rng.normal(batch, keys, d_model, dtype=dtype)
            given = {"d_model": d_model, "num_heads": heads, "options": options, "weights": weights, "x": x}
            usual = {"mask": None, "training": False, "own": False, "strict": False, "fits": True}
            return given | {"context": context} | usual | rest

        yield Case("with bias", inputs(2, 4, bias=True, strict=True), "layers")
        yield Case("bias=False", inputs(2, 6, strict=True), "layers")
        no_options = inputs(2, 4, bias=True, strict=True) | {"options": {}}
        yield Case("only d_model and num_heads given", no_options, "layers")
        yield Case("2 heads", inputs(2, 8), "self-attention")
        yield Case("4 heads", inputs(4, 8, batch=3, length=4), "self-attention")
        yield Case("one head", inputs(1, 4), "self-attention")
        yield Case("heads of width 1", inputs(3, 3, batch=1, length=4), "self-attention")
        yield Case("float32", inputs(2, 4, dtype=torch.float32), "self-attention")
        yield Case("one position", inputs(2, 4, length=1), "self-attention", hidden=True)
        yield Case("4 queries, 6 keys", inputs(2, 4, length=4, keys=6), "cross-attention")
        yield Case("as many keys as queries", inputs(2, 6, keys=5), "cross-attention")
        triangle = torch.ones(5, 5, dtype=torch.bool).tril()
        yield Case("a causal mask (T, T)", inputs(3, 6, mask=triangle), "masks")
        yield Case("a mask (B, 1, T)", inputs(3, 6, mask=rng.booleans(2, 1, 5)), "masks")
        yield Case("a mask (B, T, T), B = H", inputs(2, 4, mask=rng.booleans(2, 5, 5)), "masks")
        yield Case("a mask (B, H, T, T)", inputs(3, 6, mask=rng.booleans(2, 3, 5, 5)), "masks")
        empty = rng.booleans(2, 5, 5) & torch.tensor([True, True, False, True, True]).view(5, 1)
        yield Case("a query with nothing to attend to", inputs(2, 4, mask=empty), "masks", hidden=True)
        yield Case("4 heads share 2", inputs(4, 8, kv=2), "shared heads")
        yield Case("6 heads share 3", inputs(6, 12, kv=3), "shared heads")
        yield Case("3 heads share 1", inputs(3, 6, kv=1), "shared heads")
        given_none = inputs(3, 6) | {"options": {"num_kv_heads": None, "bias": False}}
        yield Case("num_kv_heads=None", given_none, "shared heads")
        yield Case("as many as query heads", inputs(2, 4, kv=2), "shared heads", hidden=True)
        yield Case("a function that is no attention", inputs(2, 4, own=True), "attend")
        masked = inputs(3, 6, length=4, own=True, mask=rng.booleans(4, 4))
        yield Case("the same, and a mask", masked, "attend")
        yield Case("another number of positions", inputs(4, 8, length=3, own=True), "attend", hidden=True)
        yield Case("dropout = 0.5 after eval()", inputs(2, 4, dropout=0.5), "dropout")
        yield Case("dropout = 1 in training", inputs(2, 4, dropout=1.0, training=True), "dropout")
        shared = inputs(4, 8, kv=2, dropout=1.0, training=True)
        yield Case("dropout = 1 in training, 4 heads share 2", shared, "dropout")
        yield Case("no dropout in training", inputs(2, 4, training=True), "dropout")
        alike = inputs(2, 4, length=64, dropout=0.5, training=True)
        alike["x"] = alike["x"][:, :1].expand(2, 64, 4).clone()
        alike["weights"]["output.weight"] = torch.eye(4, dtype=torch.float64)
        yield Case("dropout = 0.5 in training, 64 equal positions", alike, "dropout")
        silent = inputs(2, 4, dropout=0.5, training=True, own=True)
        yield Case("dropout, and an attend that gives no weights", silent, "dropout")
        yield Case("a width of 8 for 3 heads", inputs(1, 8) | {"num_heads": 3, "fits": False}, "errors")
        yield Case("4 heads for a width of 2", inputs(1, 2) | {"num_heads": 4, "fits": False}, "errors", hidden=True)
        four = {"options": {"num_kv_heads": 4}, "fits": False}
        yield Case("6 heads cannot share 4", inputs(6, 12) | four, "errors")
        yield Case("2 heads cannot share 4", inputs(2, 8) | four, "errors")

    @staticmethod
    def probe(module_class, case, /):
        if not case.fits:
            try:
                module_class(case.d_model, case.num_heads, **case.options)
            except ValueError:
                return {"error": "ValueError"}
            return {"error": "none"}
        module = module_class(case.d_model, case.num_heads, **case.options)
        load_weights(module, case.weights, strict=case.strict)  # a bias too many costs the part "layers" only
        module.train(case.training)
        torch.manual_seed(0)
        calls = []

        def attend(query, key, value, mask=None, /):
            calls.append({"query": query.detach(), "key": key.detach(), "value": value.detach(), "mask": mask})
            return query * key.mean(2, keepdim=True) + value.mean(2, keepdim=True), None

        given = {"context": case.context, "mask": case.mask, "attend": attend if case.own else None}
        output = module(case.x, **{name: value for name, value in given.items() if value is not None})
        return {"output": output, "calls": calls, "gradients": gradients(output, dict(module.named_parameters()))}

    def judge(self, case, got):
        if case.part == "errors":
            heads = case.d_model % case.num_heads != 0
            broken = "num_heads does not divide d_model" if heads else "num_kv_heads does not divide num_heads"
            yield holds(got.error == "ValueError", NO_ERROR.format(broken))
            return
        if case.part == "layers":
            yield same_shape(got.output, case.x, "the output")
            for name in case.weights:
                reached = got.gradients.get(name) is not None
                yield holds(reached, f"The output does not depend on `{name}`: its layer is made and then not used.")
            return
        module = attention.MultiHeadAttention(case.d_model, case.num_heads, **case.options).to(case.x.dtype)
        module.load_state_dict(case.weights)
        rate = case.options.get("dropout", 0.0) if case.training and not case.own else 0.0
        module.train(rate == 1.0)  # what is dropped at random is judged without the reference's own chances
        calls = []

        def attend(query, key, value, mask=None):
            calls.append((query, key, value, mask))
            return given_attend(query, key, value, mask)

        own = {"attend": attend} if case.own else {}
        right = module(case.x, context=case.context, mask=case.mask, **own)
        yield same_shape(got.output, right, "the output")
        if rate == 0.5:
            yield from _dropped_weights(got.output / right.detach(), case)
            return
        if case.own:
            yield from _called_once(got.calls, *calls[0])
        yield same(got.output, right.detach(), "the output")
        yield from same_gradients(got.gradients, gradients(right, dict(module.named_parameters())))


def _dropped_weights(ratio, case):
    """All positions are alike, so a head gives its value times the sum of the weights left: 2/64 for each of 64."""
    ratio = ratio.unflatten(-1, (case.num_heads, -1))
    together = close(ratio, ratio[..., :1].expand_as(ratio))
    yield holds(together, "Dropout acts on single components of an output. Drop weights, before the values are mixed.")
    yield holds(not close(ratio, torch.ones_like(ratio)), "No weight was dropped, though dropout = 0.5 in training.")
    left = ratio * case.x.size(1) / 2
    whole = close(left, left.round()) and abs(ratio.mean().item() - 1) < 0.1
    yield holds(whole, "The weights that are left must be divided by 1 - dropout, as nn.Dropout does; these are not.")


def _called_once(calls, query, key, value, mask):
    times = len(calls)
    yield holds(times == 1, f"`attend` was called {times} times. Call it once: it takes all heads together.")
    for name, tensor in {"query": query, "key": key, "value": value}.items():
        yield same(calls[0][name], tensor.detach(), f"the {name} given to `attend`")
    everything = torch.ones(*query.shape[:3], key.size(2), dtype=torch.bool)
    own = calls[0]["mask"]
    fits = own is None or (isinstance(own, Tensor) and own.dtype == torch.bool and _broadcasts(own, everything))
    form = "The mask given to `attend` must be None, or boolean with an axis for the heads. Use mask_for_heads."
    yield holds(fits, form)
    allowed = everything if own is None else everything & own
    expected = everything if mask is None else everything & mask
    yield same(allowed, expected, "the mask given to `attend`")


def _broadcasts(mask, whole):
    sizes = zip(reversed(mask.shape), reversed(whole.shape), strict=False)
    return mask.dim() in (2, 4) and all(size in (1, full) for size, full in sizes)


_SPLIT_QUERY = "split_heads(self.query(x), self.num_heads)"
_SPLIT_KEY = "split_heads(self.key(context), self.num_kv_heads)"
_SPLIT_VALUE = "split_heads(self.value(context), self.num_kv_heads)"
_DROPS = "if self.training and self.dropout.p > 0 and weights is not None:"
_DROPPED = "mixed = self.dropout(weights) @ value"
_RETURN = "return self.output(merge_heads(mixed))"
slip(
    MultiHeadAttention,
    "context ignored",
    "The context is not used: keys and values come from x. Where a context is given, they come from it.",
    {"x if context is None else context": "x"},
    read="cross-attention",
)
slip(
    MultiHeadAttention,
    "queries from the context",
    "The queries come from the context. They come from x; only keys and values come from the context.",
    {"self.query(x)": "self.query(context)"},
    read="cross-attention",
)
slip(
    MultiHeadAttention,
    "values from x",
    "The values come from x. They belong to the keys, and like them come from the context.",
    {"self.value(context)": "self.value(x)"},
    read="cross-attention",
)
slip(
    MultiHeadAttention,
    "keys from x",
    "The keys come from x and the values from the context. Both come from the context.",
    {"self.key(context)": "self.key(x)"},
    read="cross-attention",
)
slip(
    MultiHeadAttention,
    "one layer for query and key",
    "Query and key come from the same layer. Use `self.query` for the query and `self.key` for the key.",
    {"self.query(x)": "self.key(x)", _SPLIT_KEY: _SPLIT_KEY},
)
slip(
    MultiHeadAttention,
    "query and key exchanged",
    "Query and key are exchanged. Pass query, key, value to `attend`, in this order.",
    {"attend(query, key, value": "attend(key, query, value"},
)
slip(
    MultiHeadAttention,
    "key and value exchanged",
    "Key and value are exchanged. Pass query, key, value to `attend`, in this order.",
    {"attend(query, key, value": "attend(query, value, key", "(weights) @ value": "(weights) @ key"},
)
slip(
    MultiHeadAttention,
    "output layer not used",
    "The heads are put side by side and returned as they are. The layer `output` must mix them.",
    {_RETURN: "return merge_heads(mixed)"},
    read="sum-of-heads",
)
slip(
    MultiHeadAttention,
    "heads merged without exchanging the axes",
    "The heads are reshaped to (B, T, D) without exchanging the axes of heads and positions, so positions run into one "
    "another. Use merge_heads.",
    {"merge_heads(mixed)": "mixed.reshape(*x.shape)"},
    read="split-and-merge",
)
slip(
    MultiHeadAttention,
    "heads split by one reshape",
    "The heads are cut by reshaping straight to (B, H, T, d_head), which deals whole positions out to the heads. Use "
    "split_heads.",
    {
        _SPLIT_QUERY: "self.query(x).reshape(x.size(0), self.num_heads, x.size(1), -1)",
        _SPLIT_KEY: "self.key(context).reshape(context.size(0), self.num_kv_heads, context.size(1), -1)",
        _SPLIT_VALUE: "self.value(context).reshape(context.size(0), self.num_kv_heads, context.size(1), -1)",
    },
    read="split-and-merge",
)
slip(
    MultiHeadAttention,
    "one wide head",
    "The vectors are not split: this is one head of width D, whatever num_heads says.",
    {"self.num_heads = num_heads": "self.num_heads = 1", "self.num_kv_heads = num_kv_heads": "self.num_kv_heads = 1"},
    read="split-and-merge",
)
slip(
    MultiHeadAttention,
    "scales twice",
    "The queries are divided by sqrt(d_head) before `attend`, which divides the scores by it once more.",
    {_SPLIT_QUERY: _SPLIT_QUERY + " / (x.size(-1) // self.num_heads) ** 0.5"},
)
slip(
    MultiHeadAttention,
    "scales by the width of the model",
    "The scores are divided by sqrt(d_model). Each head has keys of width d_head, and `attend` divides by sqrt(d_head).",
    {_SPLIT_QUERY: _SPLIT_QUERY + " / self.num_heads ** 0.5"},
)
slip(
    MultiHeadAttention,
    "a residual connection",
    "x is added to the output. That is done outside of this layer, in a later chapter.",
    {_RETURN: "return x + self.output(merge_heads(mixed))"},
)
slip(
    MultiHeadAttention,
    "mask ignored",
    "The mask is not handed on to `attend`.",
    {", mask_for_heads(mask))": ", None)"},
    read="masks-of-heads",
)
slip(
    MultiHeadAttention,
    "mask without an axis for the heads",
    "A mask (B, Tq, Tk) is handed on as it is. Beside scores of shape (B, H, Tq, Tk) its batch axis lines up with the "
    "heads. Pass it through mask_for_heads.",
    {"mask_for_heads(mask)": "mask"},
    read="masks-of-heads",
)
slip(
    MultiHeadAttention,
    "the same new axis for every mask",
    "An axis is inserted into every mask. A mask (B, Tq, Tk) needs it; one of (B, H, Tq, Tk) or (Tq, Tk) does not. Pass "
    "the mask through mask_for_heads.",
    {"mask_for_heads(mask)": "None if mask is None else mask.unsqueeze(1)"},
    read="masks-of-heads",
)
slip(
    MultiHeadAttention,
    "mask inverted",
    "The mask is turned round. True means allowed, here and in `attend`.",
    {"mask_for_heads(mask)": "None if mask is None else ~mask_for_heads(mask)"},
    read="masks-of-heads",
)
slip(
    MultiHeadAttention,
    "shared heads in the wrong order",
    "The shared heads are repeated in the order 0, 1, 0, 1. Neighbouring query heads share: use repeat_heads.",
    {
        f"repeat_heads({_SPLIT_KEY}, self.num_heads)": f"{_SPLIT_KEY}.repeat("
        "1, self.num_heads // self.num_kv_heads, 1, 1)",
        f"repeat_heads({_SPLIT_VALUE}, self.num_heads)": f"{_SPLIT_VALUE}.repeat("
        "1, self.num_heads // self.num_kv_heads, 1, 1)",
    },
    read="shared-heads",
)
slip(
    MultiHeadAttention,
    "num_kv_heads ignored",
    "`key` and `value` have full width, whatever num_kv_heads says. They have num_kv_heads * d_head outputs.",
    {"num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads": "num_kv_heads = num_heads"},
    read="shared-heads",
)
slip(
    MultiHeadAttention,
    "None not replaced",
    "num_kv_heads=None means as many key and value heads as query heads. Replace None before you calculate with it.",
    {"num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads": "pass"},
)
slip(
    MultiHeadAttention,
    "attend ignored",
    "`attend` is not called: the layer always uses scaled_dot_product_attention. Call what is passed in.",
    {"= attend(query": "= scaled_dot_product_attention(query"},
    read="attend",
)
slip(
    MultiHeadAttention,
    "attend called once a head",
    "`attend` is called once for each head. Call it once, with all heads in axis 1.",
    {
        "mixed, weights = attend(query, key, value, mask_for_heads(mask))": "pieces = [attend(q, k, v, "
        "mask_for_heads(mask)) for q, k, v in zip(*(t.split(1, dim=1) for t in (query, key, value)))]\n"
        "        mixed = torch.cat([piece for piece, _ in pieces], 1)\n"
        "        weights = None if pieces[0][1] is None else torch.cat([piece for _, piece in pieces], 1)"
    },
    read="attend",
)
slip(
    MultiHeadAttention,
    "layers always with bias",
    "`bias` is not used: the layers have a bias also with bias=False. Hand it on to each nn.Linear.",
    {", bias=bias": ""},
)
slip(
    MultiHeadAttention,
    "layers never with bias",
    "`bias` is not used: the layers have no bias even with bias=True, the default. Hand it on to each nn.Linear.",
    {"bias=bias": "bias=False"},
)
slip(
    MultiHeadAttention,
    "no bias in the output layer",
    "The layer `output` has no bias. With bias=True all four layers have one.",
    {"self.output = nn.Linear(d_model, d_model, bias=bias)": "self.output = nn.Linear(d_model, d_model, bias=False)"},
)
slip(
    MultiHeadAttention,
    "no dropout",
    "No weight is ever dropped. In training, with dropout above 0, drop weights and mix the values with what is left.",
    {_DROPS: "if False:"},
    read="attend",
)
slip(
    MultiHeadAttention,
    "dropout also after training",
    "Weights are dropped after eval() too. An nn.Dropout made in `__init__` knows whether the module is in training.",
    {_DROPS: "if weights is not None:", "self.dropout(weights)": "nn.functional.dropout(weights, self.dropout.p)"},
    read="attend",
)
slip(
    MultiHeadAttention,
    "dropout on the output",
    "Dropout acts on the output. Here it drops attention weights, before the values are mixed.",
    {_DROPPED: "pass", _RETURN: "return self.dropout(self.output(merge_heads(mixed)))"},
    read="attend",
)
slip(
    MultiHeadAttention,
    "dropout on the mixed values",
    "Dropout acts on the mixed values, on single components of them. Here it drops attention weights, before the values "
    "are mixed.",
    {_DROPPED: "mixed = self.dropout(mixed)", " and weights is not None": ""},
    read="attend",
)
slip(
    MultiHeadAttention,
    "drops without rescaling",
    "Weights are dropped, and those that are left are not divided by 1 - dropout, so that their sum shrinks. nn.Dropout "
    "does that.",
    {"self.dropout(weights)": "(self.dropout(weights) * (1 - self.dropout.p))"},
    read="attend",
)
slip(
    MultiHeadAttention,
    "drops weights that are not there",
    "An `attend` that never forms the weights gives None for them. Then there is nothing to drop: use its output as it is.",
    {" and weights is not None": ""},
    read="attend",
)
slip(
    MultiHeadAttention,
    "returns a pair",
    "The module returns a pair. Return the output alone.",
    {_RETURN: _RETURN + ", weights"},
)
slip(
    MultiHeadAttention,
    "any number of heads",
    "A d_model that num_heads does not divide is not refused with a ValueError when the module is made.",
    {"d_model % num_heads != 0": "False"},
)
slip(
    MultiHeadAttention,
    "any number of key and value heads",
    "A num_heads that num_kv_heads does not divide is not refused with a ValueError when the module is made.",
    {"num_heads % num_kv_heads != 0": "False"},
)
slip(
    MultiHeadAttention,
    "asserts",
    "An assert raises AssertionError, and Python run with -O skips it. Raise ValueError.",
    {"raise ValueError(": "raise AssertionError("},
)
slip(
    MultiHeadAttention,
    "super().__init__() missing",
    "`super().__init__()` is missing, so nn.Module cannot register the layers. Call it first in `__init__`.",
    {"super().__init__()": "pass"},
)

reflection(
    "attention.why_heads",
    chapter="02_multi_head",
    points=2,
    rubric="""
    1 point: one head gives each query one set of weights, so what it hands over is one average; two things wanted at
    once are mixed in it. Two heads give two averages, kept apart because each has its own rows of W_O.

    1 point: more heads at the same width are not free: each is narrower (D/H), so it compares and hands over fewer
    numbers; with D/H smaller than what must be handed over, one look-up takes several heads.
    """,
)
reflection(
    "attention.shared_heads",
    chapter="02_multi_head",
    points=2,
    rubric="""
    1 point: the right sizes: keys and values take 2 * layers * H_kv * d_head * length * bytes a number (times the batch),
    so the largest H_kv that fits follows by division, rounded down to a divisor of H.

    1 point: says what is shared and what is not: there are still H query heads, each with weights of its own, so they can
    look at different places; within a group they compare by the same keys and hand over the same values.
    """,
)
