"""Four ways to tell a model where a token stands; attention alone is blind to order."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from solutions.attention import Attend, softmax


def sinusoidal_positions(length: int, d_model: int) -> Tensor:
    """Give each position a fixed vector of sines and cosines, to be added to the token's vector.

    P[t, 2i] = sin(t / 10000^(2i/D)),  P[t, 2i+1] = cos(t / 10000^(2i/D))      (Vaswani et al. 2017, section 3.5)

    Args:
        length: T, the number of positions.
        d_model: D, an even number.

    Returns:
        (T, D)

    Raises:
        ValueError: D is odd.
    """
    if d_model % 2 != 0:
        raise ValueError(f"d_model={d_model} must be even: sines and cosines come in pairs")
    frequencies = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    angles = torch.arange(length).unsqueeze(1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class LearnedPositions(nn.Module):
    """Give each position a vector that is learned, to be added to the token's vector (Gehring et al. 2017)."""

    def __init__(self, max_length: int, d_model: int) -> None:
        """Make a table with a row for each position.

        Args:
            max_length: the number of positions there are; a longer sequence has no vectors.
            d_model: D, the width.
        """
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(max_length, d_model))

    def forward(self, length: int) -> Tensor:
        """Look up the vectors of the first positions.

        Args:
            length: T, at most max_length.

        Returns:
            (T, D)

        Raises:
            ValueError: T is larger than max_length.
        """
        if length > len(self.weight):
            raise ValueError(f"length={length} is more than max_length={len(self.weight)}: no vector was learned there")
        return self.weight[:length]


def apply_rope(x: Tensor, positions: Tensor, theta: float = 10000.0) -> Tensor:
    """Rotate each pair of components by an angle that grows with the position (Su et al. 2021, eq. 15).

    The pair (x[2i], x[2i+1]) turns by position * theta^(-2i/d). A dot product of two rotated vectors depends on
    their positions only through the difference.

    Args:
        x: queries or keys (..., T, d), d even.
        positions: where each of the T vectors stands: (T,), or any shape that broadcasts to (..., T).
        theta: the larger, the slower the slowest pair turns.

    Returns:
        (..., T, d), with the dtype of x.

    Raises:
        ValueError: d is odd.
    """
    width = x.size(-1)
    if width % 2 != 0:
        raise ValueError(f"the width of x must be even, because components are rotated in pairs; it is {width}")
    pairs = torch.arange(0, width, 2, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    angles = positions.unsqueeze(-1) * theta ** (-pairs / width)
    cos, sin = angles.cos(), angles.sin()
    first, second = x[..., 0::2], x[..., 1::2]
    rotated = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return rotated.flatten(-2).to(x.dtype)


def alibi_bias(num_heads: int, query_length: int, key_length: int) -> Tensor:
    """Lower each score in proportion to the distance, by another slope in each head (Press et al. 2022, section 3).

    bias[h, m, n] = -s_h * |m - n|,  s_h = 2^(-8 (h+1) / H)  for h = 0, ..., H-1

    Here m and n are the positions of query and key. The queries stand at the end of the keys: the last query has the
    position of the last key.

    Args:
        num_heads: H
        query_length: Tq
        key_length: Tk, at least Tq

    Returns:
        (H, Tq, Tk), to be added to the scaled scores.
    """
    slopes = 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)
    queries = torch.arange(key_length - query_length, key_length)
    distance = (queries.unsqueeze(1) - torch.arange(key_length)).abs()
    return -slopes.view(-1, 1, 1) * distance


def fused_rope(x: Tensor, positions: Tensor, theta: float = 10000.0) -> Tensor:
    """The same rotation as `apply_rope`'s in one pass over memory: a pair is a complex number, times e^(i * angle).

    Args:
        x: queries or keys (..., T, d), d even.
        positions: as in `apply_rope`.
        theta: as in `apply_rope`.

    Returns:
        (..., T, d), with the dtype of x.
    """
    if torch.compiler.is_compiling():  # torch.compile makes one pass of it by itself, and of complex numbers it cannot
        return apply_rope(x, positions, theta)
    exact = torch.promote_types(x.dtype, torch.float32)
    pairs = torch.arange(0, x.size(-1), 2, dtype=exact, device=x.device)
    angles = positions.unsqueeze(-1) * theta ** (-pairs / x.size(-1))
    turns = torch.polar(torch.ones_like(angles), angles)
    numbers = torch.view_as_complex(x.to(exact).reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(numbers * turns).flatten(-2).to(x.dtype)


def rotary(
    attend: Attend, theta: float = 10000.0, rotate: Callable[[Tensor, Tensor, float], Tensor] = apply_rope
) -> Attend:
    """Make an attention function that rotates queries and keys first.

    Args:
        attend: what mixes the values afterwards.
        theta: as in `apply_rope`.
        rotate: `apply_rope`, or what does the same.

    Returns:
        A function of the form of `attend`; its queries stand at the end of its keys.
    """

    def attend_rotated(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        positions = torch.arange(key.size(-2), device=key.device)
        rotated_query = rotate(query, positions[-query.size(-2) :], theta)
        return attend(rotated_query, rotate(key, positions, theta), value, mask)

    return attend_rotated


def alibi_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """`scaled_dot_product_attention` with `alibi_bias` added to its scores.

    Args:
        query: (B, H, Tq, d_k); the queries stand at the end of the keys.
        key: (B, H, Tk, d_k)
        value: (B, H, Tk, d_v)
        mask: bool, broadcastable to (B, H, Tq, Tk); True where attention is allowed.

    Returns:
        output (B, H, Tq, d_v) and weights (B, H, Tq, Tk).
    """
    bias = alibi_bias(query.size(1), query.size(-2), key.size(-2)).to(query)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1)) + bias
    if mask is None:
        weights = softmax(scores)
    else:
        weights = softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min)).masked_fill(~mask, 0.0)
    return weights @ value, weights
