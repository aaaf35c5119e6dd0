"""Correct solutions of chapter 02 in other styles and by other algorithms."""

import torch
from torch import nn

from autograder.checks import variant
from solutions.attention import mask_for_heads, merge_heads, repeat_heads, scaled_dot_product_attention, split_heads


@variant("attention.split_heads", "view and permute")
def split_by_view(x, num_heads):
    batch, length, width = x.shape
    d_head, rest = divmod(width, num_heads)
    if rest:
        raise ValueError(f"{width} components cannot be shared among {num_heads} heads")
    return x.view(batch, length, num_heads, d_head).permute(0, 2, 1, 3)


@variant("attention.split_heads", "chunks stacked")
def split_by_chunks(x, num_heads):
    if x.shape[-1] % num_heads:
        raise ValueError("num_heads must divide the width of x")
    return torch.stack(torch.chunk(x, num_heads, dim=-1), dim=1)


@variant("attention.split_heads", "slices")
def split_by_slices(x, num_heads):
    width = x.size(2)
    d_head = width // num_heads
    if d_head * num_heads != width:
        raise ValueError(f"num_heads={num_heads}, width={width}")
    heads = []
    for head in range(num_heads):
        heads.append(x[:, :, head * d_head : (head + 1) * d_head].unsqueeze(1))
    return torch.cat(heads, dim=1)


@variant("attention.merge_heads", "permute, contiguous, view")
def merge_by_view(x):
    batch, heads, length, d_head = x.size()
    return x.permute(0, 2, 1, 3).contiguous().view(batch, length, heads * d_head)


@variant("attention.merge_heads", "heads concatenated")
def merge_by_concatenation(x):
    return torch.cat([x[:, head] for head in range(x.shape[1])], dim=-1)


@variant("attention.merge_heads", "position by position")
def merge_by_positions(x):
    return torch.stack([x[:, :, t].reshape(len(x), -1) for t in range(x.size(2))], dim=1)


@variant("attention.repeat_heads", "expand and flatten")
def repeat_by_expansion(x, num_heads):
    batch, shared, length, d_head = x.shape
    group, rest = divmod(num_heads, shared)
    if rest or group == 0:
        raise ValueError(f"{num_heads} heads cannot share {shared}")
    return x[:, :, None].expand(batch, shared, group, length, d_head).reshape(batch, num_heads, length, d_head)


@variant("attention.repeat_heads", "by index")
def repeat_by_index(x, num_heads):
    if num_heads % x.shape[1]:
        raise ValueError("num_heads must be a multiple of the heads in x")
    group = num_heads // x.shape[1]
    return x[:, torch.arange(num_heads) // group]


@variant("attention.repeat_heads", "a list of heads")
def repeat_by_list(x, num_heads):
    group = num_heads / x.size(1)
    if not group.is_integer():
        raise ValueError(f"{group} query heads a head")
    return torch.stack([head for head in x.unbind(1) for _ in range(int(group))], dim=1)


@variant("attention.MultiHeadAttention", "einsum, and dropout from functional")
class MultiHeadByEinsum(nn.Module):
    def __init__(self, d_model, num_heads, num_kv_heads=None, bias=True, dropout=0.0):
        super().__init__()
        shared = num_heads if num_kv_heads is None else num_kv_heads
        self.d_head, rest = divmod(d_model, num_heads)
        if rest or num_heads % shared:
            raise ValueError(f"{d_model} components, {num_heads} heads, {shared} key and value heads")
        self.group = num_heads // shared
        self.p = dropout
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, shared * self.d_head, bias)
        self.value = nn.Linear(d_model, shared * self.d_head, bias)
        self.output = nn.Linear(d_model, d_model, bias)

    def forward(self, x, context=None, mask=None, attend=scaled_dot_product_attention):
        if context is None:
            context = x
        q, k, v = (
            layer(source).unflatten(-1, (-1, self.d_head)).movedim(1, 2)
            for layer, source in ((self.query, x), (self.key, context), (self.value, context))
        )
        k, v = (torch.repeat_interleave(tensor, self.group, 1) for tensor in (k, v))
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        mixed, weights = attend(q, k, v, mask)
        if weights is not None:
            left = nn.functional.dropout(weights, self.p, self.training)
            mixed = torch.einsum("bhqk,bhkd->bhqd", left, v)
        return self.output(mixed.transpose(1, 2).reshape(x.shape))


@variant("attention.MultiHeadAttention", "a sum over heads, each with its rows of W_O")
class MultiHeadBySum(nn.Module):
    def __init__(self, d_model: int, num_heads: int, num_kv_heads: int | None = None, bias=True, dropout=0.0) -> None:
        super().__init__()
        if num_kv_heads is None:
            num_kv_heads = num_heads
        for larger, smaller in ((d_model, num_heads), (num_heads, num_kv_heads)):
            if larger % smaller:
                raise ValueError(f"{smaller} must divide {larger}")
        narrow = d_model // num_heads * num_kv_heads
        self.output = nn.Linear(d_model, d_model, bias=bias)
        self.value = nn.Linear(d_model, narrow, bias=bias)
        self.key = nn.Linear(d_model, narrow, bias=bias)
        self.query = nn.Linear(d_model, d_model, bias=bias)
        self.drop = nn.Dropout(p=dropout)
        self.heads, self.shared = num_heads, num_kv_heads

    def forward(self, x, context=None, mask=None, attend=scaled_dot_product_attention):
        source = context if context is not None else x
        query = split_heads(self.query(x), self.heads)
        key = repeat_heads(split_heads(self.key(source), self.shared), self.heads)
        value = repeat_heads(split_heads(self.value(source), self.shared), self.heads)
        mixed, weights = attend(query, key, value, mask_for_heads(mask))
        if weights is not None and self.drop.p and self.training:
            mixed = torch.matmul(self.drop(weights), value)
        blocks = self.output.weight.T.unflatten(0, (self.heads, -1))
        total = sum(mixed[:, head] @ blocks[head] for head in range(self.heads))
        return total if self.output.bias is None else total + self.output.bias


@variant("attention.MultiHeadAttention", "PyTorch's fused attention unless told otherwise")
class MultiHeadFused(nn.Module):
    def __init__(self, d_model, num_heads, num_kv_heads=None, bias=True, dropout=0.0):
        super().__init__()
        if d_model % num_heads != 0:
            raise ValueError("d_model must be a multiple of num_heads")
        self.num_kv_heads = num_kv_heads or num_heads
        if num_heads % self.num_kv_heads != 0:
            raise ValueError("num_heads must be a multiple of num_kv_heads")
        self.num_heads, self.dropout = num_heads, dropout
        self.value = nn.Linear(d_model, d_model * self.num_kv_heads // num_heads, bias=bias)
        self.key = nn.Linear(d_model, d_model * self.num_kv_heads // num_heads, bias=bias)
        self.query, self.output = (nn.Linear(d_model, d_model, bias=bias) for _ in range(2))

    def forward(self, x, context=None, mask=None, attend=scaled_dot_product_attention):
        context = x if context is None else context
        query = split_heads(self.query(x), self.num_heads)
        key, value = (split_heads(layer(context), self.num_kv_heads) for layer in (self.key, self.value))
        mask = mask_for_heads(mask)
        if attend is scaled_dot_product_attention:
            rate = self.dropout if self.training else 0.0
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, mask, rate, enable_gqa=True)
        else:
            mixed, weights = attend(query, repeat_heads(key, self.num_heads), repeat_heads(value, self.num_heads), mask)
            if weights is not None and self.training:
                weights = nn.functional.dropout(weights, self.dropout)
                mixed = weights @ repeat_heads(value, self.num_heads)
        return self.output(merge_heads(mixed))
