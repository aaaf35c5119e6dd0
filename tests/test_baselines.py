"""Counting as a way to fill in, against the same thing worked out token by token."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course.baselines import BothSides, Places, masked_baselines, places_of
from solutions.bert import IGNORED, mask_tokens

V, PAD, CLS, SEP, MASK = 9, 0, 1, 2, 3
SPECIAL = [PAD, CLS, SEP, MASK]
documents_of = st.lists(st.lists(st.integers(4, V - 1), min_size=1, max_size=12), min_size=1, max_size=6)


def shares(documents: Sequence[Sequence[int]], left: int, right: int, token: int) -> list[float | None]:
    """What each count says, by dictionaries; None where the context never occurred."""
    alone, before, behind, both = Counter(), Counter(), Counter(), Counter()
    lefts, rights, pairs = Counter(), Counter(), Counter()
    for document in documents:
        row = [CLS, *document, SEP]
        for one, middle, two in zip(row, row[1:], row[2:], strict=False):
            alone[middle] += 1
            before[one, middle] += 1
            behind[middle, two] += 1
            both[one, middle, two] += 1
            lefts[one] += 1
            rights[two] += 1
            pairs[one, two] += 1
    found: list[float | None] = [(alone[token] + 1) / (sum(alone.values()) + V)]
    found.append(before[left, token] / lefts[left] if lefts[left] else None)
    found.append(behind[token, right] / rights[right] if rights[right] else None)
    found.append(both[left, token, right] / pairs[left, right] if pairs[left, right] else None)
    return found


def places(*triples: tuple[int, int, int]) -> Places:
    return Places(*np.array(triples, dtype=np.int64).T)


class TestBothSides:
    @given(documents_of, st.integers(1, V - 1), st.integers(2, V - 1), st.integers(4, V - 1))
    @settings(max_examples=80, deadline=None)
    def test_is_the_formula(self, documents: list[list[int]], left: int, right: int, token: int) -> None:
        model = BothSides(documents, V, (CLS, SEP))
        model.weights[:] = [0.4, 0.3, 0.2, 0.1]
        weighed = zip([0.4, 0.3, 0.2, 0.1], shares(documents, left, right, token), strict=True)
        known = [(a, share) for a, share in weighed if share is not None]
        expected = sum(a * share for a, share in known) / sum(a for a, _ in known)
        assert model.probabilities(places((left, right, token))) == pytest.approx([expected], rel=1e-12)

    @given(documents_of, documents_of, st.integers(1, V - 1), st.integers(2, V - 1))
    @settings(max_examples=50, deadline=None)
    def test_probabilities_add_up_to_one_and_the_best_is_the_largest(
        self, documents: list[list[int]], other: list[list[int]], left: int, right: int
    ) -> None:
        model = BothSides(documents, V, (CLS, SEP))
        model.fit(every_place(other))
        found = model.probabilities(places(*((left, right, token) for token in range(V))))
        assert found.sum() == pytest.approx(1, rel=1e-9)
        assert found[model.best(places((left, right, 4)))[0]] == found.max()

    def test_fitted_weights_make_the_text_more_likely_than_any_tried_at_random(self) -> None:
        generator = np.random.default_rng(0)
        learned, other = ([list(generator.integers(4, V, 30)) for _ in range(20)] for _ in range(2))
        model, asked = BothSides(learned, V, (CLS, SEP)), every_place(other)
        model.fit(asked)
        fitted = np.log(model.probabilities(asked)).mean()
        for _ in range(40):
            model.weights = generator.dirichlet([1, 1, 1, 1], len(model.weights))
            assert np.log(model.probabilities(asked)).mean() <= fitted + 1e-3

    def test_uses_both_sides(self) -> None:
        # The middle token is the sum of its neighbours: neither of the two tells it alone.
        rows = [[4 + a, 4 + (a + b) % 5, 4 + b] for a in range(5) for b in range(5) for _ in range(3)]
        model = BothSides(rows, V, (CLS, SEP))
        asked = places(*((row[0], row[2], row[1]) for row in rows))
        model.fit(asked)
        assert (model.best(asked) == asked.token).all()
        assert model.probabilities(asked).min() > 0.9


def every_place(documents: Sequence[Sequence[int]]) -> Places:
    rows = [[CLS, *document, SEP] for document in documents]
    return places(*((row[i - 1], row[i + 1], row[i]) for row in rows for i in range(1, len(row) - 1)))


class TestMaskedBaselines:
    ROWS: list[list[int]] = [  # noqa: RUF012
        [CLS, *torch.randint(4, V, (20,), generator=torch.Generator().manual_seed(seed)).tolist(), SEP]
        for seed in range(60)
    ]

    def test_places_are_those_that_the_model_is_asked_for(self) -> None:
        found = places_of(self.ROWS, V, SPECIAL, seed=5)
        ids = torch.tensor(self.ROWS)
        inputs, labels = mask_tokens(ids, MASK, V, SPECIAL, torch.Generator().manual_seed(5))
        assert found.token.tolist() == labels[labels != IGNORED].tolist()
        row, place = (labels != IGNORED).nonzero(as_tuple=True)
        assert found.left.tolist() == inputs[row, place - 1].tolist()
        assert found.right.tolist() == inputs[row, place + 1].tolist()

    def test_unigram_is_counted_by_hand(self) -> None:
        found = masked_baselines(self.ROWS, self.ROWS[:20], V, SPECIAL, seed=1)
        counts = Counter(token for row in self.ROWS for token in row[1:-1])
        total = sum(counts.values()) + V
        asked = places_of(self.ROWS[1:20:2], V, SPECIAL, seed=1).token.tolist()
        loss = -sum(math.log((counts[token] + 1) / total) for token in asked) / len(asked)
        best = max(range(V), key=lambda token: counts[token])
        accuracy = sum(token == best for token in asked) / len(asked)
        assert found["unigram"] == pytest.approx((loss, accuracy), rel=1e-12)

    def test_neighbours_help_where_they_tell_something(self) -> None:
        rows = [[CLS, *(4 + (start + step) % 5 for step in range(20)), SEP] for start in range(5) for _ in range(10)]
        found = masked_baselines(rows, rows, V, SPECIAL, seed=0)
        assert found["trigram of both sides"][0] < 0.1 < 1 < found["unigram"][0]
        assert found["trigram of both sides"][1] > 0.9
        asked = places_of(rows, V, SPECIAL, seed=0)
        model = BothSides([row[1:-1] for row in rows], V, (CLS, SEP))
        model.fit(asked)
        before, behind = (4 + (asked.token - 4 + step) % 5 for step in (-1, 1))
        unchanged = (asked.left == before) & (asked.right == behind)
        assert unchanged.sum() > 50
        assert (model.best(asked) == asked.token)[unchanged].all()
