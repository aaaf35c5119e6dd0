"""Correct solutions of chapter 03 in other styles and by other algorithms."""

import math

import torch
from torch import nn

from autograder.checks import variant


@variant("positions.sinusoidal_positions", "entry by entry")
def sinusoidal_by_loops(length, d_model):
    if d_model % 2:
        raise ValueError(f"d_model must be even, and it is {d_model}")
    table = torch.zeros(length, d_model)
    for t in range(length):
        for column in range(d_model):
            angle = t / 10000 ** ((column - column % 2) / d_model)
            table[t, column] = math.cos(angle) if column % 2 else math.sin(angle)
    return table


@variant("positions.sinusoidal_positions", "exp of logarithms, filled in by slices")
def sinusoidal_by_logarithms(length, d_model):
    if d_model % 2 == 1:
        raise ValueError("An odd width has a column without a partner.")
    position = torch.arange(length, dtype=torch.float).unsqueeze(1)
    rate = torch.exp(torch.arange(0, d_model, 2).float() * (-math.log(10000.0) / d_model))
    table = torch.empty(length, d_model)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table


@variant("positions.sinusoidal_positions", "a cosine is a sine a quarter turn on")
def sinusoidal_by_phase(length, d_model):
    if (d_model // 2) * 2 != d_model:
        raise ValueError("d_model must be even")
    column = torch.arange(d_model, dtype=torch.float64)
    rate = 10000 ** (-2 * torch.div(column, 2, rounding_mode="floor") / d_model)
    phase = (column % 2) * math.pi / 2
    return torch.sin(torch.outer(torch.arange(length, dtype=torch.float64), rate) + phase).float()


@variant("positions.sinusoidal_positions", "powers of complex numbers")
def sinusoidal_by_powers(length, d_model):
    if d_model % 2 != 0:
        raise ValueError("d_model is odd")
    rate = torch.logspace(0, -4 * (d_model - 2) / d_model, d_model // 2, dtype=torch.float64)
    turned = torch.exp(1j * rate) ** torch.arange(length, dtype=torch.float64)[:, None]
    return torch.view_as_real(turned).flip(-1).reshape(length, d_model).to(torch.get_default_dtype())


@variant("positions.LearnedPositions", "an nn.Embedding by inheritance")
class LearnedByInheritance(nn.Embedding):
    def __init__(self, max_length, d_model):
        super().__init__(max_length, d_model)
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, length):
        if length > self.num_embeddings:
            raise ValueError(f"{length} positions were asked for, and there are {self.num_embeddings}")
        return super().forward(torch.arange(length))


@variant("positions.LearnedPositions", "keeps max_length, and narrows")
class LearnedByNarrow(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.max_length = max_length
        self.weight = nn.Parameter(torch.empty(max_length, d_model))
        nn.init.normal_(self.weight, mean=0.0, std=0.02)

    def forward(self, length):
        if not length <= self.max_length:
            raise ValueError(f"length {length} exceeds max_length {self.max_length}")
        return self.weight.narrow(0, 0, length)


@variant("positions.LearnedPositions", "looks rows up by index")
class LearnedByIndex(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.normal(0.0, 0.02, (max_length, d_model))))

    def forward(self, length):
        rows = self.weight.shape[0]
        if rows - length < 0:
            raise ValueError(f"only {rows} positions were learned, not {length}")
        return torch.index_select(self.weight, 0, torch.arange(length, device=self.weight.device))


@variant("positions.apply_rope", "complex numbers")
def rope_by_complex_numbers(x, positions, theta=10000.0):
    *front, d = x.shape
    if d % 2:
        raise ValueError(f"odd width {d}")
    exact = x if x.dtype == torch.float64 else x.float()
    rate = theta ** (-torch.arange(0, d, 2).to(exact.dtype) / d)
    angle = positions[..., None] * rate
    numbers = torch.view_as_complex(exact.reshape(*front, d // 2, 2))
    turned = numbers * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(turned).reshape(x.shape).to(x.dtype)


@variant("positions.apply_rope", "one block-diagonal matrix for each position")
def rope_by_matrices(x, positions, theta=10000.0):
    d = x.size(-1)
    if d % 2 == 1:
        raise ValueError("the width must be even")
    matrices = torch.zeros(*positions.shape, d, d, dtype=torch.float64)
    for i in range(d // 2):
        angle = positions.double() * theta ** (-2 * i / d)
        matrices[..., 2 * i, 2 * i] = matrices[..., 2 * i + 1, 2 * i + 1] = angle.cos()
        matrices[..., 2 * i, 2 * i + 1] = -angle.sin()
        matrices[..., 2 * i + 1, 2 * i] = angle.sin()
    return (matrices @ x.double().unsqueeze(-1)).squeeze(-1).to(x.dtype)


@variant("positions.apply_rope", "x cos + rotated x sin, each frequency twice")
def rope_by_repeated_frequencies(x, positions, theta=10000.0):
    if x.shape[-1] & 1:
        raise ValueError("cannot pair the components of an odd width")
    rate = 1.0 / theta ** (torch.arange(0, x.shape[-1], 2, dtype=torch.float64) / x.shape[-1])
    angle = (positions.unsqueeze(-1) * rate).repeat_interleave(2, dim=-1)
    quarter_turn = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).reshape(x.shape)
    return x * angle.cos().to(x.dtype) + quarter_turn * angle.sin().to(x.dtype)


@variant("positions.apply_rope", "pair by pair")
def rope_by_pairs(x, positions, theta=10000.0):
    width = x.size(-1)
    if width != 2 * (width // 2):
        raise ValueError(f"width {width} is odd")
    columns = []
    for i in range(0, width, 2):
        angle = positions.to(torch.float64) / theta ** (i / width)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        columns += [x[..., i] * cos - x[..., i + 1] * sin, x[..., i + 1] * cos + x[..., i] * sin]
    return torch.stack(columns, dim=-1)


@variant("positions.alibi_bias", "entry by entry")
def alibi_by_loops(num_heads, query_length, key_length):
    bias = torch.zeros(num_heads, query_length, key_length)
    for head in range(num_heads):
        slope = 1 / 2 ** (8 * (head + 1) / num_heads)
        for row in range(query_length):
            for key in range(key_length):
                bias[head, row, key] = -slope * abs(key_length - query_length + row - key)
    return bias


@variant("positions.alibi_bias", "the last rows of the square table")
def alibi_by_cutting(num_heads, query_length, key_length):
    position = torch.arange(key_length, dtype=torch.float)
    square = -torch.abs(position[None, :] - position[:, None])
    ratio = 2 ** (-8 / num_heads)
    slopes = torch.tensor([ratio ** (head + 1) for head in range(num_heads)])
    return torch.einsum("h,qk->hqk", slopes, square[key_length - query_length :])


@variant("positions.alibi_bias", "the smaller of two differences")
def alibi_by_minimum(num_heads, query_length, key_length):
    slopes = torch.exp2(-torch.linspace(8 / num_heads, 8, num_heads))
    offset = torch.arange(key_length) - torch.arange(query_length)[:, None] - (key_length - query_length)
    return slopes[:, None, None] * torch.minimum(offset, -offset)


@variant("positions.alibi_bias", "slopes by repeated multiplication")
def alibi_by_products(num_heads, query_length, key_length):
    slopes = torch.full((num_heads,), 2.0 ** (-8 / num_heads), dtype=torch.float64).cumprod(0)
    past = torch.arange(key_length - 1, key_length - query_length - 1, -1).flip(0)
    distance = torch.cdist(past[:, None].double(), torch.arange(key_length)[:, None].double(), p=1)
    return torch.stack([-slope * distance for slope in slopes]).float()


@variant("positions.sinusoidal_positions", "a base that is a tensor in float32")
def sinusoidal_by_tensor_base(length, d_model):
    if d_model % 2 != 0:
        raise ValueError("d_model must be even")
    position = torch.arange(0, length).float().unsqueeze(1)
    rate = 1.0 / torch.pow(torch.tensor(10000.0), torch.arange(0, d_model, 2).float() / d_model)
    table = torch.zeros(length, d_model)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table


@variant("positions.apply_rope", "frequencies in float32, as in most published models")
def rope_by_float_frequencies(x, positions, theta=10000.0):
    width = x.shape[-1]
    if width % 2 != 0:
        raise ValueError(f"width {width} is odd")
    frequencies = 1.0 / (theta ** (torch.arange(0, width, 2).float() / width))
    angles = positions[..., None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    even, odd = x[..., ::2], x[..., 1::2]
    turned = torch.empty_like(x)
    turned[..., ::2] = even * cos - odd * sin
    turned[..., 1::2] = odd * cos + even * sin
    return turned


@variant("positions.apply_rope", "complex numbers of float32, as Llama's")
def rope_by_cis(x, positions, theta=10000.0):
    if x.shape[-1] % 2:
        raise ValueError("the width must be even")
    rate = 1.0 / (theta ** (torch.arange(0, x.shape[-1], 2)[: x.shape[-1] // 2].float() / x.shape[-1]))
    angle = positions.unsqueeze(-1).float() * rate
    turn = torch.polar(torch.ones_like(angle), angle)
    numbers = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(numbers * turn).flatten(-2).type_as(x)


@variant("positions.alibi_bias", "slopes by powers of a tensor in float32")
def alibi_by_tensor_powers(num_heads, query_length, key_length):
    base = torch.pow(torch.tensor(2.0), torch.tensor(-8.0 / num_heads))
    slopes = torch.pow(base, torch.arange(1, num_heads + 1).float())
    query = torch.arange(query_length) + key_length - query_length
    return -(query[:, None] - torch.arange(key_length)[None]).abs().float() * slopes[:, None, None]
