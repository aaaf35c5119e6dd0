"""How good a trained language model is: nats for a text, texts that it writes, masked tokens that it finds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from course.baselines import masked_batches
from course.checkpoints import END, Checkpoint, decode, padded, token_id
from solutions.gpt import IGNORED, pack_documents

BATCH = 64
"""Rows that are read together."""


def nats_apart(trained: Checkpoint, texts: Sequence[str]) -> tuple[float, int]:
    """Score texts, each read by itself from its beginning.

    Args:
        trained: a causal language model.
        texts: none longer than the model can read.

    Returns:
        The sum of -ln p over all tokens, the ends of the texts included, and the number of these.
    """
    end = token_id(trained.tokenizer, END)
    rows = sorted((encoding.ids for encoding in trained.tokenizer.encode_batch(list(texts))), key=len)
    total, count = 0.0, 0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        inputs = padded([[end, *ids] for ids in part], end)
        targets = padded([[*ids, end] for ids in part], IGNORED)
        total += _summed(trained.model, inputs, targets)
        count += int((targets != IGNORED).sum())
    return total, count


def nats_packed(trained: Checkpoint, texts: Sequence[str]) -> tuple[float, int]:
    """Score texts that are packed into rows as long as the model can read, without a mask between them.

    Args:
        trained: a causal language model, trained on packed rows.
        texts: of any length.

    Returns:
        The sum of -ln p over all tokens, the ends of the texts included, and the number of these.
    """
    encoded = (encoding.ids for encoding in trained.tokenizer.encode_batch(list(texts)))
    length: int = trained.model.config.max_length  # type: ignore[union-attr, assignment]
    inputs, targets, _ = pack_documents(encoded, length, token_id(trained.tokenizer, END))
    parts = zip(torch.split(inputs, BATCH // 4), torch.split(targets, BATCH // 4), strict=True)
    return sum(_summed(trained.model, *part) for part in parts), int((targets != IGNORED).sum())


def write(trained: Checkpoint, count: int, longest: int, generator: torch.Generator) -> list[str]:
    """Let a causal model write texts from their beginning, each token drawn with the probability that it has.

    Args:
        trained: a causal language model.
        count: how many texts.
        longest: a text that has not ended after so many tokens is cut off there.
        generator: the only source of chance.
    """
    end = token_id(trained.tokenizer, END)
    ids = torch.full((count, 1), end)
    done = torch.zeros(count, dtype=torch.bool)
    with torch.no_grad():
        while ids.size(1) <= longest and not done.all():
            probabilities = trained.model(ids)[:, -1].softmax(-1)
            chosen = torch.multinomial(probabilities, 1, generator=generator)[:, 0].masked_fill(done, end)
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            done |= chosen == end
    return decode(trained.tokenizer, ids[:, 1:])


def masked(trained: Checkpoint, rows: Sequence[list[int]], special: Sequence[int], seed: int) -> tuple[float, float]:
    """Score a masked language model on the places that the seed chooses, the same as for `course.baselines`.

    Args:
        trained: a masked language model.
        rows: of ids, special tokens included.
        special: padding first, the mask last; none of them is chosen.
        seed: of the choice.

    Returns:
        The mean of -ln p of the hidden tokens, and the share of them that the model finds most probable.
    """
    nats, right, count = 0.0, 0, 0
    for inputs, labels in masked_batches(rows, trained.tokenizer.get_vocab_size(), special, seed):
        chosen = labels != IGNORED
        with torch.no_grad():
            logits = trained.model(inputs, chosen=chosen)
        nats += functional.cross_entropy(logits, labels[chosen], reduction="sum").item()
        right += int((logits.argmax(-1) == labels[chosen]).sum())
        count += int(chosen.sum())
    return nats / count, right / count


def _summed(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    with torch.no_grad():
        logits = model(inputs)
    total = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total.item()
