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
from course.corpora.stories import NotAStoryError, is_story, parse, tell

TALE = (
    "One day, Mia and Tom went to the park. Mia had a red ball. Tom had two blue boxes. Tom found the blue boxes. He "
    "dropped the blue boxes. Mia saw two mice. The mice were thin. She gave Tom the red ball. Tom was tired. At last "
    'Tom asked about the blue boxes. Mia said, "The blue boxes are here." They went home.'
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
        ball = 3 / 4 * (1 / 2 / colours) * (1 / 2 / nouns)
        boxes = 1 / 4 * (1 / 3 / colours) * (1 / 6 / nouns)
        animals, looks, feelings = (sum(1 / rank for rank in range(2, last)) for last in (10, 8, 8))
        deeds = sum(1 / rank for rank in range(2, 8)) + 0.5 + 0.25 + 0.25
        events = [
            1 / 2 * (1 / 3 / deeds) * (1 / 2),  # Tom, of Mia and Tom; found; the boxes
            2 / 10 * (1 / 7 / deeds) * (1 / 2),  # He, and not Mia, Tom or the end; dropped; the boxes
            2 / 10 * (0.25 / deeds) * (1 / 3) * (1 / 7 / animals) * (1 / 6 / looks),  # Mia; saw; two; mice; thin
            2 / 10 * (0.5 / deeds) * (1 / 2),  # She; gave; there is nobody but Tom; the ball
            2 / 10 * (0.25 / deeds) * (1 / 3 / feelings),  # Tom; was; tired
            4 / 10,  # the end
        ]
        places = sum(1 / rank for rank in range(2, 10))
        end = [1 / 2 * 1 / 2, 2 / 4, 2 / 4]  # Tom asks for the boxes; here; home
        chances = [4 / 10, *two, 3 / 4, 1 / 2 / places, ball, boxes, *events, *end]
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
            ("found the blue boxes", "found the red boxes", "a colour that it does not have"),
            ("found the blue boxes", "found the blue ball", "a thing by another one's colour"),
            ("found the blue boxes", "found the blue box", "one thing that was two"),
            ("found the blue boxes", "found the pink boxes", "a colour that nothing has"),
            ("The blue boxes are", "The red ball is", "another thing than was asked for"),
            ("The blue boxes are", "The blue boxes is", "a verb that does not agree"),
            ("He dropped", "She dropped", "a pronoun for somebody else"),
            ("She gave", "He gave", "a pronoun for whoever did not act last"),
            ("gave Tom", "gave Mia", "a gift to oneself"),
            ("gave Tom", "gave Ben", "a gift to somebody who is not there"),
            ("The mice", "The geese", "an animal that was not seen"),
            ("two mice. The mice were", "a mouse. The mouse were", "a verb that does not agree with one"),
            ("about the blue boxes", "about the blue kites", "a question about what is not there"),
            ("Mia said", "Tom said", "an answer to oneself"),
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
        assert is_story(text)
        assert not is_story(text[: int(cut * len(text))])

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
