"""What can be filled in by counting alone: a single token's share, and what stands between two neighbours."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from course.checkpoints import padded
from solutions.bert import IGNORED, mask_tokens

Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]

ROUNDS = 30
"""Of the search for the mixture's weights, which no longer move after ten or so."""

BATCH = 256


@dataclass
class Places:
    """Tokens that are asked for, with what stands beside each as the model sees it.

    Args:
        left: the ids before.
        right: the ids behind.
        token: the ids that are asked for.
    """

    left: Numbers
    right: Numbers
    token: Numbers


class BothSides:
    """A trigram whose middle is asked for: p(w | left, right), mixed with what smaller contexts say.

    p(w | l, r) = a_4 c(l w r) / c(l _ r) + a_3 c(w r) / c(_ r) + a_2 c(l w) / c(l _) + a_1 (c(w) + 1) / (n + V)

    c counts in the training texts. The weights a add up to one; they are those under which other text is most likely,
    found by expectation maximisation (Jelinek and Mercer 1980), for each number of known contexts apart: a context that
    never occurred says nothing, and its weight goes to the others.
    """

    def __init__(self, documents: Iterable[Sequence[int]], vocab_size: int, edges: tuple[int, int]) -> None:
        """Count.

        Args:
            documents: token ids to learn from.
            vocab_size: V.
            edges: what stands before the first token of a text and behind its last one.
        """
        self.vocab_size = vocab_size
        rows = [np.array([edges[0], *document, edges[1]], dtype=np.int64) for document in documents if len(document)]
        left = np.concatenate([row[:-2] for row in rows])
        token = np.concatenate([row[1:-1] for row in rows])
        right = np.concatenate([row[2:] for row in rows])
        self.counts = np.bincount(token, minlength=vocab_size)
        self._tables = [_Table(context, token, vocab_size) for context in self._contexts(left, right)]
        self.weights = np.full((1 << len(self._tables), len(self._tables) + 1), 1 / (len(self._tables) + 1))

    def fit(self, places: Places) -> None:
        """Find the weights from text that was not counted."""
        shares, known = self._shares(places)
        for pattern in np.unique(known):
            some = shares[known == pattern]
            weights = self._allowed(pattern) / self._allowed(pattern).sum()
            for _ in range(ROUNDS):
                parts = some * weights
                weights = (parts / parts.sum(1, keepdims=True)).mean(0)
            self.weights[pattern] = weights

    def probabilities(self, places: Places) -> Shares:
        """The probability of each token that is asked for."""
        shares, known = self._shares(places)
        weights = self.weights[known] * self._allowed(known)
        mixed: Shares = (shares * weights).sum(1) / weights.sum(1)
        return mixed

    def best(self, places: Places) -> Numbers:
        """The most likely token of each place."""
        every = np.arange(self.vocab_size)
        kinds, which = np.unique(places.left * self.vocab_size + places.right, return_inverse=True)
        best = np.empty(len(kinds), dtype=np.int64)
        for number, kind in enumerate(kinds):
            left, right = (np.full(self.vocab_size, one) for one in divmod(int(kind), self.vocab_size))
            best[number] = self.probabilities(Places(left, right, every)).argmax()
        found: Numbers = best[which]
        return found

    def _contexts(self, left: Numbers, right: Numbers) -> list[Numbers]:
        return [left, right, left * self.vocab_size + right]

    def _shares(self, places: Places) -> tuple[Shares, Numbers]:
        """What each count says alone (n, 4), and which contexts are known, as the bits of a number (n)."""
        columns = [(self.counts[places.token] + 1) / (self.counts.sum() + self.vocab_size)]
        known = np.zeros(len(places.token), dtype=np.int64)
        contexts = self._contexts(places.left, places.right)
        for bit, (table, context) in enumerate(zip(self._tables, contexts, strict=True)):
            count, total = table.look_up(context, places.token)
            columns.append(count / np.maximum(total, 1))
            known |= (total > 0).astype(np.int64) << bit
        return np.stack(columns, axis=1), known

    def _allowed(self, known: Numbers) -> Shares:
        """1 for what may have weight: single tokens always, a context where it is known."""
        bits = [np.ones_like(known), *(known >> bit & 1 for bit in range(len(self._tables)))]
        return np.stack(bits, axis=-1).astype(np.float64)


class _Table:
    """How often each token occurs in each context, found by halving."""

    def __init__(self, contexts: Numbers, tokens: Numbers, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.pairs, self.counts = np.unique(contexts * vocab_size + tokens, return_counts=True)
        self.contexts, self.totals = np.unique(contexts, return_counts=True)

    def look_up(self, contexts: Numbers, tokens: Numbers) -> tuple[Numbers, Numbers]:
        count = _found(self.pairs, self.counts, contexts * self.vocab_size + tokens)
        return count, _found(self.contexts, self.totals, contexts)


def _found(keys: Numbers, values: Numbers, wanted: Numbers) -> Numbers:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def masked_baselines(
    train_documents: Sequence[Sequence[int]],
    held_out_documents: Sequence[Sequence[int]],
    vocab_size: int,
    special_ids: Sequence[int],
    seed: int,
) -> dict[str, tuple[float, float]]:
    """How well counting fills in what `mask_tokens` asks for.

    The counts see the neighbours as the model does: one that is masked was never counted, so it says nothing, and one
    that was exchanged misleads both.

    Args:
        train_documents: rows of ids as the model reads them, [CLS] first and [SEP] last.
        held_out_documents: likewise; every second one decides on the weights, the others are scored.
        vocab_size: V.
        special_ids: padding, [CLS], [SEP] and [MASK], in this order.
        seed: of the masking.

    Returns:
        Loss and accuracy of "unigram" and of "trigram of both sides".
    """
    first, last = special_ids[1], special_ids[2]
    model = BothSides([row[1:-1] for row in train_documents], vocab_size, (first, last))
    tuned, scored = (places_of(held_out_documents[half::2], vocab_size, special_ids, seed) for half in (0, 1))
    model.fit(tuned)
    unigram = (model.counts + 1) / (model.counts.sum() + vocab_size)
    return {
        "unigram": (_loss(unigram[scored.token]), float((scored.token == model.counts.argmax()).mean())),
        "trigram of both sides": (
            _loss(model.probabilities(scored)),
            float((scored.token == model.best(scored)).mean()),
        ),
    }


def masked_batches(
    rows: Sequence[Sequence[int]], vocab_size: int, special_ids: Sequence[int], seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """What is asked of rows: the inputs and labels of `mask_tokens`, some rows at a time.

    Args:
        rows: ids as the model reads them.
        vocab_size: V.
        special_ids: padding first, the mask last; none of them is chosen.
        seed: of the masking.
    """
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(rows), BATCH):
        ids = padded([list(row) for row in rows[start : start + BATCH]], special_ids[0])
        yield mask_tokens(ids, special_ids[-1], vocab_size, special_ids, generator)


def places_of(rows: Sequence[Sequence[int]], vocab_size: int, special_ids: Sequence[int], seed: int) -> Places:
    """The places that `mask_tokens` chooses in these rows, with their neighbours as it leaves them.

    Args:
        rows: ids as the model reads them, [CLS] first and [SEP] last.
        vocab_size: V.
        special_ids: padding, [CLS], [SEP] and [MASK], in this order.
        seed: of the masking.
    """
    found: list[Numbers] = []
    for inputs, labels in masked_batches(rows, vocab_size, special_ids, seed):
        row, place = (labels != IGNORED).nonzero(as_tuple=True)
        found.append(torch.stack([inputs[row, place - 1], inputs[row, place + 1], labels[row, place]]).numpy())
    return Places(*np.concatenate(found, axis=1))


def _loss(probabilities: Shares) -> float:
    return float(-np.log(probabilities).mean())
