"""Chapter 06's references against the `tokenizers` library, and against what must hold for every text."""

import itertools
import random
import sys
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from course.fast_tokenizer import byte_characters, fast_tokenizer
from solutions.tokenization import (
    BPETokenizer,
    count_pairs,
    merge_pair,
    most_common_pair,
    pre_tokenize,
    safe_cut,
    split_special,
    train_bpe,
    wordpiece,
)

SPECIAL = ["<end>", "[S]", "[S][S]", "<new page>", "a.b"]
TALE = """It was low, lower, the lowest of all; they're newest, he's widest. Naïve Überraschung, 数学 と 数学!
  Twice   two spaces,\tand tabs\t\t2026-11-22 or 22.11.2026 🙂🙂 don't won't 'tis\n\n\nIt was the newest of the lowest.
"""
VOCAB, MERGES = train_bpe(TALE, 340, SPECIAL)
OURS = BPETokenizer(VOCAB, MERGES, SPECIAL)
THEIRS = fast_tokenizer(VOCAB, MERGES, SPECIAL)

known = st.characters(exclude_categories=("Cs", "Cn"))
"""Every character that this Python knows; of newer ones the two libraries may know different things."""

texts = st.one_of(
    st.text(known),
    st.lists(st.sampled_from([*TALE, *SPECIAL, "[S", "<end", "]", " ", "  ", "'s", "\n"]), max_size=40).map("".join),
)


def by_recounting(text: str, size: int) -> list[tuple[bytes, bytes]]:
    """Byte-pair encoding as the paper states it: count all, merge one, count all again."""
    words = Counter(tuple(bytes([byte]) for byte in word.encode()) for word in pre_tokenize(text))
    merges = []
    while len(merges) < size - 256:
        counts: Counter[tuple[bytes, bytes]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                counts[pair] += times
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        merged: Counter[tuple[bytes, ...]] = Counter()
        for word, times in words.items():
            merged[tuple(merge_pair(word, best, best[0] + best[1]))] += times
        words = merged
    return merges


class TestPreTokens:
    @given(texts)
    def test_joined_they_are_the_text(self, text: str) -> None:
        assert "".join(pre_tokenize(text)) == text

    def test_every_known_character_is_cut_as_the_library_cuts_it(self) -> None:
        library = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        different = []
        for character in map(chr, range(sys.maxunicode + 1)):
            if unicodedata.category(character) in ("Cs", "Cn"):
                continue
            text = f"a {character}b{character} 1"
            if pre_tokenize(text) != [text[a:b] for _, (a, b) in library.pre_tokenize_str(text)]:
                different.append(character)
        assert different == []

    @given(texts)
    def test_the_library_cuts_every_text_so(self, text: str) -> None:
        library = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        assert pre_tokenize(text) == [text[a:b] for _, (a, b) in library.pre_tokenize_str(text)]


class TestSpecialTokens:
    @given(texts)
    def test_joined_the_pieces_are_the_text(self, text: str) -> None:
        pieces = split_special(text, SPECIAL)
        assert "".join(pieces) == text
        assert "" not in pieces

    def test_the_longer_one_is_taken(self) -> None:
        assert split_special("x[S][S][S]", SPECIAL) == ["x", "[S][S]", "[S]"]

    def test_none(self) -> None:
        assert split_special("a<end>", ()) == ["a<end>"]
        assert split_special("", ()) == []

    def test_an_empty_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="empty"):
            split_special("text", ["<end>", ""])


class TestSafeCut:
    @given(texts, st.lists(st.sampled_from(SPECIAL), unique=True), st.data())
    @settings(max_examples=300)
    def test_whatever_follows_the_tokens_before_it_stay(
        self, text: str, special_tokens: list[str], data: st.DataObject
    ) -> None:
        place = data.draw(st.integers(0, len(text)))
        tokenizer = BPETokenizer(VOCAB, MERGES, special_tokens)
        cut = safe_cut(text[:place], special_tokens)
        assert tokenizer.encode(text[:cut]) + tokenizer.encode(text[cut:]) == tokenizer.encode(text)

    def test_it_comes_soon(self) -> None:
        assert safe_cut("one two thr") == 7
        assert safe_cut("one") == 0


class TestPairs:
    @given(st.lists(st.integers(0, 3)))
    def test_counts_add_up(self, ids: list[int]) -> None:
        assert sum(count_pairs(ids).values()) == max(0, len(ids) - 1)

    @given(st.lists(st.integers(0, 2)), st.tuples(st.integers(0, 2), st.integers(0, 2)))
    def test_a_merge_can_be_undone(self, ids: list[int], pair: tuple[int, int]) -> None:
        merged = merge_pair(ids, pair, 9)
        undone = itertools.chain.from_iterable(pair if number == 9 else (number,) for number in merged)
        assert list(undone) == ids

    @given(st.lists(st.integers(0, 2)), st.tuples(st.integers(0, 2), st.integers(0, 2)))
    def test_nothing_is_left_to_merge(self, ids: list[int], pair: tuple[int, int]) -> None:
        assert pair not in count_pairs(merge_pair(ids, pair, 9))

    def test_bytes_decide_between_equals(self) -> None:
        vocab = {0: b"a", 1: b"b", 2: b"aa"}
        assert most_common_pair({(0, 1): 2, (2, 0): 2, (0, 0): 1}, vocab) == (2, 0)


class TestTraining:
    @given(st.text("ab c", max_size=80), st.integers(0, 30))
    def test_equals_counting_everything_again(self, text: str, merges: int) -> None:
        if text:
            assert train_bpe(text, 256 + merges)[1] == by_recounting(text, 256 + merges)

    def test_equals_counting_everything_again_on_prose(self) -> None:
        assert train_bpe(TALE, 420)[1] == by_recounting(TALE, 420)

    def test_a_larger_vocabulary_begins_with_the_smaller(self) -> None:
        assert train_bpe(TALE, 300)[1] == train_bpe(TALE, 350)[1][:44]

    def test_the_layout_of_the_vocabulary(self) -> None:
        vocab, merges = train_bpe(TALE, 300, SPECIAL)
        assert list(vocab) == list(range(300))
        assert [vocab[number] for number in range(256)] == [bytes([number]) for number in range(256)]
        assert [vocab[256 + place] for place in range(len(merges))] == [first + second for first, second in merges]
        assert [vocab[number] for number in range(295, 300)] == [token.encode() for token in SPECIAL]

    @given(st.lists(st.text("abc ", min_size=1, max_size=8), min_size=1))
    def test_special_tokens_are_cut_out(self, pieces: list[str]) -> None:
        words = Counter(word for piece in pieces for word in pre_tokenize(piece))
        # The same words, each piece's first one without a space before it, and nothing else to count.
        merges = train_bpe("<end>".join(pieces), 270, ["<end>"])[1]
        assert all(any(first + second in word.encode() for word in words) for first, second in merges)
        assert not any(b"<" in first + second for first, second in merges)

    def test_too_small(self) -> None:
        with pytest.raises(ValueError, match=r"vocab_size=260 .* no room for 256 bytes and 5 special"):
            train_bpe(TALE, 260, SPECIAL)

    @pytest.mark.parametrize("text", ["", "<end>", "[S][S]<end>"])
    def test_nothing_to_learn_from(self, text: str) -> None:
        with pytest.raises(ValueError, match="nothing to learn from"):
            train_bpe(text, 300, SPECIAL)

    def test_fewer_merges_than_asked_for(self) -> None:
        vocab, merges = train_bpe("abc", 500)
        assert len(merges) == 2
        assert len(vocab) == 258


class TestTokenizer:
    @given(texts)
    @settings(max_examples=500)
    def test_the_ids_are_the_librarys(self, text: str) -> None:
        assert OURS.encode(text) == THEIRS.encode(text, add_special_tokens=False).ids

    @given(texts)
    def test_the_library_decodes_them(self, text: str) -> None:
        assert THEIRS.decode(OURS.encode(text), skip_special_tokens=False) == text

    @given(st.text(st.characters(exclude_categories=("Cs",))))
    @settings(max_examples=500)
    def test_every_text_comes_back(self, text: str) -> None:
        assert OURS.decode(OURS.encode(text)) == text

    @given(st.lists(st.integers(0, len(VOCAB) - 1)))
    def test_any_ids_can_be_decoded(self, ids: list[int]) -> None:
        assert isinstance(OURS.decode(ids), str)

    @given(st.binary())
    def test_bytes_that_are_no_text_become_replacement_characters(self, raw: bytes) -> None:
        assert OURS.decode(raw) == raw.decode(errors="replace")

    @given(texts, st.lists(st.integers(1, 6)))
    @settings(max_examples=300)
    def test_parts_give_the_ids_of_the_whole(self, text: str, sizes: list[int]) -> None:
        parts, start = [], 0
        for size in sizes:
            parts.append(text[start : start + size])
            start += size
        parts.append(text[start:])
        assert list(OURS.encode_iterable(parts)) == OURS.encode(text)

    def test_the_first_ids_come_before_the_last_part(self) -> None:
        def endless():
            while True:
                yield "one two "

        assert len(list(itertools.islice(OURS.encode_iterable(endless()), 1000))) == 1000

    def test_special_tokens_that_the_vocabulary_lacks(self) -> None:
        vocab, merges = train_bpe(TALE, 300)
        tokenizer = BPETokenizer(vocab, merges, ["<a>", "<b>"])
        assert tokenizer.encode("<b><a>") == [301, 300]
        assert len(vocab) == 300

    def test_an_unknown_id(self) -> None:
        with pytest.raises(ValueError, match="id 5000 is not in the vocabulary of 340 tokens"):
            OURS.decode([1, 5000])

    def test_a_long_run(self) -> None:
        assert OURS.decode(OURS.encode("a" * 20_000)) == "a" * 20_000


class TestFastTokenizer:
    def test_characters_of_bytes_are_the_librarys(self) -> None:
        assert set(byte_characters().values()) == set(pre_tokenizers.ByteLevel.alphabet())
        assert len(byte_characters()) == 256

    def test_a_special_token_must_be_in_the_vocabulary(self) -> None:
        with pytest.raises(ValueError, match="'<pad>' is not in the vocabulary"):
            fast_tokenizer(VOCAB, MERGES, ["<pad>"])

    def test_a_special_token_must_be_in_ascii(self) -> None:
        with pytest.raises(ValueError, match="'‹é>' is not in ASCII"):
            fast_tokenizer(VOCAB, MERGES, ["‹é>"])


class TestWordPiece:
    def test_equals_the_library(self) -> None:
        numbers = random.Random(0)
        for _ in range(300):
            pieces = {"".join(numbers.choices("abc", k=numbers.randint(1, 4))) for _ in range(12)}
            vocab = sorted({*pieces, *("##" + piece for piece in list(pieces)[::2]), "[UNK]"})
            model = models.WordPiece({piece: number for number, piece in enumerate(vocab)}, unk_token="[UNK]")
            library = Tokenizer(model)
            for _ in range(20):
                word = "".join(numbers.choices("abcd", weights=(4, 4, 4, 1), k=numbers.randint(1, 12)))
                assert wordpiece(word, vocab) == library.encode(word).tokens

    def test_the_empty_word(self) -> None:
        assert wordpiece("", {"a"}) == []
