"""What `course.evaluate` measures, beside the same worked out token by token."""

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn

from course import baselines, evaluate
from course.checkpoints import CLS, END, MASK, PAD, SEP, Checkpoint

WORDS = ["a", "b", "c", "d", "e"]
SPECIAL = [PAD, END, CLS, SEP, MASK]


class _Table(nn.Module):
    """The next token depends on the last one alone; a masked model of the same table looks at the token itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(0)))
        self.config = SimpleNamespace(max_length=6)

    def forward(self, ids: Tensor, chosen: Tensor | None = None) -> Tensor:
        logits = self.scores[ids]
        return logits if chosen is None else logits[chosen]


@pytest.fixture
def trained() -> Checkpoint:
    vocabulary = {word: place for place, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    return Checkpoint(_Table(len(vocabulary)), tokenizer, {})


def by_hand(trained: Checkpoint, texts: list[str]) -> float:
    """-ln p of each text: its tokens and its end, each after the one before, the first after an end."""
    model: Any = trained.model
    log_p = model.scores.detach().log_softmax(-1)
    end, total = trained.tokenizer.token_to_id(END), 0.0
    for text in texts:
        ids = [end, *trained.tokenizer.encode(text).ids, end]
        total -= sum(float(log_p[before, after]) for before, after in pairwise(ids))
    return total


TEXTS = ["a b c", "d", "e e e e e", "b a", ""]


def test_texts_apart_and_packed_cost_what_their_tokens_cost(trained: Checkpoint) -> None:
    expected, tokens = by_hand(trained, TEXTS), sum(len(text.split()) + 1 for text in TEXTS)
    for measured in (evaluate.nats_apart, evaluate.nats_packed):
        nats, count = measured(trained, TEXTS)
        assert nats == pytest.approx(expected, rel=1e-5)
        assert count == tokens


def test_many_texts_are_read_in_parts(trained: Checkpoint) -> None:
    assert evaluate.nats_apart(trained, TEXTS * 40)[0] == pytest.approx(40 * by_hand(trained, TEXTS), rel=1e-5)


def test_what_is_written_has_the_frequencies_of_the_model(trained: Checkpoint) -> None:
    texts = evaluate.write(trained, 4000, 3, torch.Generator().manual_seed(1))
    assert texts == evaluate.write(trained, 4000, 3, torch.Generator().manual_seed(1))
    model: Any = trained.model
    probabilities = model.scores[trained.tokenizer.token_to_id(END)].softmax(-1)
    for word in WORDS:
        chance = float(probabilities[trained.tokenizer.token_to_id(word)])
        share = sum(text.startswith(word) for text in texts) / len(texts)
        # A special token is not shown, so a text that begins with one may show the word behind it.
        assert share >= chance - 4 * math.sqrt(chance / len(texts))
    assert max(len(text) for text in texts) <= 3


def test_a_masked_model_is_measured_where_the_baselines_are(trained: Checkpoint) -> None:
    special = [trained.tokenizer.token_to_id(name) for name in (PAD, CLS, SEP, MASK)]
    size = trained.tokenizer.get_vocab_size()
    generator = torch.Generator().manual_seed(3)
    rows = [[special[1], *torch.randint(5, size, (9,), generator=generator).tolist(), special[2]] for _ in range(300)]
    loss, accuracy = evaluate.masked(trained, rows, special, seed=7)
    asked = baselines.places_of(rows, size, special, seed=7)
    assert 0 < loss < 2 * math.log(size)
    assert round(accuracy * len(asked.token), 6) % 1 == pytest.approx(0, abs=1e-6)  # a share of just those places
