"""Counting what follows what: the language models that stood before neural ones, as something to compare with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass
class _Order:
    """What is known of the n-grams of one length.

    Args:
        grams: each as one number, in order.
        counts: how often each occurs (longest order), or behind how many different tokens (shorter ones).
        contexts: what stands before the last token, each as one number, in order.
        totals: the sum of the counts in each context.
        kinds: how many different tokens follow each context.
        discount: what is taken off each count.
    """

    grams: Numbers
    counts: Numbers
    contexts: Numbers
    totals: Numbers
    kinds: Numbers
    discount: float


class KneserNey:
    """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999).

    P_n(w | h) = max(c(h w) - d_n, 0) / c(h) + d_n N(h) / c(h) P_{n-1}(w | h'),  with P_0(w) = 1 / V

    c counts occurrences at the longest order; below it, the different tokens that stand before. N(h) is the number of
    different tokens after h, h' is h without its first token, and d_n = n_1 / (n_1 + 2 n_2), from the n-grams that are
    counted once and twice.
    """

    def __init__(self, documents: Iterable[Sequence[int]], vocab_size: int, end_id: int, order: int = 5) -> None:
        """Count.

        Args:
            documents: token ids to learn from, document by document.
            vocab_size: V.
            end_id: stands before each document, and is predicted at its end.
            order: n, the longest row of tokens that is counted; V to the power of n must fit into 63 bits.

        Raises:
            ValueError: it does not.
        """
        if vocab_size**order >= 1 << 63:
            raise ValueError(f"order={order} and vocab_size={vocab_size} do not fit into 63 bits together")
        self.vocab_size, self.end_id, self.order = vocab_size, end_id, order
        grams, counts = np.unique(self._grams(documents), return_counts=True)
        self._orders: list[_Order] = []
        for length in range(order, 0, -1):
            self._orders.insert(0, self._counted(grams, counts))
            # Shorter ones are counted by the different tokens that stand before them.
            grams, counts = np.unique(grams % vocab_size ** (length - 1), return_counts=True)

    def log_probabilities(self, documents: Iterable[Sequence[int]]) -> NDArray[np.float64]:
        """The natural logarithm of each token's probability, the ends of documents included, in order."""
        grams = self._grams(documents)
        probability = np.full(len(grams), 1 / self.vocab_size)
        for length, known in enumerate(self._orders, start=1):
            gram = grams % self.vocab_size**length
            context = gram // self.vocab_size
            total = _looked_up(known.contexts, known.totals, context)
            kinds = _looked_up(known.contexts, known.kinds, context)
            count = _looked_up(known.grams, known.counts, gram)
            seen = total > 0
            own = np.maximum(count - known.discount, 0)[seen] / total[seen]
            probability[seen] = own + known.discount * kinds[seen] / total[seen] * probability[seen]
        logarithms: NDArray[np.float64] = np.log(probability)
        return logarithms

    def _grams(self, documents: Iterable[Sequence[int]]) -> Numbers:
        """Each token with those before it as one number, whose digits to the base V are the tokens."""
        rows = [self._grams_of(np.array([*document, self.end_id], dtype=np.int64)) for document in documents]
        return np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)

    def _grams_of(self, tokens: Numbers) -> Numbers:
        padded = np.concatenate([np.full(self.order - 1, self.end_id), tokens])
        grams = np.zeros(len(tokens), dtype=np.int64)
        for place in range(self.order):
            grams = grams * self.vocab_size + padded[place : place + len(tokens)]
        return grams

    def _counted(self, grams: Numbers, counts: Numbers) -> _Order:
        contexts, starts, kinds = np.unique(grams // self.vocab_size, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, starts) if len(counts) else counts
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = once / (once + 2 * twice) if once and twice else 0.75
        return _Order(grams, counts, contexts, totals, kinds, discount)


def _looked_up(keys: Numbers, values: Numbers, wanted: Numbers) -> Numbers:
    """The value of each key; 0 for those that are not there."""
    if len(keys) == 0:
        return np.zeros(len(wanted), dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
