"""The grammar of stories: what it tells it reads, with the same probability, and what breaks a rule it refuses."""

import math
import random
import re
from collections.abc import Mapping
from itertools import islice, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course import corpora
from course.corpora import stories
from course.corpora.stories import NotAStoryError, parse, tell

TALE = (
    "One day, Mia and Tom went to the park. Mia had a red ball. Tom had two blue boxes. Tom put his boxes under the "
    "tree. Mia gave her red ball to Tom. She took the boxes that were under the tree. Mia looked at the boxes. They "
    'were blue. At last Tom asked, "Where is the ball?" Mia said, "You have it." They went home.'
)


SIZES = {"train": 600, "validation": 30, "test": 40}


class _Lawyer:
    """Draws, and looks whether each choice can be read back."""

    def __init__(self, seed: int) -> None:
        self.random_numbers = random.Random(seed)

    def choose(self, options: Mapping[str, float]) -> str:
        assert options
        assert all(weight > 0 for weight in options.values())
        assert not any(one.startswith(other) for one, other in permutations(options, 2)), options
        return self.random_numbers.choice(list(options))


class TestGrammar:
    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=300)
    def test_what_is_told_is_read_with_the_same_probability(self, seed: int) -> None:
        story = tell(random.Random(seed))
        assert parse(story.text).log_probability == pytest.approx(story.log_probability, abs=1e-9)

    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=300)
    def test_no_choice_begins_with_another(self, seed: int) -> None:
        stories._tell(_Lawyer(seed))

    def test_a_story_by_hand(self) -> None:
        """The product of all its choices, worked out with pencil and paper."""
        names = sum(1 / rank for rank in range(2, 14))
        two = [1 / 2 / names, 1 / 3 / (names - 1 / 2)]
        colours = sum(1 / rank for rank in range(2, 10))
        nouns = sum(1 / rank for rank in range(2, 14))
        had = [3 / 4 * (1 / 2 / colours) * (1 / 2 / nouns), 1 / 4 * (1 / 3 / colours) * (1 / 6 / (nouns - 1 / 2))]
        spots = sum(1 / rank for rank in range(2, 7))
        events = [
            1 / 2 * (2 / 9) * (2 / 3) * (1 / 2 / spots),  # Tom, put, "boxes" without their colour, under the tree
            1 / 3 * (3 / 13) * (1 / 3),  # Mia, of Mia, Tom and He; gave; "red ball"; Tom is the only other
            1 / 4 * (4 / 8) * (2 / 3),  # She, of Mia, Tom, She and the end; took, of took, looked, saw and was
            1 / 4 * (2 / 9) * (1 / 2),  # Mia; looked at; the boxes
        ]
        places = sum(1 / rank for rank in range(2, 10))
        end = [1 / 4, 1 / 2 * 1 / 2, 2 / 4]  # the end comes; Tom asks; for the ball; they went home
        chances = [4 / 10, *two, 3 / 4, 1 / 2 / places, *had, *events, *end]
        assert parse(TALE).log_probability == pytest.approx(sum(map(math.log, chances)), abs=1e-12)

    def test_its_probabilities_are_frequencies(self) -> None:
        """How often a story begins as it does, beside what the probabilities of its choices say."""
        told = [story.text for story in islice(stories.stream(3), 4000)]
        names = sum(1 / rank for rank in range(2, 14))
        for beginning, chance in {"One day, ": 0.4, "One day, Mia and": 0.4 * (1 / 2 / names) * 3 / 4}.items():
            share = sum(text.startswith(beginning) for text in told) / len(told)
            assert share == pytest.approx(chance, abs=4 * math.sqrt(chance / len(told)))

    @pytest.mark.parametrize(
        ("right", "wrong", "rule"),
        [
            ("boxes that were", "boxes that was", "a verb that does not agree"),
            ("They were blue", "They were red", "another colour than the thing had"),
            ("They were blue", "It was blue", "a pronoun that does not agree"),
            ("She took", "He took", "a pronoun for somebody else"),
            ("gave her red", "gave his red", "a possessive that does not agree"),
            ("gave her red ball", "gave her blue ball", "a thing that is not there"),
            ("Tom put his boxes", "Tom put his ball", "a thing that somebody else has"),
            ("were under the tree", "were on the bench", "a place where it does not lie"),
            ("You have it", "I have it", "the wrong holder"),
            ("You have it", "Tom has it", "a name for the one who asks"),
            ("Where is the ball", "Where are the ball", "a question that does not agree"),
            ("two blue boxes", "two blue box", "a singular after two"),
            ("Mia and Tom", "Mia and Mia", "one person twice"),
            (" They went home.", "", "no end"),
            ("went home.", "went home. The end", "more than the end"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_a_broken_rule_is_found_where_it_is(self, right: str, wrong: str, rule: str) -> None:
        broken = TALE.replace(right, wrong, 1)
        with pytest.raises(NotAStoryError) as found:
            parse(broken)
        difference = next((i for i, (a, b) in enumerate(zip(TALE, broken, strict=False)) if a != b), len(TALE))
        assert abs(found.value.place - difference) < 20, rule
        assert f"at character {found.value.place} stands" in str(found.value)

    @given(seed=st.integers(0, 2**32), cut=st.floats(0, 1, exclude_max=True))
    def test_half_a_story_is_none(self, seed: int, cut: float) -> None:
        text = tell(random.Random(seed)).text
        with pytest.raises(NotAStoryError):
            parse(text[: int(cut * len(text))])

    @given(st.text(max_size=200))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with pytest.raises(NotAStoryError, match="at character 0"):
            parse(text)


class TestCorpus:
    def test_sizes_and_splits(self) -> None:
        splits = stories.load(sizes=SIZES)
        assert {name: len(split) for name, split in splits.items()} == SIZES
        texts = [text for split in splits.values() for text in split["text"]]
        assert len(set(texts)) == len(texts)

    def test_columns_hold_stories_and_their_probabilities(self) -> None:
        for row in stories.load(sizes=SIZES)["test"]:
            assert parse(row["text"]).log_probability == pytest.approx(row["log_probability"], abs=1e-9)

    def test_what_is_tested_on_stays_where_more_is_trained_on(self) -> None:
        few, many = (stories.load(sizes=SIZES | {"train": size}) for size in (600, 900))
        assert few["test"]["text"] == many["test"]["text"]
        assert few["train"]["text"] == many["train"]["text"][:600]
        assert stories.load(seed=1, sizes=SIZES)["test"]["text"] != few["test"]["text"]

    def test_its_card_counts_right(self) -> None:
        words = {word for story in islice(stories.stream(), 20_000) for word in re.findall(r"\w+", story.text)}
        assert f"English of {len(words)} words" in corpora.card("stories").language
        assert all(f"{size:,}" in corpora.card("stories").size for size in stories.SIZES.values())
