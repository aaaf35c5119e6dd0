"""Correct solutions of chapter 12 in other styles and by other algorithms."""

import re

import torch
from torch.nn import functional

from autograder.checks import variant
from solutions.pretrained import BERT_NAMES, GPT2_NAMES, rename_weights


@variant("pretrained.rename_weights", "piece by piece")
def rename_by_pieces(weights, names, prefix=""):
    result = {}
    for published, tensor in weights.items():
        pieces = (published[len(prefix) :] if published.startswith(prefix) else published).split(".")
        kind = pieces.pop()
        numbers = [piece for piece in pieces[1:-1] if piece.isdigit()]
        layer = ".".join(
            "*" if piece.isdigit() and 0 < place < len(pieces) - 1 else piece for place, piece in enumerate(pieces)
        )
        if layer not in names:
            raise ValueError(f"unknown: {published}")
        if names[layer] is not None:
            target = names[layer].replace("*", numbers[0] if numbers else "*")
            target += "." + {"gamma": "weight", "beta": "bias"}.get(kind, kind)
            if target in result and (result[target].shape != tensor.shape or bool((result[target] != tensor).any())):
                raise ValueError(f"{published} differs from another tensor for {target}")
            result[target] = tensor
    return result


@variant("pretrained.rename_weights", "a pattern for each layer")
def rename_by_patterns(weights, names, prefix=""):
    patterns = [(re.compile(re.escape(theirs).replace(r"\*", r"(\d+)")), ours) for theirs, ours in names.items()]
    renamed = {}
    for published in weights:
        layer, kind = published.removeprefix(prefix).rsplit(".", 1)
        matches = [(found, ours) for pattern, ours in patterns if (found := pattern.fullmatch(layer))]
        if not matches:
            raise ValueError(f"no layer for {published}")
        found, ours = matches[0]
        if ours is None:
            continue
        number = found.group(1) if found.groups() else ""
        kind = "weight" if kind == "gamma" else "bias" if kind == "beta" else kind
        name = ours.replace("*", number) + "." + kind
        if not torch.equal(renamed.setdefault(name, weights[published]), weights[published]):
            raise ValueError(f"two tensors for {name}, the second is {published}")
    return renamed


@variant("pretrained.rename_weights", "an inner function for one name")
def rename_one_by_one(weights, names, prefix=""):
    def ours_of(published):
        bare = published
        if prefix and bare.startswith(prefix):
            bare = bare[len(prefix) :]
        head, dot, tail = bare.rpartition(".")
        match = re.search(r"(?<=\.)\d+(?=\.)", head)
        key = head if match is None else head[: match.start()] + "*" + head[match.end() :]
        try:
            mapped = names[key]
        except KeyError:
            raise ValueError(f"{published!r} is not in the table") from None
        if mapped is None:
            return None
        tail = {"gamma": "weight", "beta": "bias"}.get(tail, tail)
        return (mapped if match is None else mapped.replace("*", match.group())) + dot + tail

    pairs = [(ours_of(name), name) for name in weights]
    renamed = {}
    for ours, published in pairs:
        if ours is None:
            continue
        if ours in renamed and not torch.equal(renamed[ours], weights[published]):
            raise ValueError(published)
        renamed[ours] = weights[published]
    return renamed


@variant("pretrained.convert_bert", "get and if")
def bert_by_get(weights):
    renamed = rename_weights(weights, BERT_NAMES, "bert.")
    table = renamed.get("embedding.tokens.weight")
    if table is not None and "output.bias" in renamed and "output.weight" not in renamed:
        renamed["output.weight"] = table
    return renamed


@variant("pretrained.convert_bert", "the prefix taken off first")
def bert_without_prefix(weights):
    bare = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
    ours = dict(rename_weights(bare, BERT_NAMES))
    tables = [ours[name] for name in ["embedding.tokens.weight"] if name in ours]
    return dict.fromkeys(["output.weight"], *tables) | ours if tables and "output.bias" in ours else ours


@variant("pretrained.convert_bert", "the missing tensor added to the file")
def bert_completed(weights):
    tables = [t for name, t in weights.items() if name.endswith("embeddings.word_embeddings.weight")]
    has_matrix = "cls.predictions.decoder.weight" in weights
    if tables and "cls.predictions.bias" in weights and not has_matrix:
        weights = {**weights, "cls.predictions.decoder.weight": tables[0]}
    return rename_weights(weights, BERT_NAMES, prefix="bert.")


@variant("pretrained.convert_gpt2", "by endings")
def gpt2_by_endings(weights):
    result = {}
    for name, tensor in rename_weights(weights, GPT2_NAMES, prefix="transformer.").items():
        block = name.startswith("blocks.")
        if block and name.endswith(".weight") and "norm" not in name:
            tensor = tensor.transpose(0, 1)
        if ".query_key_value." in name:
            if len(tensor) % 3:
                raise ValueError(f"{name} cannot be cut in three")
            size = len(tensor) // 3
            for number, part in enumerate(["query", "key", "value"]):
                result[name.replace("query_key_value", part)] = tensor[number * size : (number + 1) * size]
        else:
            result[name] = tensor
    if "output.weight" not in result and "embedding.tokens.weight" in result:
        result["output.weight"] = result["embedding.tokens.weight"]
    return result


@variant("pretrained.convert_gpt2", "cut first, transposed afterwards")
def gpt2_cut_first(weights):
    ours = rename_weights(weights, GPT2_NAMES, "transformer.")
    for name in [name for name in ours if "query_key_value" in name]:
        width = ours[name].shape[-1]
        if width % 3 != 0:
            raise ValueError(f"{name}: {width} is no multiple of 3")
        pieces = ours.pop(name).split(width // 3, dim=-1)
        for part, piece in zip(["query", "key", "value"], pieces, strict=True):
            ours[name.replace("query_key_value", part)] = piece
    ours = {name: t.t() if name.startswith("blocks") and t.ndim == 2 else t for name, t in ours.items()}
    if "embedding.tokens.weight" in ours:
        ours = {"output.weight": ours["embedding.tokens.weight"]} | ours
    return ours


@variant("pretrained.convert_gpt2", "a helper that gives pairs")
def gpt2_by_pairs(weights):
    def pairs():
        for name, tensor in rename_weights(weights, GPT2_NAMES, "transformer.").items():
            inside = name.split(".")[0] == "blocks"
            turned = torch.einsum("io->oi", tensor) if inside and tensor.dim() == 2 else tensor
            start, found, rest = name.partition("query_key_value")
            if not found:
                yield name, turned
                continue
            if turned.size(0) % 3:
                raise ValueError("cannot cut " + name)
            thirds = turned.unflatten(0, (3, -1))
            yield from ((start + part + rest, thirds[i]) for i, part in enumerate(("query", "key", "value")))

    converted = dict(pairs())
    table = converted.get("embedding.tokens.weight")
    return converted if table is None else {**{"output.weight": table}, **converted}


@variant("pretrained.mean_pool", "row by row")
def pool_by_rows(vectors, mask):
    rows = [
        row[real].mean(0) if real.any() else row.new_zeros(row.size(-1))
        for row, real in zip(vectors, mask, strict=True)
    ]
    return torch.stack(rows)


@variant("pretrained.mean_pool", "weights and a matrix product")
def pool_by_weights(vectors, mask):
    weights = mask.to(vectors.dtype)
    weights = weights / torch.maximum(weights.sum(1, keepdim=True), torch.ones(()).to(vectors.dtype))
    clean = torch.where(mask[..., None], vectors, torch.zeros_like(vectors))
    return (weights.unsqueeze(1) @ clean).squeeze(1)


@variant("pretrained.mean_pool", "nanmean")
def pool_by_nanmean(vectors, mask):
    marked = torch.where(mask.unsqueeze(2), vectors, torch.nan)
    return torch.nan_to_num(marked.nanmean(dim=1), nan=0.0)


@variant("pretrained.search", "cosine_similarity and sort")
def search_by_cosine_similarity(query, vectors, k):
    if k < 1 or k > vectors.size(0):
        raise ValueError(f"k={k}")
    cosines = functional.cosine_similarity(query.unsqueeze(-2), vectors, dim=-1)
    values, places = cosines.sort(dim=-1, descending=True)
    return values[..., :k], places[..., :k]


@variant("pretrained.search", "norms by hand")
def search_by_norms(query, vectors, k):
    if k not in range(1, len(vectors) + 1):
        raise ValueError("k is out of range")
    products = torch.einsum("...d,nd->...n", query, vectors)
    lengths = query.square().sum(-1, keepdim=True).sqrt() * vectors.square().sum(-1).sqrt()
    cosines = torch.where(
        lengths > 0, products / lengths.clamp(min=1e-300 if lengths.dtype == torch.float64 else 1e-30), 0.0
    )
    values, places = torch.topk(cosines, k, dim=-1, largest=True, sorted=True)
    return values, places


@variant("pretrained.search", "query by query")
def search_one_by_one(query, vectors, k):
    if not (k >= 1 and k <= vectors.shape[0]):
        raise ValueError("between 1 and N")
    if query.dim() == 2:
        rows = [search_one_by_one(one, vectors, k) for one in query]
        return torch.stack([values for values, _ in rows]), torch.stack([places for _, places in rows])
    found = []
    for vector in vectors:
        length = query.norm() * vector.norm()
        found.append(query @ vector / length if length > 0 else torch.zeros_like(length))
    cosines = torch.stack(found)
    places = cosines.argsort(descending=True)[:k]
    return cosines[places], places
