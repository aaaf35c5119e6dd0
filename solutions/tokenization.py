"""From text to token ids and back: byte-pair encoding as GPT-2 uses it, and WordPiece as BERT uses it."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import regex

Pair = tuple[int, int]
"""Two token ids that stand side by side."""

BYTES = 256
"""A byte has so many values; each is a token from the start, so no text is without tokens."""

CACHED_WORDS = 2**16
"""A tokenizer remembers the ids of this many words; the commonest ones make up most of any text."""

PRE_TOKEN = regex.compile(
    r"""'(?:[sdmt]|ll|ve|re)       # a few English endings
    |[ ]?\p{L}+                    # letters, with the one space before them
    |[ ]?\p{N}+                    # digits, likewise
    |[ ]?[^\p{White_Space}\p{L}\p{N}]+
    |\p{White_Space}+(?!\P{White_Space})  # white space, but not the last of it where more follows
    |\p{White_Space}+""",
    regex.VERBOSE,
)
"""The pattern in the code of GPT-2 (Radford et al. 2019): every character of a text lies in exactly one match."""

WORD_END = regex.compile(r"\P{White_Space}(?=\p{White_Space})")


def pre_tokenize(text: str) -> list[str]:
    """Cut a text into words, numbers, punctuation and white space; no token reaches across a cut.

    A space belongs to the word after it. The pieces, joined, are the text.

    Args:
        text: any text.
    """
    return PRE_TOKEN.findall(text)


def split_special(text: str, special_tokens: Collection[str]) -> list[str]:
    """Cut a text before and after each special token; where two of them begin at the same place, the longer is taken.

    Args:
        text: any text.
        special_tokens: the special tokens.

    Returns:
        Pieces without special tokens, and special tokens; joined, they are the text. No piece is empty.

    Raises:
        ValueError: a special token is empty.
    """
    if "" in special_tokens:
        raise ValueError("a special token is the empty text, which stands between any two characters")
    if not special_tokens:
        return [text] if text else []
    longest_first = sorted(special_tokens, key=len, reverse=True)
    pieces = regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text)
    return [piece for piece in pieces if piece]


def safe_cut(text: str, special_tokens: Collection[str] = ()) -> int:
    """Find a late place where a text may be cut before all of it is known, because no token reaches across.

    White space after anything else begins a pre-token, whatever follows; only a special token may stand across it.

    Args:
        text: the beginning of a longer text.
        special_tokens: the special tokens.

    Returns:
        The number of characters before the cut; 0 where there is no such place.
    """
    longest = max(map(len, special_tokens), default=1)
    settled = text[: max(0, len(text) - longest + 2)]  # any special token that begins before a cut in it is all here
    cut = max((match.end() for match in WORD_END.finditer(settled)), default=0)
    start = 0
    for piece in split_special(text, special_tokens):
        end = start + len(piece)
        if piece in special_tokens and start < cut < end:
            return start
        start = end
    return cut


def count_pairs(ids: Sequence[int]) -> dict[Pair, int]:
    """Count how often each pair of neighbours occurs.

    Args:
        ids: token ids.

    Returns:
        Pair -> number of places where it stands; overlapping places count, so 7, 7, 7 holds (7, 7) twice.
    """
    return Counter(pairwise(ids))


def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Put one new token in place of each occurrence of a pair, from left to right.

    Args:
        ids: token ids; they are not changed.
        pair: the two neighbours to merge.
        new_id: what stands for them from now on.

    Returns:
        The shorter list. Occurrences do not overlap: 7, 7, 7 becomes new_id, 7.
    """
    merged = []
    place = 0
    while place < len(ids):
        if place + 1 < len(ids) and (ids[place], ids[place + 1]) == pair:
            merged.append(new_id)
            place += 2
        else:
            merged.append(ids[place])
            place += 1
    return merged


def most_common_pair(pairs: Mapping[Pair, int], vocab: Mapping[int, bytes]) -> Pair:
    """Choose the pair to merge next.

    Args:
        pairs: pair -> how often it occurs; at least one.
        vocab: id -> bytes.

    Returns:
        The pair with the highest count; of several, the one whose bytes, first token then second, compare greatest.
    """
    highest = max(pairs.values())
    candidates = [pair for pair, count in pairs.items() if count == highest]
    return max(candidates, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))


def train_bpe(
    text: str, vocab_size: int, special_tokens: Sequence[str] = ()
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Learn a vocabulary: start from bytes, and merge the commonest pair, over and over (Sennrich et al. 2016).

    Pairs are counted within pre-tokens, so that no token reaches across two words. After a merge only the words that
    hold the pair are counted again.

    Args:
        text: what to learn from.
        vocab_size: how many tokens to end with: bytes, merges and special tokens together.
        special_tokens: texts that are one token each; they are cut out of the text and not counted.

    Returns:
        The vocabulary, id -> bytes: the 256 bytes, then the merges in order, then the special tokens; and the merges as
        pairs of bytes, in order. Where the text has no pair left to merge, both are shorter than asked for.

    Raises:
        ValueError: vocab_size has no room for the bytes and the special tokens, or the text has nothing to learn from.
    """
    num_merges = vocab_size - BYTES - len(special_tokens)
    if num_merges < 0:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: it has no room for {BYTES} bytes and "
            f"{len(special_tokens)} special tokens"
        )
    plain = [piece for piece in split_special(text, special_tokens) if piece not in special_tokens]
    counts = Counter(word for piece in plain for word in pre_tokenize(piece))
    if not counts:
        raise ValueError("there is nothing to learn from: the text is empty or has special tokens only")

    words = [(list(word.encode()), count) for word, count in counts.items()]
    pairs: Counter[Pair] = Counter()
    holders = defaultdict(set)  # pair -> the words that hold it, and some that held it once
    for index, (ids, count) in enumerate(words):
        for pair, times in count_pairs(ids).items():
            pairs[pair] += times * count
            holders[pair].add(index)

    vocab = {byte: bytes([byte]) for byte in range(BYTES)}
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < num_merges and pairs:
        best = most_common_pair(pairs, vocab)
        new_id = len(vocab)
        for index in holders.pop(best):
            ids, count = words[index]
            merged = merge_pair(ids, best, new_id)
            for pair, times in count_pairs(ids).items():
                pairs[pair] -= times * count
                if pairs[pair] == 0:
                    del pairs[pair]
            for pair, times in count_pairs(merged).items():
                pairs[pair] += times * count
                holders[pair].add(index)
            words[index] = merged, count
        merges.append((vocab[best[0]], vocab[best[1]]))
        vocab[new_id] = vocab[best[0]] + vocab[best[1]]
    for token in special_tokens:
        vocab[len(vocab)] = token.encode()
    return vocab, merges


class BPETokenizer:
    """Turns any text into token ids and back, by merges that were learned (Radford et al. 2019)."""

    def __init__(
        self, vocab: dict[int, bytes], merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str] = ()
    ) -> None:
        """Look up each merge once.

        Args:
            vocab: id -> bytes; every byte is in it, and every merge.
            merges: the pairs to merge, the first learned first.
            special_tokens: texts that are one token each; those the vocabulary lacks are given the next free ids.
        """
        self.special_tokens = special_tokens
        self.vocab = dict(vocab)
        self.ids = {token: number for number, token in vocab.items()}
        for token in special_tokens:
            if token.encode() not in self.ids:
                number = max(self.vocab) + 1
                self.vocab[number], self.ids[token.encode()] = token.encode(), number
        self.ranks = {(self.ids[a], self.ids[b]): rank for rank, (a, b) in enumerate(merges)}
        self.merged = {(self.ids[a], self.ids[b]): self.ids[a + b] for a, b in merges}
        self.cached = lru_cache(maxsize=CACHED_WORDS)(self.encode_word)  # the same words come again and again

    def encode_word(self, word: str) -> list[int]:
        """The token ids of one pre-token.

        Args:
            word: begins as its bytes; of the merges that fit somewhere, the one learned first is made, again and again.
        """
        ids = [self.ids[bytes([byte])] for byte in word.encode()]
        while len(ids) > 1:
            pair = min(pairwise(ids), key=lambda pair: self.ranks.get(pair, math.inf))
            if pair not in self.ranks:
                break
            ids = merge_pair(ids, pair, self.merged[pair])
        return ids

    def encode(self, text: str) -> list[int]:
        """The token ids of a text.

        Args:
            text: any text that UTF-8 can write; a special token in it becomes its one id.
        """
        ids: list[int] = []
        for piece in split_special(text, self.special_tokens):
            if piece in self.special_tokens:
                ids.append(self.ids[piece.encode()])
            else:
                for word in pre_tokenize(piece):
                    ids.extend(self.cached(word))
        return ids

    def encode_iterable(self, texts: Iterable[str]) -> Iterator[int]:
        """The token ids of a text that comes in parts, such as the lines of a file.

        It holds no more of the text than what follows the last white space.

        Args:
            texts: the parts; they may be cut anywhere.

        Yields:
            The ids of the parts' sum, the same as `encode` would return for it.
        """
        waiting = ""
        for part in texts:
            waiting += part
            cut = safe_cut(waiting, self.special_tokens)
            yield from self.encode(waiting[:cut])
            waiting = waiting[cut:]
        yield from self.encode(waiting)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids.

        Args:
            ids: token ids, as plain integers. They may end within a character; bytes that are no UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        try:
            return b"".join(self.vocab[number] for number in ids).decode(errors="replace")
        except KeyError as error:
            raise ValueError(f"id {error.args[0]} is not in the vocabulary of {len(self.vocab)} tokens") from None


def wordpiece(word: str, vocab: Collection[str], unknown: str = "[UNK]") -> list[str]:
    """Cut a word into pieces of a vocabulary, each time the longest that fits (Devlin et al. 2019).

    Args:
        word: one word, without white space.
        vocab: the pieces; one that continues a word begins with "##".
        unknown: what stands for a word that cannot be cut.

    Returns:
        The pieces in order; `[unknown]` where at some place none fits; nothing for the empty word.
    """
    pieces: list[str] = []
    start = 0
    while start < len(word):
        prefix = "##" if start > 0 else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in vocab), None)
        if end is None:
            return [unknown]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces
