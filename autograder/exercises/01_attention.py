"""Checks of chapter 01: softmax, attention, masks, and attention as a module."""

from typing import ClassVar

import torch
from torch import Tensor

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, same, same_gradients, same_shape
from autograder.forbidden import SOFTMAXES
from autograder.probe import gradients, load_weights
from solutions import attention


@exercise(
    "attention.softmax",
    parts={"values": 1, "stable": 1},
    difficulty=1,
    minutes=10,
    read="01_attention#softmax",
    forbidden=("torch.softmax", "torch.log_softmax"),
    instead="Build it from an exponential, a maximum and a sum.",
)
class Softmax(Check):
    """Values along any axis, gradients, and scores that overflow a naive exp."""

    def prepare(self, rng):
        far_apart = torch.tensor([[1e4], [-1e4]], dtype=torch.float64)
        yield Case("a matrix, last axis", {"x": rng.normal(3, 5), "dim": -1}, "values")
        yield Case("three axes, without dim", {"x": rng.normal(2, 4, 3), "dim": None}, "values")
        yield Case("a matrix, first axis", {"x": rng.normal(3, 5), "dim": 0}, "values")
        yield Case("three axes, the middle one", {"x": rng.normal(2, 3, 4), "dim": 1}, "values")
        yield Case("float32", {"x": rng.normal(3, 5, dtype=torch.float32), "dim": -1}, "values")
        yield Case("a vector", {"x": rng.normal(7), "dim": -1}, "values", hidden=True)
        yield Case("scores in the thousands", {"x": rng.normal(3, 5) * 1e4, "dim": -1}, "stable")
        # Rounded to float32, in which some solutions work: beside scores of this size it keeps three digits only.
        rows = (rng.normal(2, 5) + far_apart).float().double()
        yield Case("rows far above and far below zero", {"x": rows, "dim": -1}, "stable")
        low = rng.normal(3, 4) - 18.0  # exp of them is less than what students add to the denominator
        yield Case("scores below -10", {"x": low, "dim": -1}, "stable")
        yield Case("columns in the thousands", {"x": rng.normal(4, 2) * 1e4, "dim": 0}, "stable", hidden=True)

    @staticmethod
    def probe(softmax, case, /):
        def call(x):
            return softmax(x) if case.dim is None else softmax(x, dim=case.dim)

        x = case.x.clone().requires_grad_()
        return {"y": call(case.x), "gradients": gradients(call(x), {"x": x})}

    def judge(self, case, got):
        x = case.x.clone().requires_grad_()
        right = attention.softmax(x, dim=-1 if case.dim is None else case.dim)
        yield same_shape(got.y, right)
        total = got.y.sum(-1 if case.dim is None else case.dim)
        yield holds(close(total, torch.ones_like(total)), "The weights do not sum to one along `dim`.")
        yield same(got.y, right.detach())
        yield from same_gradients(got.gradients, gradients(right, {"x": x}))


slip(
    Softmax,
    "ignores dim",
    "Every entry is divided by one total. Divide by the sum along `dim`, keeping that axis.",
    {"x.amax(dim, keepdim=True)": "x.max()", "exponentials.sum(dim, keepdim=True)": "exponentials.sum()"},
)
slip(
    Softmax,
    "always the last axis",
    "`dim` is not used: the weights sum to one along the last axis, whatever `dim` says.",
    {"(dim, keepdim=True)": "(-1, keepdim=True)"},
)
slip(
    Softmax,
    "overflows",
    "exp of a large score is infinite, and infinity divided by infinity is NaN. Subtract the largest score along `dim` "
    "first; the result is unchanged.",
    {"x - x.amax(dim, keepdim=True)": "x"},
)
slip(
    Softmax,
    "subtracts one maximum for all",
    "The largest score of the whole tensor is subtracted. A row far below it becomes all zeros, and zero divided by zero "
    "is NaN. Subtract the largest score along `dim`.",
    {"x.amax(dim, keepdim=True)": "x.max()"},
)
slip(
    Softmax,
    "returns logarithms",
    "These are the logarithms of the weights. Take exp of them.",
    {
        "exponentials / exponentials.sum(dim, keepdim=True)": "torch.log(exponentials / exponentials.sum(dim, keepdim=True))"
    },
)
slip(
    Softmax,
    "leaves out exp",
    "The scores are divided by their sum without exp. Weights must be positive; apply exp first.",
    {"torch.exp(x - x.amax(dim, keepdim=True))": "x"},
)
slip(
    Softmax,
    "adds to the denominator",
    "Something is added to the denominator so that it is never zero. Where all scores are far below zero, so are their "
    "exponentials, and the weights no longer sum to one. Subtract the largest score along `dim` first: the sum is then at "
    "least 1, and nothing need be added.",
    {
        "x - x.amax(dim, keepdim=True)": "x",
        "exponentials.sum(dim, keepdim=True)": "(exponentials.sum(dim, keepdim=True) + 1e-6)",
    },
)
slip(
    Softmax,
    "drops the axis",
    "The maximum or the sum lost the axis `dim`, so it is lined up with the wrong entries. Pass keepdim=True to both.",
    {"exponentials.sum(dim, keepdim=True)": "exponentials.sum(dim)"},
)
slip(
    Softmax,
    "largest score of another axis",
    "The largest score is taken along the last axis, whatever `dim` says. Take the maximum and the sum along the same axis.",
    {"x.amax(dim, keepdim=True)": "x.amax(-1, keepdim=True)"},
)


@exercise(
    "attention.scaled_dot_product_attention",
    parts={"weighted average": 1, "scaled scores": 1, "mask": 1, "empty rows": 1},
    difficulty=2,
    minutes=25,
    read="01_attention#attention-formula",
    sections={"scaled scores": "why-scale", "mask": "masks", "empty rows": "masks-empty-rows"},
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    builds_on=SOFTMAXES,
    instead="Build it from two matrix products, with a division, a mask and your `softmax` between them.",
)
class ScaledDotProductAttention(Check):
    """The average, the scores behind its weights, masks of every rank, and queries that may attend to nothing."""

    equivalent: ClassVar = {
        "scaled_dot_product_attention: scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))"
        " -> scores = query @ key.transpose(-1, -2) / math.sqrt(query.size(-1))": "exchanging two axes has no direction",
    }

    def prepare(self, rng):
        def inputs(*batch, queries, keys, d_k, d_v, mask=None, dtype=torch.float64):
            shapes = {"query": (queries, d_k), "key": (keys, d_k), "value": (keys, d_v)}
            return {name: rng.normal(*batch, *shape, dtype=dtype) for name, shape in shapes.items()} | {"mask": mask}

        average, scores, mask, empty = self.parts
        small = {"queries": 4, "keys": 6, "d_k": 8, "d_v": 5}
        yield Case("4 queries, 6 keys", inputs(2, **small), average)
        yield Case("two batch axes", inputs(2, 3, **small), average)
        yield Case("d_k = 64", inputs(2, queries=3, keys=5, d_k=64, d_v=4), scores)
        yield Case("d_k = 3", inputs(queries=3, keys=7, d_k=3, d_v=5), scores)
        yield Case("as many keys as queries", inputs(2, queries=4, keys=4, d_k=6, d_v=4), scores)
        yield Case("float32", inputs(2, **small, dtype=torch.float32), scores)
        # Keys of width 1 from here on: sqrt(1) is 1, so a mistake in the scaling costs its own part only.
        small["d_k"] = 1
        yield Case("a mask (Tq, Tk)", inputs(2, **small, mask=rng.booleans(4, 6)), mask)
        yield Case("a mask (B, 1, Tk)", inputs(2, **small, mask=rng.booleans(2, 1, 6)), mask)
        yield Case("a mask (B, Tq, Tk)", inputs(2, **small, mask=rng.booleans(2, 4, 6)), mask)
        low = inputs(2, **small, mask=rng.booleans(4, 6))
        low |= {"query": -1e6 * low["query"].abs(), "key": low["key"].abs()}
        yield Case("allowed scores far below zero", low, mask)
        yield Case(
            "float32 and a mask", inputs(**small, mask=rng.booleans(4, 6), dtype=torch.float32), mask, hidden=True
        )
        some = rng.booleans(2, 4, 6) & torch.tensor([True, False, True, True]).view(4, 1)
        yield Case("a query with no key allowed", inputs(2, **small, mask=some), empty)
        none = torch.zeros(4, 6, dtype=torch.bool)
        yield Case("no query with a key allowed", inputs(2, **small, mask=none), empty)

    @staticmethod
    def probe(attend, case, /):
        def call(*tensors):
            return attend(*tensors) if case.mask is None else attend(*tensors, case.mask)

        inputs = {"query": case.query, "key": case.key, "value": case.value}
        result = call(*inputs.values())
        if not isinstance(result, tuple) or len(result) != 2:
            return {"result": result, "gradients": {}}
        inputs = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        return {"result": result, "gradients": gradients(call(*inputs.values())[0], inputs)}

    def judge(self, case, got):
        inputs = {name: getattr(case, name).clone().requires_grad_() for name in ("query", "key", "value")}
        output, weights = attention.scaled_dot_product_attention(*inputs.values(), case.mask)
        yield from _two_tensors(got.result)
        own_output, own_weights = got.result
        yield same_shape(own_output, output, "the output")
        yield same_shape(own_weights, weights, "the weights matrix")
        if case.part == "weighted average":
            yield holds(
                (own_weights >= 0).all(), "Some weights are negative: a softmax over the keys is never negative."
            )
            yield same(own_weights.sum(-1), torch.ones_like(weights[..., 0]), "the sum of each query's weights")
            yield same(own_output, own_weights @ case.value, "your output beside your own weights @ value")
            return
        yield same(own_weights, weights.detach(), "the weights matrix")
        yield same(own_output, output.detach(), "the output")
        yield from same_gradients(got.gradients, gradients(output, inputs))


def _two_tensors(result):
    pair = "Return two tensors, the output and the weights: `return output, weights`."
    yield holds(result is not None, f"The result is None. {pair}")
    yield holds(not isinstance(result, Tensor), "One tensor came back, where two are needed.")
    yield holds(not isinstance(result, list), "The result is a list. Return a tuple: `return output, weights`.")
    yield holds(isinstance(result, tuple) and len(result) == 2, pair)


slip(
    ScaledDotProductAttention,
    "no scaling",
    "Your weights equal softmax(QK^T) without the division by sqrt(d_k). For d_k = 64 the scores are 8 times too large, "
    "and the softmax puts nearly all weight on one key.",
    {" / math.sqrt(query.size(-1))": ""},
    read="why-scale",
)
slip(
    ScaledDotProductAttention,
    "divides by d_k",
    "The scores are divided by d_k instead of its square root. Their variance is then 1/d_k, and with wide keys the "
    "weights are nearly uniform.",
    {"math.sqrt(query.size(-1))": "query.size(-1)"},
    read="why-scale",
)
slip(
    ScaledDotProductAttention,
    "divides by the width of the values",
    "The scores are divided by the square root of d_v, the width of the values. Divide by the square root of d_k, the "
    "width of the queries and keys.",
    {"query.size(-1)": "value.size(-1)"},
    read="why-scale",
)
slip(
    ScaledDotProductAttention,
    "divides by the number of keys",
    "The scores are divided by the square root of the number of keys. Divide by the square root of d_k, the width of the "
    "queries and keys: the last axis, not the one before it.",
    {"query.size(-1)": "key.size(-2)"},
    read="why-scale",
)
slip(
    ScaledDotProductAttention,
    "multiplies by the root",
    "The scores are multiplied by the square root of d_k. Divide by it.",
    {"/ math.sqrt(query.size(-1))": "* math.sqrt(query.size(-1))"},
    read="why-scale",
)
slip(
    ScaledDotProductAttention,
    "scales after the softmax",
    "The weights are divided by sqrt(d_k) after the softmax, so they no longer sum to one. Divide the scores, then take "
    "the softmax.",
    {
        " / math.sqrt(query.size(-1))": "",
        "return weights @ value": "weights = weights / math.sqrt(query.size(-1))\n    return weights @ value",
    },
    read="why-scale",
)
slip(
    ScaledDotProductAttention,
    "softmax over the queries",
    "The softmax runs over the queries (axis -2): each column sums to one. It must run over the keys, the last axis, so "
    "that each query's weights sum to one.",
    {
        "softmax(scores)": "softmax(scores, dim=-2)",
        "torch.finfo(scores.dtype).min)": "torch.finfo(scores.dtype).min), dim=-2",
    },
)
slip(
    ScaledDotProductAttention,
    "mask inverted",
    "The mask is used the wrong way round: the keys that it allows are the ones that get no weight. True means that "
    "attention is allowed.",
    {"~mask": "mask"},
    read="masks",
)
slip(
    ScaledDotProductAttention,
    "mask ignored",
    "The mask is not used: keys that it forbids still get weight.",
    {"if mask is None": "if True"},
    read="masks",
)
slip(
    ScaledDotProductAttention,
    "masks after the softmax",
    "The mask sets weights to zero after the softmax, so the weights that are left sum to less than one. Mask the scores "
    "before the softmax.",
    {"scores.masked_fill(~mask, torch.finfo(scores.dtype).min)": "scores"},
    read="masks",
)
slip(
    ScaledDotProductAttention,
    "multiplies scores by the mask",
    "A forbidden score becomes 0, and exp(0) is 1: the key still gets weight. Give forbidden scores the lowest value "
    "there is instead.",
    {
        "scores.masked_fill(~mask, torch.finfo(scores.dtype).min)": "scores * mask",
        "weights = weights.masked_fill(~mask, 0.0)": "pass",
    },
    read="masks",
)
slip(
    ScaledDotProductAttention,
    "adds the mask to the scores",
    "The boolean mask is added to the scores, which raises the allowed scores by 1 and forbids nothing. Use masked_fill.",
    {
        "scores.masked_fill(~mask, torch.finfo(scores.dtype).min)": "scores + mask",
        "weights = weights.masked_fill(~mask, 0.0)": "pass",
    },
    read="masks",
)
slip(
    ScaledDotProductAttention,
    "adds zero times infinity",
    "`~mask * -inf` is NaN wherever the mask allows: zero times infinity. Use masked_fill, which touches the forbidden "
    "places only.",
    {"scores.masked_fill(~mask, torch.finfo(scores.dtype).min)": "scores + (~mask) * -math.inf"},
    read="masks",
)
slip(
    ScaledDotProductAttention,
    "fill not low enough",
    "Forbidden scores are set to a number that is not low enough: allowed scores can be lower still, and then the "
    "forbidden keys take the weight. Use the lowest number that the dtype holds.",
    {"torch.finfo(scores.dtype).min": "-100.0"},
    read="masks",
)
slip(
    ScaledDotProductAttention,
    "NaN in empty rows",
    "A query that may attend to nothing has only -inf for scores, and its softmax divides zero by zero. Such a query gets "
    "zero weights and zero output.",
    {"torch.finfo(scores.dtype).min": "-math.inf", "weights = weights.masked_fill(~mask, 0.0)": "pass"},
    read="masks-empty-rows",
)
slip(
    ScaledDotProductAttention,
    "uniform weights in empty rows",
    "A query that may attend to nothing spreads its weight evenly over the forbidden keys: their scores are all equally "
    "low. After the softmax, set the weights that the mask forbids to zero.",
    {"weights = weights.masked_fill(~mask, 0.0)": "pass"},
    read="masks-empty-rows",
)
slip(
    ScaledDotProductAttention,
    "masks the weights after the average",
    "The output is computed before the forbidden weights are set to zero, so a query with nothing to attend to still gets "
    "an average. Set them to zero first, then multiply with the value.",
    {
        "weights = weights.masked_fill(~mask, 0.0)": "return weights @ value, weights.masked_fill(~mask, 0.0)",
    },
    read="masks-empty-rows",
)
slip(
    ScaledDotProductAttention,
    "wrong order",
    "The two results are in the wrong order. Return the output first: `return output, weights`.",
    {"return weights @ value, weights": "return weights, weights @ value"},
)
slip(
    ScaledDotProductAttention,
    "returns the output alone",
    "Only one tensor came back. Return two, the output and the weights: `return output, weights`.",
    {"return weights @ value, weights": "return weights @ value"},
)
slip(
    ScaledDotProductAttention,
    "changes the query",
    "The query is divided in place (`/=`), so the caller's tensor changes. Write `query = query / ...`, which makes a new one.",
    {
        "scores = query": "query /= math.sqrt(query.size(-1))\n    scores = query",
        "(-2, -1) / math.sqrt(query.size(-1))": "(-2, -1)",
    },
)


@exercise(
    "attention.causal_mask",
    parts={"mask": 1},
    difficulty=1,
    minutes=5,
    read="01_attention#causal-mask",
    forbidden=("nn.Transformer",),
    instead="Build it from ones and zeros, or from a comparison of two ranges.",
)
class CausalMask(Check):
    """Every entry for a few lengths, one position included."""

    def prepare(self, rng):
        for length in (4, 1, 6):
            yield Case(f"{length} position{'s' * (length > 1)}", {"length": length}, "mask")
        yield Case("17 positions", {"length": 17}, "mask", hidden=True)

    @staticmethod
    def probe(causal_mask, case, /):
        return {"mask": causal_mask(case.length)}

    def judge(self, case, got):
        yield same(got.mask, attention.causal_mask(case.length), "the mask")


slip(
    CausalMask,
    "marks what is blocked",
    "The mask is True where attention must be blocked. In this book True means allowed: turn it round with `~`.",
    {".tril()": ".triu(1)"},
)
slip(
    CausalMask,
    "sees only the future",
    "The mask is transposed: each position sees itself and what comes after it. Query i runs down the rows, key j across.",
    {".tril()": ".triu()"},
)
slip(
    CausalMask,
    "excludes itself",
    "The diagonal is False: a position must also see itself, or the first one sees nothing.",
    {".tril()": ".tril(-1)"},
)
slip(
    CausalMask,
    "one step too far",
    "Each position also sees the next one, which is what it will have to predict. Keep j <= i, not j <= i + 1.",
    {".tril()": ".tril(1)"},
)
slip(
    CausalMask,
    "numbers, not booleans",
    "The mask holds 0 and 1 as numbers. Make it boolean with dtype=torch.bool.",
    {", dtype=torch.bool": ""},
)
slip(
    CausalMask,
    "additive mask",
    "This is a mask to be added to the scores (0 and -inf). In this book a mask is boolean, True where attention is allowed.",
    {"torch.ones(length, length, dtype=torch.bool).tril()": "torch.full((length, length), -math.inf).triu(1)"},
)


@exercise("attention.padding_mask", parts={"mask": 1}, difficulty=1, minutes=5, read="01_attention#padding-mask")
class PaddingMask(Check):
    """Padding at the end, at the start, everywhere and nowhere, with pad ids other than 0."""

    def prepare(self, rng):
        ids = rng.integers(1, 9, 3, 5)
        yield Case("padding at the end", {"token_ids": ids * (torch.arange(5) < 3), "pad_id": 0}, "mask")
        real_zeros = torch.tensor([[0, 3, 0, 9], [4, 0, 9, 9]])
        yield Case("pad_id = 9, and 0 is a real token", {"token_ids": real_zeros, "pad_id": 9}, "mask")
        yield Case("padding at the start", {"token_ids": ids * (torch.arange(5) > 1), "pad_id": 0}, "mask")
        yield Case("nothing but padding", {"token_ids": torch.full((2, 3), 5), "pad_id": 5}, "mask")
        yield Case("no padding", {"token_ids": ids, "pad_id": 0}, "mask", hidden=True)

    @staticmethod
    def probe(padding_mask, case, /):
        return {"mask": padding_mask(case.token_ids, case.pad_id)}

    def judge(self, case, got):
        yield same(got.mask, attention.padding_mask(case.token_ids, case.pad_id), "the mask")


slip(
    PaddingMask,
    "marks the padding",
    "The mask is True at the padding. In this book True means allowed: it must be True at real tokens.",
    {"!=": "=="},
)
slip(
    PaddingMask,
    "no axis for the queries",
    "The mask has shape (B, T). Against scores of shape (B, Tq, Tk) it would be lined up with the queries of the wrong "
    "sequence. Add a middle axis: (B, 1, T).",
    {".unsqueeze(1)": ""},
)
slip(
    PaddingMask,
    "axis in the wrong place",
    "The mask has shape (B, T, 1), which masks queries. Padding must be masked as keys: the new axis goes in the middle, "
    "(B, 1, T).",
    {".unsqueeze(1)": ".unsqueeze(-1)"},
)
slip(
    PaddingMask,
    "takes 0 for padding",
    "The mask treats id 0 as padding, whatever `pad_id` is. Compare with `pad_id`.",
    {"!= pad_id": "!= 0"},
)
slip(
    PaddingMask,
    "counts from the start",
    "The mask allows the first n places, n being the number of real tokens. That fails when padding comes first. Compare "
    "each id with `pad_id`.",
    {
        "(token_ids != pad_id).unsqueeze(1)": "(torch.arange(token_ids.size(1)) "
        "< (token_ids != pad_id).sum(1, keepdim=True)).unsqueeze(1)"
    },
)


@exercise(
    "attention.SelfAttention",
    parts={"layers": 1, "output": 2, "mask": 1},
    claims=("layers",),
    difficulty=2,
    minutes=20,
    read="01_attention#self-attention-module",
    forbidden=("nn.MultiheadAttention",),
    builds_on=(*SOFTMAXES, "F.scaled_dot_product_attention"),
    instead="Build it from three linear layers and `scaled_dot_product_attention`.",
)
class SelfAttention(Check):
    """The parameters by name, the output and its gradients with known weights, and causality by changing the future."""

    def prepare(self, rng):
        def inputs(batch, length, d_model, d_head, mask=None, dtype=torch.float64):
            shapes = {f"{name}.weight": (d_head, d_model) for name in ("query", "key", "value")}
            weights = {name: rng.normal(*shape, dtype=dtype) for name, shape in shapes.items()}
            sizes = {"d_model": d_model, "d_head": d_head, "strict": False}
            return sizes | {"x": rng.normal(batch, length, d_model, dtype=dtype), "mask": mask, "weights": weights}

        triangle = torch.ones(5, 5, dtype=torch.bool).tril()
        yield Case("d_model = 6, d_head = 4", inputs(1, 2, 6, 4) | {"strict": True}, "layers")
        yield Case("2 sequences of 5", inputs(2, 5, 6, 4), "output")
        yield Case("d_head = d_model", inputs(2, 4, 4, 4), "output")
        yield Case("d_head larger than d_model", inputs(1, 3, 2, 16), "output")
        yield Case("float32", inputs(2, 3, 6, 4, dtype=torch.float32), "output")
        yield Case("one position", inputs(3, 1, 6, 4), "output", hidden=True)
        yield Case("a causal mask", inputs(2, 5, 6, 4, mask=triangle), "mask")
        yield Case("a mask (B, 1, T)", inputs(2, 5, 6, 4, mask=rng.booleans(2, 1, 5)), "mask")

    @staticmethod
    def probe(module_class, case, /):
        module = module_class(case.d_model, case.d_head)
        load_weights(module, case.weights, strict=case.strict)  # a bias costs the part "layers" only
        call = module if case.mask is None else lambda x: module(x, case.mask)
        output = call(case.x)
        changed = case.x.clone()
        changed[:, -1] += 1.0
        return {
            "output": output,
            "changed": call(changed),
            "gradients": gradients(output, dict(module.named_parameters())),
        }

    def judge(self, case, got):
        module = attention.SelfAttention(case.d_model, case.d_head).to(case.x.dtype)
        module.load_state_dict(case.weights)
        right = module(case.x, case.mask)
        if case.part == "layers":
            return  # that the weights could be loaded is what this part asks
        yield same_shape(got.output, right, "the output")
        if case.mask is not None and case.mask.dim() == 2:  # the causal one
            same_past = isinstance(got.changed, Tensor) and close(got.output[:, :-1], got.changed[:, :-1])
            yield holds(
                same_past, "Changing the last position changes earlier outputs, which the causal mask must prevent."
            )
        yield same(got.output, right.detach(), "the output")
        yield from same_gradients(got.gradients, gradients(right, dict(module.named_parameters())))


slip(
    SelfAttention,
    "one layer for query and key",
    "Query and key come from the same layer, so every position looks for what it offers itself. Use `self.key` for the key.",
    {"self.key(x)": "self.query(x)"},
)
slip(
    SelfAttention,
    "query and key exchanged",
    "Query and key are exchanged: row i of the scores asks with key i. Pass the query first.",
    {"self.query(x), self.key(x)": "self.key(x), self.query(x)"},
)
slip(
    SelfAttention,
    "key and value exchanged",
    "Key and value are exchanged: the values are asked and the keys are handed over. Pass query, key, value in this order.",
    {"self.key(x), self.value(x)": "self.value(x), self.key(x)"},
)
slip(
    SelfAttention,
    "value not projected",
    "The input itself is averaged. What is averaged are the values, `self.value(x)`.",
    {"self.value(x)": "x"},
)
slip(SelfAttention, "mask ignored", "The mask is not handed on to the attention function.", {", mask)": ")"})
slip(
    SelfAttention,
    "layers with bias",
    "The layers have a bias, and the exercise asks for none: pass bias=False to nn.Linear.",
    {", bias=False": ""},
)
slip(
    SelfAttention,
    "returns a pair",
    "The module returns the output and the weights. Return the output alone.",
    {"return output": "return output, _"},
)
slip(
    SelfAttention,
    "scales by d_model",
    "The scores are divided by sqrt(d_model). Divide by the square root of the width of the keys, d_head.",
    {"self.query(x)": "self.query(x) * (self.key.out_features / self.key.in_features) ** 0.5"},
    read="why-scale",
)
slip(
    SelfAttention,
    "returns the weights",
    "The module returns the weights. Return the output, the average of the values.",
    {"output, _ =": "_, output ="},
)
slip(
    SelfAttention,
    "super().__init__() missing",
    "`super().__init__()` is missing, so nn.Module cannot register the layers. Call it first in `__init__`.",
    {"super().__init__()": "pass"},
)

reflection(
    "attention.why_scale",
    chapter="01_attention",
    points=2,
    rubric="""
    1 point: with independent components of mean 0 and variance 1, a dot product of d_k terms has variance d_k, so its
    standard deviation grows as sqrt(d_k); dividing by sqrt(d_k) brings the variance back to 1.

    1 point: says what the variance does to the softmax and to learning: large scores put nearly all weight on one key,
    and there the gradient of the softmax is nearly zero; or answers the case that the question poses with this reasoning.
    """,
)
reflection(
    "attention.choose_mask",
    chapter="01_attention",
    points=2,
    rubric="""
    1 point: names the mask for each use (padding mask whenever lengths differ; causal mask where a position must not see
    what it is to predict) and combines them with `&`.

    1 point: gives shapes that broadcast, (B, 1, T) with (T, T) to (B, T, T), and notes what happens to a query that is
    left with nothing to attend to.
    """,
)
