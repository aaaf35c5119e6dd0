"""BERT: an encoder that fills in what was masked, and what it learns from (Devlin et al. 2019)."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from solutions.attention import padding_mask
from solutions.block import TransformerBlock, make_norm
from solutions.config import TransformerConfig
from solutions.training import cross_entropy
from solutions.transformer import Embedding

IGNORED = -100
"""The label of places that are not asked for."""

MASKED = 0.8
"""The share of the chosen places that are masked (Devlin et al. 2019, section 3.1)."""

RANDOM = 0.1
"""The share of the chosen places that get a random token; the rest stays as it is."""


def mask_tokens(
    ids: Tensor,
    mask_id: int,
    vocab_size: int,
    special_ids: Collection[int],
    generator: torch.Generator,
    probability: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Choose places at random and hide what stands there (Devlin et al. 2019, section 3.1).

    Of the chosen places 80 % get the mask, 10 % a random token, and 10 % keep theirs: the model cannot tell which
    tokens are true, so it must form an opinion on each.

    Args:
        ids: integers (B, T); it is left as it is.
        mask_id: the id of the mask.
        vocab_size: V; random tokens are drawn from 0 to V - 1, special ones aside.
        special_ids: tokens that are never chosen and never drawn, such as padding and the ends of sentences.
        generator: the only source of chance.
        probability: with which each place is chosen, independently of the others.

    Returns:
        inputs (B, T), the ids with the chosen places changed; and labels (B, T), the ids at the chosen places and -100
        everywhere else. Both have the dtype of `ids`.

    Raises:
        ValueError: every token is special, so that none can be drawn.
    """
    special = ids.new_tensor(sorted(special_ids))
    every = torch.arange(vocab_size, dtype=ids.dtype, device=ids.device)
    ordinary = every[~torch.isin(every, special)]
    if len(ordinary) == 0:
        raise ValueError(f"all {vocab_size} tokens are special: there is none to draw")

    def chance() -> Tensor:
        return torch.rand(ids.shape, generator=generator).to(ids.device)

    chosen = (chance() < probability) & ~torch.isin(ids, special)
    labels = ids.masked_fill(~chosen, IGNORED)
    lot = chance()
    drawn = ordinary[torch.randint(len(ordinary), ids.shape, generator=generator).to(ids.device)]
    inputs = torch.where(chosen & (lot < MASKED), mask_id, ids)
    inputs = torch.where(chosen & (lot >= MASKED) & (lot < MASKED + RANDOM), drawn, inputs)
    return inputs, labels


def sentence_pairs(documents: Sequence[Sequence[str]], generator: torch.Generator) -> list[tuple[str, str, bool]]:
    """Pairs of sentences for next-sentence prediction (Devlin et al. 2019, section 3.1, task 2).

    For each sentence but the last of a document there is one pair: with probability 1/2 the sentence that follows it,
    else a random one of another document.

    Args:
        documents: the sentences of each, in order.
        generator: the only source of chance.

    Returns:
        (first, second, is_next), in the order of the documents.

    Raises:
        ValueError: fewer than two documents have a sentence, so none can be drawn from another.
    """
    if sum(len(document) > 0 for document in documents) < 2:
        raise ValueError("at least two documents with sentences are needed: a random sentence comes from another one")
    every = [sentence for document in documents for sentence in document]
    pairs, start = [], 0
    for document in documents:
        elsewhere = len(every) - len(document)
        for first, following in pairwise(document):
            is_next = torch.rand((), generator=generator).item() < 0.5
            place = int(torch.randint(elsewhere, (), generator=generator))
            # The places from `start` on are the document's own: whoever is drawn from there on stands behind them.
            other = every[place if place < start else place + len(document)]
            pairs.append((first, following if is_next else other, is_next))
        start += len(document)
    return pairs


def masked_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss over the places that were chosen.

    Args:
        logits: (B, T, V)
        labels: integers (B, T); -100 where nothing is asked.

    Returns:
        A number; 0 where nothing is asked at all.
    """
    chosen = labels != IGNORED
    return cross_entropy(logits[chosen], labels[chosen])


class MaskedLanguageModel(nn.Module):
    """Guesses, at every place, which token belongs there, from what stands on both sides."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make the encoder, and the head above it.

        The encoder: `embedding`, `segments` (two vectors, for the first and the second sentence), `embedding_norm`,
        `blocks`, and for pre-norm the last `norm`. The head: `transform`, an nn.Sequential of a linear layer and an
        exact GELU, `head_norm`, and `output`, whose weight is the embedding's table if the config ties them; it has a
        bias.

        Args:
            config: num_layers blocks are made from it; pad_id says which ids are padding.
        """
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.segments = nn.Embedding(2, config.d_model)
        nn.init.normal_(self.segments.weight, std=0.02)
        self.embedding_norm = make_norm(config)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.norm = make_norm(config) if config.norm_first else nn.Identity()
        self.transform = nn.Sequential(nn.Linear(config.d_model, config.d_model), nn.GELU())
        self.head_norm = make_norm(config)
        self.output = nn.Linear(config.d_model, config.vocab_size)
        if config.tie_embeddings:
            self.output.weight = self.embedding.tokens.weight

    def encode(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """Read a sequence, without the head.

        Args:
            ids: integers (B, T)
            segments: 0 or 1 for each place (B, T); None means all 0.

        Returns:
            (B, T, D), one vector for each token in its context.
        """
        segments = torch.zeros_like(ids) if segments is None else segments
        x = self.embedding_norm(self.embedding(ids) + self.segments(segments))
        mask = None if self.config.pad_id is None else padding_mask(ids, self.config.pad_id)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def forward(self, ids: Tensor, segments: Tensor | None = None, chosen: Tensor | None = None) -> Tensor:
        """Score every token of the vocabulary at every place, or at those that are asked for.

        Args:
            ids: integers (B, T)
            segments: 0 or 1 for each place (B, T); None means all 0.
            chosen: bool (B, T), True at the n places that are asked for; None means all.

        Returns:
            logits (B, T, V), or (n, V): the head is applied to no other place.
        """
        x = self.encode(ids, segments)
        x = x if chosen is None else x[chosen]
        return self.output(self.head_norm(self.transform(x)))
