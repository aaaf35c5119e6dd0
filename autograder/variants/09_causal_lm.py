"""Correct solutions of chapter 09 in other styles and by other algorithms."""

import itertools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autograder.checks import variant
from solutions.attention import causal_mask
from solutions.block import TransformerBlock, attention_function, make_norm
from solutions.transformer import Embedding


@variant("gpt.pack_documents", "one stream, cut afterwards")
def stream_cut_afterwards(documents, context_length, end_id):
    stream, owners = [end_id], []
    for number, document in enumerate(documents):
        stream.extend(document)
        stream.append(end_id)
        owners.extend([number] * (len(document) + 1))
    if not owners:
        raise ValueError("no documents")
    rows = math.ceil(len(owners) / context_length)
    inputs = torch.full((rows * context_length,), end_id)
    targets = torch.full((rows * context_length,), -100)
    numbers = torch.full((rows * context_length,), -1)
    tokens = torch.tensor(stream)
    inputs[: len(owners)] = tokens[:-1]
    targets[: len(owners)] = tokens[1:]
    numbers[: len(owners)] = torch.tensor(owners)
    return tuple(flat.reshape(rows, context_length) for flat in (inputs, targets, numbers))


@variant("gpt.pack_documents", "row by row")
def row_by_row(documents, context_length, end_id):
    rows = [[], [], []]
    current = [[], [], []]
    for number, document in enumerate(documents):
        whole = [end_id, *document, end_id]
        for before, after in itertools.pairwise(whole):
            for part, value in zip(current, (before, after, number), strict=True):
                part.append(value)
            if len(current[0]) == context_length:
                for kept, part in zip(rows, current, strict=True):
                    kept.append(part)
                current = [[], [], []]
    if current[0]:
        for kept, part, filler in zip(rows, current, (end_id, -100, -1), strict=True):
            kept.append(part + [filler] * (context_length - len(part)))
    if not rows[0]:
        raise ValueError("there is nothing to pack")
    return torch.tensor(rows[0]), torch.tensor(rows[1]), torch.tensor(rows[2])


@variant("gpt.pack_documents", "tensors joined and padded")
def joined_tensors(documents, context_length, end_id):
    end = torch.tensor([end_id])
    documents = [torch.tensor(list(document), dtype=torch.long) for document in documents]
    if len(documents) == 0:
        raise ValueError("at least one document is needed")
    inputs = torch.cat([torch.cat([end, document]) for document in documents])
    targets = torch.cat([torch.cat([document, end]) for document in documents])
    lengths = torch.tensor([len(document) + 1 for document in documents])
    numbers = torch.repeat_interleave(torch.arange(len(documents)), lengths)
    missing = (context_length - len(inputs) % context_length) % context_length
    filled = [
        functional.pad(flat, (0, missing), value=filler)
        for flat, filler in ((inputs, end_id), (targets, -100), (numbers, -1))
    ]
    first, second, third = (flat.unflatten(0, (-1, context_length)) for flat in filled)
    return first, second, third


@variant("gpt.CausalLanguageModel", "the mask by indices")
class ModelByIndices(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList([TransformerBlock(config) for _ in range(config.num_layers)])
        self.norm = make_norm(config) if config.norm_first else nn.Identity()
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.output.weight = self.embedding.tokens.weight

    def forward(self, ids, cache=None, documents=None):
        known = cache.length if cache is not None else 0
        query = torch.arange(known, known + ids.shape[1], device=ids.device)
        key = torch.arange(known + ids.shape[1], device=ids.device)
        mask = key[None, :] <= query[:, None]
        if documents is not None:
            mask = mask[None] * documents[:, :, None].eq(documents[:, None, :])
        plain = attention_function(self.config, self.training)
        stream = self.embedding(ids, start=known)
        for number in range(len(self.blocks)):
            mix = plain if cache is None else cache.attend(number, plain)
            stream = self.blocks[number](stream, mask=mask, attend=mix)
        return self.output(self.norm(stream))


@variant("gpt.CausalLanguageModel", "logits by a product with the table")
class ModelByProduct(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList()
        for _ in range(config.num_layers):
            self.blocks.append(TransformerBlock(config))
        if config.norm_first:
            self.norm = make_norm(config)
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.embedding = Embedding(config)
        if config.tie_embeddings:
            self.output.weight = self.embedding.tokens.weight

    def forward(self, ids, cache=None, documents=None):
        start = 0 if cache is None else cache.length
        allowed = causal_mask(start + ids.size(1))[start:]
        if documents is not None:
            same = documents.unsqueeze(1) == documents.unsqueeze(2)
            allowed = torch.logical_and(allowed, same)
        x = self.embedding(ids, start)
        attend = attention_function(self.config, training=self.training)
        for layer, block in enumerate(self.blocks):
            if cache is None:
                x = block(x, allowed, attend=attend)
            else:
                x = block(x, allowed, attend=cache.attend(layer, attend))
        if self.config.norm_first:
            x = self.norm(x)
        return x @ self.output.weight.T


@variant("gpt.CausalLanguageModel", "text, cache and documents apart")
class ModelInParts(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.embedding = config, Embedding(config)
        self.output = nn.Linear(config.d_model, config.vocab_size, False)
        if config.tie_embeddings:
            self.embedding.tokens.weight = self.output.weight
        self.norm = make_norm(config) if config.norm_first else nn.Sequential()
        self.blocks = nn.Sequential(*(TransformerBlock(config) for _ in range(config.num_layers)))

    def attends(self, cache):
        plain = attention_function(self.config, self.training)
        return [plain if cache is None else cache.attend(layer, plain) for layer in range(len(self.blocks))]

    def forward(self, ids, cache=None, documents=None):
        length, earlier = ids.size(1), cache.length if cache else 0
        mask = torch.ones(length, earlier + length, dtype=torch.bool, device=ids.device).tril(earlier)
        if documents is not None:
            mask = mask & (documents[..., None] == documents[..., None, :])
        x = self.embedding(ids, start=earlier)
        for block, attend in zip(self.blocks, self.attends(cache), strict=True):
            x = block(x, mask, attend=attend)
        return self.output(self.norm(x))


@variant("gpt.perplexity", "each token by itself")
def token_by_token(model, ids, context_length, stride):
    if ids.numel() < 2 or stride < 1 or stride > context_length:
        raise ValueError("nothing to score, or a stride that leaves tokens out")
    mode = model.training
    model.eval()
    losses = []
    with torch.inference_mode():
        for target in range(1, len(ids)):
            # The first window that reaches this target begins at a multiple of the stride.
            start = max(0, math.ceil((target - context_length) / stride)) * stride
            logits = model(ids[start:target].unsqueeze(0))[0, -1]
            losses.append(-functional.log_softmax(logits, dim=-1)[ids[target]].double().item())
    model.train(mode)
    return float(np.exp(np.mean(losses)))


@variant("gpt.perplexity", "earlier targets ignored")
@torch.no_grad()
def earlier_targets_ignored(model, ids, context_length, stride):
    if len(ids) < 2:
        raise ValueError("there is nothing to predict")
    if not 0 < stride <= context_length:
        raise ValueError("the stride must be positive and at most the context length")
    was_training = model.training
    model.eval()
    total, last = 0.0, 0
    start = 0
    while last < len(ids) - 1:
        end = min(start + context_length, len(ids) - 1)
        inputs, targets = ids[start:end], ids[start + 1 : end + 1].clone()
        targets[: last - start] = -100
        total += functional.cross_entropy(model(inputs[None])[0], targets, reduction="sum").item()
        start, last = start + stride, end
    if was_training:
        model.train()
    return math.exp(total / (len(ids) - 1))


@variant("gpt.perplexity", "log-probabilities gathered, then one mean")
def gathered(model, ids, context_length, stride):
    if len(ids) <= 1 or stride not in range(1, context_length + 1):
        raise ValueError("a text of two tokens and a stride from 1 to context_length are needed")
    training, pieces, scored = model.training, [], 0
    model.train(False)
    try:
        with torch.no_grad():
            for start in itertools.count(0, stride):
                window = ids[start : start + context_length + 1]
                log_p = model(window[:-1].view(1, -1)).log_softmax(-1)[0]
                found = log_p.gather(-1, window[1:, None])[:, 0]
                fresh = start + len(found) - scored
                pieces.append(found[len(found) - fresh :])
                scored += fresh
                if scored >= len(ids) - 1:
                    break
    finally:
        model.train(training)
    return torch.cat(pieces).mean().neg().exp().item()


@variant("gpt.fit_power_law", "golden section and numpy's least squares")
def golden_section(sizes, losses):
    if len(sizes) != len(losses):
        raise ValueError("as many losses as sizes are needed")
    if len(np.unique(sizes)) < 3:
        raise ValueError("three different sizes are needed")
    x, y = np.asarray(sizes, dtype=float), np.asarray(losses, dtype=float)
    unit = np.exp(np.log(x).mean())

    def fitted(exponent):
        matrix = np.stack([(x / unit) ** -exponent, np.ones_like(x)], axis=1)
        solution, *_ = np.linalg.lstsq(matrix, y, rcond=None)
        return ((matrix @ solution - y) ** 2).sum(), solution

    # The best of a coarse grid first: the golden section wants one valley.
    grid = np.linspace(0.01, 3, 200)
    place = int(np.argmin([fitted(exponent)[0] for exponent in grid]))
    low, high = grid[max(place - 1, 0)], grid[min(place + 1, 199)]
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if fitted(left)[0] < fitted(right)[0]:
            high = right
        else:
            low = left
    exponent = (low + high) / 2
    coefficient, floor = fitted(exponent)[1]
    return float(exponent), float(coefficient * unit**exponent), float(floor)


@variant("gpt.fit_power_law", "ternary search with the normal equations")
def ternary_search(sizes, losses):
    if not len(sizes) == len(losses) or len({float(size) for size in sizes}) < 3:
        raise ValueError("sizes and losses do not settle a curve")
    smallest = min(sizes)

    def solve(exponent):
        x = [(size / smallest) ** -exponent for size in sizes]
        n, sx, sy = len(x), sum(x), sum(losses)
        mx, my = sx / n, sy / n
        slope = sum((a - mx) * (b - my) for a, b in zip(x, losses, strict=True)) / sum((a - mx) ** 2 for a in x)
        floor = my - slope * mx
        error = sum((b - floor - slope * a) ** 2 for a, b in zip(x, losses, strict=True))
        return error, slope, floor

    candidates = [0.01 + 0.02 * step for step in range(150)]
    best = min(candidates, key=lambda exponent: solve(exponent)[0])
    low, high = max(best - 0.02, 0.01), best + 0.02
    while high - low > 1e-10:
        third = (high - low) / 3
        if solve(low + third)[0] <= solve(high - third)[0]:
            high = high - third
        else:
            low = low + third
    _, slope, floor = solve(low)
    return low, slope * smallest**low, floor


@variant("gpt.fit_power_law", "Gauss-Newton from the best of a grid")
def gauss_newton(sizes, losses):
    if len(sizes) != len(losses) or len(set(sizes)) < 3:
        raise ValueError("too few points")
    logs = torch.tensor(sizes, dtype=torch.float64).log()
    middle = logs.mean()
    y = torch.tensor(losses, dtype=torch.float64)

    def curve(exponent):
        return torch.exp(-exponent * (logs - middle))

    def line(exponent):
        matrix = torch.stack([curve(exponent), torch.ones_like(y)], dim=1)
        solution = torch.linalg.lstsq(matrix, y.unsqueeze(1), driver="gelsd").solution[:, 0]
        return (matrix @ solution - y).square().sum().item(), solution

    exponent = min((0.01 + 0.01 * step for step in range(300)), key=lambda e: line(e)[0])
    for _ in range(100):
        error, solution = line(exponent)
        slope = -solution[0] * (logs - middle) * curve(exponent)
        matrix = torch.stack([slope, curve(exponent), torch.ones_like(y)], dim=1)
        rest = y - solution[0] * curve(exponent) - solution[1]
        step = torch.linalg.lstsq(matrix, rest.unsqueeze(1), driver="gelsd").solution[0, 0].item()
        while abs(step) > 1e-14 and line(exponent + step)[0] > error:
            step /= 2
        exponent += step
        if abs(step) < 1e-13:
            break
    _, (slope, floor) = line(exponent)
    return exponent, (slope * torch.exp(exponent * middle)).item(), floor.item()


@variant("gpt.perplexity", "the power of a tensor in float32")
@torch.no_grad()
def power_of_a_tensor(model, ids, context_length, stride):
    if len(ids) < 2 or not 1 <= stride <= context_length:
        raise ValueError("nothing to score, or a stride that leaves tokens out")
    training = model.training
    model.eval()
    losses, end = [], 0
    for start in range(0, len(ids), stride):
        if end == len(ids) - 1:
            break
        inputs, targets = ids[start : start + context_length][: len(ids) - 1 - start], ids[start + 1 :]
        new = start + len(inputs) - end
        logits = model(inputs.unsqueeze(0))[0]
        losses += functional.cross_entropy(logits[-new:], targets[: len(inputs)][-new:], reduction="none").tolist()
        end = start + len(inputs)
    model.train(training)
    mean = torch.tensor(losses).mean()
    return torch.exp(torch.tensor(mean.item())).item()
