"""GPT: a stack of blocks that predicts the next token, how its text is laid out, and how it is judged."""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from solutions.attention import Attend, causal_mask
from solutions.block import TransformerBlock, attention_function, make_norm
from solutions.config import TransformerConfig
from solutions.training import cross_entropy
from solutions.transformer import Embedding

IGNORED = -100
"""The target of places that are not learned."""


class Cache(Protocol):
    """Keeps keys and values of the tokens that were read before, layer by layer."""

    @property
    def length(self) -> int:
        """How many tokens were read before."""

    def attend(self, layer: int, attend: Attend) -> Attend:
        """An attention function that puts the kept keys and values of a layer before the new ones, and keeps these."""


def pack_documents(
    documents: Iterable[Sequence[int]], context_length: int, end_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay documents one after the other into rows of equal length, so that nothing is padded but the last row.

    A document x_1 ... x_n becomes the inputs [end, x_1, ..., x_n] with the targets [x_1, ..., x_n, end]: the end of one
    is the beginning of the next. One that does not fit goes on in the next row.

    Args:
        documents: token ids of each.
        context_length: T, the length of a row.
        end_id: the id that stands between documents.

    Returns:
        inputs (N, T), targets (N, T) and numbers (N, T), which say to which document a place belongs, counted from 0.
        What fills the last row has the input `end_id`, the target -100 and the number -1.

    Raises:
        ValueError: there is no document.
    """
    inputs: list[int] = []
    targets: list[int] = []
    numbers: list[int] = []
    for number, document in enumerate(documents):
        inputs += [end_id, *document]
        targets += [*document, end_id]
        numbers += [number] * (len(document) + 1)
    if not inputs:
        raise ValueError("there is no document to pack")
    missing = -len(inputs) % context_length
    inputs += [end_id] * missing
    targets += [IGNORED] * missing
    numbers += [-1] * missing
    packed_inputs, packed_targets, packed_numbers = (
        torch.tensor(row).view(-1, context_length) for row in (inputs, targets, numbers)
    )
    return packed_inputs, packed_targets, packed_numbers


class CausalLanguageModel(nn.Module):
    """Predicts, at every place, the token that comes next (Radford et al. 2018, 2019)."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make `embedding`, `blocks`, the last `norm` (for pre-norm) and `output`.

        Args:
            config: num_layers blocks are made from it; with tie_embeddings, `output` shares the table of the embedding.
        """
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.norm = make_norm(config) if config.norm_first else nn.Identity()
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.output.weight = self.embedding.tokens.weight

    def forward(self, ids: Tensor, cache: Cache | None = None, documents: Tensor | None = None) -> Tensor:
        """Score every token of the vocabulary as the next one, at every place.

        Args:
            ids: integers (B, T); with a cache, the tokens that follow those read before.
            cache: what was read before; it is extended by these tokens.
            documents: integers (B, T), to which document each place belongs; a place attends to its own alone. None
                means that a row is one text.

        Returns:
            logits (B, T, V); those at place t depend on the ids up to t alone.
        """
        before = 0 if cache is None else cache.length
        x = self.embedding(ids, start=before)
        mask = causal_mask(before + ids.size(1))[before:].to(ids.device)
        if documents is not None:
            mask = mask & (documents.unsqueeze(-1) == documents.unsqueeze(-2))
        for layer, block in enumerate(self.blocks):
            attend = None if cache is None else cache.attend(layer, attention_function(self.config))
            x = block(x, mask, attend=attend)
        return self.output(self.norm(x))


def perplexity(model: nn.Module, ids: Tensor, context_length: int, stride: int) -> float:
    """How many equally probable tokens the model wavers between: e to the mean loss per token.

    A window slides over the text. Each token but the first is scored once, with all the window holds before it.

    Args:
        model: called as model(ids), gives logits (B, T, V).
        ids: integers (n,), a text.
        context_length: T, the longest input of the model.
        stride: by how much the window moves; a smaller one gives each token more to go by, and takes longer.

    Returns:
        At least 1.

    Raises:
        ValueError: the text has fewer than two tokens, or the stride is not from 1 to context_length.
    """
    if len(ids) < 2:
        raise ValueError(f"a text of {len(ids)} tokens has none to predict")
    if not 1 <= stride <= context_length:
        raise ValueError(f"stride={stride} must be from 1 to context_length={context_length}, or tokens are left out")
    training = model.training
    model.eval()
    total, scored = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, stride):
            window = ids[start : start + context_length + 1]
            new = start + len(window) - 1 - scored  # the targets that no window before had
            logits = model(window[None, :-1])[0, -new:]
            total += float(cross_entropy(logits, window[-new:])) * new
            scored += new
            if scored == len(ids) - 1:
                break
    model.train(training)
    return math.exp(total / scored)


def fit_power_law(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float, float]:
    """Fit loss = floor + coefficient * size ** -exponent by least squares (Kaplan et al. 2020, with a floor).

    For a given exponent the best coefficient and floor follow from a straight line; the exponent itself is searched.

    Args:
        sizes: of models or of data; at least three different ones, above 0.
        losses: of each.

    Returns:
        exponent (from 0.01 to 3), coefficient and floor.

    Raises:
        ValueError: there are fewer than three different sizes, or not as many losses as sizes.
    """
    if len(sizes) != len(losses) or len(set(sizes)) < 3:
        raise ValueError(f"{len(sizes)} sizes and {len(losses)} losses: at least three different sizes are needed")
    size, loss = (torch.tensor(values, dtype=torch.float64) for values in (sizes, losses))

    def line(exponent: float) -> tuple[float, float, float]:
        """The squared error, coefficient and floor of the best line through (size ** -exponent, loss)."""
        x = (size / size.min()) ** -exponent  # relative to the smallest, so that no power is out of range
        # (x - its mean) sums to 0, so it does not matter whether the mean of loss is taken off.
        slope = float(((x - x.mean()) * loss).sum() / (x - x.mean()).square().sum())
        floor = float(loss.mean() - slope * x.mean())
        error = float((loss - floor - slope * x).square().sum())
        return error, slope * float(size.min()) ** exponent, floor

    low, high = 0.01, 3.0
    for _ in range(10):  # each round looks at 21 exponents, and goes on between the neighbours of the best
        grid = torch.linspace(low, high, 21, dtype=torch.float64).tolist()
        best = min(range(21), key=lambda place: line(grid[place])[0])
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 20)]
    exponent = (low + high) / 2
    _, coefficient, floor = line(exponent)
    return exponent, coefficient, floor
