"""Checks of chapter 08: the masking, the pairs of sentences, the loss over chosen places, and the model itself.

What is drawn at random is judged by shares over tens of thousands of tokens. Every bound lies more than six standard
deviations from what is right, so that no correct solution fails by chance; the seeds are fixed besides. The probes give
back facts and no samples: which numbers a generator gives to which place is each solution's own affair.
"""

from typing import ClassVar

import torch
from torch import Tensor

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, is_kind, same, same_gradients, same_shape
from autograder.forbidden import PARTS, SOFTMAXES
from autograder.models import random_weights, with_weights
from autograder.probe import gradients, load_weights, make_config
from solutions import bert

NO_ERROR = "No ValueError was raised, though {}."
SAME_SEED = "The same seed of the generator gave another result. Draw from `generator` alone."
OTHER_SEED = "Another seed of the generator gave the same result. Draw from `generator`."
GOES_ON = "A generator used twice gave the same result twice. Let it go on."
UNDISTURBED = "PyTorch's global generator is not as it was before. Draw from `generator` alone, and seed nothing."
EDGE = "a random number that is exactly the bound is not to be expected"
BOTH_WAYS = "the two conditions may stand in either order"
ON_CPU = "checks run on the CPU, where there is nothing to move"

_CHOSEN = "chosen = (chance() < probability) & ~torch.isin(ids, special)"
_LABELS = "labels = ids.masked_fill(~chosen, IGNORED)"
_LOT = "    lot = chance()\n"
_DRAWN = "drawn = ordinary[torch.randint(len(ordinary), ids.shape, generator=generator).to(ids.device)]"
_MASK = "inputs = torch.where(chosen & (lot < MASKED), mask_id, ids)"
_SWAP = "inputs = torch.where(chosen & (lot >= MASKED) & (lot < MASKED + RANDOM), drawn, inputs)"
_PAIR = "return inputs, labels"
_CHANCE = "return torch.rand(ids.shape, generator=generator).to(ids.device)"
_EVERY = "every = torch.arange(vocab_size, dtype=ids.dtype, device=ids.device)"


@exercise(
    "bert.mask_tokens",
    parts={"chosen": 1, "labels": 1, "80/10/10": 2, "special tokens": 1, "generator": 1, "error": 1},
    claims=("error",),
    difficulty=3,
    minutes=30,
    read="08_masked_lm#masking",
    sections={"80/10/10": "eighty-ten-ten"},
    instead="Build it from random numbers, comparisons and `torch.where`.",
)
class MaskTokens(Check):
    """Shares over 40,000 tokens, whether places are chosen each for itself, and what may never happen."""

    equivalent: ClassVar = {
        f"mask_tokens: {old} -> {new}": why
        for old, new, why in [
            (_CHOSEN, _CHOSEN.replace("<", "<="), EDGE),
            (
                _CHOSEN,
                "chosen = ~torch.isin(ids, special) & (chance() < probability)",
                BOTH_WAYS,
            ),
            (_MASK, _MASK.replace("<", "<="), EDGE),
            (_MASK, _MASK.replace("chosen & (lot < MASKED)", "(lot < MASKED) & chosen"), BOTH_WAYS),
            (_SWAP, _SWAP.replace(">=", ">"), EDGE),
            (_SWAP, _SWAP.replace("lot < ", "lot <= "), EDGE),
            (_SWAP, _SWAP.replace("MASKED + RANDOM", "RANDOM + MASKED"), "a sum in the other order"),
            (
                _SWAP,
                "inputs = torch.where((lot < MASKED + RANDOM) & (chosen & (lot >= MASKED)), drawn, inputs)",
                BOTH_WAYS,
            ),
            (_SWAP, _SWAP.replace("chosen & (lot >= MASKED)", "(lot >= MASKED) & chosen"), BOTH_WAYS),
            (
                _SWAP,
                _SWAP.replace("lot < MASKED + RANDOM", "lot >= MASKED + RANDOM"),
                "the last tenth instead of the ninth",
            ),
            (_DRAWN, _DRAWN.replace(".to(ids.device)", ""), ON_CPU),
            (_EVERY, _EVERY.replace(", device=ids.device", ""), ON_CPU),
        ]
    } | {f"mask_tokens.chance: {_CHANCE} -> {_CHANCE.replace('.to(ids.device)', '')}": ON_CPU}

    def prepare(self, rng):
        def inputs(kind, rows, length, *, vocab_size=1000, special_ids=(0, 1, 2, 3), mask_id=3, share=0.0, **rest):
            ordinary = torch.tensor([token for token in range(vocab_size) if token not in special_ids] or [0])
            ids = ordinary[rng.integers(0, rest.pop("words", len(ordinary)), rows, length)]
            if special_ids:
                special = torch.tensor(special_ids)[rng.integers(0, len(special_ids), rows, length)]
                ids = torch.where(rng.integers(0, 100, rows, length) < 100 * share, special, ids)
            return {
                "kind": kind,
                "ids": ids.to(rest.pop("dtype", torch.int64)),
                "mask_id": mask_id,
                "vocab_size": vocab_size,
                "special_ids": list(special_ids),
                "collection": rest.pop("collection", "list"),
                "steps": rest.pop("steps", 20),
                "seed": int(rng.integers(0, 9999, 1)),
                "options": rest,
            }

        chosen, labels, shares, special, generator, error = self.parts
        small = {"vocab_size": 12, "special_ids": (0, 5, 11), "mask_id": 5}
        yield Case("40,000 tokens, 15 % by default", inputs("chosen", 250, 160), chosen)
        yield Case("40,000 tokens, probability=0.4", inputs("chosen", 250, 160, probability=0.4), chosen)
        yield Case("probability=0", inputs("all", 6, 10, probability=0.0), chosen)
        yield Case("probability=1", inputs("all", 6, 10, probability=1.0), chosen)
        yield Case("the labels of 8 sequences", inputs("labels", 8, 40, probability=0.3), labels)
        yield Case("every place is chosen", inputs("labels", 8, 40, probability=1.0), labels)
        yield Case("ids of the type int32", inputs("labels", 8, 40, probability=0.5, dtype=torch.int32), labels)
        yield Case("id 0 is an ordinary token", inputs("labels", 9, 40, special_ids=(8, 9), mask_id=9, vocab_size=10,
                   probability=0.5), labels, hidden=True)  # fmt: skip
        yield Case("what stands at 40,000 chosen places", inputs("shares", 250, 160, probability=1.0), shares)
        yield Case("what stands at 20,000 of 40,000 places", inputs("shares", 250, 160, probability=0.5), shares)
        yield Case("what stands at 6,000 of 40,000 places", inputs("shares", 250, 160, steps=10), shares)
        yield Case("which tokens are drawn", inputs("drawn", 250, 160, probability=1.0, **small), shares)
        few = inputs("drawn", 250, 160, probability=1.0, words=5, **small)
        yield Case("which tokens are drawn for a text that has not all of them", few, shares)
        some = inputs("special", 100, 100, probability=0.5, share=0.3, **small)
        yield Case("a third of the tokens are special", some, special)
        every = inputs("special", 5, 20, probability=1.0, share=1.0, **small)
        yield Case("nothing but special tokens", every, special)
        for collection in ("set", "tuple"):
            data = inputs("special", 100, 100, probability=1.0, share=0.2, collection=collection, **small)
            yield Case(f"special_ids as a {collection}", data, special)
        none = inputs("special", 100, 100, vocab_size=50, special_ids=(), mask_id=0, probability=0.5)
        yield Case("no special tokens", none, special)
        yield Case("the same generator twice", inputs("generator", 8, 30), generator)
        yield Case(
            "every token is special", inputs("error", 2, 5, vocab_size=3, special_ids=(0, 1, 2), mask_id=2), error
        )

    @staticmethod
    def probe(mask_tokens, case, /):
        ids = case.ids.clone()  # the student's code may change the case's
        collection = {"list": list, "set": set, "tuple": tuple}[case.collection]

        def call(generator, ids=case.ids):
            special_ids = collection(case.special_ids)
            return mask_tokens(ids, case.mask_id, case.vocab_size, special_ids, generator, **case.options)

        def seeded(seed):
            return torch.Generator().manual_seed(seed)

        if case.kind == "error":
            try:
                call(seeded(case.seed))
            except Exception as error:
                return {"error": type(error).__name__}
            return {"error": ""}
        state = torch.random.get_rng_state()
        found = call(seeded(case.seed))
        if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(one, Tensor) for one in found):
            wrong = [one for one in found if not isinstance(one, Tensor)] if isinstance(found, tuple) else [found]
            return {"pair": False, "wrong": wrong[:1]}
        facts = {
            "pair": True,
            "shapes": [tuple(one.shape) for one in found],
            "types": [str(one.dtype) for one in found],
        }
        if any(one.shape != ids.shape or one.dtype != ids.dtype for one in found):
            return facts
        inputs, labels = found
        asked, special = labels != -100, torch.isin(ids, ids.new_tensor(case.special_ids))

        def share(some, of):
            return round(case.steps * some.sum().item() / max(1, of.sum().item()))

        def spread(marks, axis):
            """How the counts along an axis vary beside those of independent draws: less (0), as much (1), more (2)."""
            expected = marks.size(axis) * marks.double().mean() * (1 - marks.double().mean())
            ratio = (marks.sum(axis).double().var() / expected).item() if expected > 0 else 1.0
            return 0 if ratio < 0.3 else 1 if ratio < 3 else 2

        if case.kind == "chosen":
            totals = {int((call(seeded(case.seed + number), ids[:20])[1] != -100).sum()) for number in range(12)}
            facts |= {"chosen": share(asked & ~special, ~special), "totals": len(totals) > 1}
            facts |= {"in_rows": spread(asked, 1), "in_columns": spread(asked, 0)}
        if case.kind == "all":
            facts |= {"chosen": int(asked.sum()), "inputs": torch.equal(inputs, ids)}
        if case.kind == "labels":
            others = labels[labels != ids].unique().tolist()
            facts |= {"asked": bool(asked.any()), "right": torch.equal(labels[asked], ids[asked]), "others": others[:2]}
        masked, moved = asked & (inputs == case.mask_id), asked & (inputs != case.mask_id) & (inputs != ids)
        if case.kind == "shares":
            facts |= {"masked": share(masked, asked), "random": share(moved, asked), "rows": spread(masked, 1)}
            facts |= {"untouched": torch.equal(inputs[~asked], ids[~asked])}
        if case.kind == "drawn":
            counts = torch.bincount(inputs[moved].clamp(0, case.vocab_size), minlength=case.vocab_size + 1).double()
            never = [token for token in range(case.vocab_size + 1) if counts[token] == 0]
            usual = counts.sum() / (counts > 0).sum()
            often = counts[counts > 0]
            even = bool((often > 0.5 * usual).all() and (often < 1.5 * usual).all())
            facts |= {"never": never, "even": even}
        if case.kind == "special":
            facts |= {"chosen": share(asked, ~special), "of_special": bool((asked & special).any())}
            facts |= {"changed": bool((inputs != ids)[special].any())}
        if case.kind == "generator":
            undisturbed = torch.equal(torch.random.get_rng_state(), state)
            torch.manual_seed(case.seed)
            shared, first = seeded(case.seed), torch.stack(found)
            again, other = (torch.stack(call(seeded(case.seed + later))) for later in (0, 1))
            moves = not torch.equal(*(torch.stack(call(shared)) for _ in range(2)))
            facts |= {"again": torch.equal(again, first), "other": torch.equal(other, first)}
            facts |= {"moves": moves, "undisturbed": undisturbed}
        return facts

    def judge(self, case, got):
        if case.kind == "error":
            yield holds(got.error == "ValueError", NO_ERROR.format("there is no ordinary token that could be drawn"))
            return
        if not got.pair and got.wrong:
            yield is_kind(got.wrong[0], tuple, "two tensors, `inputs, labels`")
        yield holds(got.pair, "The result is not a pair. Return two tensors, `inputs, labels`.")
        shape, dtype = tuple(case.ids.shape), str(case.ids.dtype)
        yield holds(got.shapes == [shape] * 2, f"The shapes are {got.shapes[0]} and {got.shapes[1]}, not {shape}.")
        said = " and ".join(name.removeprefix("torch.") for name in got.types)
        yield holds(got.types == [dtype] * 2, f"The results have the types {said}; the ids have another.")
        facts = vars(got)
        look = {
            "chosen": self._chosen,
            "all": self._all,
            "labels": self._labels,
            "shares": self._shares,
            "drawn": self._drawn,
            "special": self._special,
            "generator": self._generator,
        }
        yield from look[case.kind](case, facts)

    @staticmethod
    def _chosen(case, facts):
        right = round(case.steps * case.options.get("probability", 0.15))
        yield holds(facts["chosen"] == right, "Of the ordinary tokens another share is chosen than `probability`.")
        fixed = "The number of chosen places is fixed. Choose each place for itself, so that the number varies."
        yield holds(facts["totals"] and facts["in_rows"] > 0, fixed)
        together = "Places are chosen together: each must be chosen for itself, whatever happens at the others."
        yield holds(facts["in_rows"] == facts["in_columns"] == 1, together)

    @staticmethod
    def _all(case, facts):
        everything = case.options["probability"] == 1.0
        count = case.ids.numel() if everything else 0
        yield holds(facts["chosen"] == count, f"{facts['chosen']} places are chosen; here it should be {count}.")
        yield holds(
            facts["inputs"] != everything, "What is not chosen must stay as it is, and what is chosen is changed."
        )

    @staticmethod
    def _labels(case, facts):
        yield holds(facts["asked"], "Every label is -100: nothing is asked for.")
        everything = case.options["probability"] == 1.0
        yield holds(everything or -100 in facts["others"], "No label is -100: every place is asked for.")
        yield holds(facts["right"], "A label that is not -100 must be the id that stood there.")
        yield holds(set(facts["others"]) <= {-100}, "A place that is not chosen must have the label -100.")

    @staticmethod
    def _shares(case, facts):
        kept = case.steps - facts["masked"] - facts["random"]
        yield holds(facts["untouched"], "A token was changed at a place that is not chosen.")
        many = "Of the chosen places {} % are masked, {} % have another token and {} % are as they were, about."
        found = many.format(*(round(100 * count / case.steps) for count in (facts["masked"], facts["random"], kept)))
        right = (round(case.steps * bert.MASKED), round(case.steps * bert.RANDOM))
        yield holds((facts["masked"], facts["random"]) == right, found)
        yield holds(facts["rows"] == 1, "The same lot is drawn for many places. Draw one for each.")

    @staticmethod
    def _drawn(case, facts):
        extra = [token for token in case.special_ids if token not in facts["never"] and token != case.mask_id]
        yield holds(not extra, "A special token was drawn as a random one.")
        yield holds(case.vocab_size in facts["never"], "A random token is outside the vocabulary.")
        missing = [token for token in facts["never"] if token < case.vocab_size and token not in case.special_ids]
        yield holds(not missing, f"{len(missing)} of the ordinary tokens are never drawn.")
        yield holds(facts["even"], "Some tokens are drawn much more often than others.")

    @staticmethod
    def _special(case, facts):
        yield holds(not facts["of_special"], "A special token was chosen: it has a label.")
        yield holds(not facts["changed"], "A special token was changed.")
        ordinary = not torch.isin(case.ids, case.ids.new_tensor(case.special_ids)).all()
        right = round(case.steps * case.options["probability"]) if ordinary else 0
        yield holds(facts["chosen"] == right, "Of the ordinary tokens another share is chosen than `probability`.")

    @staticmethod
    def _generator(case, facts):
        yield holds(facts["again"], SAME_SEED)
        yield holds(not facts["other"], OTHER_SEED)
        yield holds(facts["moves"], GOES_ON)
        yield holds(facts["undisturbed"], UNDISTURBED)


_AT_RANDOM = "torch.randint(len(ordinary), ids.shape, generator=generator).to(ids.device)"
slip(
    MaskTokens,
    "special tokens chosen",
    "Special tokens are chosen too. Nobody can learn anything from guessing a [SEP], and padding is no text: leave out "
    "the places where `ids` is special.",
    {" & ~torch.isin(ids, special)": ""},
)
slip(
    MaskTokens,
    "only the mask is left out",
    "Only the mask itself is never chosen. All of `special_ids` must be left out.",
    {"~torch.isin(ids, special)\n": "(ids != mask_id)\n"},
)
slip(
    MaskTokens,
    "the others are chosen",
    "A place is chosen when its random number is *above* `probability`, which is the case for the other 85 %.",
    {"chance() < probability": "chance() > probability"},
)
slip(
    MaskTokens,
    "always 15 %",
    "The share of the chosen places is 15 %, whatever `probability` says.",
    {"chance() < probability": "chance() < 0.15"},
)
slip(
    MaskTokens,
    "a fixed number in each row",
    "In each row the same number of places is chosen. Each place is chosen for itself, with a random number of its own, so "
    "the number varies from row to row.",
    {
        _CHOSEN: "count = round(probability * ids.size(1))\n"
        "    chosen = (chance().argsort(1).argsort(1) < count) & ~torch.isin(ids, special)"
    },
)
slip(
    MaskTokens,
    "a fixed number in the batch",
    "In each batch the same number of places is chosen. Each place is chosen for itself, with a random number of its own, "
    "so the number varies from batch to batch.",
    {
        _CHOSEN: "order = chance().flatten().argsort().argsort().view(ids.shape)\n"
        "    chosen = (order < round(probability * ids.numel())) & ~torch.isin(ids, special)"
    },
)
slip(
    MaskTokens,
    "the same places in every row",
    "The same places are chosen in every row: one random number for each place of a row is not enough. Draw one for each "
    "entry of `ids`.",
    {_CHOSEN: _CHOSEN.replace("chance()", "torch.rand(ids.shape[-1:], generator=generator)")},
)
slip(
    MaskTokens,
    "labels everywhere",
    "The labels are the ids at every place, so the model is asked for tokens that it can see. Put -100 where nothing was "
    "chosen.",
    {_LABELS: "labels = ids.clone()"},
)
slip(
    MaskTokens,
    "labels at all ordinary places",
    "All tokens that are not special have labels. Only the chosen places have: put -100 everywhere else.",
    {"masked_fill(~chosen, IGNORED)": "masked_fill(torch.isin(ids, special), IGNORED)"},
)
slip(
    MaskTokens,
    "labels the wrong way round",
    "The chosen places have the label -100, and all others are asked for.",
    {"masked_fill(~chosen, IGNORED)": "masked_fill(chosen, IGNORED)"},
)
slip(
    MaskTokens,
    "0 for what is not asked",
    "Places that are not chosen have the label 0, which is a token. Use -100, which the loss leaves out.",
    {"IGNORED": "0"},
)
slip(
    MaskTokens,
    "labels of what was put there",
    "The labels are what stands there now: the mask and random tokens. The model is to find out what stood there before.",
    {_PAIR: "return inputs, inputs.masked_fill(~chosen, IGNORED)"},
)
slip(
    MaskTokens,
    "labels where the mask stands only",
    "Only masked places have labels. The chosen places that got a random token, or kept theirs, are asked for too; "
    "otherwise they teach nothing.",
    {_PAIR: "return inputs, labels.masked_fill(inputs != mask_id, IGNORED)"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "always the mask",
    "Every chosen place is masked. Of the chosen ones 80 % are, 10 % get a random token, and 10 % stay as they are.",
    {"lot < MASKED), mask_id": "lot < 1.0), mask_id", _SWAP: "pass"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "no random tokens",
    "No place gets a random token: 20 % stay as they are. It is 80 % masked, 10 % random, 10 % unchanged.",
    {_SWAP: "pass"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "none unchanged",
    "No chosen place keeps its token: 20 % get a random one. It is 80 % masked, 10 % random, 10 % unchanged.",
    {"lot < MASKED + RANDOM": "lot < 1.0"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "10 % of the rest",
    "Random tokens come to 10 % of what the mask left over, so 2 % of the chosen places. They are 10 % of the chosen "
    "places: half of the rest.",
    {"MASKED + RANDOM": "MASKED + RANDOM * (1 - MASKED)"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "80/10/10 of all tokens",
    "Masks and random tokens are put at places that were not chosen. 80, 10 and 10 % are shares of the *chosen* places.",
    {"chosen & (lot < MASKED)": "(lot < MASKED)", "chosen & (lot >= MASKED)": "(lot >= MASKED)"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "the same lot used again",
    "One random number decides both whether a place is chosen and what happens there. Those that are chosen are the small "
    "ones, so all of them are masked. Draw another number for the second question.",
    {_LOT: "", "    chosen = (chance() <": "    lot = chance()\n    chosen = (lot <"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "one lot for a row",
    "In each row all chosen places meet the same fate. Draw a lot for each place.",
    {_LOT: "    lot = chance()[:, :1]\n"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "special tokens drawn",
    "A random token may be a special one, such as padding or the mask itself. Draw among the ordinary ids alone.",
    {
        f"ordinary[{_AT_RANDOM}]": _AT_RANDOM.replace("len(ordinary)", "vocab_size").replace(
            ".to(ids.device)", ".to(ids)"
        )
    },
)
slip(
    MaskTokens,
    "special ids are the first ones",
    "Random tokens are drawn from above the number of special ids, as if those were always the first ones. Which ids are "
    "special is what `special_ids` says.",
    {
        f"ordinary[{_AT_RANDOM}]": "torch.randint(len(special), vocab_size, ids.shape, generator=generator).to(ids)"
        " if len(ordinary) else ids"
    },
)
slip(
    MaskTokens,
    "one random token for all",
    "All places that get a random token get the same one. Draw one for each place.",
    {_AT_RANDOM: "torch.randint(len(ordinary), (1, 1), generator=generator)"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "a token of the batch",
    "Random tokens are taken from the batch, where frequent tokens are more likely and special ones occur. Every ordinary "
    "token of the vocabulary is equally likely.",
    {f"ordinary[{_AT_RANDOM}]": "ids.flatten()[torch.randint(ids.numel(), ids.shape, generator=generator)]"},
    read="eighty-ten-ten",
)
slip(
    MaskTokens,
    "ids changed in place",
    "The ids themselves were changed, and whoever passed them in has lost the text. Work on a copy, `ids.clone()`.",
    {_MASK: "ids[chosen & (lot < MASKED)] = mask_id\n    inputs = ids"},
)
slip(
    MaskTokens,
    "always int64",
    "The results are int64, whatever the ids were. Keep the dtype of `ids`.",
    {_PAIR: "return inputs.long(), labels.long()"},
)
slip(
    MaskTokens,
    "a list only",
    "Special ids may come as a set, from which `torch.tensor` makes nothing. Make a list of them first.",
    {"sorted(special_ids)": "special_ids"},
)
slip(
    MaskTokens,
    "the global generator",
    "`generator` is not used: the numbers come from PyTorch's global one, and nobody can repeat the run. Pass "
    "`generator=generator` wherever something is drawn.",
    {"ids.shape, generator=generator": "ids.shape"},
)
slip(
    MaskTokens,
    "a generator of its own",
    "The function makes a generator of its own, so it masks the same places every time. Draw from the one that is passed in.",
    {"    special = ids": "    generator = torch.Generator().manual_seed(0)\n    special = ids"},
)
slip(
    MaskTokens,
    "the global generator seeded",
    "The global generator is seeded from the one that is passed in. That disturbs whoever else draws from it, and gives "
    "the same numbers at every call. Pass `generator=generator` instead.",
    {
        "    special = ids": "    torch.manual_seed(generator.initial_seed())\n    special = ids",
        "ids.shape, generator=generator": "ids.shape",
    },
)
slip(
    MaskTokens,
    "nothing to draw",
    "Where every token is special, there is none to draw, and the error that follows says nothing of it. Raise a ValueError.",
    {"len(ordinary) == 0": "False"},
)


_DRAWN_LINE = "place = int(torch.randint(elsewhere, (), generator=generator))"
_OTHER_LINE = "other = every[place if place < start else place + len(document)]"
_TOSS = "torch.rand((), generator=generator).item() < 0.5"
_COIN = f"is_next = {_TOSS}"
_LOOP = "for first, following in pairwise(document):"
_EVERY_LINE = "every = [sentence for document in documents for sentence in document]"


@exercise(
    "bert.sentence_pairs",
    parts={"following": 1, "random": 2, "half": 1, "generator": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=25,
    read="08_masked_lm#sentence-pairs",
)
class SentencePairs(Check):
    """Sentences with names of their own, so that each pair shows where its two come from."""

    equivalent: ClassVar = {
        f"sentence_pairs: {old} -> {new}": why
        for old, new, why in [
            (_COIN, _COIN.replace("<", "<="), EDGE),
            (_COIN, _COIN.replace("<", ">="), "the other side of the coin"),
            (
                _DRAWN_LINE,
                "place = torch.randint(elsewhere, (), generator=generator)",
                "a list takes such an index too",
            ),
            (
                _OTHER_LINE,
                _OTHER_LINE.replace("place + len(document)", "len(document) + place"),
                "a sum in the other order",
            ),
        ]
    }

    def prepare(self, rng):
        def inputs(kind, *lengths, documents=None, calls=1):
            names = [[f"{chr(97 + number)}{place}" for place in range(length)] for number, length in enumerate(lengths)]
            seed = int(rng.integers(0, 9999, 1))
            return {"kind": kind, "documents": documents or names, "calls": calls, "seed": seed}

        following, random, half, generator, error = self.parts
        repeated = [["one", "two", "one", "three", "one", "four"], ["five", "six", "six", "seven"], ["eight", "nine"]]
        yield Case("three documents", inputs("following", 30, 20, 25), following)
        yield Case("a document that says the same twice", inputs("following", documents=repeated, calls=40), following)
        yield Case("documents of one sentence, and of none", inputs("following", 1, 9, 0, 12, 1, calls=9), following)
        yield Case("documents of one sentence alone", inputs("following", 1, 1, 1), following, hidden=True)
        yield Case("four short documents, many times", inputs("random", 3, 5, 2, 4, calls=1500), random)
        yield Case("some documents of one sentence", inputs("random", 1, 4, 0, 3, 1, calls=1500), random)
        yield Case("two documents", inputs("random", 6, 2, calls=1500), random)
        yield Case("6,000 pairs", inputs("half", *[601] * 10), half)
        yield Case("the same generator twice", inputs("generator", 30, 30, 30), generator)
        yield Case("a single document", inputs("error", 5), error)
        yield Case("a document, and one of no sentences", inputs("error", 5, 0), error)

    @staticmethod
    def probe(sentence_pairs, case, /):
        documents = [list(document) for document in case.documents]  # the student's code may change the case's

        def call(generator):
            return sentence_pairs(case.documents, generator)

        def seeded(later=0):
            return torch.Generator().manual_seed(case.seed + later)

        if case.kind == "error":
            try:
                call(seeded())
            except Exception as error:
                return {"error": type(error).__name__}
            return {"error": ""}
        state, generator = torch.random.get_rng_state(), seeded()
        lists = [call(generator) for _ in range(case.calls)]
        facts = {"first": lists[0] if not isinstance(lists[0], list) else []}
        odd = [pair for pairs in lists if isinstance(pairs, list) for pair in pairs if type(pair) is not tuple]
        facts |= {"odd": odd[:1], "documents": case.documents == documents}
        if odd or any(type(pairs) is not list for pairs in lists):
            return facts
        kinds = {tuple(type(one).__name__ for one in pair) for pairs in lists for pair in pairs}
        facts |= {"kinds": sorted(list(kind) for kind in kinds)}
        if any(kind != ("str", "str", "bool") for kind in kinds):
            return facts
        pairs = [pair for pairs in lists for pair in pairs]
        labels = [is_next for _, _, is_next in pairs]
        if case.kind == "following":
            after = [two for document in documents for two in zip(document, document[1:])] * case.calls  # noqa: B905, RUF007
            firsts = [[first for first, _, _ in found] for found in lists]
            facts |= {"same_firsts": all(one == firsts[0] for one in firsts), "firsts": firsts[0]}
            if len(pairs) == len(after):
                right = [pair[1] == two[1] for pair, two in zip(pairs, after) if pair[2]]  # noqa: B905
                facts |= {"follows": all(right)}
        if case.kind == "random":
            owner = {sentence: number for number, document in enumerate(documents) for sentence in document}
            drawn = [(owner.get(first), second) for first, second, is_next in pairs if not is_next]
            own = any(owner.get(second, -1) == number for number, second in drawn)
            reached = {(number, second) for number, second in drawn if owner.get(second, number) != number}
            asking = [number for number, document in enumerate(documents) if len(document) > 1]
            never = [
                [number, owner[sentence], documents[owner[sentence]].index(sentence)]
                for number in asking
                for sentence in owner
                if owner[sentence] != number and (number, sentence) not in reached
            ]
            others = [[(owner.get(one), two) for one, two, is_next in found if not is_next] for found in lists]
            beside = [two for drawn_here in others for two in zip(drawn_here, drawn_here[1:])]  # noqa: B905, RUF007
            alike = [one == other for one, other in beside if one[0] == other[0]]
            # One of few sentences is soon drawn twice: in these cases for one pair of neighbours in two at the most.
            facts |= {"own": own, "never": never, "one_for_all": sum(alike) > 0.8 * max(1, len(alike))}
        if case.kind == "half":
            changes = sum(one != other for one, other in zip(labels, labels[1:]))  # noqa: B905, RUF007
            count = max(1, len(labels))
            facts |= {"share": round(10 * sum(labels) / count), "changes": round(10 * changes / count)}
        if case.kind == "generator":
            undisturbed = torch.equal(torch.random.get_rng_state(), state)
            torch.manual_seed(case.seed)
            shared = seeded()
            facts |= {"again": call(seeded()) == lists[0], "other": call(seeded(1)) == lists[0]}
            facts |= {"moves": call(shared) != call(shared), "undisturbed": undisturbed}
        return facts

    def judge(self, case, got):
        if case.kind == "error":
            yield holds(got.error == "ValueError", NO_ERROR.format("only one document has sentences"))
            return
        facts = vars(got)
        yield is_kind(facts["first"], list, "a list of tuples `(first, second, is_next)`")
        for one in facts["odd"]:
            yield is_kind(one, tuple, "tuples `(first, second, is_next)` in it", "what stands in the list")
        kinds = [kind for kind in facts["kinds"] if kind != ["str", "str", "bool"]]
        found = ", ".join(kinds[0]) if kinds else ""
        yield holds(not kinds, f"A pair is made of {found}; it should be two texts and a bool of Python's.")
        yield holds(facts["documents"], "The documents were changed. Leave them as they are.")
        if case.kind == "following":
            expected = [first for document in case.documents for first in document[:-1]]
            few = f"{len(facts['firsts'])} pairs came back; here it should be {len(expected)}."
            yield holds(len(facts["firsts"]) == len(expected), few)
            yield holds(facts["same_firsts"], "The first sentences are others at every call. Only the second is drawn.")
            order = "The first sentences are not each sentence but the last of each document, in their order."
            yield holds(facts["firsts"] == expected, order)
            yield holds(
                facts["follows"], "A pair is called is_next, and its second sentence does not follow the first."
            )
        if case.kind == "random":
            yield holds(not facts["own"], "A pair that is not is_next has two sentences of the same document.")
            missing = f"There are sentences of other documents that are never drawn; {len(facts['never'])} of them."
            yield holds(not facts["never"], missing)
            yield holds(not facts["one_for_all"], "All pairs of a document have the same random sentence.")
        if case.kind == "half":
            share = "Of 6,000 pairs not about half are is_next."
            yield holds(facts["share"] == 5, share)
            yield holds(
                facts["changes"] == 5, "Whether a pair is_next depends on the pair before it. Toss a coin for each."
            )
        if case.kind == "generator":
            yield holds(facts["again"], SAME_SEED)
            yield holds(not facts["other"], OTHER_SEED)
            yield holds(facts["moves"], GOES_ON)
            yield holds(facts["undisturbed"], UNDISTURBED)


slip(
    SentencePairs,
    "is_next the wrong way round",
    "The label is the wrong way round: pairs that follow each other are called False.",
    {"other, is_next))": "other, not is_next))"},
)
slip(
    SentencePairs,
    "random sentences of any document",
    "A random sentence may come from the same document, even the very one that follows. Then the label is wrong, or the "
    "task another. Draw from the other documents.",
    {_DRAWN_LINE: _DRAWN_LINE.replace("elsewhere", "len(every)"), _OTHER_LINE: "other = every[place]"},
)
slip(
    SentencePairs,
    "random sentences of the same document",
    "The random sentence comes from the same document. Then both sentences are about the same thing, and the task is "
    "another. Draw from the other documents.",
    {
        _DRAWN_LINE: _DRAWN_LINE.replace("elsewhere", "len(document)"),
        _OTHER_LINE: "other = document[place]",
    },
)
slip(
    SentencePairs,
    "pairs across documents",
    "The last sentence of a document is paired with the first of the next one. No pair begins with the last sentence of a "
    "document.",
    {_LOOP: "for first, following in zip(document, [*document[1:], (every + every)[start + len(document)]]):"},
)
slip(
    SentencePairs,
    "each sentence once",
    "Each sentence stands in one pair only: the first with the second, the third with the fourth. Every sentence but the "
    "last of a document begins a pair.",
    {"pairwise(document)": "list(pairwise(document))[::2]"},
)
slip(
    SentencePairs,
    "one pair a document",
    "There is one pair for each document. Every sentence but the last of a document begins a pair.",
    {"pairwise(document)": "list(pairwise(document))[:1]"},
)
slip(
    SentencePairs,
    "both pairs of each sentence",
    "Each sentence has two pairs, one with what follows and one with a random sentence. Toss a coin for each: one pair.",
    {
        "pairs.append((first, following if is_next else other, is_next))": "pairs += [(first, following, True), (first, "
        "other, False)]"
    },
)
slip(
    SentencePairs,
    "looked up by its text",
    "The sentence that follows is looked up by the text of the first. Where a document says the same twice, that finds "
    "what follows the first of them. Go through the places.",
    {"following if is_next": "document[document.index(first) + 1] if is_next"},
)
slip(
    SentencePairs,
    "the sentence itself",
    "A pair that is_next holds the same sentence twice. Its second is the sentence behind the first.",
    {"following if is_next": "first if is_next"},
)
slip(
    SentencePairs,
    "the sentence before",
    "The pairs are the wrong way round: the second sentence stands before the first in the text.",
    {_LOOP: "for following, first in pairwise(document):"},
)
slip(
    SentencePairs,
    "only the first sentences of others",
    "Random sentences are always the first of their document. Every sentence of the other documents may be drawn.",
    {_EVERY_LINE: "every = [document[0] for document in documents for _ in document]"},
)
slip(
    SentencePairs,
    "always the next document",
    "Random sentences always come from the document that stands next. Draw from all others.",
    {
        "elsewhere = len(every) - len(document)\n": "elsewhere = len(every) - len(document)\n        beside = next(one for "
        "one in [*documents[documents.index(document) + 1:], *documents] if one)\n",
        _OTHER_LINE: "other = beside[place % len(beside)]",
    },
)
slip(
    SentencePairs,
    "only from documents with pairs",
    "Documents of a single sentence are left out of the draw. They give no pair of their own, and their sentence can still "
    "be the random one.",
    {
        _EVERY_LINE: "every = [sentence for document in documents if len(document) > 1 for sentence in document]",
        "start += len(document)": "start += len(document) if len(document) > 1 else 0",
    },
)
slip(
    SentencePairs,
    "one random sentence for a document",
    "The random sentence is drawn once for each document. Draw one for each pair.",
    {
        f"        {_LOOP}\n": f"        {_DRAWN_LINE}\n        {_LOOP}\n".replace("elsewhere", "max(elsewhere, 1)"),
        f"            {_DRAWN_LINE}\n": "",
    },
)
slip(
    SentencePairs,
    "always is_next",
    "Every pair is_next. Half of them should have a random second sentence, or there is nothing to tell apart.",
    {_TOSS: "True"},
)
slip(
    SentencePairs,
    "never is_next",
    "No pair is_next. About half of them should have the sentence that follows.",
    {_TOSS: "False"},
)
slip(
    SentencePairs,
    "every other pair",
    "The pairs are is_next in turn, so the answer could be guessed from the place. Toss a coin for each.",
    {_TOSS: "len(pairs) % 2 == 0"},
)
slip(
    SentencePairs,
    "one coin for all",
    "One coin decides for all pairs. Toss one for each.",
    {
        "pairs, start = [], 0": f"pairs, start, toss = [], 0, {_TOSS}",
        f"is_next = {_TOSS}": "is_next = toss",
    },
)
slip(
    SentencePairs,
    "a number for a label",
    "The label is a number. Make it True or False.",
    {"other, is_next))": "other, int(is_next)))"},
)
slip(
    SentencePairs,
    "a tensor for a label",
    "The label is a tensor. Take the number out of it with `.item()` before you compare, and it is Python's True or False.",
    {".item() < 0.5": " < 0.5"},
)
slip(
    SentencePairs,
    "lists for pairs",
    "A pair is a list. Make it a tuple, `(first, second, is_next)`.",
    {"(first, following if is_next else other, is_next)": "[first, following if is_next else other, is_next]"},
)
slip(
    SentencePairs,
    "documents taken apart",
    "Sentences are taken out of the documents while the pairs are made. The caller still needs them: copy first.",
    {"        start += len(document)": "        start += len(document)\n        del document[:]"},
)
slip(
    SentencePairs,
    "the global generator",
    "`generator` is not used: the numbers come from PyTorch's global one, and nobody can repeat the run. Pass "
    "`generator=generator` wherever something is drawn.",
    {", generator=generator": ""},
)
slip(
    SentencePairs,
    "a generator of its own",
    "The function makes a generator of its own, so it gives the same pairs every time. Draw from the one that is passed in.",
    {"    pairs, start": "    generator = torch.Generator().manual_seed(0)\n    pairs, start"},
)
slip(
    SentencePairs,
    "nobody else to draw from",
    "With a single document there is no other to draw from. Raise a ValueError, before anything is drawn.",
    {"for document in documents) < 2:": "for document in documents) < 0:", _OTHER_LINE: _OTHER_LINE.replace("every[", "every["
     "0 if elsewhere == 0 else "), _DRAWN_LINE: _DRAWN_LINE.replace("elsewhere", "max(elsewhere, 1)")},
)  # fmt: skip
slip(
    SentencePairs,
    "empty documents counted",
    "Documents without a sentence are counted too, so an error comes only later, and another one. Count those that have "
    "a sentence.",
    {"sum(len(document) > 0 for document in documents) < 2": "len(documents) < 2"},
)


@exercise(
    "bert.masked_lm_loss",
    parts={"values": 2, "nothing asked": 1},
    claims=("nothing asked",),
    difficulty=1,
    minutes=10,
    read="08_masked_lm#masked-loss",
    forbidden=("F.cross_entropy", "F.nll_loss"),
    builds_on=SOFTMAXES,
    instead="Use the `cross_entropy` that you wrote in chapter 07.",
)
class MaskedLoss(Check):
    """Rows with different numbers of chosen places, id 0 among the labels, and none chosen at all; gradients too."""

    equivalent: ClassVar = {
        "masked_lm_loss: chosen = labels != IGNORED -> chosen = labels > IGNORED": "a label is an id, which is never below 0",
    }

    def prepare(self, rng):
        def inputs(rows, length, vocab_size, chosen, scale=1.0, dtype=torch.float64):
            labels = torch.full((rows, length), -100)
            for place in chosen:
                labels.view(-1)[place] = rng.integers(1, vocab_size, 1)
            return {"logits": (scale * rng.normal(rows, length, vocab_size)).to(dtype), "labels": labels}

        values, nothing = self.parts
        yield Case("4 of 12 places", inputs(2, 6, 7, [1, 2, 3, 10]), values)
        yield Case("one place of 12", inputs(3, 4, 5, [7]), values)
        yield Case("every place", inputs(2, 3, 4, range(6)), values)
        zero = inputs(2, 5, 6, [0, 4, 7])
        zero["labels"][0, 4] = 0
        yield Case("the label 0", zero, values)
        yield Case("a row with nothing chosen", inputs(2, 4, 5, [1, 2]), values)
        yield Case("float32", inputs(2, 4, 5, [0, 5, 6], dtype=torch.float32), values)
        yield Case("large logits", inputs(2, 4, 5, [0, 1, 6], scale=900.0), values)
        yield Case("one token a row", inputs(4, 1, 6, [0, 2]), values, hidden=True)
        yield Case("no place at all", inputs(2, 4, 5, []), nothing)

    @staticmethod
    def probe(masked_lm_loss, case, /):
        logits = case.logits.clone().requires_grad_()
        loss = masked_lm_loss(logits, case.labels)
        if not isinstance(loss, Tensor):
            return {"loss": loss, "gradients": {}}
        return {"loss": loss, "gradients": gradients(loss, {"logits": logits})}

    def judge(self, case, got):
        logits = case.logits.clone().requires_grad_()
        right = bert.masked_lm_loss(logits, case.labels)
        yield same(got.loss, right.detach(), "the loss")
        yield from same_gradients(got.gradients, gradients(right, {"logits": logits}))


_LOSS = "return cross_entropy(logits[chosen], labels[chosen])"
_EACH = "cross_entropy(logits[row][chosen[row]], labels[row][chosen[row]])"
slip(
    MaskedLoss,
    "all places count",
    "Places that were not chosen count too, as if their label were the token 0. The loss is over the chosen places alone.",
    {_LOSS: "return cross_entropy(logits, labels.clamp(min=0))"},
)
slip(
    MaskedLoss,
    "divided by all places",
    "The sum is divided by the number of all places. Divide by the number of those that were chosen.",
    {_LOSS: f"{_LOSS} * chosen.sum() / chosen.numel()"},
)
slip(
    MaskedLoss,
    "sum instead of mean",
    "The losses are added up. Divide by the number of chosen places.",
    {_LOSS: f"{_LOSS} * chosen.sum()"},
)
slip(
    MaskedLoss,
    "mean over rows",
    "The mean is taken in each row first, and then over the rows. A row with few chosen places then weighs as much as one "
    "with many. Take one mean over all chosen places.",
    {_LOSS: f"return torch.stack([{_EACH} for row in range(len(labels))]).mean()"},
)
slip(
    MaskedLoss,
    "the token 0 is not asked",
    "Places whose label is 0 are left out. 0 is an id like any other: what is not asked for has the label -100.",
    {"labels != IGNORED": "labels > 0"},
)
slip(
    MaskedLoss,
    "the other places",
    "The places that were *not* chosen are asked for. The label -100 says that nothing is asked.",
    {_LOSS: "return cross_entropy(logits[~chosen], torch.zeros_like(labels[~chosen]))"},
)
slip(
    MaskedLoss,
    "NaN where nothing is asked",
    "Where no place was chosen, zero is divided by zero. The loss is 0 then: your `cross_entropy` of chapter 07 takes care "
    "of that.",
    {_LOSS: "losses = logits[chosen].logsumexp(-1) - logits[chosen].gather(-1, labels[chosen].unsqueeze(-1)).squeeze(-1)\n"
     "    return losses.mean()"},
)  # fmt: skip
slip(
    MaskedLoss,
    "a number where nothing is asked",
    "Where no place was chosen, a plain number comes back, from which `backward()` cannot start. Keep it joined to the "
    "logits, as your `cross_entropy` of chapter 07 does.",
    {_LOSS: f"if not chosen.any():\n        return 0.0\n    {_LOSS}"},
)
slip(
    MaskedLoss,
    "cut off from the logits",
    "No gradient comes through: the loss is a Python number, or was detached. Leave it a tensor.",
    {_LOSS: f"{_LOSS}.detach()"},
)


BERT = {
    "vocab_size": 11, "d_model": 8, "num_heads": 2, "num_layers": 2, "d_ff": 12, "max_length": 12, "positions": "learned",
    "feed_forward": "gelu", "scale_embeddings": False, "norm_first": False,
}  # fmt: skip
PRE_NORM = BERT | {"norm_first": True}
HEAD = ("transform.", "head_norm.", "output.")
TABLES = ["embedding.tokens.weight", "output.weight"]
SEGMENTS = "segments.weight"


@exercise(
    "bert.MaskedLanguageModel",
    parts={"encoder": 2, "padding": 1, "segments": 1, "head": 2, "chosen": 1, "tables": 1},
    difficulty=3,
    minutes=35,
    read="08_masked_lm#masked-model",
    sections={"padding": "encoder-side", "encoder": "encoder-side", "segments": "segments", "tables": "head",
              "head": "head", "chosen": "head"},
    forbidden=("nn.TransformerEncoder", "nn.TransformerEncoderLayer", "nn.Transformer"),
    builds_on=PARTS,
    instead="Build it from an `Embedding`, your `TransformerBlock` and `make_norm`.",
)  # fmt: skip
class MaskedModel(Check):
    """The encoder alone, padding and segments in it, then the head, at all places or some, and its table.

    Only the part "segments" sees what the table of segments holds, and only "tables" whether two tables are one: elsewhere
    the vector of the first segment is zero, and both tables hold the same numbers.
    """

    equivalent: ClassVar = {
        f"MaskedLanguageModel.encode: {old} -> {new}": why
        for old, new, why in [
            (
                "mask = None if self.config.pad_id is None else padding_mask(ids, self.config.pad_id)",
                "mask = None if self.config.pad_id is None else padding_mask(self.config.pad_id, ids)",
                "the reference compares its two arguments, and `!=` gives the same in either order",
            ),
            (
                "x = self.embedding_norm(self.embedding(ids) + self.segments(segments))",
                "x = self.embedding_norm(self.segments(segments) + self.embedding(ids))",
                "a sum in the other order",
            ),
        ]
    }

    def prepare(self, rng):
        def inputs(kind, ids, *, segments=None, chosen=None, dtype=torch.float64, **config):
            weights = random_weights(rng, bert.MaskedLanguageModel, config, dtype)
            if kind not in ("segments", "by segments"):
                weights[SEGMENTS][0] = 0
            if kind != "tables":
                weights["output.weight"] = weights[TABLES[0]].clone()
            of_encoder = [name for name in weights if not name.startswith(HEAD)]
            held = of_encoder if kind in ("encoder", "padding", "segments") else list(weights)
            hidden = [] if kind in ("segments", "by segments") else [SEGMENTS]
            hidden += TABLES if kind in ("head", "chosen", "by segments") else []
            return {
                "kind": kind, "ids": ids, "segments": segments, "chosen": chosen, "config": config,
                "weights": {name: weights[name] for name in held},
                "asked": [] if kind == "padding" else [name for name in held if name not in hidden],
            }  # fmt: skip

        encoder, padding, segments, head, chosen, tables = self.parts
        ids, zeros = rng.integers(1, 11, 2, 6), torch.tensor([[4, 0, 7, 0, 2, 9], [0, 3, 3, 8, 0, 1]])
        yield Case("post-norm, as BERT is", inputs("encoder", ids, **BERT), encoder)
        yield Case("three blocks, pre-norm", inputs("encoder", ids, **PRE_NORM | {"num_layers": 3}), encoder)
        swiglu = {"norm": "rms", "feed_forward": "swiglu", "positions": "rope"}
        yield Case("RMSNorm, rotary positions, pre-norm", inputs("encoder", ids, **PRE_NORM | swiglu), encoder)
        yield Case("RMSNorm, post-norm", inputs("encoder", ids, **BERT | {"norm": "rms"}), encoder)
        yield Case("no pad_id, and 0 is a real token", inputs("encoder", zeros, **BERT), encoder)
        yield Case("float32", inputs("encoder", ids, dtype=torch.float32, **BERT), encoder)
        yield Case("one token", inputs("encoder", ids[:1, :1], **BERT), encoder, hidden=True)
        short = ids * torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
        yield Case("pad_id = 0", inputs("padding", short, pad_id=0, **BERT), padding)
        nines = torch.where(short == 0, 9, short % 9)
        yield Case("pad_id = 9, and 0 is a real token", inputs("padding", nines, pad_id=9, **PRE_NORM), padding)
        second = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
        yield Case("two segments", inputs("segments", ids, segments=second, **BERT), segments)
        yield Case("segments left out, which means all 0", inputs("segments", ids, **PRE_NORM), segments)
        yield Case("logits with two segments", inputs("by segments", ids, segments=second, **BERT), segments)
        yield Case("a fresh model's segments", inputs("fresh", ids, **BERT | {"d_model": 256}), segments)
        yield Case("the logits, post-norm", inputs("head", ids, **BERT), head)
        yield Case("the logits, pre-norm and RMSNorm", inputs("head", ids, **PRE_NORM | {"norm": "rms"}), head)
        yield Case("blocks with ReLU and without biases", inputs("head", ids, **BERT | {"feed_forward": "relu",
                   "bias": False}), head)  # fmt: skip
        yield Case("the logits in float32", inputs("head", ids, dtype=torch.float32, **BERT), head, hidden=True)
        some = torch.tensor([[False, True, False, False, True, True], [True, False, False, False, False, True]])
        yield Case("logits at 5 places", inputs("chosen", ids, chosen=some, **BERT), chosen)
        yield Case("logits at one place", inputs("chosen", ids, chosen=some & ~some.roll(1, 1), **PRE_NORM), chosen)
        yield Case("logits at no place", inputs("chosen", ids, chosen=some & ~some, **BERT), chosen, hidden=True)
        yield Case("tie_embeddings=True", inputs("tables", ids, **BERT), tables)
        yield Case("tie_embeddings=False", inputs("tables", ids, **BERT | {"tie_embeddings": False}), tables)

    @staticmethod
    def probe(model_class, case, /):
        model = model_class(make_config(**case.config))
        if case.kind == "fresh":
            # In units of 0.02, so that chance does not show: 0 is nothing, 2 is too much, however much.
            return {"spread": min(2, round(model.segments.weight.detach().std().item() / 0.02))}
        load_weights(model, case.weights, strict=case.kind == "tables")
        own = dict(model.named_parameters(remove_duplicate=False))
        call = model.encode if case.kind in ("encoder", "padding", "segments") else model
        if case.chosen is not None:
            output = call(case.ids, chosen=case.chosen)
        else:
            output = call(case.ids) if case.segments is None else call(case.ids, case.segments)
        asked = {name: own[name] for name in case.asked}
        facts = {"output": output, "gradients": gradients(output, asked) if asked else {}}
        if case.kind == "padding":
            padding = torch.full_like(case.ids[:, :2], case.config["pad_id"])
            facts |= {"padded": call(torch.cat([case.ids, padding], dim=1))}
        if case.kind == "tables":
            facts |= {"tied": own["output.weight"] is own["embedding.tokens.weight"]}
        return facts

    def judge(self, case, got):
        if case.kind == "fresh":
            wrong = "far larger than" if got.spread == 2 else "far smaller than"
            what = (
                f"A fresh model's `segments` are {wrong} its tokens' vectors, which have a standard deviation of 0.02."
            )
            yield holds(got.spread == 1, f"{what} Start them at the same.")
            return
        model = with_weights(bert.MaskedLanguageModel, case, strict=False)
        if case.kind in ("encoder", "padding", "segments"):
            right = model.encode(case.ids, case.segments)
        else:
            right = model(case.ids, case.segments, case.chosen)
        yield same_shape(got.output, right, "the result")
        if case.kind == "padding":
            length = case.ids.size(1)
            alike = isinstance(got.padded, Tensor) and close(got.padded[:, :length], got.output)
            yield holds(alike, "Two more padding tokens behind the text change what the others get.")
            real = case.ids != case.config["pad_id"]
            yield same(got.output[real], right[real].detach(), "what `encode` gives for the real tokens")
            return
        if case.kind == "tables" and case.config.get("tie_embeddings", True):
            yield holds(got.tied, "tie_embeddings is True, and the two tables are not one and the same parameter.")
        yield same(got.output, right.detach(), "the result")
        own = dict(model.named_parameters(remove_duplicate=False))
        yield from same_gradients(got.gradients, gradients(right, {name: own[name] for name in case.asked}))


_SUM = "self.embedding_norm(self.embedding(ids) + self.segments(segments))"
_PAD = "None if self.config.pad_id is None else padding_mask(ids, self.config.pad_id)"
_BLOCKS = "nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))"
_LAST = "make_norm(config) if config.norm_first else nn.Identity()"
_HEAD = "return self.output(self.head_norm(self.transform(x)))"
_SELECTED = "x = x if chosen is None else x[chosen]"
slip(
    MaskedModel,
    "blocks side by side",
    "Each block reads the embedding instead of what the block before it gave, so only the last one counts. Write "
    "`x = block(x, mask)`.",
    {"x = block(x, mask)": "y = block(x, mask)", "self.norm(x)": "self.norm(y)"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "one block used again",
    "The list holds the same block several times, so all layers share their weights. Make a new block for each layer.",
    {_BLOCKS: "nn.ModuleList([TransformerBlock(config)] * config.num_layers)"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "a plain list",
    "The blocks are in a plain Python list, and nn.Module does not see what is in there: their weights are not trained, "
    "moved or saved. Use nn.ModuleList.",
    {_BLOCKS: "[TransformerBlock(config) for _ in range(config.num_layers)]"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "causal",
    "Earlier places do not see later ones: there is a causal mask. A masked model reads both sides; the only mask that it "
    "needs is for padding.",
    {"x = block(x, mask)": "causal = torch.ones(ids.size(1), ids.size(1), dtype=torch.bool).tril()\n            "
     "x = block(x, causal if mask is None else causal & mask)"},
    read="both-sides",
)  # fmt: skip
slip(
    MaskedModel,
    "no norm behind the embedding",
    "The sum of the embeddings goes into the blocks as it is. Put it through `embedding_norm` first.",
    {_SUM: "self.embedding(ids) + self.segments(segments)"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "no last norm for pre-norm",
    "With pre-norm nothing normalises what the last block adds to the stream. Make `norm` with make_norm(config) when "
    "config.norm_first, and apply it at the end of `encode`.",
    {"return self.norm(x)": "return x"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "a last norm for post-norm too",
    "There is a last norm with post-norm too, where each block already ends in one. Make it only when config.norm_first.",
    {_LAST: "make_norm(config)"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "always LayerNorm",
    "The norms are LayerNorms whatever the config says. `make_norm(config)` makes the right ones.",
    {"make_norm(config)": "nn.LayerNorm(config.d_model, config.norm_eps)"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "padding attended to",
    "Padding gets attention weight, so a sentence changes with what it is padded to. Make `padding_mask(ids, pad_id)` when "
    "the config has a pad_id, and give it to every block.",
    {_PAD: "None"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "takes 0 for padding",
    "Id 0 is treated as padding although the config names another pad_id, or none. Use config.pad_id.",
    {_PAD: "padding_mask(ids, 0)"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "pad id 0 forgotten",
    "A pad_id of 0 is treated as if there were none: 0 counts as false. Ask `pad_id is None`.",
    {"None if self.config.pad_id is None else": "None if not self.config.pad_id else"},
    read="encoder-side",
)
slip(
    MaskedModel,
    "segments ignored",
    "The segments change nothing: the model cannot tell the first sentence from the second. Add `segments(...)` to the "
    "embedding.",
    {_SUM: "self.embedding_norm(self.embedding(ids) + 0 * self.segments(segments))"},
    read="segments",
)
slip(
    MaskedModel,
    "segments not handed on",
    "`encode` uses the segments, and `forward` does not give them to it: call `self.encode(ids, segments)`.",
    {"self.encode(ids, segments)": "self.encode(ids)"},
    read="segments",
)
slip(
    MaskedModel,
    "segments behind the norm",
    "The segments are added after the norm. They belong to the sum that is normalised.",
    {_SUM: "self.embedding_norm(self.embedding(ids)) + self.segments(segments)"},
    read="segments",
)
slip(
    MaskedModel,
    "no segment where none is given",
    "Where no segments are given, none is added. That means that all places are of the first: add its vector, number 0.",
    {
        "segments = torch.zeros_like(ids) if segments is None else segments": "extra = 0 if segments is None else "
        "self.segments(segments)",
        "self.segments(segments))\n": "extra)\n",
    },
    read="segments",
)
slip(
    MaskedModel,
    "the second segment where none is given",
    "Where no segments are given, all places count as the second. They are of the first, number 0.",
    {"torch.zeros_like(ids)": "torch.ones_like(ids)"},
    read="segments",
)
slip(
    MaskedModel,
    "segments start too large",
    "The two vectors of `segments` start with PyTorch's standard deviation of 1, and drown the tokens' vectors, which start "
    "at 0.02. Start them as small: `nn.init.normal_(self.segments.weight, std=0.02)`.",
    {"        nn.init.normal_(self.segments.weight, std=0.02)\n": ""},
    read="segments",
)
slip(
    MaskedModel,
    "no head",
    "The encoder's vectors go straight to `output`. The head has a transform and a norm before it.",
    {_HEAD: "return self.output(x)"},
    read="head",
)
slip(
    MaskedModel,
    "no transform",
    "The head's transform is not applied: a linear layer and a GELU stand before its norm.",
    {_HEAD: "return self.output(self.head_norm(x))"},
    read="head",
)
slip(
    MaskedModel,
    "no norm in the head",
    "The head's norm is not applied: it stands between the transform and the output.",
    {_HEAD: "return self.output(self.transform(x))"},
    read="head",
)
slip(
    MaskedModel,
    "the head's norm first",
    "The head's norm stands before the transform. It comes after it: transform, norm, output.",
    {_HEAD: "return self.output(self.transform(self.head_norm(x)))"},
    read="head",
)
slip(
    MaskedModel,
    "no GELU",
    "The transform is a linear layer alone. A GELU follows it.",
    {"nn.GELU()": "nn.Identity()"},
    read="head",
)
slip(
    MaskedModel,
    "GELU by tanh",
    "The transform has the approximate GELU, by tanh. BERT's is the exact one: `nn.GELU()`.",
    {"nn.GELU()": 'nn.GELU("tanh")'},
    read="head",
)
slip(
    MaskedModel,
    "ReLU in the head",
    "The transform has a ReLU. BERT's head has an exact GELU, `nn.GELU()`, whatever the blocks have.",
    {"nn.GELU()": "nn.ReLU()"},
    read="head",
)
slip(
    MaskedModel,
    "returns probabilities",
    "A softmax was applied. Logits leave a model: the loss takes the softmax itself, and does it more exactly.",
    {_HEAD: f"{_HEAD}.softmax(-1)"},
    read="head",
)
slip(
    MaskedModel,
    "chosen ignored",
    "Logits come back for all places, though `chosen` asks for some. Select those places before the head, `x[chosen]`.",
    {_SELECTED: "pass"},
    read="head",
)
slip(
    MaskedModel,
    "the others chosen",
    "Logits come back for the places that were not chosen. True in `chosen` means that the place is asked for.",
    {"x[chosen]": "x[~chosen]"},
    read="head",
)
slip(
    MaskedModel,
    "zeros where nothing is asked",
    "Places that are not chosen are set to zero and still go through the head. Take out the chosen ones, `x[chosen]`, which "
    "gives (n, D).",
    {"x[chosen]": "x * chosen.unsqueeze(-1)"},
    read="head",
)
slip(
    MaskedModel,
    "never tied",
    "The config asks for tied embeddings, and the tables are two. Make `output.weight` the embedding's own parameter: a "
    "copy has the same numbers and parts from it at the first step.",
    {"if config.tie_embeddings": "if False"},
    read="head",
)
slip(
    MaskedModel,
    "always tied",
    "The tables are tied although tie_embeddings is False.",
    {"if config.tie_embeddings": "if True"},
    read="head",
)
slip(
    MaskedModel,
    "output without bias",
    "The output has no bias. BERT's has one for each token, which learns how frequent the token is.",
    {"nn.Linear(config.d_model, config.vocab_size)": "nn.Linear(config.d_model, config.vocab_size, bias=False)"},
    read="head",
)
slip(
    MaskedModel,
    "biases as in the blocks",
    "The head's layers have a bias only if config.bias says so. That choice is for the blocks: the head always has its "
    "biases.",
    {
        "config.d_model, config.d_model)": "config.d_model, config.d_model, bias=config.bias)",
        "config.d_model, config.vocab_size)": "config.d_model, config.vocab_size, bias=config.bias)",
    },
    read="head",
)
slip(
    MaskedModel,
    "super().__init__() missing",
    "`super().__init__()` is missing, so nn.Module cannot register the layers. Call it first in `__init__`.",
    {"super().__init__()": "pass"},
)

reflection(
    "bert.both_ways",
    chapter="08_masked_lm",
    points=2,
    rubric="""
    1 point: says why the plan fails: with more than one block, a token reaches its own place by way of its neighbours. The
    first block writes it into their vectors, and the second reads it there; so the answer leaks, and the loss falls
    to nearly nothing without anything being learned. (Full marks too for the shorter way: the residual stream carries
    each token's own vector past the attention, so even one block has the answer at its own place.)

    1 point: names what each of the two known ways gives up: a causal model sees one side only, and is asked at every
    place; a masked model sees both sides, and is asked at 15 % of the places, so it needs more text for as many answers,
    and it is not a model that writes.
    """,
)
reflection(
    "bert.same_tokens",
    chapter="08_masked_lm",
    points=2,
    rubric="""
    1 point: names what differs between training and use: with masks alone, the model never gets a loss at a place that
    shows a true token, so nothing is asked of its vectors there; in use there are no masks. Random and unchanged tokens
    make it form an opinion at every place.

    1 point: a fitting experiment with what is compared and measured: two models of equal size, text and steps, one trained
    with each rule; at places that show the true token (or a wrong one) measure the loss or accuracy of the head, or the
    accuracy of a classifier on the vectors of unmasked text, over several seeds.
    """,
)
