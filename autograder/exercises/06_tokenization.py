"""Checks of chapter 06: pairs and merges, byte-pair encoding learned and applied, and WordPiece."""

from typing import ClassVar

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import holds, is_kind, same_items, same_table
from autograder.probe import count_steps
from solutions import tokenization
from solutions.tokenization import BYTES, BPETokenizer, train_bpe

NO_ERROR = "No ValueError was raised, though {}."
PLENTY = 20
"""Learning 120 merges may take this many times the steps of learning one, the choice of each pair left out: correct
solutions take 4 to 10 times as many, and counting everything anew for each merge takes over 40 times as many."""


SUM = "a sum or a product in another order"
_FITS = "if place + 1 < len(ids) and (ids[place], ids[place + 1]) == pair:"


def _ids(rng, values, length):
    return rng.integers(0, values, length).tolist()


def _words(rng, letters, count, longest):
    """Text of random words; with few letters the same pairs come again and again, and often equally often."""
    lengths = rng.integers(1, longest + 1, count).tolist()
    return " ".join("".join(letters[place] for place in _ids(rng, len(letters), length)) for length in lengths)


@exercise(
    "tokenization.count_pairs",
    parts={"counts": 1},
    difficulty=1,
    minutes=5,
    read="06_tokenization#pairs-and-merges",
    instead="Build it from a loop over neighbours and a dict.",
)
class CountPairs(Check):
    """Pairs that repeat, that overlap, that do not occur at all."""

    def prepare(self, rng):
        yield Case("two different pairs", {"ids": [3, 1, 3, 1]}, "counts")
        yield Case("a run of one id", {"ids": [7, 7, 7, 7]}, "counts")
        yield Case("twenty ids", {"ids": _ids(rng, 4, 20)}, "counts")
        yield Case("a pair and its mirror image", {"ids": [1, 2, 1]}, "counts")
        yield Case("one id", {"ids": [5]}, "counts")
        yield Case("no ids", {"ids": []}, "counts")
        yield Case("large ids", {"ids": [50256, 300, 50256, 300]}, "counts", hidden=True)

    @staticmethod
    def probe(count_pairs, case, /):
        found = count_pairs(case.ids)
        return {"counts": dict(found) if isinstance(found, dict) else found}

    def judge(self, case, got):
        keys = got.counts if isinstance(got.counts, dict) else ()
        yield holds(all(isinstance(key, tuple) for key in keys), "A key is not a pair. The keys are tuples of two ids.")
        yield same_table(got.counts, tokenization.count_pairs(case.ids))


_COUNTED = "Counter(pairwise(ids))"
slip(
    CountPairs,
    "counts every other pair",
    "Only every other pair is counted. Pairs overlap: the second id of one is the first id of the next.",
    {_COUNTED: "dict(Counter(zip(ids[::2], ids[1::2])))"},
)
slip(
    CountPairs,
    "order within a pair ignored",
    "A pair and its mirror image are counted as one. (1, 2) and (2, 1) are different pairs.",
    {"pairwise(ids)": "tuple(sorted(pair)) for pair in pairwise(ids)"},
)
slip(
    CountPairs,
    "pairs with the end",
    "The last id is paired with the first, as if the list were a ring.",
    {"pairwise(ids)": "zip(ids, [*ids[1:], *ids[:1]])"},
)
slip(CountPairs, "counts single ids", "Single ids are counted, not pairs of neighbours.", {"pairwise(ids)": "ids"})
slip(
    CountPairs,
    "each pair once",
    "Every pair has the count 1. Add one for each place where it stands.",
    {_COUNTED: "dict.fromkeys(pairwise(ids), 1)"},
)
slip(
    CountPairs,
    "occurrences that do not overlap",
    "In a run of the same id, overlapping occurrences are left out. Here each place counts, also when it overlaps the "
    "place before.",
    {
        _COUNTED: "{pair: count - sum(ids[place : place + 3] == [pair[0]] * 3 for place in range(len(ids))) "
        "if pair[0] == pair[1] else count for pair, count in Counter(pairwise(ids)).items()}"
    },
)


@exercise(
    "tokenization.merge_pair",
    parts={"merging": 1, "overlaps": 1},
    difficulty=1,
    minutes=10,
    read="06_tokenization#pairs-and-merges",
    instead="Build it from a loop that compares each place with the pair.",
)
class MergePair(Check):
    """Pairs at the start, in the middle, at the end, not at all; runs in which occurrences overlap."""

    equivalent: ClassVar = {
        f"merge_pair: {_FITS} -> {_FITS.replace(old, new)}": SUM
        for old, new in {"if place + 1": "if 1 + place", "[place + 1]": "[1 + place]"}.items()
    }

    def prepare(self, rng):
        yield Case("in the middle", {"ids": [5, 1, 2, 6], "pair": (1, 2), "new_id": 9}, "merging")
        yield Case("at the start and at the end", {"ids": [1, 2, 4, 1, 2], "pair": (1, 2), "new_id": 9}, "merging")
        yield Case("not there", {"ids": [2, 1, 1, 3], "pair": (1, 2), "new_id": 9}, "merging")
        yield Case("a first half at the end", {"ids": [1, 2, 1], "pair": (1, 2), "new_id": 9}, "merging")
        yield Case("no ids", {"ids": [], "pair": (1, 2), "new_id": 9}, "merging")
        yield Case("one id", {"ids": [1], "pair": (1, 1), "new_id": 9}, "merging")
        yield Case("thirty ids", {"ids": _ids(rng, 3, 30), "pair": (1, 2), "new_id": 9}, "merging")
        yield Case("three alike", {"ids": [7, 7, 7], "pair": (7, 7), "new_id": 9}, "overlaps")
        yield Case("four alike", {"ids": [7, 7, 7, 7], "pair": (7, 7), "new_id": 9}, "overlaps")
        yield Case("five alike among others", {"ids": [0, 7, 7, 7, 7, 7, 1], "pair": (7, 7), "new_id": 9}, "overlaps")
        yield Case("many runs", {"ids": _ids(rng, 2, 30), "pair": (1, 1), "new_id": 2}, "overlaps", hidden=True)
        # What was merged must not be merged again with the new id that stands before it.
        yield Case("the new id is in the pair", {"ids": [1, 2, 2], "pair": (1, 2), "new_id": 1}, "overlaps")

    @staticmethod
    def probe(merge_pair, case, /):
        return {"ids": merge_pair(case.ids, case.pair, case.new_id)}

    def judge(self, case, got):
        yield same_items(got.ids, tokenization.merge_pair(case.ids, case.pair, case.new_id))


slip(
    MergePair,
    "second half not skipped",
    "The second half of the pair stays behind the new id. After a merge, go on two places further.",
    {"place += 2": "place += 1"},
)
slip(
    MergePair,
    "first occurrence only",
    "Only the first occurrence is merged. Merge them all.",
    {_FITS: _FITS.replace(" == pair", " == pair and new_id not in merged")},
)
slip(
    MergePair,
    "merges from the right",
    "In a run of the same id, the merges are made from the right. Go from left to right.",
    {
        "    merged = []": "    ids, pair = ids[::-1], pair[::-1]\n    merged = []",
        "return merged": "return merged[::-1]",
    },
)
slip(
    MergePair,
    "either order",
    "The mirror image of the pair is merged as well. The order matters.",
    {_FITS: _FITS.replace("== pair", "in (pair, pair[::-1])")},
)
slip(
    MergePair,
    "stops before the last id",
    "The last id is lost where no pair ends the list. It has no right neighbour, and it stays.",
    {"while place < len(ids):": "while place < len(ids) - 1:"},
)
slip(
    MergePair,
    "looks past the end",
    "The last id has no right neighbour, so `ids[place + 1]` does not exist there. Test for it first.",
    {"place + 1 < len(ids) and ": ""},
)
slip(
    MergePair,
    "changes the list that it is given",
    "The list that came in is changed. Build a new one: the caller may still need the old one.",
    {
        _FITS: _FITS.replace("if ", "if ", 1),
        "    return merged": "    ids[:] = merged\n    return ids",
    },
)
slip(MergePair, "returns nothing", "Nothing is returned.", {"    return merged": "    pass"})


@exercise(
    "tokenization.most_common_pair",
    parts={"counts": 1, "ties": 1},
    difficulty=1,
    minutes=5,
    read="06_tokenization#ties",
    instead="Build it from a loop, or from `max` with a key.",
)
class MostCommonPair(Check):
    """One clear winner; several, which only their bytes tell apart, among them tokens of several bytes."""

    def prepare(self, rng):
        letters = {number: bytes([number]) for number in range(BYTES)}
        long = letters | {256: b"th", 257: b"t", 258: b"the", 259: b"a"}
        clear = dict(
            zip([(1, 2), (200, 7), (3, 3)], (rng.integers(1, 3, 3) + 4 * rng.integers(0, 2, 1)).tolist(), strict=True)
        )
        yield Case("one winner", {"pairs": {(1, 2): 3, (200, 7): 9, (3, 3): 5}, "vocab": letters}, "counts")
        yield Case("the winner comes last", {"pairs": {(250, 2): 3, (1, 1): 11}, "vocab": letters}, "counts")
        yield Case("one pair", {"pairs": {(4, 5): 1}, "vocab": letters}, "counts")
        yield Case("three pairs", {"pairs": clear | {(0, 0): 40}, "vocab": letters}, "counts", hidden=True)
        yield Case("the same first byte", {"pairs": {(5, 9): 2, (5, 7): 2, (1, 1): 1}, "vocab": letters}, "ties")
        yield Case("other first bytes", {"pairs": {(8, 1): 4, (6, 200): 4, (7, 3): 4}, "vocab": letters}, "ties")
        # By their bytes: "the" > "th" > "t" > "a". By their ids: 259 > 258 > 257 > 256.
        yield Case("longer tokens", {"pairs": {(259, 256): 6, (256, 259): 6}, "vocab": long}, "ties")
        yield Case("second token longer", {"pairs": {(97, 257): 6, (97, 256): 6}, "vocab": long}, "ties")
        # First token then second, not the bytes of both run together: "t" + "hz" < "th" + "a", though "thz" > "tha".
        more = long | {260: b"hz"}
        yield Case("the same start", {"pairs": {(116, 260): 2, (256, 97): 2}, "vocab": more}, "ties")
        yield Case(
            "the same start, turned round", {"pairs": {(256, 97): 2, (116, 260): 2}, "vocab": more}, "ties", hidden=True
        )
        yield Case(
            "long tokens and many of them",
            {"pairs": {(a, b): 3 for a in range(256, 260) for b in (256, 258)}, "vocab": long},
            "ties",
            hidden=True,
        )

    @staticmethod
    def probe(most_common_pair, case, /):
        return {"pair": most_common_pair(case.pairs, case.vocab)}

    def judge(self, case, got):
        right = tokenization.most_common_pair(case.pairs, case.vocab)
        yield is_kind(got.pair, tuple, "one of the keys of `pairs`")
        for item in got.pair:
            yield is_kind(item, int, "one of the keys of `pairs`, which are two ids", "a part of the result")
        yield holds(got.pair in case.pairs, "The result is none of the pairs that were given.")
        highest = case.pairs[got.pair] == case.pairs[right]
        yield holds(highest, f"The pair {got.pair} occurs {case.pairs[got.pair]} times, and another pair more often.")
        yield holds(
            got.pair == right, f"Of the commonest pairs, {got.pair} is not the one whose bytes compare greatest."
        )


_TIE = "key=lambda pair: (vocab[pair[0]], vocab[pair[1]])"
slip(
    MostCommonPair,
    "the first of equals",
    "Of pairs that are equally common, the one met first is taken. Take the one whose bytes compare greatest, so that the "
    "result does not depend on the order of the text.",
    {f"max(candidates, {_TIE})": "candidates[0]"},
)
slip(
    MostCommonPair,
    "the last of equals",
    "Of pairs that are equally common, the one met last is taken. Take the one whose bytes compare greatest.",
    {f"max(candidates, {_TIE})": "candidates[-1]"},
)
slip(
    MostCommonPair,
    "the smallest of equals",
    "Of pairs that are equally common, the one with the smallest bytes is taken. Take the greatest.",
    {f"max(candidates, {_TIE})": f"min(candidates, {_TIE})"},
)
slip(
    MostCommonPair,
    "compares ids",
    "Ties are broken by the ids. Compare the bytes that the ids stand for: `vocab[pair[0]]`, then `vocab[pair[1]]`.",
    {f"max(candidates, {_TIE})": "max(candidates)"},
)
slip(
    MostCommonPair,
    "compares joined bytes",
    "Ties are broken by the bytes of both tokens run together. Compare the first tokens, and where these are the same the "
    "second ones.",
    {"(vocab[pair[0]], vocab[pair[1]])": "vocab[pair[0]] + vocab[pair[1]]"},
)
slip(
    MostCommonPair,
    "first token only",
    "Ties are broken by the first token alone. Where the first tokens are the same, the second ones decide.",
    {"(vocab[pair[0]], vocab[pair[1]])": "vocab[pair[0]]"},
)
slip(
    MostCommonPair,
    "the rarest",
    "The rarest pair is taken. Take the commonest.",
    {"max(pairs.values())": "min(pairs.values())"},
)
slip(
    MostCommonPair,
    "the greatest pair, however rare",
    "The counts are not looked at. They come first; bytes only decide between pairs that are equally common.",
    {"if count == highest": ""},
)


@exercise(
    "tokenization.train_bpe",
    parts={"merges": 2, "vocabulary": 1, "pre-tokens": 1, "special tokens": 1, "errors": 1, "cost": 1},
    claims=("errors", "cost"),
    difficulty=3,
    minutes=40,
    read="06_tokenization#train-bpe",
    sections={"pre-tokens": "pre-tokens", "special tokens": "special-tokens", "cost": "count-again"},
    instead="Build it from `pre_tokenize`, `count_pairs`, `most_common_pair` and `merge_pair`.",
)
class TrainBPE(Check):
    """Merges in order, the vocabulary's layout, words that repeat, other scripts, special tokens, and the cost."""

    equivalent: ClassVar = {
        f"train_bpe: pairs[pair] {sign}= times * count -> pairs[pair] {sign}= count * times{number}": SUM
        for sign, number in (("+", ""), ("-", ""), ("+", " [2]"))
    } | {
        "train_bpe: words = [(list(word.encode()), count) for word, count in counts.items()] -> "
        "words = [(word.encode(), count) for word, count in counts.items()]": "bytes are a sequence of numbers too",
    }

    def prepare(self, rng):
        def inputs(text, merges, special_tokens=(), **rest):
            given = {"text": text, "vocab_size": BYTES + merges + len(special_tokens), "cost": False}
            return given | {"special_tokens": list(special_tokens)} | rest

        tale = "low low low low low lower lower widest widest widest newest newest newest newest newest newest"
        merges, vocabulary, pre_tokens, special, errors, cost = self.parts
        yield Case("low, lower, widest, newest", inputs(tale, 8), merges)
        yield Case("pairs that touch", inputs("abababab baba", 4), merges)
        yield Case("random words", inputs(_words(rng, "abc", 60, 6), 25), merges)
        yield Case("no merges", inputs("abab", 0), merges)
        yield Case("a run of one letter", inputs("aaaaaaaaaaaaa", 3), merges)
        yield Case("letters of several bytes", inputs("naïve Ünïcödé 数学 数学 数 🙂🙂🙂 naïve", 14), merges)
        yield Case("more words", inputs(_words(rng, "abcde", 200, 8), 60), merges, hidden=True)
        yield Case("low and lower", inputs("low lower low", 4), vocabulary)
        yield Case("fewer pairs than asked for", inputs("abc", 20), vocabulary)
        yield Case("a text of one letter", inputs("a", 5, ["<end>"]), vocabulary, hidden=True)
        yield Case("words beside punctuation", inputs("so, so; so: so. so! it's, it's 12 12", 12), pre_tokens)
        yield Case("lines and runs of spaces", inputs("a b\n\na b\n   a b\t a b\n\na b  a b", 12), pre_tokens)
        yield Case("one special token", inputs("to be<end>to be<end>to bend the end<end>", 10, ["<end>"]), special)
        yield Case("two, none in the text", inputs("abab abab", 2, ["<pad>", "<end>"]), special)
        overlapping = inputs("aa[S][S]aa[S]aa [S", 6, ["[S]", "[S][S]"])
        yield Case("one special token within another", overlapping, special)
        yield Case("special tokens without any merge", inputs("ab", 0, ["<a>", "<b>"]), special, hidden=True)
        yield Case("vocab_size=255", inputs("abab", -1), errors)
        yield Case("no room for a special token", inputs("abab", -1, ["<end>"]), errors)
        yield Case("an empty text", inputs("", 4), errors)
        yield Case("special tokens only", inputs("<end><end>", 4, ["<end>"]), errors)
        syllables = [first + second for first in "bdkmtprs" for second in "aoui"]
        words = " ".join(first + second for first in syllables for second in syllables)
        yield Case("1024 words of two syllables", inputs(words, 120, cost=True), cost)

    @staticmethod
    def probe(train_bpe, case, /):
        if case.cost:
            few, many = (
                count_steps(train_bpe, case.text, size, [], without="most_common_pair")
                for size in (257, case.vocab_size)
            )
            return {"few": few, "many": many}
        try:
            found = train_bpe(case.text, case.vocab_size, case.special_tokens)
        except ValueError as error:
            # An error in passing, such as max() of nothing, is not the one asked for.
            return {"error": str(error).startswith(("max()", "min()", "not enough values", "too many values"))}
        if not isinstance(found, tuple) or len(found) != 2:
            return {"vocab": None, "merges": found, "pair": False}
        vocab, merges = found
        return {"vocab": dict(vocab) if isinstance(vocab, dict) else vocab, "merges": merges, "pair": True}

    def judge(self, case, got):
        if case.part == "cost":
            times = got.many / max(got.few, 1)
            yield holds(
                times < PLENTY,
                f"Learning 120 merges takes {times:.0f} times as many steps as learning one. Count again only the words "
                "that hold the pair.",
            )
            return
        if case.part == "errors":
            room = case.vocab_size >= BYTES + len(case.special_tokens)
            why = "there is nothing to learn from" if room else "vocab_size has no room for bytes and special tokens"
            yield holds(hasattr(got, "error") and not got.error, NO_ERROR.format(why))
            return
        yield holds(not hasattr(got, "error"), "A ValueError was raised for a text and a size that are fine.")
        yield holds(got.pair, "The result must be a pair: the vocabulary, then the merges. Return `vocab, merges`.")
        vocab, merges = train_bpe(case.text, case.vocab_size, case.special_tokens)
        yield same_items(got.merges, merges, "the list of merges")
        if case.part in ("vocabulary", "special tokens"):
            yield same_table(got.vocab, vocab, "the vocabulary")


_BEST = "best = most_common_pair(pairs, vocab)"
_STRUCK = "pairs[pair] -= times * count"
_MERGE_ENTRY = "merges.append((vocab[best[0]], vocab[best[1]]))"
_NEW_ENTRY = "vocab[new_id] = vocab[best[0]] + vocab[best[1]]"
_SPECIAL_ENTRY = "    for token in special_tokens:\n        vocab[len(vocab)] = token.encode()\n"
_UNSPECIAL = " if piece not in special_tokens]"
slip(
    TrainBPE,
    "counts everything again",
    "After each merge the pairs of all words are counted again. Only the words that hold the merged pair have changed: "
    "keep, for each pair, the words that hold it, and correct the counts by those.",
    {
        _BEST: "pairs = Counter()\n        for ids, count in words:\n            for pair, times in count_pairs(ids).items():\n"
        "                pairs[pair] += times * count\n        if not pairs:\n            break\n        " + _BEST,
    },
    read="count-again",
)
slip(
    TrainBPE,
    "words counted once",
    "Each distinct word counts once, however often it occurs. Multiply the counts of its pairs by the number of times "
    "that the word occurs.",
    {"times * count": "times"},
)
slip(
    TrainBPE,
    "first of equals",
    "Of equally common pairs the one met first is merged. Use most_common_pair, which compares their bytes.",
    {_BEST: "best = max(pairs, key=pairs.get)"},
    read="ties",
)
slip(
    TrainBPE,
    "compares ids",
    "Of equally common pairs the one with the greater ids is merged. Use most_common_pair, which compares their bytes.",
    {_BEST: "best = max(pairs, key=lambda pair: (pairs[pair], pair))"},
    read="ties",
)
slip(
    TrainBPE,
    "no pre-tokens",
    "Pairs are counted across words, so tokens come to hold a space in their middle. Cut the text with pre_tokenize first.",
    {"pre_tokenize(piece)": "[piece]"},
    read="pre-tokens",
)
slip(
    TrainBPE,
    "splits at white space",
    "The text is cut by `split`, which throws the spaces away. pre_tokenize keeps a space with the word behind it.",
    {"pre_tokenize(piece)": "piece.split()"},
    read="pre-tokens",
)
slip(
    TrainBPE,
    "characters instead of bytes",
    "Words are cut into characters, and there are far more than 256 of them. Begin with the bytes: `word.encode()`.",
    {"list(word.encode())": "[ord(character) for character in word]"},
    read="bytes",
)
slip(
    TrainBPE,
    "old pairs kept",
    "The pairs that a merge has broken up are still counted. Take the old word's pairs off before the new word's are added.",
    {_STRUCK: "pass"},
    read="count-again",
)
slip(
    TrainBPE,
    "new pairs not counted",
    "The pairs that a merge has made are never counted, so no merge can build on another.",
    {"for pair, times in count_pairs(merged).items():": "for pair, times in ():"},
    read="count-again",
)
slip(
    TrainBPE,
    "special tokens counted",
    "Special tokens are counted like words, and merges are spent on their insides. Leave them out of what is counted.",
    {_UNSPECIAL: "]"},
    read="special-tokens",
)
slip(
    TrainBPE,
    "special tokens not cut out",
    "The text is not cut at its special tokens, so their parts are counted. Use split_special, and leave them out.",
    {"split_special(text, special_tokens)" + _UNSPECIAL: "[text]]"},
    read="special-tokens",
)
slip(
    TrainBPE,
    "special tokens first",
    "The special tokens stand before the merges. Their place is last: bytes, merges, special tokens.",
    {
        _SPECIAL_ENTRY: "",
        "    merges: list": _SPECIAL_ENTRY + "    merges: list",
    },
    read="special-tokens",
)
slip(
    TrainBPE,
    "special tokens missing",
    "The special tokens are not in the vocabulary. Enter them after the last merge.",
    {_SPECIAL_ENTRY: ""},
    read="special-tokens",
)
slip(
    TrainBPE,
    "special tokens not counted in vocab_size",
    "There are too many merges: vocab_size counts the special tokens too.",
    {"vocab_size - BYTES - len(special_tokens)": "vocab_size - BYTES"},
    read="special-tokens",
)
slip(
    TrainBPE,
    "vocab_size merges",
    "There are vocab_size merges. vocab_size counts the 256 bytes too.",
    {"vocab_size - BYTES - len(special_tokens)": "vocab_size - len(special_tokens)"},
)
slip(
    TrainBPE,
    "merges as ids",
    "The merges are pairs of ids. Return pairs of bytes, which mean the same beside any vocabulary.",
    {_MERGE_ENTRY: "merges.append(best)"},
)
slip(
    TrainBPE,
    "merges joined",
    "The merges are joined. Return each as a pair: the bytes of its first token and those of its second.",
    {_MERGE_ENTRY: "merges.append(vocab[best[0]] + vocab[best[1]])"},
)
slip(
    TrainBPE,
    "vocabulary turned round",
    "The vocabulary goes from bytes to ids. It goes from ids to bytes.",
    {"return vocab, merges": "return {token: number for number, token in vocab.items()}, merges"},
)
slip(
    TrainBPE,
    "pair in the wrong order",
    "The merges come before the vocabulary. Return `vocab, merges`.",
    {"return vocab, merges": "return merges, vocab"},
)
slip(
    TrainBPE,
    "no pair left",
    "Where no pair is left to merge, your function fails. It should return what it has: every word is one token by then.",
    {"len(merges) < num_merges and pairs": "len(merges) < num_merges"},
)
slip(
    TrainBPE,
    "any size",
    "A vocab_size that has no room for the bytes and the special tokens is not refused with a ValueError.",
    {"num_merges < 0": "False"},
)
slip(
    TrainBPE,
    "any text",
    "A text without anything to learn from is not refused with a ValueError. Silently learning nothing hides a wrong path "
    "or an empty file.",
    {"if not counts:": "if False:"},
)
slip(
    TrainBPE,
    "asserts",
    "An assert raises AssertionError, and Python run with -O skips it. Raise ValueError.",
    {"raise ValueError(": "raise AssertionError("},
)


@exercise(
    "tokenization.BPETokenizer",
    parts={"words": 2, "texts": 1, "special tokens": 1, "decoding": 1, "iterable": 1, "errors": 1},
    claims=("errors",),
    difficulty=3,
    minutes=40,
    read="06_tokenization#bpe-tokenizer",
    sections={"special tokens": "special-tokens", "iterable": "encode-iterable", "decoding": "bytes"},
    instead="Build it from `pre_tokenize`, `split_special` and the merges in their order.",
)
class Tokenizer(Check):
    """Merges in the order learned, ids in any order, special tokens that overlap, texts in parts, half characters."""

    equivalent: ClassVar = {
        "BPETokenizer.__init__: number = max(self.vocab) + 1 -> number = 1 + max(self.vocab)": SUM,
        "BPETokenizer.__init__: self.cached = lru_cache(maxsize=CACHED_WORDS)(self.encode_word) -> self.cached = "
        "lru_cache()(self.encode_word)": "how many words are remembered changes the time, not the ids",
    }

    def prepare(self, rng):
        def learned(text, merges, special_tokens=(), shuffled=False):
            vocab, pairs = train_bpe(text, BYTES + merges, [])
            tokens = list(vocab.values())
            if shuffled:
                order = rng.normal(len(tokens)).argsort().tolist()
                tokens = [tokens[place] for place in order]
            given = {"vocab": dict(enumerate(tokens)), "merges": pairs, "special_tokens": list(special_tokens)}
            return given | {"method": "encode"}

        def by_hand(merges, *tokens):
            vocab = dict(enumerate([*(bytes([byte]) for byte in range(BYTES)), *tokens]))
            return {"vocab": vocab, "merges": merges, "special_tokens": [], "method": "encode"}

        words, texts, special, decoding, iterable, errors = self.parts
        few = learned(_words(rng, "abc", 80, 6), 30)
        for text in ("abcabc", "bbbbbbb", "c", ""):
            yield Case(f"the word {text!r}", few | {"text": text}, words)
        for title, text in {
            "a long word": "".join("abc"[place] for place in _ids(rng, 3, 40)),
            "unknown letters": "xyzé",
        }.items():
            yield Case(title, few | {"text": text}, words)
        # "aab" could begin with "aa", and the merge learned first says "ab".
        order = by_hand([(b"a", b"b"), (b"a", b"a"), (b"a", b"ab")], b"ab", b"aa", b"aab")
        yield Case("two merges that compete", order | {"text": "aab aaab aaaab"}, words)
        merges = [(b"b", b"c"), (b"a", b"b"), (b"c", b"d"), (b"ab", b"cd")]
        longest = by_hand(merges, b"bc", b"ab", b"abcd", b"cd")
        yield Case("the longest token is out of reach", longest | {"text": "abcd"}, words)
        # "abc" is a token, and it is made of "ab" and "c", never of "a" and "bc".
        one_way = by_hand([(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")], b"bc", b"ab", b"abc")
        yield Case("a token that is made in one way only", one_way | {"text": "abc"}, words)
        mixed = learned(_words(rng, "abcd", 80, 6), 30, shuffled=True)
        yield Case("ids in another order", mixed | {"text": "abcd dcba"}, words)
        yield Case("words and spaces", few | {"text": "abc  cab\n\nbca, abc's  "}, texts)
        spaces = learned("a   a   ab   ab   ab abc   abc ab's ab's", 12)
        yield Case("runs of spaces", spaces | {"text": "   ab  a    'sab's"}, texts)
        yield Case("other scripts", learned("日本 日本語 日本", 6) | {"text": "日本語 naïve 🙂"}, texts)
        yield Case("random words", few | {"text": _words(rng, "abcd", 30, 9)}, texts)
        yield Case("ids in another order, a text", mixed | {"text": _words(rng, "abcd", 20, 9)}, texts, hidden=True)
        names = ["<end>", "[S]", "[S][S]", "<new page>"]
        marked = learned(_words(rng, "abc", 80, 6), 20, names)
        yield Case("special tokens between words", marked | {"text": "abc<end>abc <end> <end"}, special)
        yield Case("one special token within another", marked | {"text": "[S][S][S]a[S]"}, special)
        tokens = [*marked["vocab"].values()]
        with_names = [*tokens, b"<end>", b"[S]", b"[S][S]"]
        known = marked | {"vocab": dict(enumerate(with_names))}
        yield Case("special tokens that the vocabulary has", known | {"text": "[S]a<end>"}, special)
        some = marked | {"vocab": dict(enumerate([b"<end>", *tokens]))}
        yield Case("some that it has and some that it lacks", some | {"text": "[S]a<end>[S][S]"}, special)
        gaps = marked | {"vocab": {2 * (len(tokens) - 1 - place): token for place, token in enumerate(tokens)}}
        yield Case("ids with gaps, the largest first", gaps | {"text": "a[S]b<end>"}, special)
        japanese = learned("日本 日本語 日本", 6, ["<end>"])
        backwards = {"method": "decode", "wrong": None, "once": False, "text": "日本語 naïve <end>🙂"}
        yield Case("back to the text", japanese | backwards | {"cut": 0}, decoding)
        yield Case("the first half of a character", japanese | backwards | {"text": "ab é", "cut": 1}, decoding)
        yield Case("ids that can be read once", japanese | backwards | {"cut": 0, "once": True}, decoding)
        yield Case("no ids", japanese | backwards | {"text": "", "cut": 0}, decoding)
        yield Case(
            "the first byte of an emoji", japanese | backwards | {"text": "a🙂", "cut": 3}, decoding, hidden=True
        )
        in_parts = marked | {"method": "encode_iterable", "soon": False}
        for title, parts in {
            "lines": ["ab abc\n", "\n", "  cab\n", "abc"],
            "cut within words": ["ab ab", "c ca", "b", "", " ab"],
            "cut within a special token": ["abc<e", "nd>ab [", "S", "][S", "]a"],
            "cut within one that holds a space": ["abc<new", " pa", "ge>ab <new ", "b"],
            "cut within white space": ["ab ", " ", "  ab\n", "\n", "ab "],
            "white space at the end": ["ab", " abc  "],
            "one part": ["abc abc"],
        }.items():
            yield Case(title, in_parts | {"parts": parts}, iterable)
        yield Case("twenty lines", in_parts | {"parts": ["ab abc cab\n"] * 20, "soon": True}, iterable)
        single = [*_words(rng, "abc", 12, 5), *"<end>[S] [S][S]", "", " "]
        yield Case("one character at a time", in_parts | {"parts": single}, iterable, hidden=True)
        for title, wrong in {"an id that is too large": 5000, "a negative id": -1}.items():
            yield Case(title, few | {"method": "decode", "text": "abc", "wrong": wrong}, errors)

    @staticmethod
    def probe(BPETokenizer, case, /):  # noqa: N803  # the student's name for it
        vocab = dict(case.vocab)
        tokenizer = BPETokenizer(vocab, case.merges, case.special_tokens)
        if case.method == "encode_iterable":
            taken = []

            def parts():
                for part in case.parts:
                    taken.append(part)
                    yield part

            ids = tokenizer.encode_iterable(parts())
            if not hasattr(ids, "__next__"):
                return {"lazy": False, "ids": ids}
            first = next(ids)
            early = len(taken)
            return {"lazy": True, "ids": [first, *ids], "early": early}
        if case.method == "encode":
            return {"ids": tokenizer.encode(case.text), "kept": vocab == case.vocab}
        ids = tokenizer.encode(case.text)
        if case.wrong is None:
            ids = ids[: len(ids) - case.cut]
            return {"text": tokenizer.decode(iter(ids) if case.once else ids)}
        try:
            return {"text": tokenizer.decode([ids[0], case.wrong])}
        except ValueError:
            return {"error": "ValueError"}

    def judge(self, case, got):
        right = BPETokenizer(case.vocab, case.merges, case.special_tokens)
        if case.method == "encode":
            yield same_items(got.ids, right.encode(case.text), "the list of ids")
            yield holds(got.kept, "The vocabulary that was passed in is changed. Make a copy: `dict(vocab)`.")
        elif case.method == "decode" and case.wrong is None:
            ids = right.encode(case.text)
            yield holds(isinstance(got.text, str), "What `decode` gives is not a str.")
            yield holds(got.text == right.decode(ids[: len(ids) - case.cut]), f"`decode` gave {got.text!r}.")
        elif case.method == "encode_iterable":
            yield holds(got.lazy, "`encode_iterable` does not give an iterator. Use `yield`.")
            yield same_items(got.ids, right.encode("".join(case.parts)), "the list of ids")
            soon = not case.soon or got.early < len(case.parts)
            yield holds(
                soon, "All parts were read before the first id came. Encode what is settled, and keep the rest."
            )
        else:
            yield holds(hasattr(got, "error"), NO_ERROR.format("an id is not in the vocabulary"))


_RANK = "min(pairwise(ids), key=lambda pair: self.ranks.get(pair, math.inf))"
_CUT = "cut = safe_cut(waiting, self.special_tokens)"
_NEXT_ID = "self.vocab[number], self.ids[token.encode()] = token.encode(), number"
_WORD_LOOP = "for word in pre_tokenize(piece):"
slip(
    Tokenizer,
    "the longest token first",
    "Your tokenizer takes the longest token that fits. Byte-pair encoding repeats its merges in the order in which they "
    "were learned, and that can end with shorter tokens.",
    {
        "        while len(ids) > 1:\n": "        text, ids = word.encode(), []\n"
        "        while text:\n"
        "            size = next(n for n in range(len(text), 0, -1) if text[:n] in self.ids)\n"
        "            ids.append(self.ids[text[:size]])\n"
        "            text = text[size:]\n"
        "        while False:\n"
    },
)
slip(
    Tokenizer,
    "the merge learned last first",
    "Of the merges that fit, the one learned last is made first. Begin with the one learned first.",
    {_RANK: "max(pairwise(ids), key=lambda pair: self.ranks.get(pair, -1))"},
)
slip(
    Tokenizer,
    "the leftmost merge first",
    "Merges are made in the order in which they stand in the word. Make the one learned first, wherever it stands.",
    {_RANK: "next((pair for pair in pairwise(ids) if pair in self.ranks), (None, None))"},
)
slip(
    Tokenizer,
    "one pass",
    "Each word gets a single merge. Go on until none of its pairs is among the merges.",
    {
        "            ids = merge_pair(ids, pair, self.merged[pair])": "            return merge_pair(ids, pair, self.merged[pair])"
    },
)
slip(
    Tokenizer,
    "bytes taken for ids",
    "A byte's value is taken for its id. Look the id up: a vocabulary may number the bytes in any order.",
    {"[self.ids[bytes([byte])] for byte in word.encode()]": "list(word.encode())"},
    read="bytes",
)
slip(
    Tokenizer,
    "no pre-tokens",
    "Merges are made across words. Cut the text with pre_tokenize first, as it was done when the merges were learned.",
    {_WORD_LOOP: "for word in [piece]:"},
    read="pre-tokens",
)
slip(
    Tokenizer,
    "spaces lost",
    "White space is lost. pre_tokenize keeps it.",
    {_WORD_LOOP: "for word in piece.split():"},
    read="pre-tokens",
)
slip(
    Tokenizer,
    "special tokens as text",
    "Special tokens are encoded like any other text. Each is one token: cut the text with split_special.",
    {"split_special(text, self.special_tokens)": "[text]"},
    read="special-tokens",
)
slip(
    Tokenizer,
    "special tokens without ids",
    "Special tokens that the vocabulary lacks are given no ids. Give them the next free ones, in order.",
    {_NEXT_ID: "pass"},
    read="special-tokens",
)
slip(
    Tokenizer,
    "changes the vocabulary that it is given",
    "Special tokens are entered in the vocabulary that was passed in. Make a copy: it belongs to the caller.",
    {"self.vocab = dict(vocab)": "self.vocab = vocab"},
    read="special-tokens",
)
slip(
    Tokenizer,
    "the number of entries as the next id",
    "The new id is the number of entries. Where the ids have gaps, that may be taken: take one more than the largest.",
    {"number = max(self.vocab) + 1": "number = len(self.vocab)"},
    read="special-tokens",
)
slip(
    Tokenizer,
    "new ids for special tokens that have one",
    "A special token that is in the vocabulary is given a second id. Keep the one it has.",
    {"if token.encode() not in self.ids:": "if True:"},
    read="special-tokens",
)
slip(
    Tokenizer,
    "each part by itself",
    "Each part is encoded by itself, so a word that is cut in two becomes other tokens. Keep what may still change, and "
    "encode it together with the next part.",
    {_CUT: "cut = len(waiting)"},
    read="encode-iterable",
)
slip(
    Tokenizer,
    "everything at once",
    "All parts are joined before the first id comes, so the whole text must fit into memory.",
    {_CUT: "cut = 0"},
    read="encode-iterable",
)
slip(
    Tokenizer,
    "cuts at the last space",
    "The text is cut at its last space. What follows may join that space, or a special token may have begun before it. Use "
    "safe_cut.",
    {_CUT: 'cut = waiting.rfind(" ") + 1'},
    read="encode-iterable",
)
slip(
    Tokenizer,
    "the rest forgotten",
    "What waits when the parts are at an end is never encoded.",
    {"        yield from self.encode(waiting)\n\n": "\n"},
    read="encode-iterable",
)
slip(
    Tokenizer,
    "strict decoding",
    "Ids that end within a character raise UnicodeDecodeError. A model writes token by token, so this happens all the "
    'time: decode with errors="replace".',
    {'errors="replace"': 'errors="strict"'},
    read="bytes",
)
slip(
    Tokenizer,
    "half characters dropped",
    'Bytes that are no UTF-8 are dropped. Show that something is missing: decode with errors="replace".',
    {'errors="replace"': 'errors="ignore"'},
    read="bytes",
)
slip(
    Tokenizer,
    "decodes token by token",
    "Each token is decoded by itself. A character of several bytes may lie in several tokens: join the bytes first.",
    {
        'b"".join(self.vocab[number] for number in ids).decode(errors="replace")': '"".join(self.vocab[number].decode(errors="replace") for number in ids)'
    },
    read="bytes",
)
slip(
    Tokenizer,
    "KeyError",
    "An id outside the vocabulary raises a KeyError with the bare number. Raise a ValueError that says what is wrong.",
    {
        "except KeyError as error:\n            raise ValueError(": "except ZeroDivisionError as error:\n            raise ValueError("
    },
)
slip(
    Tokenizer,
    "unknown ids skipped",
    "An id outside the vocabulary is passed over. Raise a ValueError: it shows that model and tokenizer do not fit.",
    {"self.vocab[number] for number in ids": 'self.vocab.get(number, b"") for number in ids'},
)


@exercise(
    "tokenization.wordpiece",
    parts={"pieces": 1, "unknown": 1},
    difficulty=2,
    minutes=15,
    read="06_tokenization#wordpiece",
    instead="Build it from a loop that looks for the longest piece.",
)
class WordPiece(Check):
    """Words in one piece, in several, that come to a dead end, and that another way of cutting would have saved."""

    def prepare(self, rng):
        vocab = ["un", "##aff", "##able", "##a", "##b", "##le", "unaff", "able", "a", "##ff", "b", "[UNK]"]
        usual = {"vocab": vocab, "options": {}}
        yield Case("two pieces, the longest first", usual | {"word": "unaffable"}, "pieces")
        yield Case("one piece", usual | {"word": "able"}, "pieces")
        yield Case("a piece that only continues", usual | {"word": "aff"}, "pieces")
        yield Case("no letters at all", usual | {"word": ""}, "pieces")
        letters = ["a", "b", "##a", "##b", "##ab", "##ba", "ab", "aab", "##bab"]
        for hidden in (False, True):
            word = "".join("ab"[place] for place in _ids(rng, 2, 14))
            yield Case("a long word", {"vocab": letters, "word": word, "options": {}}, "pieces", hidden=hidden)
        yield Case("a letter that no piece has", usual | {"word": "unaffixable"}, "unknown")
        yield Case("it fails at the first letter", usual | {"word": "xa"}, "unknown")
        yield Case("a piece that only begins", usual | {"word": "bun"}, "unknown")
        # "un" + "##affaz" would do; the longest first piece is "unaff", and no piece continues with "az" or "a".
        greedy = {"vocab": ["un", "##affaz", "unaff"], "options": {}}
        yield Case("the longest piece leads to a dead end", greedy | {"word": "unaffaz"}, "unknown")
        yield Case("another unknown", usual | {"word": "xyz", "options": {"unknown": "<unk>"}}, "unknown")

    @staticmethod
    def probe(wordpiece, case, /):
        return {"pieces": wordpiece(case.word, set(case.vocab), **case.options)}

    def judge(self, case, got):
        yield same_items(
            got.pieces, tokenization.wordpiece(case.word, case.vocab, **case.options), "the list of pieces"
        )


_MARK = 'prefix = "##" if start > 0 else ""'
slip(
    WordPiece,
    "no mark of continuation",
    'Pieces that continue a word are looked up without "##" in front.',
    {_MARK: 'prefix = ""'},
)
slip(
    WordPiece,
    "the mark also at the start",
    'The first piece is looked up with "##" in front. Only pieces that continue a word have it.',
    {_MARK: 'prefix = "##"'},
)
slip(
    WordPiece,
    "mark not kept",
    'The pieces are given back without their "##". It belongs to the piece\'s name in the vocabulary.',
    {"pieces.append(prefix + word[start:end])": "pieces.append(word[start:end])"},
)
slip(
    WordPiece,
    "the shortest piece",
    "The shortest piece that fits is taken. Take the longest.",
    {"range(len(word), start, -1)": "range(start + 1, len(word) + 1)"},
)
slip(
    WordPiece,
    "keeps what was found before",
    "Where no piece fits, the pieces found so far are given back as well. The whole word is unknown.",
    {"return [unknown]": "return [*pieces, unknown]"},
)
slip(
    WordPiece,
    "one unknown letter",
    "A letter that no piece fits is replaced, and the rest of the word is cut on. The whole word is unknown.",
    {
        "            return [unknown]": "            pieces.append(unknown)\n            start += 1\n            continue"
    },
)
slip(
    WordPiece,
    "unknown ignored",
    "What stands for an unknown word is always [UNK]. Use the argument `unknown`.",
    {"[unknown]": '["[UNK]"]'},
)
slip(
    WordPiece,
    "tries other ways",
    "Your function goes back and tries a shorter piece when the longest leads nowhere. WordPiece never goes back.",
    {
        "    pieces: list[str] = []\n": "    def cut(rest, prefix):\n"
        "        if not rest:\n"
        "            return []\n"
        "        for end in range(len(rest), 0, -1):\n"
        "            if prefix + rest[:end] in vocab and (more := cut(rest[end:], '##')) is not None:\n"
        "                return [prefix + rest[:end], *more]\n"
        "        return None\n"
        "    found = cut(word, '')\n"
        "    return [unknown] if found is None else found\n"
        "    pieces: list[str] = []\n"
    },
)
slip(
    WordPiece,
    "a string",
    "The pieces are joined to one text. Return a list.",
    {"return pieces": 'return " ".join(pieces)'},
)

reflection(
    "tokenization.letters",
    chapter="06_tokenization",
    points=2,
    rubric="""
    1 point: the model is given ids; that "strawberry" is spelled with three r's is nowhere in them. It can know only
    what the text it was trained on says about spelling.

    1 point: names a remedy and its price: characters or bytes as tokens make sequences several times as long, and the
    cost of attention grows with the square of the length (or: spell the word out in the prompt, so that each letter is
    a token of its own, which costs tokens too).
    """,
)
reflection(
    "tokenization.other_languages",
    chapter="06_tokenization",
    points=2,
    rubric="""
    1 point: merges are learned from counts, so a language that is rare in the training text gets few merges; its
    tokens stay short, in other scripts near single bytes, since a letter outside ASCII takes two to four bytes.

    1 point: says what that costs its speakers: more tokens for the same content, so a shorter effective context, more
    time and money; and gives a remedy with its cost: a larger share of other languages leaves fewer merges for
    English, and a larger vocabulary makes the tables larger for everybody.
    """,
)
