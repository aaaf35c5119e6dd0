"""Correct solutions of chapter 11 in other styles and by other algorithms."""

import torch
from torch.nn import functional

from autograder.checks import variant
from solutions.attention import repeat_heads
from solutions.generation import KVCache, check_prompt, draw, repetition_penalty, top_k_filter, top_p_filter


@variant("generation.top_k_filter", "row by row, with sorted")
def top_k_by_rows(logits, k):
    if k < 1 or k > logits.shape[1]:
        raise ValueError("k is out of range")
    rows = []
    for row in logits:
        limit = sorted(row.tolist(), reverse=True)[k - 1]
        rows.append(torch.where(row.double() >= limit, row, -torch.inf))
    return torch.stack(rows)


@variant("generation.top_k_filter", "kthvalue")
def top_k_by_kthvalue(logits, k):
    size = logits.size(1)
    if k <= 0 or k > size:
        raise ValueError(f"k={k}")
    limit = logits.kthvalue(size - k + 1, dim=1, keepdim=True).values
    kept = logits.clone()
    kept[kept < limit] = -torch.inf
    return kept


@variant("generation.top_k_filter", "how many are larger")
def top_k_by_counting(logits, k):
    if k not in range(1, logits.size(-1) + 1):
        raise ValueError("k must be from 1 to V")
    larger = (logits.unsqueeze(1) > logits.unsqueeze(2)).sum(-1)
    return logits + torch.zeros_like(logits).masked_fill(larger >= k, float("-inf"))


@variant("generation.top_p_filter", "a loop over sorted tokens")
def top_p_by_loop(logits, p):
    if p <= 0 or p > 1:
        raise ValueError("p is out of range")
    if p >= 1:
        return logits.clone()
    result = torch.full_like(logits, float("-inf"))
    for row, (values, shares) in enumerate(zip(logits, logits.softmax(-1), strict=True)):
        total, limit = 0.0, float("inf")
        for place in values.argsort(descending=True).tolist():
            if total >= p and values[place] < limit:
                break
            total += float(shares[place])
            limit = float(values[place])
            result[row, place] = values[place]
    return result


@variant("generation.top_p_filter", "the sum of all that are likelier")
def top_p_by_pairs(logits, p):
    if not (p > 0 and p <= 1):
        raise ValueError("0 < p <= 1")
    if p == 1:
        return logits
    shares = logits.softmax(dim=1)
    likelier = logits.unsqueeze(1) > logits.unsqueeze(2)  # [b, i, j]: j is likelier than i
    ahead = (likelier * shares.unsqueeze(1)).sum(-1)
    return torch.where(ahead < p, logits, torch.full_like(logits, float("-inf")))


@variant("generation.top_p_filter", "from the least likely up")
def top_p_from_below(logits, p):
    if p > 1 or p <= 0:
        raise ValueError(p)
    if p == 1.0:
        return logits
    ordered, _ = torch.sort(logits, dim=-1)
    here_and_below = functional.softmax(ordered, dim=-1).cumsum(dim=-1)
    stays = here_and_below > 1 - p
    stays[:, -1] = True
    first = stays.int().argmax(-1, keepdim=True)
    return logits.masked_fill(logits < ordered.gather(-1, first), float("-inf"))


@variant("generation.repetition_penalty", "gather and scatter")
def penalty_by_gather(logits, ids, penalty):
    if penalty < 1.0:
        raise ValueError("the penalty must be at least 1")
    picked = logits.gather(1, ids)
    picked = torch.where(picked < 0, picked * penalty, picked / penalty)
    return logits.scatter(1, ids, picked)


@variant("generation.repetition_penalty", "row by row, with sets")
def penalty_by_sets(logits, ids, penalty):
    if not penalty >= 1:
        raise ValueError("too small")
    result = logits.clone()
    for row, text in enumerate(ids.tolist()):
        for token in set(text):
            result[row, token] *= penalty if result[row, token] < 0 else 1 / penalty
    return result


@variant("generation.repetition_penalty", "one-hot")
def penalty_by_one_hot(logits, ids, penalty):
    if penalty < 1:
        raise ValueError("penalty")
    seen = functional.one_hot(ids, logits.size(-1)).amax(1).to(logits.dtype)
    factor = torch.where(logits > 0, 1 / penalty, penalty).to(logits.dtype)
    return logits * (1 + seen * (factor - 1))


@variant("generation.draw", "early returns")
def draw_early(logits, temperature, top_k, top_p, generator):
    if not temperature:
        return torch.max(logits, dim=1, keepdim=True).indices
    scaled = logits.div(temperature)
    for filtered, setting in ((top_k_filter, top_k), (top_p_filter, top_p)):
        if setting is not None:
            scaled = filtered(scaled, setting)
    return torch.softmax(scaled, dim=-1).multinomial(num_samples=1, generator=generator)


@variant("generation.draw", "defaults that change nothing")
def draw_by_defaults(logits, temperature, top_k, top_p, generator):
    if temperature == 0:
        return logits.topk(1).indices
    k = logits.size(-1) if top_k is None else top_k
    p = 1.0 if top_p is None else top_p
    logits = top_p_filter(top_k_filter(logits / temperature, k), p)
    return torch.multinomial(functional.softmax(logits, dim=1), num_samples=1, generator=generator)


@variant("generation.draw", "log-softmax and exp")
def draw_by_exp(logits, temperature, top_k, top_p, generator):
    if temperature <= 0:
        return logits.argmax(dim=-1).unsqueeze(-1)
    logits = logits * (1 / temperature)
    logits = logits if top_k is None else top_k_filter(logits, top_k)
    logits = logits if top_p is None else top_p_filter(logits, top_p)
    return torch.multinomial(logits.log_softmax(-1).exp(), 1, True, generator=generator)
