"""Correct solutions of chapter 01 in other styles and by other algorithms."""

import math

import torch
from torch import nn

from autograder.checks import variant
from solutions.attention import scaled_dot_product_attention, softmax


@variant("attention.softmax", "by log-sum-exp")
def softmax_by_logarithms(x, dim=-1):
    return torch.exp(x - torch.logsumexp(x, dim=dim, keepdim=True))


@variant("attention.softmax", "one slice at a time")
def softmax_by_slices(x, dim=-1):
    slices = x.movedim(dim, 0)
    largest = slices[0]
    for scores in slices:
        largest = torch.maximum(largest, scores)
    numerators = [torch.exp(scores - largest) for scores in slices]
    total = sum(numerators)
    return torch.stack([numerator / total for numerator in numerators]).movedim(0, dim)


@variant("attention.softmax", "max().values and a power of e")
def softmax_by_powers(x, dim=-1):
    powers = (x - x.max(dim=dim, keepdim=True).values.detach()).exp()
    return powers.div(torch.sum(powers, dim, True))


@variant("attention.softmax", "by the sigmoid of pairwise differences")
def softmax_by_differences(x, dim=-1):
    last = x.movedim(dim, -1)
    differences = last.unsqueeze(-2) - last.unsqueeze(-1)
    return torch.exp(-torch.logsumexp(differences, dim=-1)).movedim(-1, dim)


@variant("attention.scaled_dot_product_attention", "scales the query, fills with -inf, then replaces NaN")
def attention_by_infinity(query, key, value, mask=None):
    scores = (query / key.shape[-1] ** 0.5) @ key.mT
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf)
    weights = torch.nan_to_num(torch.softmax(scores, dim=-1))
    return weights @ value, weights


@variant("attention.scaled_dot_product_attention", "einsum, and a sum of allowed exponentials")
def attention_by_einsum(query, key, value, mask=None):
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    if mask is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    allowed = mask.expand(scores.shape)
    largest = scores.masked_fill(~allowed, -math.inf).amax(-1, keepdim=True)
    largest = torch.where(torch.isfinite(largest), largest, torch.zeros_like(largest)).detach()
    numerators = torch.exp(torch.where(allowed, scores - largest, torch.zeros_like(scores))) * allowed
    totals = numerators.sum(-1, keepdim=True)
    weights = numerators / torch.where(totals > 0, totals, torch.ones_like(totals))
    return torch.einsum("...qk,...kv->...qv", weights, value), weights


@variant("attention.scaled_dot_product_attention", "one query at a time")
def attention_by_queries(query, key, value, mask=None):
    outputs, rows = [], []
    for i in range(query.size(-2)):
        scores = (key * query[..., i : i + 1, :]).sum(-1) / math.sqrt(query.size(-1))
        if mask is None:
            weights = softmax(scores, dim=-1)
        else:
            row = mask.expand(*scores.shape[:-1], query.size(-2), key.size(-2))[..., i, :]
            weights = softmax(scores.masked_fill(~row, -1e30), dim=-1) * row
        rows.append(weights)
        outputs.append((weights.unsqueeze(-1) * value).sum(-2))
    return torch.stack(outputs, dim=-2), torch.stack(rows, dim=-2)


@variant("attention.causal_mask", "comparing indices")
def causal_mask_by_indices(length):
    positions = torch.arange(length)
    return positions.unsqueeze(0) <= positions.unsqueeze(1)


@variant("attention.causal_mask", "an upper triangle turned round")
def causal_mask_by_complement(length):
    return ~torch.triu(torch.ones((length, length), dtype=torch.bool), diagonal=1)


@variant("attention.causal_mask", "nested lists")
def causal_mask_by_lists(length):
    return torch.tensor([[key <= query for key in range(length)] for query in range(length)])


@variant("attention.causal_mask", "row by row")
def causal_mask_by_rows(length):
    mask = torch.zeros(length, length, dtype=torch.bool)
    for query in range(length):
        mask[query, : query + 1] = True
    return mask


@variant("attention.padding_mask", "indexing with None")
def padding_mask_by_none(token_ids, pad_id):
    return token_ids[:, None, :].ne(pad_id)


@variant("attention.padding_mask", "view and logical_not")
def padding_mask_by_view(token_ids, pad_id):
    batch, length = token_ids.shape
    return torch.logical_not(token_ids == pad_id).view(batch, 1, length)


@variant("attention.padding_mask", "nested lists")
def padding_mask_by_lists(token_ids, pad_id):
    return torch.tensor([[[token != pad_id for token in row]] for row in token_ids.tolist()])


@variant("attention.SelfAttention", "PyTorch's fused attention")
class SelfAttentionFused(nn.Module):
    def __init__(self, d_model, d_head):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d_model, d_head, bias=False) for _ in range(3))

    def forward(self, x, mask=None):
        return nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x), attn_mask=mask)


@variant("attention.SelfAttention", "one product for the three layers")
class SelfAttentionStacked(nn.Module):
    def __init__(self, d_model, d_head):
        super().__init__()
        self.value = nn.Linear(d_model, d_head, False)
        self.key = nn.Linear(d_model, d_head, False)
        self.query = nn.Linear(d_model, d_head, False)

    def forward(self, x, mask=None):
        stacked = torch.cat([self.query.weight, self.key.weight, self.value.weight])
        query, key, value = (x @ stacked.T).chunk(3, dim=-1)
        return scaled_dot_product_attention(query, key, value, mask=mask)[0]


@variant("attention.SelfAttention", "attention written out")
class SelfAttentionWrittenOut(nn.Module):
    def __init__(self, d_model: int, d_head: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(d_head)
        sizes = {"in_features": d_model, "out_features": d_head}
        self.query = nn.Linear(bias=False, **sizes)
        self.key = nn.Linear(bias=False, **sizes)
        self.value = nn.Linear(bias=False, **sizes)

    def forward(self, x, mask=None):
        scores = torch.bmm(self.query(x), self.key(x).transpose(1, 2)).mul(self.scale)
        if mask is not None:
            scores = scores.masked_fill(mask.logical_not(), float("-inf"))
        return torch.bmm(torch.softmax(scores, dim=2), self.value(x))


@variant("attention.softmax", "in float32 inside, as Llama's")
def softmax_in_float32(x, dim=-1):
    scores = x.to(torch.float32)
    powers = torch.exp(scores - scores.max(dim, keepdim=True)[0])
    return (powers / powers.sum(dim, keepdim=True)).to(x.dtype)


@variant("attention.scaled_dot_product_attention", "the root of a tensor in float32")
def attention_by_tensor_root(query, key, value, mask=None):
    d_k = query.shape[-1]
    scores = torch.matmul(query, key.transpose(-2, -1)) / torch.sqrt(torch.tensor(d_k))
    if mask is not None:
        scores = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min)
    weights = softmax(scores, dim=-1)
    if mask is not None:
        weights = weights * mask
    return torch.matmul(weights, value), weights


@variant("attention.SelfAttention", "the scale kept as a buffer in float32")
class SelfAttentionWithBuffer(nn.Module):
    def __init__(self, d_model, d_head):
        super().__init__()
        self.query = nn.Linear(d_model, d_head, bias=False)
        self.key = nn.Linear(d_model, d_head, bias=False)
        self.value = nn.Linear(d_model, d_head, bias=False)
        self.scale = torch.rsqrt(torch.tensor(float(d_head)))

    def forward(self, x, mask=None):
        scores = self.query(x) @ self.key(x).mT * self.scale
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e9)
        return softmax(scores) @ self.value(x)
