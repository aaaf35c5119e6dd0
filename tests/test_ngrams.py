"""Kneser-Ney against the formula worked out token by token, and against what it must be."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.ngrams import KneserNey

V, END = 7, 0
documents_of = st.lists(st.lists(st.integers(1, V - 1), max_size=12), min_size=1, max_size=6)


def by_the_formula(documents: Sequence[Sequence[int]], order: int, history: tuple[int, ...], token: int) -> float:
    """The same probability by dictionaries, one n-gram after the other."""
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    for document in documents:
        row = [END] * (order - 1) + [*document, END]
        counts[order].update(tuple(row[i : i + order]) for i in range(len(row) - order + 1))
    for length in range(order - 1, 0, -1):
        counts[length].update(gram[1:] for gram in counts[length + 1])
    probability = 1 / V
    for length in range(1, order + 1):
        of_count = Counter(counts[length].values())
        once, twice = of_count[1], of_count[2]
        discount = once / (once + 2 * twice) if once and twice else 0.75
        after = defaultdict(dict)
        for gram, count in counts[length].items():
            after[gram[:-1]][gram[-1]] = count
        known = after.get(history[len(history) - length + 1 :] if length > 1 else ())
        if known:
            total = sum(known.values())
            own = max(known.get(token, 0) - discount, 0) / total
            probability = own + discount * len(known) / total * probability
    return probability


class TestKneserNey:
    @given(documents_of, documents_of, st.integers(1, 4))
    @settings(max_examples=60, deadline=None)
    def test_is_the_formula(self, learned: list[list[int]], read: list[list[int]], order: int) -> None:
        found = KneserNey(learned, V, END, order).log_probabilities(read)
        expected = []
        for document in read:
            row = [END] * (order - 1) + [*document, END]
            for place in range(order - 1, len(row)):
                expected.append(
                    math.log(by_the_formula(learned, order, tuple(row[place - order + 1 : place]), row[place]))
                )
        assert found == pytest.approx(expected, rel=1e-12)

    @given(documents_of, st.lists(st.integers(0, V - 1), min_size=3, max_size=3), st.integers(1, 4))
    @settings(max_examples=60, deadline=None)
    def test_probabilities_add_up_to_one(self, learned: list[list[int]], history: list[int], order: int) -> None:
        model = KneserNey(learned, V, END, order)
        chances = [math.exp(model.log_probabilities([[*history, token]])[len(history)]) for token in range(V)]
        assert sum(chances) == pytest.approx(1, abs=1e-12)
        assert min(chances) > 0

    def test_finds_the_entropy_of_a_chain(self) -> None:
        """Tokens of which each depends on the one before: the loss comes near to the entropy of the chain."""
        random_numbers = np.random.default_rng(0)
        table = random_numbers.dirichlet([0.3] * (V - 1), size=V - 1)

        def walk(length: int) -> list[int]:
            row = [0]
            for _ in range(length):
                row.append(int(random_numbers.choice(V - 1, p=table[row[-1]])))
            return [token + 1 for token in row]

        learned, read = walk(20_000), walk(5_000)
        truth = -np.mean([math.log(table[a - 1, b - 1]) for a, b in pairwise(read)])
        losses = {order: -KneserNey([learned], V, END, order).log_probabilities([read]).mean() for order in (1, 2, 3)}
        assert truth < losses[2] < truth * 1.03
        assert losses[1] > truth * 1.2
        assert losses[3] < truth * 1.1

    def test_nothing_learned_is_uniform(self) -> None:
        found = KneserNey([], V, END, 3).log_probabilities([[1, 2]])
        assert found == pytest.approx([math.log(1 / V)] * 3)

    def test_too_many_for_one_number(self) -> None:
        with pytest.raises(ValueError, match="do not fit into 63 bits"):
            KneserNey([], 8192, 0, 5)
