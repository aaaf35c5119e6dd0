"""Attention: a weighted average whose weights are computed from the data (Vaswani et al. 2017, section 3.2)."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class Attend(Protocol):
    """What mixes values in a multi-head layer: `scaled_dot_product_attention`, or another function of the same form.

    Called with query (B, H, Tq, d_head), key and value (B, H, Tk, d_head), and a mask that broadcasts to
    (B, H, Tq, Tk), or None. Gives the output (B, H, Tq, d_head), and the weights (B, H, Tq, Tk) with
    output = weights @ value, or None where they are never formed.
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, /
    ) -> tuple[Tensor, Tensor | None]:
        """Mix the values."""


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, None]:
    """PyTorch's own attention: the same output as `scaled_dot_product_attention`, without the table of weights.

    Args:
        query: (..., Tq, d_k)
        key: (..., Tk, d_k)
        value: (..., Tk, d_v)
        mask: bool, broadcastable to (..., Tq, Tk); True where attention is allowed.
        dropout: the probability with which a weight is dropped.

    Returns:
        output (..., Tq, d_v), and None for the weights.
    """
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout), None


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Cut each vector into one piece a head.

    Head h gets the components from h * D/H to (h + 1) * D/H - 1 of every position.

    Args:
        x: (B, T, D)
        num_heads: H, which must divide D.

    Returns:
        (B, H, T, D/H)

    Raises:
        ValueError: H does not divide D.
    """
    if x.size(-1) % num_heads != 0:
        raise ValueError(f"num_heads={num_heads} must divide the width of x, which is {x.size(-1)}")
    return x.reshape(*x.shape[:-1], num_heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Put the pieces of all heads side by side again: the inverse of `split_heads`.

    Args:
        x: (B, H, T, d_head)

    Returns:
        (B, T, H * d_head)
    """
    return x.transpose(1, 2).flatten(2)


def repeat_heads(x: Tensor, num_heads: int) -> Tensor:
    """Let several query heads share each key or value head.

    Query heads 0 to G-1 share head 0, the next G share head 1, and so on, with G = H / H_kv
    (Ainslie et al. 2023, section 2.2).

    Args:
        x: (B, H_kv, T, d_head)
        num_heads: H, a multiple of H_kv.

    Returns:
        (B, H, T, d_head)

    Raises:
        ValueError: H is not a multiple of H_kv.
    """
    if num_heads % x.size(1) != 0:
        raise ValueError(f"num_heads={num_heads} must be a multiple of the number of heads in x, which is {x.size(1)}")
    return x.repeat_interleave(num_heads // x.size(1), dim=1)


def mask_for_heads(mask: Tensor | None) -> Tensor | None:
    """Give a mask the axis of the heads.

    Args:
        mask: None, or bool: (Tq, Tk); (B, Tq, Tk) or (B, 1, Tk), the same for all heads; or (B, H, Tq, Tk).

    Returns:
        A mask that broadcasts to (B, H, Tq, Tk), or None.

    Raises:
        ValueError: the mask is not boolean, or has another number of axes.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True where attention is allowed; it has dtype {mask.dtype}")
    if mask.dim() not in (2, 3, 4):
        raise ValueError(f"mask must have 2, 3 or 4 axes, (Tq, Tk) to (B, H, Tq, Tk); its shape is {tuple(mask.shape)}")
    return mask.unsqueeze(1) if mask.dim() == 3 else mask


class MultiHeadAttention(nn.Module):
    """Several attention heads side by side, each with queries, keys and values of its own.

    head_h = attention(x W_Q^h, c W_K^h, c W_V^h),  output = [head_0, ..., head_{H-1}] W_O
    (Vaswani et al. 2017, section 3.2.2)

    The matrices of all heads lie in one layer each: `query`, `key` and `value`. `output` mixes the heads.
    """

    def __init__(
        self, d_model: int, num_heads: int, num_kv_heads: int | None = None, bias: bool = True, dropout: float = 0.0
    ) -> None:
        """Make the four layers.

        Args:
            d_model: D, the width of what comes in and goes out.
            num_heads: H; each head has width D/H.
            num_kv_heads: how many key and value heads there are; fewer than H share them, 1 is multi-query attention.
                None means H.
            bias: whether the layers have one.
            dropout: the probability with which a weight is dropped in training.

        Raises:
            ValueError: H does not divide D, or num_kv_heads does not divide H.
        """
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if d_model % num_heads != 0:
            raise ValueError(f"num_heads={num_heads} must divide d_model={d_model}")
        if num_heads % num_kv_heads != 0:
            raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
        d_head = d_model // num_heads
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.query = nn.Linear(d_model, d_model, bias=bias)
        self.key = nn.Linear(d_model, num_kv_heads * d_head, bias=bias)
        self.value = nn.Linear(d_model, num_kv_heads * d_head, bias=bias)
        self.output = nn.Linear(d_model, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        attend: Attend = scaled_dot_product_attention,
    ) -> Tensor:
        """Let each position of x attend to the context.

        Args:
            x: (B, Tq, D), where the queries come from.
            context: (B, Tk, D), where keys and values come from; None means x itself.
            mask: bool, (Tq, Tk), (B, Tq, Tk), (B, 1, Tk) or (B, H, Tq, Tk); True where attention is allowed.
            attend: mixes the values, head by head. In training the weights that it gives are dropped at random and the
                values mixed again with what is left; if it gives None, dropping is its own affair.

        Returns:
            (B, Tq, D)
        """
        context = x if context is None else context
        query = split_heads(self.query(x), self.num_heads)
        key = repeat_heads(split_heads(self.key(context), self.num_kv_heads), self.num_heads)
        value = repeat_heads(split_heads(self.value(context), self.num_kv_heads), self.num_heads)
        mixed, weights = attend(query, key, value, mask_for_heads(mask))
        if self.training and self.dropout.p > 0 and weights is not None:
            mixed = self.dropout(weights) @ value
        return self.output(merge_heads(mixed))
