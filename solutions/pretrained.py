"""Published weights in the models of the course, and what a pretrained encoder is good for: search by meaning."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from solutions.bert import MaskedLanguageModel
from solutions.config import TransformerConfig

BERT_NAMES = {
    "embeddings.word_embeddings": "embedding.tokens",
    "embeddings.position_embeddings": "embedding.positions",
    "embeddings.token_type_embeddings": "segments",
    "embeddings.LayerNorm": "embedding_norm",
    "embeddings": None,
    "encoder.layer.*.attention.self.query": "blocks.*.attention.query",
    "encoder.layer.*.attention.self.key": "blocks.*.attention.key",
    "encoder.layer.*.attention.self.value": "blocks.*.attention.value",
    "encoder.layer.*.attention.output.dense": "blocks.*.attention.output",
    "encoder.layer.*.attention.output.LayerNorm": "blocks.*.attention_norm",
    "encoder.layer.*.intermediate.dense": "blocks.*.feed_forward.up",
    "encoder.layer.*.output.dense": "blocks.*.feed_forward.down",
    "encoder.layer.*.output.LayerNorm": "blocks.*.feed_forward_norm",
    "pooler.dense": "pooler",
    "cls.predictions.transform.dense": "transform.0",
    "cls.predictions.transform.LayerNorm": "head_norm",
    "cls.predictions.decoder": "output",
    "cls.predictions": "output",
    "cls.seq_relationship": "next_sentence",
}
"""What the layers of BERT are called in published files, and here; `*` is the number of a block.

None stands for what is no layer: `embeddings.position_ids` holds the numbers 0, 1, 2 and so on.
"""

GPT2_NAMES = {
    "wte": "embedding.tokens",
    "wpe": "embedding.positions",
    "h.*.ln_1": "blocks.*.attention_norm",
    "h.*.attn.c_attn": "blocks.*.attention.query_key_value",
    "h.*.attn.c_proj": "blocks.*.attention.output",
    "h.*.attn": None,
    "h.*.ln_2": "blocks.*.feed_forward_norm",
    "h.*.mlp.c_fc": "blocks.*.feed_forward.up",
    "h.*.mlp.c_proj": "blocks.*.feed_forward.down",
    "ln_f": "norm",
    "lm_head": "output",
}
"""The same for GPT-2. In some files `h.*.attn.bias` and `h.*.attn.masked_bias` hold the causal mask: no weights."""


def rename_weights(
    weights: Mapping[str, Tensor], names: Mapping[str, str | None], prefix: str = ""
) -> dict[str, Tensor]:
    """Give each tensor of a published file the name that it has in the course's model.

    A tensor's name is that of its layer, a dot, and what it is to the layer: "ln_f.weight". Old files call the weight
    and bias of a norm gamma and beta.

    Args:
        weights: tensors by their published names.
        names: the published name of each layer and ours, with `*` for the number of a block; None for what is left
            out.
        prefix: what a published name may begin with, and is taken off.

    Returns:
        The same tensors by our names. Where two tensors get one name, as with tied tables, they are equal.

    Raises:
        ValueError: a tensor belongs to no layer in `names`, or two different tensors get one name; the message gives
            the published name.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, _, kind = name.removeprefix(prefix).rpartition(".")
        number = re.search(r"\.(\d+)\.", layer)
        pattern = re.sub(r"\.\d+\.", ".*.", layer)
        if pattern not in names:
            raise ValueError(f"the tensor {name!r} belongs to no known layer")
        ours = names[pattern]
        if ours is None:
            continue
        if number is not None:
            ours = ours.replace("*", number[1])
        ours = f"{ours}.{ {'gamma': 'weight', 'beta': 'bias'}.get(kind, kind) }"
        if ours in renamed and not torch.equal(renamed[ours], tensor):
            raise ValueError(f"the tensor {name!r} is a second one for {ours!r}, and differs from the first")
        renamed[ours] = tensor
    return renamed


def convert_bert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of a published BERT into those of a `MaskedLanguageModel` or a `BertEncoder`.

    Every tensor is used. If the file has the head that fills in masked tokens, and no matrix for it, the head has the
    table of the tokens (Devlin et al. 2019, appendix A).

    Args:
        weights: of a BERT-like model of the `transformers` library, such as MiniLM; names may begin with "bert.".

    Returns:
        Tensors by our names. The layer above the first token becomes `pooler`, the one that judges the next sentence
        `next_sentence`.

    Raises:
        ValueError: as in `rename_weights`.
    """
    converted = rename_weights(weights, BERT_NAMES, prefix="bert.")
    if "output.bias" in converted and "embedding.tokens.weight" in converted:
        converted.setdefault("output.weight", converted["embedding.tokens.weight"])
    return converted


def convert_gpt2(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of a published GPT-2 into those of a `CausalLanguageModel`.

    Every tensor is used. GPT-2 keeps the matrices of its blocks as (in, out), x W, where nn.Linear has (out, in); and
    those of query, key and value side by side as one. The output has the table of the tokens.

    Args:
        weights: of a GPT-2 of the `transformers` library; names may begin with "transformer.".

    Returns:
        Tensors by our names.

    Raises:
        ValueError: as in `rename_weights`; or what should hold query, key and value cannot be cut in three.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in rename_weights(weights, GPT2_NAMES, prefix="transformer.").items():
        if name.startswith("blocks.") and tensor.dim() == 2:
            tensor = tensor.T
        if "query_key_value" not in name:
            converted[name] = tensor
            continue
        if tensor.size(0) % 3 != 0:
            raise ValueError(f"the width of {name!r} is {tensor.size(0)}: it cannot be cut into query, key and value")
        for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            converted[name.replace("query_key_value", part)] = piece
    if "embedding.tokens.weight" in converted:
        converted.setdefault("output.weight", converted["embedding.tokens.weight"])
    return converted


class BertEncoder(MaskedLanguageModel):
    """BERT without its head, and with the layer above the first token that BERT's files have: `pooler`."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make the encoder and the pooler.

        Args:
            config: as for a `MaskedLanguageModel`.
        """
        super().__init__(config)
        del self.transform, self.head_norm, self.output
        self.pooler = nn.Linear(config.d_model, config.d_model)

    def forward(self, ids: Tensor, segments: Tensor | None = None, chosen: Tensor | None = None) -> Tensor:
        """Give one vector for each text, from its first token: (B, T) to (B, D).

        Args:
            ids: integers (B, T)
            segments: 0 or 1 for each place (B, T); None means all 0.
            chosen: no place can be asked for; None.
        """
        return torch.tanh(self.pooler(self.encode(ids, segments)[:, 0]))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], without: Sequence[str] = ()) -> None:
    """Copy weights into a model, each tensor to its place.

    Args:
        model: its state_dict says which tensors it needs.
        weights: tensors by the model's names.
        without: names of layers that the weights have and the model does without, such as "next_sentence".

    Raises:
        ValueError: a tensor is missing, left over or of another shape, or tied layers have two different ones; the
            message names it. Nothing was copied.
    """
    places = model.state_dict()
    given = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[0] not in without}
    for name in places.keys() - given.keys():
        raise ValueError(f"the weights lack a tensor for {name!r}")
    for name in given.keys() - places.keys():
        raise ValueError(f"the weights have a tensor {name!r}, for which the model has no place")
    firsts: dict[int, str] = {}
    for name, tensor in given.items():
        if tensor.shape != places[name].shape:
            shapes = f"{tuple(tensor.shape)}, and the model needs {tuple(places[name].shape)}"
            raise ValueError(f"the tensor for {name!r} has shape {shapes}")
        twin = firsts.setdefault(places[name].data_ptr(), name)
        if twin != name and not torch.equal(given[twin], tensor):
            raise ValueError(f"the model has one tensor for {twin!r} and {name!r}, and the weights have two")
    model.load_state_dict(given)


def bert_config(settings: Mapping[str, Any]) -> TransformerConfig:
    """The config of a published BERT, from what its config.json says.

    Raises:
        ValueError: it has an activation function or positions of another kind.
    """
    _expect(settings, "hidden_act", "gelu")
    _expect(settings, "position_embedding_type", "absolute")
    return TransformerConfig(
        vocab_size=settings["vocab_size"],
        d_model=settings["hidden_size"],
        num_heads=settings["num_attention_heads"],
        num_layers=settings["num_hidden_layers"],
        d_ff=settings["intermediate_size"],
        max_length=settings["max_position_embeddings"],
        norm_first=False,
        norm_eps=settings.get("layer_norm_eps", 1e-12),
        positions="learned",
        feed_forward="gelu",
        tie_embeddings=settings.get("tie_word_embeddings", True),
        scale_embeddings=False,
        pad_id=settings.get("pad_token_id", 0),
        fused=True,
    )


def gpt2_config(settings: Mapping[str, Any]) -> TransformerConfig:
    """The config of a published GPT-2, from what its config.json says.

    Raises:
        ValueError: it has another activation function, or scales its scores in another way.
    """
    _expect(settings, "activation_function", "gelu_new")
    _expect(settings, "scale_attn_weights", True)
    _expect(settings, "scale_attn_by_inverse_layer_idx", False)
    return TransformerConfig(
        vocab_size=settings["vocab_size"],
        d_model=settings["n_embd"],
        num_heads=settings["n_head"],
        num_layers=settings["n_layer"],
        d_ff=settings.get("n_inner"),
        max_length=settings["n_positions"],
        norm_eps=settings.get("layer_norm_epsilon", 1e-5),
        positions="learned",
        feed_forward="gelu_tanh",
        tie_embeddings=settings.get("tie_word_embeddings", True),
        scale_embeddings=False,
        fused=True,
    )


def _expect(settings: Mapping[str, Any], name: str, value: object) -> None:
    if settings.get(name, value) != value:
        raise ValueError(f"{name}={settings[name]!r}, and the model of the course has {value!r}")


def mean_pool(vectors: Tensor, mask: Tensor) -> Tensor:
    """Make one vector of a text's: the mean over its real tokens (Reimers and Gurevych 2019, section 3).

    Args:
        vectors: (B, T, D)
        mask: bool (B, T), True at real tokens.

    Returns:
        (B, D); zeros for a text without a real token.
    """
    kept = vectors.masked_fill(~mask.unsqueeze(-1), 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def search(query: Tensor, vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the vectors that point most nearly in the direction of the query.

    cosine(q, v) = q . v / (|q| |v|),  and 0 where a vector is zero

    Args:
        query: (D,), or (Q, D) for several at once.
        vectors: (N, D)
        k: how many to find, from 1 to N.

    Returns:
        the cosines (k,) or (Q, k), the largest first, and the places of their vectors, integers of the same shape.

    Raises:
        ValueError: k is not from 1 to N.
    """
    if not 1 <= k <= len(vectors):
        raise ValueError(f"k={k} must be from 1 to the number of vectors, {len(vectors)}")
    cosines = functional.normalize(query, dim=-1) @ functional.normalize(vectors, dim=-1).T
    best = cosines.topk(k)
    return best.values, best.indices
