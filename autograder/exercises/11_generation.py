"""Checks of chapter 11: filters of logits, the penalty of repetitions, drawing, the cache, sampling and beam search."""

import ast
import inspect
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import torch
from torch import Tensor, nn

from autograder.checks import Case, Check, Rng, build, exercise, reflection, slip
from autograder.compare import close, holds, same, same_items
from autograder.forbidden import SOFTMAXES
from autograder.probe import make_config
from solutions import generation

NO_ERROR = "No ValueError was raised, though {}."
TWO_AXES = "there are two axes, so 1 is the last"
FOUR_AXES = "there are four axes, so 2 is the last but one"
ORDER = "a sum, a product or a choice in another order"
_KEYS = "self.keys[layer] = torch.cat([self.keys[layer], key], dim=-2)"
_VALUES = "self.values[layer] = torch.cat([self.values[layer], value], dim=-2)"
_LENGTH = "return self.keys[0].size(-2) if self.keys else 0"
_ENDED = "ended = ended | (following == end_id)"
_BEFORE = "before = probabilities.cumsum(-1) - probabilities"
_INF_LAST = "last = ranked.masked_fill(before >= p, float('inf')).amin(-1, keepdim=True)"
_SEEN = "seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)"
_LOWERED = "lowered = torch.where(logits > 0, logits / penalty, logits * penalty)"
_MULTINOMIAL = "return torch.multinomial(logits.softmax(-1), 1, generator=generator)"
_GREEDY = "return logits.argmax(-1, keepdim=True)"


def _spread(rng, rows, size, dtype=torch.float64):
    """Logits of which no two are equal or nearly so, in another order in each row."""
    levels = torch.linspace(-3, 3, size, dtype=torch.float64)
    order = rng.normal(rows, size).argsort(-1)
    return (levels[order] + rng.normal(rows, 1)).to(dtype)


def _of_shares(rng, shares, rows, dtype=torch.float64):
    """Logits whose softmax has these shares, in another order in each row."""
    order = rng.normal(rows, len(shares)).argsort(-1)
    return (torch.tensor(shares, dtype=torch.float64).log()[order] + rng.normal(rows, 1)).to(dtype)


@exercise(
    "generation.top_k_filter",
    parts={"kept": 1, "ties": 1, "error": 1},
    claims=("error",),
    difficulty=1,
    minutes=10,
    read="11_generation#top-k",
    builds_on=SOFTMAXES,
    instead="Build it from the k-th largest logit and a comparison.",
)
class TopKFilter(Check):
    """Few tokens and many, one row and several; equal logits in "ties" alone."""

    equivalent: ClassVar = {
        "top_k_filter: if not 1 <= k <= logits.size(-1): -> if not 1 <= k <= logits.size(1):": TWO_AXES
    }

    def prepare(self, rng):
        kept, ties, error = self.parts
        yield Case("one row, k = 2", {"logits": _spread(rng, 1, 5), "k": 2}, kept)
        yield Case("three rows, k = 3", {"logits": _spread(rng, 3, 7), "k": 3}, kept)
        yield Case("k = 1", {"logits": _spread(rng, 2, 4), "k": 1}, kept)
        yield Case("k = V", {"logits": _spread(rng, 2, 4), "k": 4}, kept)
        yield Case("float32", {"logits": _spread(rng, 3, 6, torch.float32), "k": 4}, kept)
        yield Case("thirty tokens", {"logits": _spread(rng, 4, 30), "k": 7}, kept, hidden=True)
        equal = torch.tensor([[3.0, 1.0, 3.0, 2.0, 1.0, 0.0], [0.0, 2.0, 1.0, 2.0, -1.0, 2.0]], dtype=torch.float64)
        yield Case("two as likely as the first", {"logits": equal, "k": 1}, ties)
        yield Case("equal ones at the border", {"logits": equal[:1], "k": 4}, ties)
        yield Case("all equal", {"logits": torch.zeros(1, 5, dtype=torch.float64), "k": 2}, ties)
        yield Case("k = 0", {"logits": _spread(rng, 1, 4), "k": 0}, error)
        yield Case("k = V + 1", {"logits": _spread(rng, 1, 4), "k": 5}, error)

    @staticmethod
    def probe(top_k_filter, case, /):
        try:
            return {"y": top_k_filter(case.logits, case.k)}
        except ValueError:
            if 1 <= case.k <= case.logits.size(-1):
                raise
            return {"error": "ValueError"}

    def judge(self, case, got):
        if case.part == "error":
            yield holds(hasattr(got, "error"), NO_ERROR.format(f"k is {case.k} and V is {case.logits.size(-1)}"))
            return
        yield same(got.y, generation.top_k_filter(case.logits, case.k), "the filtered logits")


_KTH = "kth = logits.topk(k).values[:, -1:]"
_K_RETURN = "return logits.masked_fill(logits < kth, float('-inf'))".replace("'", '"')
_K_RANGE = "if not 1 <= k <= logits.size(-1):"
for _name, _message, _edits in [
    (
        "exactly k",
        "Of tokens that are as likely as the k-th, some were removed. All of them stay: compare with the k-th logit rather "
        "than with the places that topk gives.",
        {_KTH: "kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.topk(k).indices, True)",
         "logits < kth": "~kept"},
    ),
    (
        "the k-th removed too",
        "The k-th token itself was removed. It stays, and with it all that are as likely.",
        {"logits < kth": "logits <= kth"},
    ),
    (
        "the likeliest removed",
        "The k likeliest tokens were removed and the others kept. It must be the other way round.",
        {"logits < kth": "logits >= kth"},
    ),
    (
        "the least likely kept",
        "The k *least* likely tokens were kept. `topk` takes the largest unless it is told otherwise.",
        {"logits.topk(k)": "logits.topk(k, largest=False)", "logits < kth": "logits > kth"},
    ),
    (
        "zeros",
        "Removed tokens have the logit 0, and e to the 0 is 1: they can still be drawn. Give them -inf.",
        {'float("-inf")': "0.0"},
    ),
    (
        "a low number instead of -inf",
        "Removed tokens have a low finite logit. The exercise asks for -inf, whose probability is exactly 0.",
        {'float("-inf")': "-1e9"},
    ),
    (
        "one limit for all rows",
        "One limit was taken for the whole batch. Each row has a k-th logit of its own.",
        {_KTH: "kth = logits.flatten().topk(k).values[-1]"},
    ),
    (
        "probabilities",
        "Probabilities came back. A filter takes logits and gives logits: those that stay are unchanged.",
        {_K_RETURN: _K_RETURN + ".softmax(-1)"},
    ),
    (
        "k numbers only",
        "Only the k largest logits came back. Return all V, in their places, with -inf for those that go.",
        {_K_RETURN: "return logits.topk(k).values"},
    ),
    (
        "k above V passes",
        "More tokens are asked for than there are, and no ValueError was raised.",
        {_K_RANGE: "if k < 1:", "topk(k)": "topk(min(k, logits.size(-1)))"},
    ),
    (
        "k of 0 passes",
        "With k = 0 no token is left, and no ValueError was raised.",
        {_K_RANGE: "if k > logits.size(-1):", "topk(k)": "topk(max(k, 1))"},
    ),
]:  # fmt: skip
    slip(TopKFilter, _name, _message, _edits)


@exercise(
    "generation.top_p_filter",
    parts={"kept": 1, "ties": 1, "p = 1": 1, "error": 1},
    claims=("p = 1", "error"),
    difficulty=2,
    minutes=20,
    read="11_generation#top-p",
    builds_on=SOFTMAXES,
    instead="Build it from sorted probabilities and their running sum.",
)
class TopPFilter(Check):
    """Known shares in another order in each row; p is never so near to a sum of shares that rounding could decide."""

    equivalent: ClassVar = {
        "top_p_filter: probabilities = ranked.softmax(-1) -> probabilities = ranked.softmax(1)": TWO_AXES,
        f"top_p_filter: {_BEFORE} -> {_BEFORE.replace('-1', '1')}": TWO_AXES,
        f"top_p_filter: {_INF_LAST} -> {_INF_LAST.replace('amin(-1', 'amin(1')}": TWO_AXES,
        f"top_p_filter: {_INF_LAST} -> {_INF_LAST.replace('>=', '>')}": "where a sum of probabilities is p, rounding decides",
    }

    def prepare(self, rng):
        def inputs(shares, p, rows=2, dtype=torch.float64):
            return {"logits": _of_shares(rng, shares, rows, dtype), "p": p}

        four, six = [0.4, 0.3, 0.2, 0.1], [0.3, 0.25, 0.2, 0.13, 0.07, 0.05]
        kept, ties, one, error = self.parts
        yield Case("shares 0.4, 0.3, 0.2, 0.1 and p = 0.6", inputs(four, 0.6), kept)
        yield Case("p below the largest share", inputs(four, 0.2), kept)
        yield Case("p = 0.001", inputs(six, 0.001, 3), kept)
        yield Case("p = 0.8, six tokens", inputs(six, 0.8, 4), kept)
        yield Case("p = 0.97, float32", inputs(six, 0.97, 3, torch.float32), kept)
        unlike = torch.cat([_of_shares(rng, shares, 1) for shares in ([0.9, 0.06, 0.04], [0.4, 0.35, 0.25])])
        yield Case("rows of which different numbers stay", {"logits": unlike, "p": 0.6}, kept)
        yield Case("one token has nearly all", inputs([0.96, 0.02, 0.015, 0.005], 0.9), kept)
        yield Case("p = 0.5, three rows", inputs(six, 0.5, 3), kept, hidden=True)
        equal = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
        yield Case("equal ones at the border", {"logits": equal, "p": 0.6}, ties)
        yield Case("all equal", {"logits": torch.zeros(2, 4, dtype=torch.float64), "p": 0.3}, ties)
        far = torch.tensor([[0.0, -60.0, -120.0], [-90.0, 5.0, -3.0]])
        yield Case("shares too small to change the sum", {"logits": far, "p": 1.0}, one)
        yield Case("p = 1, six tokens", inputs(six, 1.0), one)
        yield Case("p as an integer", inputs(six, 1), one)
        yield Case("p = 0", inputs(four, 0.0), error)
        yield Case("p = 1.2", inputs(four, 1.2), error)
        yield Case("p = -0.5", inputs(four, -0.5), error)

    @staticmethod
    def probe(top_p_filter, case, /):
        try:
            return {"y": top_p_filter(case.logits, case.p)}
        except ValueError:
            if 0 < case.p <= 1:
                raise
            return {"error": "ValueError"}

    def judge(self, case, got):
        if case.part == "error":
            yield holds(hasattr(got, "error"), NO_ERROR.format(f"p is {case.p}"))
            return
        yield same(got.y, generation.top_p_filter(case.logits, case.p), "the filtered logits")


_LAST = 'last = ranked.masked_fill(before >= p, float("inf")).amin(-1, keepdim=True)'
_P_RETURN = 'return logits.masked_fill(logits < last, float("-inf"))'
_P_RANGE = "if not 0 < p <= 1:"
_SORT = "ranked = logits.sort(descending=True).values"
for _name, _message, _edits in [
    (
        "the last one left out",
        "The token with which the sum reaches p was removed. It stays: those that are left have *at least* p together.",
        {_LAST: _LAST.replace("before >= p", "probabilities.cumsum(-1) > p")
         + "\n    last = last.minimum(ranked[:, :1])"},
    ),
    (
        "every token may go",
        "In a row whose likeliest token has more than p, every token was removed. At least one stays.",
        {"before >= p": "probabilities.cumsum(-1) > p"},
    ),
    (
        "one too many",
        "One token more than needed stays. A token stays if those ahead of it have less than p together.",
        {_LAST: _LAST.replace("before >= p", "before - probabilities.roll(1, -1) >= p")},
    ),
    (
        "the least likely kept",
        "The least likely tokens were kept: the sum began at the wrong end. Sort with descending=True.",
        {_SORT: "ranked = logits.sort().values", "amin": "amax", 'float("inf")': 'float("-inf")', "logits < last": "logits > last"},
    ),
    (
        "each above p",
        "Each token was compared with p by itself. It is the sum of the likeliest that must reach p.",
        {_P_RETURN: 'p = min(p, float(logits.softmax(-1).amax(-1).amin()))\n    return logits.masked_fill(logits.softmax(-1) < p, float("-inf"))'},
    ),
    (
        "order not undone",
        "The logits came back sorted. Each must stay in its place: only those that go become -inf.",
        {_P_RETURN: 'return ranked.masked_fill(before >= p, float("-inf"))'},
    ),
    (
        "ties cut",
        "Of tokens that are equally likely, some were removed. All that are as likely as the last one to stay, stay too.",
        {_P_RETURN: 'places = logits.argsort(descending=True, stable=True)\n'
         '    return logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(-1, places, before >= p), float("-inf"))'},
    ),
    (
        "zeros",
        "Removed tokens have the logit 0, and can still be drawn. Give them -inf.",
        {'float("-inf")': "0.0"},
    ),
    (
        "sums of logits",
        "Logits were summed. Take the softmax first: p is a probability.",
        {"probabilities = ranked.softmax(-1)": "probabilities = ranked"},
    ),
    (
        "softmax over the batch",
        "The softmax went over the rows of the batch. It belongs to the tokens of one row: softmax(-1).",
        {"ranked.softmax(-1)": "ranked.softmax(0)"},
    ),
    (
        "sums over the batch",
        "The sum went over the rows of the batch. It belongs to the tokens of one row: cumsum(-1).",
        {"cumsum(-1)": "cumsum(0)"},
    ),
    (
        "one limit for all rows",
        "One limit was taken for the whole batch. Each row has its own.",
        {".amin(-1, keepdim=True)": ".amin()"},
    ),
    (
        "probabilities",
        "Probabilities came back. A filter takes logits and gives logits: those that stay are unchanged.",
        {_P_RETURN: _P_RETURN + ".softmax(-1)"},
    ),
    (
        "p of 1 loses tokens",
        "With p = 1 tokens were lost: rounding brings the sum to 1 before the last of them. With p = 1 every token stays.",
        {"if p == 1:": "if False:"},
    ),
    (
        "p above 1 passes",
        "p is above 1, which no probability is, and no ValueError was raised.",
        {_P_RANGE: "if p <= 0:"},
    ),
    (
        "p of 0 passes",
        "p is 0, and no ValueError was raised.",
        {_P_RANGE: "if not 0 <= p <= 1:"},
    ),
    (
        "p below 0 passes",
        "p is below 0, and no ValueError was raised.",
        {_P_RANGE: "if p == 0 or p > 1:"},
    ),
]:  # fmt: skip
    slip(TopPFilter, _name, _message, _edits)


@exercise(
    "generation.repetition_penalty",
    parts={"which tokens": 1, "both signs": 1, "error": 1},
    claims=("error",),
    difficulty=1,
    minutes=15,
    read="11_generation#repetition",
    builds_on=SOFTMAXES,
    instead="Build it from the logits of the tokens in the text, multiplied or divided.",
)
class RepetitionPenalty(Check):
    """Logits above 0 in the part "which tokens", so that only "both signs" sees what happens below 0."""

    equivalent: ClassVar = {
        f"repetition_penalty: {_SEEN} -> {_SEEN.replace('scatter(-1', 'scatter(1')}": TWO_AXES,
        f"repetition_penalty: {_LOWERED} -> {_LOWERED.replace('logits > 0', 'logits >= 0')}": "0 stays 0 in both",
        f"repetition_penalty: {_LOWERED} -> {_LOWERED.replace('logits * penalty', 'penalty * logits')}": "a product in another order",
    }

    def prepare(self, rng):
        def inputs(ids, size=6, penalty=1.5, below=False, dtype=torch.float64):
            sizes = 0.5 + rng.normal(len(ids), size).abs()
            signs = torch.ones(size, dtype=torch.float64)
            signs[::2] = -1.0 if below else 1.0
            return {"logits": (sizes * signs).to(dtype), "ids": torch.tensor(ids), "penalty": penalty}

        which, signs, error = self.parts
        yield Case("one row", inputs([[2, 4]]), which)
        yield Case("two rows with different texts", inputs([[0, 1, 5], [3, 2, 1]]), which)
        yield Case("a token that stands there three times", inputs([[3, 1, 3, 3]]), which)
        yield Case("penalty = 1", inputs([[0, 1, 2]], penalty=1.0), which)
        yield Case("float32", inputs([[5, 0], [1, 1]], dtype=torch.float32), which)
        yield Case("penalty = 2.5, ten tokens", inputs([[7, 9, 9, 0]], 10, 2.5), which, hidden=True)
        yield Case("logits below 0", inputs([[0, 1, 2, 3]], below=True), signs)
        yield Case("two rows with both signs", inputs([[0, 3], [2, 5]], below=True, penalty=1.2), signs)
        yield Case("penalty = 0.9", inputs([[1]], penalty=0.9), error)
        yield Case("penalty = 0", inputs([[1]], penalty=0.0), error)

    @staticmethod
    def probe(repetition_penalty, case, /):
        try:
            return {"y": repetition_penalty(case.logits, case.ids, case.penalty)}
        except ValueError:
            if case.penalty >= 1:
                raise
            return {"error": "ValueError"}

    def judge(self, case, got):
        if case.part == "error":
            yield holds(hasattr(got, "error"), NO_ERROR.format(f"the penalty is {case.penalty}"))
            return
        yield same(got.y, generation.repetition_penalty(case.logits, case.ids, case.penalty), "the logits")


for _name, _message, _edits in [
    (
        "divides logits below 0",
        "A logit below 0 that is divided comes nearer to 0 and so becomes likelier. Multiply those below 0.",
        {_LOWERED: "lowered = logits / penalty"},
    ),
    (
        "multiplies and divides the wrong way round",
        "Logits above 0 were multiplied and those below 0 divided: repetitions become likelier. It is the other way round.",
        {"logits > 0": "logits <= 0"},
    ),
    (
        "multiplies all",
        "Logits above 0 were multiplied, which makes repetitions likelier. Divide those above 0.",
        {_LOWERED: "lowered = logits * penalty"},
    ),
    (
        "subtracts",
        "The penalty was subtracted. Divide a logit above 0 by it, and multiply one below 0.",
        {_LOWERED: "lowered = logits - penalty"},
    ),
    (
        "once for each time",
        "A token that stands in the text several times was penalised several times. Once is enough.",
        {_SEEN: "seen = torch.zeros_like(logits).scatter_add(-1, ids, torch.ones_like(ids, dtype=logits.dtype))",
         _LOWERED: "power = penalty ** seen\n    lowered = torch.where(logits > 0, logits / power, logits * power)",
         "torch.where(seen,": "torch.where(seen > 0,"},
    ),
    (
        "every token",
        "Every token was penalised, also those that do not stand in the text.",
        {"torch.where(seen, lowered, logits)": "lowered"},
    ),
    (
        "new tokens instead",
        "The tokens that do *not* stand in the text were penalised.",
        {"torch.where(seen, lowered, logits)": "torch.where(seen, logits, lowered)"},
    ),
    (
        "the last token only",
        "Only the token at the end of the text was penalised. All tokens of the text are.",
        {"scatter(-1, ids, True)": "scatter(-1, ids[:, -1:], True)"},
    ),
    (
        "the first row's text for all",
        "All rows were penalised for the text of the first one. Each has a text of its own.",
        {"scatter(-1, ids, True)": "scatter(-1, ids[:1].expand_as(ids), True)"},
    ),
    (
        "all texts for each row",
        "Each row was penalised for the texts of all rows. It has a text of its own.",
        {_SEEN: "seen = torch.zeros_like(logits, dtype=torch.bool)\n    seen[:, ids.flatten()] = True"},
    ),
    (
        "penalties below 1 pass",
        "A penalty below 1 makes repetitions likelier, and no ValueError was raised.",
        {"if penalty < 1:": "if penalty <= 0:"},
    ),
    (
        "any penalty passes",
        "A penalty of 0 was not refused with a ValueError.",
        {"if penalty < 1:": "if False:"},
    ),
]:  # fmt: skip
    slip(RepetitionPenalty, _name, _message, _edits)


@exercise(
    "generation.draw",
    parts={"temperature": 1, "filters": 1, "greedy": 1, "chance": 1},
    difficulty=2,
    minutes=20,
    read="11_generation#temperature",
    sections={"filters": "one-token", "chance": "one-token"},
    builds_on=SOFTMAXES,
    instead="Build it from your filters, a softmax and `torch.multinomial`.",
)
class Draw(Check):
    """Hundreds of rows, so that other probabilities are sure to give other draws from the same generator."""

    equivalent: ClassVar = {
        f"draw: {_GREEDY} -> {_GREEDY.replace('-1', '1')}": TWO_AXES,
        f"draw: {_MULTINOMIAL} -> {_MULTINOMIAL.replace('-1', '1')}": TWO_AXES,
    }

    def prepare(self, rng):
        def inputs(rows=400, temperature=1.0, top_k=None, top_p=None, shares=None, dtype=torch.float64):
            shares = shares or [0.3, 0.25, 0.2, 0.15, 0.1]
            settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            settings["valid"] = temperature == 0 or 0 not in (top_k, top_p)
            return {"logits": _of_shares(rng, shares, rows, dtype), "seed": int(rng.integers(0, 10**6, 1))} | settings

        temperature, filters, greedy, chance = self.parts
        yield Case("temperature 0.5", inputs(temperature=0.5), temperature)
        yield Case("temperature 2", inputs(temperature=2.0), temperature)
        yield Case("temperature 1, float32", inputs(dtype=torch.float32), temperature)
        yield Case("top_k = 2", inputs(top_k=2), filters)
        yield Case("top_p = 0.5", inputs(top_p=0.5), filters)
        yield Case("top_k = 3 and top_p = 0.6", inputs(top_k=3, top_p=0.6), filters)
        yield Case("top_k = 4 and top_p = 0.5", inputs(top_k=4, top_p=0.5), filters)
        yield Case("temperature 0.5 and top_p = 0.6", inputs(temperature=0.5, top_p=0.6), filters)
        yield Case("top_k = 0, which top_k_filter refuses", inputs(4, top_k=0), filters)
        yield Case("top_p = 0, which top_p_filter refuses", inputs(4, top_p=0.0), filters)
        yield Case("temperature 0.7, top_k = 4, top_p = 0.9", inputs(400, 0.7, 4, 0.9), filters, hidden=True)
        yield Case("temperature 0", inputs(5, temperature=0.0), greedy)
        yield Case("temperature 0, with filters", inputs(7, temperature=0.0, top_k=2, top_p=0.5), greedy)
        yield Case("temperature 0, with what filters refuse", inputs(5, temperature=0.0, top_k=0, top_p=0.0), greedy)
        yield Case("one row", inputs(1), chance)
        yield Case("three rows", inputs(3, temperature=0.8), chance)
        yield Case("temperature 0 needs no chance", inputs(3, temperature=0.0), chance)

    @staticmethod
    def probe(draw, case, /):
        generator = torch.Generator().manual_seed(case.seed)
        before = torch.get_rng_state()
        try:
            ids = draw(case.logits, case.temperature, case.top_k, case.top_p, generator)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        if not case.valid:
            return {"error": ""}
        untouched = bool(torch.equal(before, torch.get_rng_state()))
        return {"ids": ids, "state": generator.get_state(), "untouched": untouched}

    def judge(self, case, got):
        if not case.valid:
            yield holds(got.error == "ValueError", NO_ERROR.format("a filter was asked for that refuses the number"))
            return
        generator = torch.Generator().manual_seed(case.seed)
        right = generation.draw(case.logits, case.temperature, case.top_k, case.top_p, generator)
        if case.part == "chance":
            yield holds(
                got.untouched, "Chance came from PyTorch's global source. Pass `generator` to torch.multinomial."
            )
            asked = "is not to be used" if case.temperature == 0 else "is to be used once, for all rows together"
            yield holds(close(got.state, generator.get_state()), f"The generator {asked}.")
            return
        yield same(got.ids, right, "the drawn tokens")


_DIVIDE = "logits = logits / temperature"
_TOP_K = "    if top_k is not None:\n        logits = top_k_filter(logits, top_k)\n"
_TOP_P = "    if top_p is not None:\n        logits = top_p_filter(logits, top_p)\n"
for _name, _message, _edits, _read in [
    (
        "multiplies by the temperature",
        "The logits were multiplied by the temperature. Divide: a low temperature makes likely tokens likelier.",
        {_DIVIDE: "logits = logits * temperature"},
        "",
    ),
    (
        "temperature ignored",
        "The temperature changes nothing. Divide the logits by it before the softmax.",
        {_DIVIDE: "pass"},
        "",
    ),
    (
        "temperature after the filters",
        "The filters saw the logits before the temperature. Divide by it first: top_p looks at the probabilities that "
        "are drawn from.",
        {_DIVIDE: "pass", "logits.softmax(-1)": "(logits / temperature).softmax(-1)"},
        "one-token",
    ),
    (
        "top_p before top_k",
        "top_p was applied before top_k. The order is temperature, top_k, top_p.",
        {_TOP_K + _TOP_P: _TOP_P + _TOP_K},
        "one-token",
    ),
    ("top_k ignored", "top_k is given and changes nothing.", {_TOP_K: ""}, "top-k"),
    ("top_p ignored", "top_p is given and changes nothing.", {_TOP_P: ""}, "top-p"),
    (
        "only one filter",
        "Where both top_k and top_p are given, only the first was applied. Apply both.",
        {"    if top_p is not None": "    elif top_p is not None"},
        "one-token",
    ),
    (
        "top_k 0 taken for none",
        "A top_k of 0 was taken for none: the number 0 counts as false. Ask `top_k is not None`; top_k_filter refuses the 0.",
        {"if top_k is not None:": "if top_k:"},
        "one-token",
    ),
    (
        "top_p 0 taken for none",
        "A top_p of 0 was taken for none: the number 0 counts as false. Ask `top_p is not None`; top_p_filter refuses the 0.",
        {"if top_p is not None:": "if top_p:"},
        "one-token",
    ),
    (
        "zeros taken for none",
        "A top_k or top_p of 0 was taken for none: the number 0 counts as false. Ask `is not None`; the filters refuse the 0.",
        {"if top_k is not None:": "if top_k:", "if top_p is not None:": "if top_p:"},
        "one-token",
    ),
    (
        "filters at temperature 0",
        "At temperature 0 the filters were called. The likeliest token passes every filter: leave them out.",
        {f"    if temperature == 0:\n        {_GREEDY}\n    {_DIVIDE}\n": f"    {_DIVIDE.replace('temperature', '(temperature or 1)')}\n",
         _MULTINOMIAL: f"if temperature == 0:\n        {_GREEDY}\n    {_MULTINOMIAL}"},
        "one-token",
    ),
    (
        "always the likeliest",
        "The likeliest token was taken although the temperature is not 0. Draw one with torch.multinomial.",
        {_MULTINOMIAL: _GREEDY},
        "",
    ),
    (
        "the least likely at temperature 0",
        "At temperature 0 the *least* likely token was taken.",
        {"argmax": "argmin"},
        "",
    ),
    (
        "one token for the batch",
        "At temperature 0 one token was taken for the whole batch. Take the likeliest of each row.",
        {_GREEDY: "return logits.argmax().expand(len(logits), 1) % logits.size(-1)"},
        "",
    ),
    (
        "one axis too few",
        "The tokens came back as (B,). Keep an axis for the place: (B, 1).",
        {_MULTINOMIAL: _MULTINOMIAL + "[:, 0]", "keepdim=True": "keepdim=False"},
        "",
    ),
    (
        "draws at temperature 0 too",
        "At temperature 0 a token was drawn. Take the likeliest, and leave the generator alone.",
        {_GREEDY: "return torch.multinomial(logits.softmax(-1), 1, generator=generator)"},
        "",
    ),
    (
        "the generator is not used",
        "The draws do not come from the generator that is passed in. Write generator=generator in torch.multinomial.",
        {", generator=generator": ""},
        "one-token",
    ),
]:  # fmt: skip
    slip(Draw, _name, _message, _edits, read=_read)


@exercise(
    "generation.KVCache",
    parts={"keys and values": 2, "length": 1, "shared heads": 1, "rows": 1},
    difficulty=3,
    minutes=30,
    read="11_generation#the-cache",
    sections={"shared heads": "kept-heads", "rows": "reorder"},
    builds_on=SOFTMAXES,
    instead="Build it from two lists of tensors and `torch.cat`.",
)
class KVCache(Check):
    """Tokens that are read in parts by two layers, with an attention function to which the keys' order matters.

    Every part but "shared heads" has heads that all differ, and only "rows" reorders.
    """

    equivalent: ClassVar = {
        f"KVCache.attend.attend_to_all: if group > 1: -> if {other}:": "to repeat each head once changes nothing"
        for other in ("True", "group >= 1", "group > 0")
    } | {
        f"KVCache.length: {_LENGTH} -> {_LENGTH.replace('size(-2)', 'size(2)')}": FOUR_AXES,
        f"KVCache.length: {_LENGTH} -> {_LENGTH.replace('keys[0]', 'keys[-1]')}": "all layers keep the same tokens",
        f"KVCache.attend.attend_to_all: {_KEYS} -> {_KEYS.replace('-2', '2')}": FOUR_AXES,
        f"KVCache.attend.attend_to_all: {_VALUES} -> {_VALUES.replace('-2', '2')}": FOUR_AXES,
    }

    def prepare(self, rng):
        def inputs(parts, heads=2, num_kv_heads=None, layers=2, rows=2, order=None, dtype=torch.float64, width=3):
            sizes = (layers, rows, num_kv_heads or heads, sum(parts), width)
            repeats = heads // (num_kv_heads or heads)
            query = rng.normal(layers, rows, heads, sum(parts), width, dtype=dtype)
            key, value = (rng.normal(*sizes, dtype=dtype).repeat_interleave(repeats, dim=2) for _ in range(2))
            order = None if order is None else torch.tensor(order)
            data = {"query": query, "key": key, "value": value, "order": order}
            return data | {"parts": list(parts), "num_kv_heads": num_kv_heads}

        kept, length, shared, rows = self.parts
        yield Case("three tokens, then one, then two", inputs([3, 1, 2]), kept)
        yield Case("one token at a time", inputs([1, 1, 1, 1], rows=1), kept)
        yield Case("three layers, float32", inputs([4, 2], layers=3, dtype=torch.float32), kept)
        yield Case("all tokens at once", inputs([5]), kept)
        yield Case("num_kv_heads = H", inputs([2, 3], num_kv_heads=2), kept)
        yield Case("four heads, five parts", inputs([2, 1, 1, 3, 1], heads=4), kept, hidden=True)
        yield Case("two tokens, then three", inputs([2, 3]), length)
        yield Case("three tokens, then one and one, one layer", inputs([3, 1, 1], layers=1), length)
        yield Case("four heads share two", inputs([2, 2], heads=4, num_kv_heads=2), shared)
        yield Case("six heads share one", inputs([3, 1, 1], heads=6, num_kv_heads=1), shared)
        yield Case("row 1 goes on twice", inputs([2, 2], rows=3, order=[1, 1, 0]), rows)
        yield Case("rows in another order", inputs([3, 1], rows=3, order=[1, 2, 0]), rows)
        yield Case("fewer rows go on", inputs([2, 1], rows=3, order=[2]), rows)

    @staticmethod
    def probe(cache_class, case, /):
        def attention(query, key, value, mask=None):
            places = torch.arange(key.size(-2)).to(query)
            scores = query @ key.transpose(-2, -1) + 0.3 * places
            weights = scores.masked_fill(~mask, -1e9).softmax(-1)
            return weights @ value, weights

        cache = cache_class(case.num_kv_heads)
        before, lengths, outputs, start = cache.length, [], [], 0
        for number, count in enumerate(case.parts):
            if number == len(case.parts) - 1 and case.order is not None:
                cache.reorder(case.order)
            end = start + count
            rows = slice(None) if number < len(case.parts) - 1 or case.order is None else slice(len(case.order))
            mask = torch.ones(end, end, dtype=torch.bool).tril()[start:]
            for layer in range(case.key.size(0)):
                new = [part[layer, rows, :, start:end] for part in (case.query, case.key, case.value)]
                outputs.append(cache.attend(layer, attention)(*new, mask))
            lengths.append(cache.length)
            start = end
        kept = [part for name in ("keys", "values") for part in getattr(cache, name, [])]
        sizes = [sum(part.numel() for part in kept if isinstance(part, Tensor)), len(kept)]
        return {"outputs": outputs, "lengths": [before, *lengths], "sizes": sizes}

    def judge(self, case, got):
        right = self.probe(generation.KVCache, case)
        if case.part == "length":
            yield same_items(got.lengths, right["lengths"], "`length` at first and after each part")
            return
        layers = case.key.size(0)
        for place, (pair, (mixed, weights)) in enumerate(zip(got.outputs, right["outputs"], strict=True)):
            where = f"that layer {place % layers} gives for part {place // layers} of the tokens"
            yield holds(
                type(pair) is tuple and len(pair) == 2,
                "The function that `attend` returns must give what the given function gives: the mixed values and the "
                "weights, as one tuple.",
            )
            yield same(pair[0], mixed, f"the mixed values {where}")
            if case.part == "keys and values":
                yield same(pair[1], weights, f"the weights {where}")
        if case.part == "shared heads":
            yield holds(
                got.sizes == right["sizes"],
                "The cache does not keep one key and one value for each group of heads, in the lists `keys` and `values`.",
            )


_ALL = "keys, values = self.keys[layer], self.values[layer]"
_SLICED = "key, value = key[:, ::group], value[:, ::group]"
_REPEATED = "keys, values = repeat_heads(keys, num_heads), repeat_heads(values, num_heads)"
for _name, _message, _edits, _read in [
    (
        "new tokens in front",
        "The new keys and values were put before the kept ones. They stand behind: the text goes on to the right.",
        {_KEYS: "self.keys[layer] = torch.cat([key, self.keys[layer]], dim=-2)",
         _VALUES: "self.values[layer] = torch.cat([value, self.values[layer]], dim=-2)"},
        "",
    ),
    (
        "values in another order than keys",
        "The new values were put before the kept ones, and the keys behind them: each key then has another's value.",
        {_VALUES: "self.values[layer] = torch.cat([value, self.values[layer]], dim=-2)"},
        "",
    ),
    (
        "only what came first is kept",
        "What the layer kept at first never grows: after the second part its tokens are forgotten.",
        {_ALL: _ALL + "\n            if query.size(-2) < keys.size(-2):\n"
         "                self.keys[layer], self.values[layer] = keys[:, :, :-query.size(-2)], values[:, :, :-query.size(-2)]"},
        "",
    ),
    (
        "keys and values swapped",
        "Keys were used as values and values as keys.",
        {_ALL: "values, keys = self.keys[layer], self.values[layer]"},
        "",
    ),
    (
        "one layer for all",
        "All layers share one store. Each layer has keys and values of its own.",
        {_KEYS: _KEYS.replace("[layer]", "[0]"), _VALUES: _VALUES.replace("[layer]", "[0]"),
         _ALL: _ALL.replace("[layer]", "[0]")},
        "",
    ),
    (
        "the mask is lost",
        "The mask is not handed on, so tokens of the first part see those behind them. Call attend(query, keys, values, mask).",
        {"return attend(query, keys, values, mask)": "return attend(query, keys, values, torch.ones_like(mask))"},
        "",
    ),
    (
        "the weights are lost",
        "The weights are not handed back: give all that `attend` gives, not the mixed values alone.",
        {"return attend(query, keys, values, mask)": "return attend(query, keys, values, mask)[0], None"},
        "",
    ),
    (
        "length of the last part",
        "`length` is the number of tokens read last. It counts all that were read.",
        {"            if group > 1:": "            self.last = query.size(-2)\n            if group > 1:",
         _LENGTH: "return self.last if self.keys else 0"},
        "",
    ),
    (
        "length summed over the layers",
        "`length` counts each token once for every layer. All layers keep the same tokens: look at one.",
        {_LENGTH: "return sum(key.size(-2) for key in self.keys)"},
        "",
    ),
    (
        "length counts heads",
        "`length` is the number of heads. The tokens are on the axis before the last.",
        {"self.keys[0].size(-2)": "self.keys[0].size(1)"},
        "",
    ),
    (
        "length counts parts",
        "`length` is the number of times that tokens were read. It counts tokens.",
        {"            if group > 1:": "            self.calls = getattr(self, 'calls', 0) + (layer == 0)\n            if group > 1:",
         _LENGTH: "return self.calls if self.keys else 0"},
        "",
    ),
    (
        "length forgets the last layer's step",
        "`length` is 1 before anything was read. It is 0 then.",
        {_LENGTH: "return self.keys[0].size(-2) if self.keys else 1"},
        "",
    ),
    (
        "all heads kept",
        "Heads that share a key and value were kept several times. Keep the first of each group: `key[:, ::group]`.",
        {_SLICED: "pass", "if group > 1:": "if False:"},
        "kept-heads",
    ),
    (
        "the first heads kept",
        "The first `num_kv_heads` heads were kept. Equal heads are neighbours, so the first of each *group* must be kept.",
        {_SLICED: "key, value = (part[:, : self.num_kv_heads] for part in (key, value))"},
        "kept-heads",
    ),
    (
        "repeated as a whole",
        "The kept heads were repeated as a row, 0 1 0 1. Each must be repeated where it stands, 0 0 1 1: repeat_heads does it.",
        {_REPEATED: "keys, values = keys.repeat(1, group, 1, 1), values.repeat(1, group, 1, 1)"},
        "kept-heads",
    ),
    (
        "reorder does nothing",
        "`reorder` changes nothing. Row i must become what row rows[i] was.",
        {"self.keys = [key[rows] for key in self.keys]": "pass", "self.values = [value[rows] for value in self.values]": "pass",
         "            num_heads = key.size(1)": "            if self.keys and layer < len(self.keys) and len(self.keys[layer]) != len(key):\n"
         "                self.keys[layer], self.values[layer] = self.keys[layer][:len(key)], self.values[layer][:len(key)]\n"
         "            num_heads = key.size(1)"},
        "reorder",
    ),
    (
        "reorder moves the keys only",
        "`reorder` moves the keys and not the values.",
        {"self.values = [value[rows] for value in self.values]": "self.values = [value[:len(rows)] for value in self.values]"},
        "reorder",
    ),
    (
        "reorder moves the values only",
        "`reorder` moves the values and not the keys.",
        {"self.keys = [key[rows] for key in self.keys]": "self.keys = [key[:len(rows)] for key in self.keys]"},
        "reorder",
    ),
    (
        "reorder of one layer",
        "`reorder` moves the rows of the first layer only. Every layer keeps a row for each text.",
        {"[key[rows] for key in self.keys]": "[key[rows] if i == 0 else key[:len(rows)] for i, key in enumerate(self.keys)]",
         "[value[rows] for value in self.values]": "[value[rows] if i == 0 else value[:len(rows)] for i, value in enumerate(self.values)]"},
        "reorder",
    ),
]:  # fmt: skip
    slip(KVCache, _name, _message, _edits, read=_read)


class _Writing(Check):
    """A model that is a table: what follows depends on the last token and on how often each token was read.

    It reads through the cache as attention does, in heads that differ, so that the tokens which it is given and the
    heads that are kept show in what it says.
    """

    @staticmethod
    def probe(write, case, /):
        class Table(nn.Module):
            def __init__(self):
                super().__init__()
                self.config = make_config(**case.config)
                self.scores = nn.Parameter(case.scores.clone())
                self.calls = []

            def forward(self, ids, cache=None):
                def add_up(query, key, value, mask=None):
                    return value.cumsum(-2)[:, :, -query.size(-2) :], None

                self.calls.append([ids.size(0), ids.size(1), self.training, torch.is_grad_enabled()])
                one = nn.functional.one_hot(ids, self.scores.size(-1)).to(self.scores).unsqueeze(1)
                heads = torch.cat([one * weight for weight in case.heads], dim=1)
                attend = add_up if cache is None else cache.attend(0, add_up)
                return self.scores[ids] + attend(heads, heads, heads)[0].sum(1) @ case.history

        model, options = Table(), dict(case.options)
        model.train(case.training)
        if case.seed is not None:
            options["generator"] = torch.Generator().manual_seed(case.seed)
        try:
            ids = write(model, case.prompt, **options)
        except ValueError:
            if not case.bad:
                raise
            return {"error": "ValueError", "training": model.training}
        sizes = [call[1] for call in model.calls]
        modes = [any(call[place] for call in model.calls) for place in (2, 3)]
        return {"ids": ids, "sizes": sizes, "modes": modes, "training": model.training}

    def prepared(
        self, rng, size=7, prompt=(3, 1), training=False, bad=False, seed=None, heads=(1.0,), scores=None, **options
    ):
        """The inputs of a case: a table, and what the function is called with."""
        config = {"vocab_size": size, "d_model": 2, "num_heads": len(heads), "positions": "none", "max_length": 12}
        config |= options.pop("config", {})
        table = 2 * rng.normal(size, size) if scores is None else scores
        data = {
            "scores": table,
            "history": 0.7 * rng.normal(size, size),
            "prompt": torch.tensor(prompt, dtype=torch.long),
        }
        data |= {"heads": list(heads), "config": config, "training": training, "bad": bad, "seed": seed}
        return data | {"options": options}

    def written(self, write, data, **other):
        """What the reference writes for these inputs, with some of the options changed."""
        changed = data | {"options": data["options"] | other, "part": ""}
        return self.probe(write, SimpleNamespace(**changed)).get("ids")

    def until(self, rng, make, wanted):
        """Inputs that show the difference which a case is about: chance must not hide it.

        They are looked for once: the same seed finds the same ones.
        """
        seed = int(rng.integers(0, 2**31, 1))
        if (type(self), seed) not in self.found:
            own = Rng(seed)
            self.found[type(self), seed] = next(data for data in (make(own) for _ in range(5000)) if wanted(data))
        return self.found[type(self), seed]

    found: ClassVar = {}
    cached = "cache"
    """The part that looks at what the model is given."""

    def looks(self, case, got, write):
        """What both exercises look at: an error, how the model was called, or what was written."""
        if case.part == "the model":
            if not case.bad:
                yield holds(
                    not got.modes[0], "The model was called in training mode, in which it drops numbers at random."
                )
                yield holds(not got.modes[1], "Gradients were recorded while the model wrote.")
            after = " after an error" if case.bad else ""
            yield holds(got.training == case.training, f"The model was left in another mode than it came in{after}.")
        elif case.bad:
            yield holds(hasattr(got, "error"), NO_ERROR.format(case.bad))
        if case.bad:
            return
        right = self.probe(write, case)
        if case.part == self.cached:
            yield holds(
                list(got.sizes) == list(right["sizes"]),
                "The model was not given the tokens that it needs and no others: with a cache each token once, without one "
                "the whole text each time.",
            )
        if case.part != "the model":
            yield same(got.ids, right["ids"], "what was written")


def _chain(size, ends):
    """A table in which each token is followed by the next one; token 0 by one of `ends` alike."""
    scores = torch.zeros(size, size, dtype=torch.float64)
    for token in range(1, size - 1):
        scores[token, token + 1] = 60.0
    for token in ends:
        scores[0, token] = 60.0
    return scores


_LOGITS = "logits = repetition_penalty(model(new, cache)[:, -1], ids, penalty)"
_DRAW = "following = draw(logits, temperature, top_k, top_p, generator)"
_PENALISED = "repetition_penalty(model(new, cache)[:, -1], ids, penalty)"
OF_ALL_ROWS = {_LOGITS: _LOGITS.replace("ids,", "ids.reshape(1, -1).expand(len(ids), -1),")}
OF_LOG_PROBABILITIES = {_LOGITS: _LOGITS.replace("[:, -1],", "[:, -1].log_softmax(-1),")}
ONLY_THOSE_THAT_GO_ON = {
    _DRAW: "following, going = ids[:, -1:].clone(), ~ended[:, 0]\n            "
    "following[going] = draw(logits[going], temperature, top_k, top_p, generator)"
}


def _changed(edits, function):
    """The reference with a few words of its source changed."""
    source = inspect.getsource(function)
    for old, new in edits.items():
        assert old in source, old
        source = source.replace(old, new)
    return build(source, function)


def _alike(one, other):
    return one.shape == other.shape and torch.equal(one, other)


@exercise(
    "generation.sample",
    parts={"tokens": 1, "rows": 1, "end": 1, "penalty": 1, "cache": 1, "the model": 1, "error": 1},
    claims=("the model", "error"),
    difficulty=3,
    minutes=35,
    read="11_generation#sampling",
    sections={"penalty": "repetition", "cache": "the-cache"},
    builds_on=SOFTMAXES,
    instead="Build it from the model, `repetition_penalty` and `draw`, in a loop.",
)
class Sample(_Writing):
    """Tables that show what each part is about; "cache" alone has heads that share."""

    equivalent: ClassVar = {
        f"sample: {_ENDED} -> ended = (following == end_id) | ended": ORDER,
        f"sample: {_ENDED} -> ended = following == end_id": "a row that has ended was filled with end_id just before",
    }

    def prepare(self, rng):
        def inputs(n=5, rng=rng, **options):
            return self.prepared(rng, max_new_tokens=n, **options)

        def telling(make, *others):
            """Inputs for which each of these changes of the options would change what is written."""
            return self.until(rng, make, lambda data: all(self.differs(data, **other) for other in others))

        tokens, rows, end, penalty, cache, model, error = self.parts
        greedy = {"temperature": 0.0}
        yield Case("temperature 0", inputs(**greedy), tokens)
        yield Case("one new token", inputs(1, prompt=[2], **greedy), tokens)
        yield Case("a longer prompt", inputs(4, prompt=[6, 5, 0, 0, 2], **greedy), tokens)
        warm = {"seed": 11, "temperature": 0.6}
        yield Case(
            "temperature 0.6",
            telling(lambda rng: inputs(8, rng, **warm), {"temperature": 1.0}, {"temperature": 0.0}),
            tokens,
        )
        plain = {"seed": 16}
        yield Case(
            "temperature 1, which is the default",
            telling(lambda rng: inputs(8, rng, **plain), {"temperature": 2.0}),
            tokens,
        )
        few = {"seed": 12, "temperature": 1.5, "top_k": 2}
        yield Case("top_k = 2", telling(lambda rng: inputs(8, rng, **few), {"top_k": None}, {"top_k": 3}), tokens)
        likely = {"seed": 13, "temperature": 1.5, "top_p": 0.6}
        yield Case("top_p = 0.6", telling(lambda rng: inputs(8, rng, **likely), {"top_p": None}), tokens)
        every = {"seed": 14, "temperature": 2.0, "top_k": 4, "top_p": 0.9}
        yield Case(
            "all three",
            telling(lambda rng: inputs(8, rng, **every), {"top_k": None}, {"top_p": None}),
            tokens,
            hidden=True,
        )
        three = {"seed": 15, "temperature": 1.5, "num_return_sequences": 3}
        yield Case("three rows", self.until(rng, lambda rng: inputs(6, rng, **three), self.rows_differ), rows)
        yield Case("two rows at temperature 0", inputs(4, num_return_sequences=2, **greedy), rows)
        chain = {"size": 7, "end_id": 6, "scores": _chain(7, [5])}
        yield Case("one row that ends", inputs(8, prompt=[4], **chain, **greedy), end)
        yield Case("a row that ends at the last step", inputs(3, prompt=[2, 3], **chain, **greedy), end)
        yield Case("the end stands in the prompt", inputs(5, prompt=[6, 4], **chain, **greedy), end)
        backwards = {"size": 7, "end_id": 0, "scores": _chain(7, [5]).flip(0, 1)}
        yield Case("the end is token 0", inputs(8, prompt=[2], **backwards, **greedy), end)
        yield Case("no end_id", inputs(6, prompt=[4], **chain | {"end_id": None}, **greedy), end)
        forked = {"size": 7, "end_id": 6, "scores": _chain(7, [2, 5]), "num_return_sequences": 4, "prompt": [0]}
        uneven = self.until(
            rng, lambda rng: inputs(9, rng, seed=int(rng.integers(0, 1000, 1)), **forked), self.ends_differ
        )
        yield Case("rows that end at different steps", uneven, end)
        by_chance = {"seed": 17, "temperature": 1.5, "end_id": 6, "num_return_sequences": 4}
        going_on = self.told_by(rng, lambda rng: inputs(8, rng, **by_chance), ONLY_THOSE_THAT_GO_ON)
        yield Case("some rows have ended, and others are drawn", going_on, end)
        loud = {"temperature": 0.0, "penalty": 3.0}
        yield Case(
            "penalty = 3, temperature 0",
            self.until(rng, lambda rng: inputs(7, rng, **loud), lambda data: self.differs(data, penalty=1.0)),
            penalty,
        )
        yield Case(
            "the prompt counts too",
            self.until(
                rng,
                lambda rng: inputs(1, rng, prompt=[3, 1, 1, 5], **loud),
                lambda data: self.differs(data, penalty=1.0),
            ),
            penalty,
        )
        drawn = {"seed": 18, "penalty": 1.5, "num_return_sequences": 3}
        yield Case(
            "penalty = 1.5, three rows by chance",
            self.told_by(
                rng,
                lambda rng: inputs(6, rng, **drawn),
                OF_ALL_ROWS,
                OF_LOG_PROBABILITIES,
                {_PENALISED: "model(new, cache)[:, -1]"},
            ),
            penalty,
        )
        shared = {"heads": (1.0, 0.4), "config": {"num_kv_heads": 1}}
        yield Case("use_cache=False", inputs(4, prompt=[1, 2, 3], use_cache=False, **greedy), cache)
        yield Case("with a cache", inputs(4, prompt=[1, 2, 3], **greedy), cache)
        apart = self.until(rng, lambda rng: inputs(4, rng, **shared, **greedy), self.heads_matter)
        yield Case("heads that share keys and values", apart, cache)
        yield Case("a model in training mode", inputs(2, training=True, **greedy), model)
        yield Case("a model in eval mode", inputs(2, training=False, **greedy), model)
        yield Case(
            "top_k above V, in training mode", inputs(2, training=True, top_k=8, bad="top_k is too large"), model
        )
        yield Case("temperature = -1", inputs(2, temperature=-1.0, bad="the temperature is below 0"), error)
        yield Case("num_return_sequences = 0", inputs(2, num_return_sequences=0, bad="no row is asked for"), error)
        yield Case("an empty prompt", inputs(2, prompt=[], bad="the prompt is empty"), error)
        yield Case("max_new_tokens = 0", inputs(0, bad="no new token is asked for"), error)
        short = {"config": {"positions": "learned", "max_length": 4}}
        yield Case("more tokens than positions", inputs(3, **short, bad="the text outgrows the positions"), error)

    def differs(self, data, **other):
        """Whether other options would give another text."""
        return not torch.equal(self.written(generation.sample, data), self.written(generation.sample, data, **other))

    def told_by(self, rng, make, *changes):
        """Inputs for which each of these changes of the reference would change what is written."""
        others = [_changed(edits, generation.sample) for edits in changes]
        right = partial(self.written, generation.sample)
        return self.until(
            rng, make, lambda data: all(not _alike(right(data), self.written(one, data)) for one in others)
        )

    def heads_matter(self, data):
        """Whether it shows in the text how many heads the cache keeps."""
        apart = data | {"config": data["config"] | {"num_kv_heads": None}}
        return not torch.equal(self.written(generation.sample, data), self.written(generation.sample, apart))

    def rows_differ(self, data):
        """Whether the rows are not all the same."""
        return bool((self.written(generation.sample, data) != self.written(generation.sample, data)[:1]).any())

    def ends_differ(self, data):
        """Whether one row ends before another."""
        ended = (self.written(generation.sample, data) == data["options"]["end_id"]).sum(1)
        return bool((ended != ended[0]).any())

    def judge(self, case, got):
        yield from self.looks(case, got, generation.sample)


_NEW = "new = ids if cache is None else ids[:, cache.length:]"
_NEW_SOURCE = "new = ids if cache is None else ids[:, cache.length :]"
_FILL = "following = following.masked_fill(ended, end_id)"
_CACHE = "cache = KVCache(model.config.num_kv_heads) if use_cache else None"
_STOP = "            if ended.all():\n                break\n"
_EVALUATING = "with evaluating(model):"
for _name, _message, _edits, _read in [
    (
        "first place's logits",
        "The logits of the first place are used. Those of the last place are for the token that comes next.",
        {"[:, -1], ids": "[:, 0], ids"},
        "",
    ),
    (
        "the prompt is missing",
        "The prompt is not in the result. Return it with what follows: (N, T + n).",
        {"    return ids": "    return ids[:, len(prompt):]"},
        "",
    ),
    (
        "one token too few",
        "One token is missing at the end. max_new_tokens counts the tokens behind the prompt.",
        {"range(max_new_tokens)": "range(max(1, max_new_tokens - 1))"},
        "",
    ),
    (
        "one token too many",
        "One token too many was written.",
        {"range(max_new_tokens)": "range(max_new_tokens + 1)"},
        "",
    ),
    (
        "temperature ignored",
        "The temperature does not reach `draw`.",
        {_DRAW: _DRAW.replace("temperature", "1.0 if temperature else 0")},
        "temperature",
    ),
    ("top_k ignored", "top_k does not reach `draw`.", {_DRAW: _DRAW.replace("top_k", "top_k if top_p or (top_k or 0) > logits.size(-1) else None")}, "top-k"),
    ("top_p ignored", "top_p does not reach `draw`.", {_DRAW: _DRAW.replace("top_p", "None")}, "top-p"),
    (
        "always greedy",
        "The likeliest token was taken each time, whatever the temperature. Call `draw`.",
        {_DRAW: _DRAW.replace("temperature", "0 if (top_k or 0) <= logits.size(-1) else 1.0")},
        "temperature",
    ),
    (
        "one row for all",
        "All rows are the same text. Draw a token for each row.",
        {_DRAW: _DRAW.replace("(logits,", "(logits[:1],") + ".repeat(len(ids), 1)"},
        "",
    ),
    (
        "one row only",
        "A single row came back, whatever num_return_sequences says.",
        {"prompt.repeat(num_return_sequences, 1)": "prompt.repeat(1, 1)"},
        "",
    ),
    (
        "rows side by side",
        "The copies of the prompt were put into one long row. Each is a row of the batch: (N, T).",
        {"prompt.repeat(num_return_sequences, 1)": "prompt.repeat(num_return_sequences)[None]"},
        "",
    ),
    (
        "goes on after its end",
        "After its end a row goes on with what was drawn. Fill it with end_id.",
        {_FILL: "pass"},
        "",
    ),
    (
        "fills with zeros",
        "After its end a row is filled with 0. Fill it with end_id.",
        {"masked_fill(ended, end_id)": "masked_fill(ended, 0)"},
        "",
    ),
    (
        "the end ignored",
        "end_id is given and ends nothing.",
        {"if end_id is not None:": "if False:"},
        "",
    ),
    (
        "an end 0 ignored",
        "An end_id of 0 ends nothing: the number 0 counts as false. Ask `end_id is not None`.",
        {"if end_id is not None:": "if end_id:"},
        "",
    ),
    (
        "only rows that go on are drawn",
        "A token was drawn for the rows alone that had not ended, and the others get other random numbers by that. Draw for all "
        "rows together; the end is filled in afterwards.",
        ONLY_THOSE_THAT_GO_ON,
        "",
    ),
    (
        "never stops",
        "Writing goes on to max_new_tokens although every row has ended. Stop when all have.",
        {_STOP: ""},
        "",
    ),
    (
        "stops at the first end",
        "Writing stops as soon as one row has ended. Stop when *all* have.",
        {"ended.all()": "ended.any()"},
        "",
    ),
    (
        "the end in the prompt counts",
        "An end_id in the prompt counts as the end of the text. Only those that are written behind it do.",
        {"ended = torch.zeros_like(ids[:, :1], dtype=torch.bool)": "ended = (ids == -1 if end_id is None else ids == end_id).any(-1, keepdim=True)"},
        "",
    ),
    (
        "no penalty",
        "The penalty changes nothing. Apply repetition_penalty to the logits before `draw`.",
        {_LOGITS: "logits = model(new, cache)[:, -1]"},
        "repetition",
    ),
    (
        "the penalty for all rows together",
        "A row was penalised for tokens of other rows. Each row has a text of its own.",
        OF_ALL_ROWS,
        "repetition",
    ),
    (
        "the penalty on ln p",
        "The penalty was applied to logarithms of probabilities. Those are all below 0; apply it to the logits as the model "
        "gives them.",
        OF_LOG_PROBABILITIES,
        "repetition",
    ),
    (
        "the penalty forgets the prompt",
        "Only tokens written behind the prompt were penalised. Those of the prompt stand in the text too.",
        {_LOGITS: _LOGITS.replace("ids, penalty", "ids[:, len(prompt):], penalty")},
        "repetition",
    ),
    (
        "the penalty sees the last token only",
        "Only the token written last was penalised. All tokens of the row are.",
        {_LOGITS: _LOGITS.replace("ids, penalty", "ids[:, -1:], penalty")},
        "repetition",
    ),
    (
        "no cache",
        "With use_cache the model still reads the whole text at each step. Make a KVCache, and give the model the tokens "
        "that it does not have yet.",
        {_CACHE: "cache = None"},
        "the-cache",
    ),
    (
        "always a cache",
        "use_cache is False, and a cache was used.",
        {"if use_cache else None": "if True else None"},
        "the-cache",
    ),
    (
        "the whole text into the cache",
        "With a cache the model was given the whole text at each step, and keeps every token again and again. Give it the "
        "tokens behind the first `cache.length`.",
        {_NEW_SOURCE: "new = ids"},
        "the-cache",
    ),
    (
        "a new cache each step",
        "A new cache was made at each step, and the model saw the last token alone.",
        {_NEW_SOURCE: "cache, new = (None, ids) if cache is None else (KVCache(model.config.num_kv_heads), ids[:, -1:] if ids.size(1) > len(prompt) else ids)"},
        "the-cache",
    ),
    (
        "shared heads kept apart",
        "The cache was not told how many heads differ. Write KVCache(model.config.num_kv_heads).",
        {"KVCache(model.config.num_kv_heads)": "KVCache()"},
        "kept-heads",
    ),
    (
        "gradients recorded",
        "Gradients were recorded, though nothing is trained. Write in the block `with evaluating(model):`.",
        {_EVALUATING: "model, training = model.eval() or model, model.training\n    try_again = model.train\n    for _ in [0]:"},
        "",
    ),
    (
        "training mode",
        "The model was called in the mode in which it came, and in training mode it drops numbers at random. Write in the "
        "block `with evaluating(model):`.",
        {_EVALUATING: "with torch.no_grad():"},
        "",
    ),
    (
        "left in eval mode",
        "The model was left in eval mode. It must have the mode in which it came.",
        {_EVALUATING: "model.eval()\n    with torch.no_grad():"},
        "",
    ),
    (
        "left in training mode",
        "The model was put into training mode at the end. It must have the mode in which it came.",
        {"    return ids": "    model.train()\n    return ids"},
        "",
    ),
    (
        "a temperature below 0 passes",
        "A temperature below 0 was not refused with a ValueError.",
        {"if temperature < 0:": "if False:"},
        "",
    ),
    (
        "no row passes",
        "num_return_sequences is 0, and no ValueError was raised.",
        {"if num_return_sequences < 1:": "if num_return_sequences < 0:"},
        "",
    ),
    (
        "the prompt is not looked at",
        "`check_prompt` was not called: a prompt that is empty or too long passes.",
        {"    check_prompt(model, prompt, max_new_tokens)\n": ""},
        "",
    ),
]:  # fmt: skip
    slip(Sample, _name, _message, _edits, read=_read)


_LOG_P = "log_p = model(beams[:, cache.length :], cache)[:, -1].log_softmax(-1)"
_EXTENDED = "extended = totals[:, None] + log_p"
_RANKED = "ranked = extended.flatten().topk(min(2 * num_beams, extended.numel()))"
_ROWS = "rows, tokens = ranked.indices // log_p.size(-1), ranked.indices % log_p.size(-1)"
_OVER = "over = ends[:num_beams] | (n == max_new_tokens)"
_DONE = "if len(finished) == num_beams and float(totals.max()) / n**length_penalty <= finished[-1][0]:"
_ENDS = "ends = tokens == end_id if end_id is not None else torch.zeros_like(tokens, dtype=torch.bool)"
_FINISHED = "finished += [(float(scores[place]), texts[place]) for place in over.nonzero().flatten().tolist()]"
_PAD = "return nn.utils.rnn.pad_sequence(best, batch_first=True, padding_value=0 if end_id is None else end_id)"
_FIRST = "beams, totals = prompt[None], torch.zeros(1, device=prompt.device)"
_STEPS = "for n in range(1, max_new_tokens + 1):"
FEWER = {"2 * num_beams": "num_beams"}
FURTHER_DOWN = {
    "ends[:num_beams] | (n == max_new_tokens)": "ends | ((n == max_new_tokens) & (torch.arange(len(ends)) < num_beams))",
    "ranked.values[:num_beams] /": "ranked.values /",
}
TOO_EARLY = {_DONE: "if len(finished) == num_beams:"}
ONE_STEP_MORE = {_STEPS: "for n in range(1, max_new_tokens + 2):"}


def _unparsed(line):
    """A line as a mutant's label shows it."""
    return ast.unparse(ast.parse(f"{line}\n    pass" if line.endswith(":") else line)).removesuffix("\n    pass")


@exercise(
    "generation.beam_search",
    parts={"best": 2, "end": 1, "length penalty": 1, "several": 1, "the model": 1, "error": 1},
    claims=("the model", "error"),
    difficulty=3,
    minutes=50,
    read="11_generation#beam-rule",
    sections={"best": "beam-search", "length penalty": "length-penalty"},
    builds_on=SOFTMAXES,
    instead="Build it from the log-probabilities of the model and `topk`, in a loop.",
)
class BeamSearch(_Writing):
    """Tables in which greedy search is misled; ends, lengths and several texts each in their own part."""

    cached = "the model"

    equivalent: ClassVar = {
        f"beam_search: {_unparsed(old)} -> {_unparsed(new)}": reason
        for old, new, reason in [
            (_LOG_P, _LOG_P.replace("softmax(-1)", "softmax(1)"), TWO_AXES),
            (_EXTENDED, "extended = log_p + totals[:, None]", ORDER),
            (_OVER, "over = (n == max_new_tokens) | ends[:num_beams]", ORDER),
            (_RANKED, _RANKED.replace("2 * num_beams", "num_beams * 2"), ORDER),
            (_RANKED, _RANKED.replace("2 * num_beams, extended.numel()", "extended.numel(), 2 * num_beams"), ORDER),
            (_RANKED, _RANKED.replace("2 *", "3 *"), "what stands further down is not looked at"),
            (_ROWS, _ROWS.replace("// log_p.size(-1)", "// log_p.size(1)"), TWO_AXES),
            (_ROWS, _ROWS.replace("% log_p.size(-1)", "% log_p.size(1)"), TWO_AXES),
            (_ENDS, _ENDS.replace(", dtype=torch.bool", ""), "0 counts as False and its complement -1 as True"),
            (
                _FINISHED,
                _FINISHED.replace("float(scores[place])", "scores[place]"),
                "a tensor of one number serves too",
            ),
            (_FINISHED, _FINISHED.replace(".tolist()", ""), "a tensor of one number serves too"),
            (_DONE, _DONE.replace("float(totals.max())", "totals.max()"), "a tensor of one number serves too"),
            (_DONE, _DONE.replace("<=", "<"), "differs only where two scores are exactly equal"),
            (_PAD, _PAD.replace("=0 if", "=1 if"), "without an end all texts have the same length"),
            (_PAD, _PAD.replace("=0 if", "=-1 if"), "without an end all texts have the same length"),
            (_FIRST, _FIRST.replace(", device=prompt.device", ""), "the check runs on the CPU"),
            (_STEPS, "for n in range(1, 1 + max_new_tokens):", ORDER),
        ]
    }

    def prepare(self, rng):
        def inputs(n, num_beams, rng=rng, **options):
            return self.prepared(rng, max_new_tokens=n, num_beams=num_beams, **options)

        def misleading(*sizes, fewer=1, **options):
            return self.until(
                rng, lambda rng: inputs(*sizes, rng=rng, **options), lambda data: self.differs(data, num_beams=fewer)
            )

        best, end, penalty, several, model, error = self.parts
        yield Case("one beam", inputs(5, 1), best)
        yield Case("two beams, where greedy search is misled", misleading(5, 2), best)
        yield Case("four beams", misleading(6, 4, fewer=2), best)
        yield Case("one new token", inputs(1, 3), best)
        yield Case("more beams than tokens", misleading(3, 5, size=3, prompt=[1]), best)
        yield Case(
            "heads that share keys and values", misleading(5, 3, heads=(1.0, 0.4), config={"num_kv_heads": 1}), best
        )
        yield Case("seven beams, eight tokens", misleading(8, 7), best, hidden=True)
        telling = {
            "two beams, and texts that end": (2, 1.0, FEWER),
            "three beams, and texts that end": (3, 0.0, FURTHER_DOWN),
            "texts that may still be beaten": (3, 1.5, TOO_EARLY),
            "the last step is the last": (3, 2.0, ONE_STEP_MORE),
        }
        for title, (beams, gamma, edits) in telling.items():
            other = _changed(edits, generation.beam_search)
            data = self.until(
                rng,
                lambda rng, beams=beams, gamma=gamma: inputs(6, beams, rng, end_id=4, size=5, length_penalty=gamma),
                lambda data, other=other: self.ends_early(data) and self.told_apart(data, other),
            )
            yield Case(title, data, end)
        zero = self.until(
            rng,
            lambda rng: inputs(6, 3, rng, end_id=0, size=5),
            lambda data: self.ends_early(data) and self.differs(data, end_id=None),
        )
        yield Case("the end is token 0", zero, end)
        yield Case("an end that is never likely", inputs(4, 3, end_id=0, scores=_never(rng, 7, 0)), end)
        yield Case("the end stands in the prompt", inputs(4, 3, end_id=3, scores=_never(rng, 7, 3)), end)
        for gamma in (0.0, 0.5, 2.0):
            yield Case(
                f"length_penalty = {gamma}",
                self.until(
                    rng,
                    lambda rng, gamma=gamma: inputs(7, 3, rng, end_id=4, size=5, length_penalty=gamma),
                    lambda data: self.differs(data, length_penalty=1.0) and self.ends_early(data | {"loose": True}),
                ),
                penalty,
            )
        yield Case("three texts", inputs(5, 4, num_return_sequences=3), several)
        yield Case("ten texts of ten beams, five tokens", inputs(3, 10, size=5, num_return_sequences=10), several)
        yield Case(
            "five texts, and there are but three", inputs(1, 5, size=3, prompt=[1], num_return_sequences=5), several
        )
        yield Case(
            "texts of different lengths",
            self.until(
                rng, lambda rng: inputs(6, 4, rng, num_return_sequences=4, end_id=4, size=5), self.lengths_differ
            ),
            several,
        )
        yield Case("a model in training mode", inputs(2, 2, training=True), model)
        yield Case("a model in eval mode", inputs(2, 2, training=False), model)
        yield Case("num_return_sequences = 0", inputs(2, 2, num_return_sequences=0, bad="no text is asked for"), error)
        yield Case(
            "more texts than beams", inputs(2, 2, num_return_sequences=3, bad="3 texts of 2 beams are asked for"), error
        )
        yield Case("no beam", inputs(2, 0, bad="there is no beam"), error)
        yield Case("an empty prompt", inputs(2, 2, prompt=[], bad="the prompt is empty"), error)

    def differs(self, data, **other):
        """Whether other options would give another text."""
        first, second = (self.written(generation.beam_search, data, **o) for o in ({}, other))
        return not _alike(first, second)

    def told_apart(self, data, other):
        """Whether another way of searching gives another text, and no error."""
        try:
            theirs = self.written(other, data)
        except (RuntimeError, IndexError):
            return False
        ours = self.written(generation.beam_search, data)
        return not _alike(ours, theirs)

    def ends_early(self, data):
        """Whether the best text ends, and is not the one that is found when nothing ends."""
        ids, end_id = self.written(generation.beam_search, data), data["options"]["end_id"]
        new = ids[0, len(data["prompt"]) :]
        return bool((new == end_id).any()) and len(new) > 1 and ("loose" in data or self.differs(data, num_beams=1))

    def lengths_differ(self, data):
        """Whether the texts have different lengths."""
        ids = self.written(generation.beam_search, data)[:, len(data["prompt"]) :]
        ended = (ids == data["options"]["end_id"]).sum(1)
        return bool((ended > 1).any()) and bool((ended != ended[0]).any())

    def judge(self, case, got):
        yield from self.looks(case, got, generation.beam_search)


def _never(rng, size, token):
    """A table in which one token is never likely."""
    scores = 2 * rng.normal(size, size)
    scores[:, token] = -80.0
    return scores


_SCORES = "scores = ranked.values[:num_beams] / n**length_penalty"
_SORTED = "finished = sorted(finished, key=lambda found: -found[0])[:num_beams]"
_GOING = "going = (~ends).nonzero().flatten()[:num_beams]"
_BEST = "best = [text for _, text in finished[:num_return_sequences]]"
for _name, _message, _edits, _read in [
    (
        "greedy",
        "Only the likeliest extension goes on, so this is greedy search. num_beams texts must go on.",
        {_GOING: "going = (~ends).nonzero().flatten()[:1]", _DONE: "if False:",
         _SORTED: "finished = sorted(finished, key=lambda found: -found[0])[:1]"},
        "beam-search",
    ),
    (
        "logits instead of ln p",
        "Logits were added up. Those of different texts cannot be compared: take log_softmax first.",
        {".log_softmax(-1)": ""},
        "beam-search",
    ),
    (
        "probabilities added up",
        "Probabilities were added up. The probability of a text is a *product*: add their logarithms.",
        {".log_softmax(-1)": ".softmax(-1)"},
        "beam-search",
    ),
    (
        "sums forgotten",
        "Only the last token's ln p counts. Each beam has a sum, which goes on.",
        {_EXTENDED: "extended = 0 * totals[:, None] + log_p"},
        "beam-search",
    ),
    (
        "the cache not reordered",
        "The rows of the cache were not reordered: a beam reads the keys and values of another text.",
        {"            cache.reorder(rows[going])\n":
         "            cache.reorder((torch.arange(len(going)) % len(log_p)))\n"},
        "reorder",
    ),
    (
        "reorder forgotten",
        "The cache still has the rows of the step before. Call cache.reorder with the rows that go on.",
        {"            cache.reorder(rows[going])\n": ""},
        "reorder",
    ),
    (
        "more than there are",
        "More extensions were asked for than there are. With few tokens there are fewer than 2 * num_beams: take the smaller "
        "number.",
        {_RANKED: "ranked = extended.flatten().topk(2 * num_beams)"},
        "beam-search",
    ),
    (
        "as many extensions as tokens",
        "Only as many extensions were looked at as there are tokens. Each of the beams has that many.",
        {_RANKED: "ranked = extended.flatten().topk(min(2 * num_beams, log_p.size(-1)))"},
        "beam-search",
    ),
    (
        "each beam by itself",
        "Each beam was extended by its own best token. All extensions of all beams must be compared.",
        {_RANKED: "ranked = extended.flatten().topk(min(2 * num_beams, extended.numel())) if len(beams) == 1 else "
         "torch.return_types.topk((lambda v, i: (v.flatten(), (i + torch.arange(len(i))[:, None] * log_p.size(-1)).flatten()))"
         "(*extended.topk(1)))"},
        "beam-search",
    ),
    (
        "ends ignored",
        "end_id is given and ends nothing.",
        {"if end_id is not None else": "if False else"},
        "",
    ),
    (
        "only one per beam looked at",
        "Only num_beams extensions were looked at, so texts that end take the place of those that go on. Look at twice as "
        "many.",
        FEWER,
        "",
    ),
    (
        "ends further down count",
        "A text that ends counts as finished although num_beams extensions are better. Only those among the first num_beams "
        "are finished.",
        FURTHER_DOWN,
        "",
    ),
    (
        "stops with the first end",
        "The search stops as soon as one text has ended. Others may still be better.",
        {"if len(finished) == num_beams and": "if finished and 0 *", "<= finished[-1][0]": "<= 0"},
        "",
    ),
    (
        "stops when there are enough",
        "The search stops when num_beams texts have ended, though a beam may still become better than the worst of them.",
        TOO_EARLY,
        "",
    ),
    (
        "one step more",
        "A text may have one token more than max_new_tokens.",
        ONE_STEP_MORE,
        "",
    ),
    (
        "never done",
        "The search goes on where it is over: no beam, if it ended now, with its length of now, would beat the worst of the best "
        "num_beams finished texts.",
        {_DONE: "if False:"},
        "",
    ),
    (
        "done when the best is safe",
        "The search is over as soon as no beam would beat the *best* finished text. Compare with the worst of those that are "
        "kept: another may still take its place.",
        {_DONE: _DONE.replace("finished[-1]", "finished[0]")},
        "",
    ),
    (
        "the end not counted",
        "The end of a text was not counted in its length. It is one of the n new tokens.",
        {_SCORES: "lengths = torch.where(ends[:num_beams], max(n - 1, 1), n)\n            scores = ranked.values[:num_beams] / lengths**length_penalty"},
        "length-penalty",
    ),
    (
        "finished texts forgotten",
        "Texts that ended on the way are forgotten: only those of the last step were compared.",
        {"finished += [": "finished = [] if n == max_new_tokens else finished\n            finished += [",
         _DONE: "if False:"},
        "",
    ),
    (
        "no length penalty",
        "The length penalty changes nothing. Divide the sum by n ** length_penalty.",
        {"/ n**length_penalty": "/ n"},
        "length-penalty",
    ),
    (
        "multiplies by the length",
        "The sum was multiplied by n ** length_penalty. Divide: the sum is negative, and longer texts must gain.",
        {"/ n**length_penalty": "* n**length_penalty"},
        "length-penalty",
    ),
    (
        "the prompt counts as length",
        "The length counts the tokens of the prompt. Only new tokens count: those before have no ln p in the sum.",
        {"/ n**length_penalty": "/ (n + len(prompt))**length_penalty"},
        "length-penalty",
    ),
    (
        "the worst first",
        "The texts came back with the worst first. The best stands first.",
        {_BEST: "best = [text for _, text in finished[:num_return_sequences]][::-1]"},
        "",
    ),
    (
        "the worst of them",
        "The worst of the finished texts came back. Return the best.",
        {_BEST: "best = [text for _, text in finished[::-1][:num_return_sequences]]"},
        "",
    ),
    (
        "one text only",
        "One text came back, whatever num_return_sequences says.",
        {_BEST: "best = [text for _, text in finished[:1]]"},
        "",
    ),
    (
        "as many as were asked for",
        "There are fewer finished texts than were asked for, and that is no error. Return those that there are.",
        {_BEST: "if len(finished) < num_return_sequences:\n        raise ValueError('too few texts')\n    " + _BEST},
        "",
    ),
    (
        "an end 0 ignored",
        "An end_id of 0 ends nothing: the number 0 counts as false. Ask `end_id is not None`.",
        {_ENDS: _ENDS.replace("if end_id is not None", "if end_id")},
        "",
    ),
    (
        "all finished texts",
        "All finished texts came back. Return num_return_sequences of them.",
        {_BEST: "best = [text for _, text in finished]"},
        "",
    ),
    (
        "the end taken off",
        "The end of the texts was taken off. It belongs to them.",
        {_BEST: _BEST + "\n    best = [text[:-1] if end_id is not None and text[-1] == end_id else text for text in best]"},
        "",
    ),
    (
        "fills with zeros",
        "Shorter texts were filled up with 0. Fill them with end_id.",
        {"0 if end_id is None else end_id": "0"},
        "",
    ),
    (
        "the prompt is missing",
        "The prompt is not in the result. Return it with what follows: (N, T + n).",
        {_BEST: "best = [text[len(prompt):] for _, text in finished[:num_return_sequences]]"},
        "",
    ),
    (
        "no cache",
        "The model reads the whole texts at each step. Make a KVCache, and give the model the tokens that it does not have.",
        {_LOG_P: "log_p = model(beams)[:, -1].log_softmax(-1)"},
        "the-cache",
    ),
    (
        "gradients recorded",
        "Gradients were recorded, though nothing is trained. Search in the block `with evaluating(model):`.",
        {_EVALUATING: "model, training = model.eval() or model, model.training\n    for _ in [0]:"},
        "",
    ),
    (
        "training mode",
        "The model was called in the mode in which it came, and in training mode it drops numbers at random. Search in the "
        "block `with evaluating(model):`.",
        {_EVALUATING: "with torch.no_grad():"},
        "",
    ),
    (
        "left in eval mode",
        "The model was left in eval mode. It must have the mode in which it came.",
        {_EVALUATING: "model.eval()\n    with torch.no_grad():"},
        "",
    ),
    (
        "any number of texts passes",
        "More texts are asked for than there are beams, or none, and no ValueError was raised.",
        {"if not 1 <= num_return_sequences <= num_beams:": "if num_beams < 1:"},
        "",
    ),
    (
        "more texts than beams pass",
        "More texts are asked for than there are beams, and no ValueError was raised.",
        {"if not 1 <= num_return_sequences <= num_beams:": "if num_return_sequences < 1 or num_beams < 1:"},
        "",
    ),
    (
        "no text passes",
        "num_return_sequences is 0, and no ValueError was raised.",
        {"if not 1 <= num_return_sequences <= num_beams:": "if num_return_sequences > num_beams:"},
        "",
    ),
    (
        "the prompt is not looked at",
        "`check_prompt` was not called: an empty prompt passes.",
        {"    check_prompt(model, prompt, max_new_tokens)\n": ""},
        "",
    ),
]:  # fmt: skip
    slip(BeamSearch, _name, _message, _edits, read=_read)

reflection(
    "generation.greedy_loop",
    chapter="11_generation",
    points=2,
    rubric="""
    1 point: people do repeat phrases, so in text that people wrote a repeated phrase is likely to be repeated again, and
    a model of such text is right to say so. Scored, it sees the text that people wrote, which leaves the loop by itself;
    writing, it sees its own, and each repetition makes the next one likelier.

    1 point: two remedies, each with how it gets out and what it may spoil. Drawing (temperature, top-k, top-p) leaves the
    loop by chance and may choose wrong words; the penalty lowers what stands there already, also words that a good text
    must repeat (names, articles, the end); beam search is no remedy.
    """,
)
reflection(
    "generation.fair_comparison",
    chapter="11_generation",
    points=2,
    rubric="""
    1 point: the first measures what it searched for: a likely text is not a good one, and text that people wrote is less
    likely under a model than what a search finds. The second changes two things at once: the difference may be the
    temperature's.

    1 point: a comparison that could be believed: the same model, prompts and length, and the same settings but for the
    one that is compared; quality judged by something else than the model (people, a grammar, tests), and diversity
    beside it; enough texts and seeds to give a spread.
    """,
)
