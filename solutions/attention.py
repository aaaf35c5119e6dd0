"""Attention: a weighted average whose weights are computed from the data (Vaswani et al. 2017, section 3.2)."""

import math

import torch
from torch import Tensor, nn


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into weights, never negative, that sum to one along `dim`.

    softmax(x)_i = exp(x_i) / sum_j exp(x_j)

    Subtracting the largest score first leaves the result unchanged and keeps `exp` from overflowing.

    Args:
        x: scores of any shape, float32 or float64.
        dim: the axis along which the weights sum to one.

    Returns:
        Weights with the shape and dtype of `x`; finite for every finite input.
    """
    exponentials = torch.exp(x - x.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Average the values, weighted by how well each key matches each query.

    weights = softmax(query @ key^T / sqrt(d_k)),  output = weights @ value      (Vaswani et al. 2017, eq. 1)

    Args:
        query: (..., Tq, d_k)
        key: (..., Tk, d_k)
        value: (..., Tk, d_v)
        mask: bool, broadcastable to (..., Tq, Tk); True where attention is allowed.

    Returns:
        output (..., Tq, d_v) and weights (..., Tq, Tk). A query that may attend to nothing gets zeros.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    if mask is None:
        weights = softmax(scores)
    else:
        # The lowest finite score, not -inf: a row of -inf alone would make softmax divide zero by zero.
        weights = softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min))
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ value, weights


def causal_mask(length: int) -> Tensor:
    """Let each position attend to itself and to what came before it.

    Args:
        length: T, the number of positions.

    Returns:
        bool (T, T); entry [i, j] is True where query i may attend to key j, that is where j <= i.
    """
    return torch.ones(length, length, dtype=torch.bool).tril()


def padding_mask(token_ids: Tensor, pad_id: int) -> Tensor:
    """Let every query attend to the real tokens of its own sequence and to none of the padding.

    Args:
        token_ids: integers (B, T), shorter sequences filled up with `pad_id`.
        pad_id: the id that marks padding.

    Returns:
        bool (B, 1, T), True at real tokens; the middle axis broadcasts over the queries.
    """
    return (token_ids != pad_id).unsqueeze(1)


class SelfAttention(nn.Module):
    """One attention head in which a sequence attends to itself.

    Three linear layers without bias, named `query`, `key` and `value`, read each position's query, key and
    value from its vector x; then output = attention(x W_Q, x W_K, x W_V)      (Vaswani et al. 2017, section 3.2)
    """

    def __init__(self, d_model: int, d_head: int) -> None:
        """Make the three layers.

        Args:
            d_model: D, the width of the vectors that come in.
            d_head: the width of the queries, keys and values, and so of the output.
        """
        super().__init__()
        self.query = nn.Linear(d_model, d_head, bias=False)
        self.key = nn.Linear(d_model, d_head, bias=False)
        self.value = nn.Linear(d_model, d_head, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix each position with the positions that it attends to.

        Args:
            x: (B, T, d_model)
            mask: bool, broadcastable to (B, T, T); True where attention is allowed.

        Returns:
            (B, T, d_head)
        """
        output, _ = scaled_dot_product_attention(self.query(x), self.key(x), self.value(x), mask)
        return output
