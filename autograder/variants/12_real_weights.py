"""Correct solutions of chapter 12 in other styles and by other algorithms."""

import contextlib
import math
import re

import numpy as np
import torch
from torch.nn import functional

from autograder.checks import variant
from solutions.pretrained import BERT_NAMES, GPT2_NAMES, rename_weights


@variant("pretrained.rename_weights", "part by part")
def part_by_part(weights, names, prefix=""):
    result = {}
    for published in weights:
        name = published
        if prefix and name.startswith(prefix):
            name = name[len(prefix) :]
        *parts, kind = name.split(".")
        block = None
        for place in range(1, len(parts) - 1):
            if parts[place].isdigit():
                block, parts[place] = parts[place], "*"
                break
        layer = ".".join(parts)
        if layer not in names:
            raise ValueError(f"{published}: no such layer")
        if names[layer] is None:
            continue
        new = names[layer] if block is None else names[layer].replace("*", block)
        kind = "weight" if kind == "gamma" else "bias" if kind == "beta" else kind
        new = new + "." + kind
        if new in result:
            first, second = result[new], weights[published]
            if first.shape != second.shape or bool((first != second).any()):
                raise ValueError(published + " does not agree with another tensor")
            continue
        result[new] = weights[published]
    return result


@variant("pretrained.rename_weights", "every pattern tried on every name")
def patterns_tried(weights, names, prefix=""):
    patterns = [(re.compile(re.escape(layer).replace(r"\*", r"(\d+)")), ours) for layer, ours in names.items()]

    def renamed(name):
        layer, kind = name.removeprefix(prefix).rsplit(".", 1)
        for pattern, ours in patterns:
            found = pattern.fullmatch(layer)
            if found:
                if ours is None:
                    return None
                kind = {"gamma": "weight", "beta": "bias"}.get(kind, kind)
                return ".".join([*(found[1] if part == "*" else part for part in ours.split(".")), kind])
        raise ValueError(f"I do not know what {name} is")

    new_names = {name: renamed(name) for name in weights}
    groups = {}
    for name, new in new_names.items():
        if new is not None:
            groups.setdefault(new, []).append(name)
    for new, olds in groups.items():
        for old in olds[1:]:
            if not torch.equal(weights[olds[0]], weights[old]):
                raise ValueError(f"{old} and {olds[0]} would both be {new}")
    return {new: weights[olds[-1]] for new, olds in groups.items()}


@variant("pretrained.rename_weights", "the number cut out with one expression")
def one_expression(weights, names, prefix=""):
    renamed = {}
    for name in sorted(weights):
        whole = re.fullmatch(r"(.*)\.([^.]+)", name[len(prefix) if name.startswith(prefix) else 0 :])
        layer, kind = whole.groups()
        in_block = re.fullmatch(r"(.+?)\.(\d+)\.(.+)", layer)
        before, number, behind = in_block.groups() if in_block else (layer, "", "")
        key = f"{before}.*.{behind}" if number else before
        try:
            ours = names[key]
        except KeyError:
            raise ValueError(f"no place for {name}") from None
        if ours:
            target = f"{ours.replace('*', number) if number else ours}."
            target += kind.replace("gamma", "weight") if kind == "gamma" else "bias" if kind == "beta" else kind
            if target in renamed and not np.array_equal(renamed[target].numpy(), weights[name].numpy()):
                raise ValueError(f"{name}: two tensors, one name")
            renamed[target] = weights[name]
    return renamed


@variant("pretrained.convert_bert", "the table looked up with get")
def table_by_get(weights):
    renamed = rename_weights(weights, BERT_NAMES, "bert.")
    table = renamed.get("embedding.tokens.weight")
    if table is not None and "output.bias" in renamed and "output.weight" not in renamed:
        renamed["output.weight"] = table
    return renamed


@variant("pretrained.convert_bert", "two dicts joined")
def two_dicts_joined(weights):
    given = rename_weights(dict(weights), dict(BERT_NAMES), prefix="bert.")
    needed = {"output.bias", "embedding.tokens.weight"}
    added = {"output.weight": given["embedding.tokens.weight"].clone()} if needed <= set(given) else {}
    return {**added, **given}


@variant("pretrained.convert_bert", "prefix taken off beforehand")
def prefix_beforehand(weights):
    plain = {}
    for name, tensor in weights.items():
        plain[name[5:] if name[:5] == "bert." else name] = tensor
    try:
        converted = rename_weights(plain, BERT_NAMES)
    except ValueError as error:
        raise ValueError(f"this is no BERT: {error}") from error
    if "output.weight" not in converted:
        with contextlib.suppress(KeyError):
            table = converted["embedding.tokens.weight"]
            converted |= {"output.bias": converted["output.bias"], "output.weight": table}
    return converted


@variant("pretrained.convert_gpt2", "cut before it is transposed")
def cut_first(weights):
    converted = {}
    for name, tensor in rename_weights(weights, GPT2_NAMES, "transformer.").items():
        in_block = name.split(".")[0] == "blocks"
        if "query_key_value" in name:
            width, rest = divmod(tensor.shape[-1], 3)
            if rest:
                raise ValueError(f"{name} has {tensor.shape[-1]} columns")
            for place, part in enumerate(["query", "key", "value"]):
                piece = tensor[..., place * width : (place + 1) * width]
                new = name.replace("query_key_value", part)
                converted[new] = piece.t().contiguous() if piece.ndim == 2 else piece.clone()
        elif in_block and tensor.ndim == 2:
            converted[name] = tensor.transpose(0, 1)
        else:
            converted[name] = tensor
    if "output.weight" not in converted and "embedding.tokens.weight" in converted:
        converted["output.weight"] = converted["embedding.tokens.weight"]
    return converted


@variant("pretrained.convert_gpt2", "in three passes")
def three_passes(weights):
    ours = rename_weights(weights, GPT2_NAMES, prefix="transformer.")
    ours = {k: v.permute(1, 0) if k.startswith("blocks") and len(v.shape) == 2 else v for k, v in ours.items()}
    for name in [name for name in ours if ".query_key_value." in name]:
        joined = ours.pop(name)
        if len(joined) % 3:
            raise ValueError("not three equal parts: " + name)
        before, behind = name.split("query_key_value")
        parts = joined.unflatten(0, (3, -1)).unbind(0)
        ours.update({f"{before}{part}{behind}": one for part, one in zip("qkv", parts, strict=True)})
    for short, long in (("q", "query"), ("k", "key"), ("v", "value")):
        ours = {name.replace(f".attention.{short}.", f".attention.{long}."): one for name, one in ours.items()}
    tied = {"output.weight": ours["embedding.tokens.weight"]} if "embedding.tokens.weight" in ours else {}
    return tied | ours


@variant("pretrained.convert_gpt2", "rows picked by number, in NumPy")
def rows_by_number(weights):
    converted = {}
    for name, tensor in rename_weights(weights, GPT2_NAMES, prefix="transformer.").items():
        array = tensor.numpy()
        if name.startswith("blocks.") and array.ndim == 2:
            array = array.T
        if "query_key_value" in name:
            if array.shape[0] % 3 != 0:
                raise ValueError(f"{name!r}: {array.shape}")
            rows = np.arange(array.shape[0]) // (array.shape[0] // 3)
            for number, part in enumerate(("query", "key", "value")):
                converted[name.replace("query_key_value", part)] = torch.from_numpy(array[rows == number].copy())
        else:
            converted[name] = torch.from_numpy(array.copy())
    table = converted.get("embedding.tokens.weight")
    if table is not None:
        converted.setdefault("output.weight", table)
    return converted


@variant("pretrained.mean_pool", "where")
def pool_by_where(vectors, mask):
    total = torch.where(mask[..., None], vectors, torch.zeros_like(vectors)).sum(dim=1)
    count = mask.sum(dim=1)[:, None]
    return torch.where(count > 0, total / count, torch.zeros_like(total))


@variant("pretrained.mean_pool", "text by text")
def pool_by_rows(vectors, mask):
    rows = []
    for row, real in zip(vectors, mask, strict=True):
        kept = row[real]
        rows.append(kept.mean(0) if len(kept) else torch.zeros(row.size(-1), dtype=row.dtype))
    return torch.stack(rows)


@variant("pretrained.mean_pool", "weights in a product of matrices")
def pool_by_product(vectors, mask):
    weight = mask.to(vectors.dtype)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-9)
    clean = vectors.clone()
    clean[~mask] = 0
    return torch.einsum("bt,btd->bd", weight, clean)


@variant("pretrained.mean_pool", "NaN taken out afterwards")
def pool_with_nanmean(vectors, mask):
    only_real = vectors.masked_fill(mask.logical_not().unsqueeze(2), math.nan)
    return only_real.nanmean(dim=1).nan_to_num(nan=0.0)


@variant("pretrained.search", "the result of topk itself")
def topk_itself(query, vectors, k):
    if k < 1 or k > vectors.size(0):
        raise ValueError(f"k is {k}")
    lengths = query.norm(dim=-1, keepdim=True) * vectors.norm(dim=-1)
    products = torch.einsum("...d,nd->...n", query, vectors)
    return (products / lengths.clamp_min(1e-30)).topk(k)


@variant("pretrained.search", "sorted, with a small number in the root")
def sorted_cosines(query, vectors, k):
    if k not in range(1, len(vectors) + 1):
        raise ValueError("there are not so many")

    def unit(x):
        return x / (x.pow(2).sum(-1, keepdim=True) + 1e-12).sqrt()

    cosines, places = torch.sort(unit(query).matmul(unit(vectors).mT), dim=-1, descending=True)
    return cosines[..., :k], places[..., :k]


@variant("pretrained.search", "one by one in Python")
def one_by_one(query, vectors, k):
    count = len(vectors)
    if not (k >= 1 and k <= count):
        raise ValueError("k")
    rows, single = (query.unsqueeze(0), True) if query.dim() == 1 else (query, False)
    found = []
    for row in rows.tolist():
        scored = []
        for place, vector in enumerate(vectors.tolist()):
            length = math.hypot(*row) * math.hypot(*vector)
            cosine = sum(a * b for a, b in zip(row, vector, strict=True)) / length if length else 0.0
            scored.append((cosine, -place))
        found.append(sorted(scored, reverse=True)[:k])
    cosines = torch.tensor([[cosine for cosine, _ in row] for row in found], dtype=query.dtype)
    places = torch.tensor([[-place for _, place in row] for row in found])
    return (cosines[0], places[0]) if single else (cosines, places)


@variant("pretrained.search", "the largest taken out k times")
def largest_k_times(query, vectors, k):
    if k < 1 or k > len(vectors):
        raise ValueError("k must be from 1 to N")
    small = torch.finfo(vectors.dtype).eps
    left = (query / (query.norm(dim=-1, keepdim=True) + small)) @ (vectors / (vectors.norm(dim=1)[:, None] + small)).T
    cosines, places = [], []
    for _ in range(k):
        best = left.max(dim=-1, keepdim=True)
        cosines.append(best.values)
        places.append(best.indices.to(torch.int32))
        left = left.scatter(-1, best.indices, -torch.inf)
    return torch.cat(cosines, dim=-1), torch.cat(places, dim=-1)


@variant("pretrained.search", "cosine_similarity of PyTorch")
def cosines_of_pytorch(query, vectors, k):
    if not 0 < k <= vectors.shape[0]:
        raise ValueError(f"{k} of {vectors.shape[0]}")
    cosines = functional.cosine_similarity(query[..., None, :], vectors, dim=-1)
    order = cosines.argsort(dim=-1, descending=True)[..., :k]
    return cosines.gather(-1, order), order


@variant("pretrained.mean_pool", "a mask in float32, as in sentence-transformers")
def pool_by_float_mask(vectors, mask):
    weights = mask.unsqueeze(-1).expand(vectors.size()).float()
    total = torch.sum(vectors.masked_fill(~mask.unsqueeze(-1), 0.0).float() * weights, 1)
    return (total / torch.clamp(weights.sum(1), min=1e-9)).to(vectors.dtype)


@variant("pretrained.search", "lengths in float32")
def search_by_float_lengths(query, vectors, k):
    if k < 1 or k > vectors.shape[0]:
        raise ValueError("k")
    lengths = torch.linalg.vector_norm(vectors.float(), dim=-1), torch.linalg.vector_norm(query.float(), dim=-1)
    tiny = torch.tensor(1e-30)
    cosines = (query / torch.maximum(lengths[1], tiny).unsqueeze(-1)) @ (
        vectors / torch.maximum(lengths[0], tiny).unsqueeze(-1)
    ).T
    best = cosines.to(vectors.dtype).topk(k)
    return best.values, best.indices
