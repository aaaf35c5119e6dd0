"""Checks of chapter 11: filters of logits, the penalty of repetitions, drawing, the cache, sampling and beam search."""

from typing import ClassVar

import torch
from torch import nn

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, same, same_items
from autograder.probe import make_config
from solutions import generation

NO_ERROR = "No ValueError was raised, though {}."
AS_DEFAULT = "the last axis is the only one besides the first"


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
)
class TopKFilter(Check):
    """Few tokens and many, one row and several; equal logits in "ties" alone."""

    equivalent: ClassVar = {}

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
    claims=("error",),
    difficulty=2,
    minutes=20,
    read="11_generation#top-p",
)
class TopPFilter(Check):
    """Known shares in another order in each row; p is never so near to a sum of shares that rounding could decide."""

    equivalent: ClassVar = {}

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


_BEFORE = "before = probabilities.cumsum(-1) - probabilities"
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
)
class RepetitionPenalty(Check):
    """Logits above 0 in the part "which tokens", so that only "both signs" sees what happens below 0."""

    equivalent: ClassVar = {}

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


_SEEN = "seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)"
_LOWERED = "lowered = torch.where(logits > 0, logits / penalty, logits * penalty)"
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
    sections={"filters": "top-p", "chance": "sampling"},
)
class Draw(Check):
    """Hundreds of rows, so that other probabilities are sure to give other draws from the same generator."""

    equivalent: ClassVar = {}

    def prepare(self, rng):
        def inputs(rows=400, temperature=1.0, top_k=None, top_p=None, shares=None, dtype=torch.float64):
            shares = shares or [0.3, 0.25, 0.2, 0.15, 0.1]
            settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            return {"logits": _of_shares(rng, shares, rows, dtype), "seed": int(rng.integers(0, 10**6, 1))} | settings

        temperature, filters, greedy, chance = self.parts
        yield Case("temperature 0.5", inputs(temperature=0.5), temperature)
        yield Case("temperature 2", inputs(temperature=2.0), temperature)
        yield Case("temperature 1, float32", inputs(dtype=torch.float32), temperature)
        yield Case("top_k = 2", inputs(top_k=2), filters)
        yield Case("top_p = 0.5", inputs(top_p=0.5), filters)
        yield Case("top_k = 3 and top_p = 0.6", inputs(top_k=3, top_p=0.6), filters)
        yield Case("temperature 0.5 and top_p = 0.6", inputs(temperature=0.5, top_p=0.6), filters)
        yield Case("temperature 0.7, top_k = 4, top_p = 0.9", inputs(400, 0.7, 4, 0.9), filters, hidden=True)
        yield Case("temperature 0", inputs(5, temperature=0.0), greedy)
        yield Case("temperature 0, with filters", inputs(7, temperature=0.0, top_k=2, top_p=0.5), greedy)
        yield Case("one row", inputs(1), chance)
        yield Case("three rows", inputs(3, temperature=0.8), chance)
        yield Case("temperature 0 needs no chance", inputs(3, temperature=0.0), chance)

    @staticmethod
    def probe(draw, case, /):
        generator = torch.Generator().manual_seed(case.seed)
        before = torch.get_rng_state()
        ids = draw(case.logits, case.temperature, case.top_k, case.top_p, generator)
        untouched = bool(torch.equal(before, torch.get_rng_state()))
        return {"ids": ids, "state": generator.get_state(), "untouched": untouched}

    def judge(self, case, got):
        generator = torch.Generator().manual_seed(case.seed)
        right = generation.draw(case.logits, case.temperature, case.top_k, case.top_p, generator)
        if case.part == "chance":
            yield holds(got.untouched, "Chance came from PyTorch's global source. Pass `generator` to torch.multinomial.")
            asked = "is not to be used" if case.temperature == 0 else "is to be used once, for all rows together"
            yield holds(close(got.state, generator.get_state()), f"The generator {asked}.")
            return
        yield same(got.ids, right, "the drawn tokens")


_DIVIDE = "logits = logits / temperature"
_TOP_K = "    if top_k is not None:\n        logits = top_k_filter(logits, top_k)\n"
_TOP_P = "    if top_p is not None:\n        logits = top_p_filter(logits, top_p)\n"
_MULTINOMIAL = "return torch.multinomial(logits.softmax(-1), 1, generator=generator)"
_GREEDY = "return logits.argmax(-1, keepdim=True)"
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
        "divides the probabilities",
        "The probabilities were divided by the temperature, and torch.multinomial makes up for that. Divide the *logits*.",
        {_DIVIDE: "pass", "logits.softmax(-1)": "logits.softmax(-1) / temperature"},
        "",
    ),
    (
        "temperature after the filters",
        "The filters saw the logits before the temperature. Divide by it first: top_p looks at the probabilities that "
        "are drawn from.",
        {_DIVIDE: "pass", "logits.softmax(-1)": "(logits / temperature).softmax(-1)"},
        "",
    ),
    (
        "top_p before top_k",
        "top_p was applied before top_k. The order is temperature, top_k, top_p.",
        {_TOP_K + _TOP_P: _TOP_P + _TOP_K},
        "",
    ),
    ("top_k ignored", "top_k is given and changes nothing.", {_TOP_K: ""}, "top-k"),
    ("top_p ignored", "top_p is given and changes nothing.", {_TOP_P: ""}, "top-p"),
    (
        "only one filter",
        "Where both top_k and top_p are given, only the first was applied. Apply both.",
        {"    if top_p is not None": "    elif top_p is not None"},
        "",
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
        "sampling",
    ),
    (
        "row by row",
        "Each row was drawn by a call of its own. One call of torch.multinomial serves all rows, and gives what others get "
        "with the same generator.",
        {_MULTINOMIAL: "return torch.cat([torch.multinomial(row.softmax(-1), 1, generator=generator)[None] for row in logits])"},
        "sampling",
    ),
]:  # fmt: skip
    slip(Draw, _name, _message, _edits, read=_read)
