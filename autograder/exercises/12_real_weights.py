"""Checks of chapter 12: published weights by our names, one vector of a text, and search by cosines."""

from typing import ClassVar

import torch
from torch import Tensor

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, is_kind, same, same_shape, same_table
from solutions import pretrained

_DEFINED = "def rename_weights(weights, names, prefix=''):"
_DOUBLE = "if ours in renamed and (not torch.equal(renamed[ours], tensor)):"
_WIDTH = "if tensor.size(0) % 3 != 0:"
_PARTS = "for part, piece in zip(('query', 'key', 'value'), tensor.chunk(3), strict=True):"
_COSINES = "cosines = functional.normalize(query, dim=-1) @ functional.normalize(vectors, dim=-1).T"
NO_ERROR = "No ValueError was raised, though {}."
UNNAMED = "A ValueError was raised, and its message does not hold {}."
OUTPUT, TABLE = "output.weight", "embedding.tokens.weight"
_KINDS = ("weight", "bias")
NAMES = {
    "table": "embedding.tokens",
    "stack.*.mix.in_1": "blocks.*.attention.query",
    "stack.*.mix.out": "blocks.*.attention.output",
    "stack.*.mix": None,
    "stack.*.norm": "blocks.*.attention_norm",
    "stem.2d.*.dense": "stem.*",
    "model.last": "norm",
    "ten.model.last": "embedding_norm",
    "positions": None,
    "head.dense": "transform.0",
    "head": "output",
    "head.decoder": "output",
    "gamma.beta": "gate",
    "tail.3": "head_norm",
}


@exercise(
    "pretrained.rename_weights",
    parts={"layers": 1, "old files": 1, "errors": 1},
    claims=("errors",),
    difficulty=2,
    minutes=20,
    read="12_real_weights#names",
)
class RenameWeights(Check):
    """Files with few tensors each, so that a slip shows where it is about and nowhere else.

    Prefixes, old kinds, what is no weight and tensors that are there twice belong to "old files", which needs no number
    of a block.
    """

    equivalent: ClassVar = {
        f"rename_weights: {old} -> {new}": why
        for old, new, why in [
            (_DEFINED, _DEFINED.replace("''", "'?'"), "no name begins so, and without a prefix none is taken off"),
            (_DOUBLE, _DOUBLE.replace("renamed[ours], tensor", "tensor, renamed[ours]"), "equality has no order"),
        ]
    }

    def prepare(self, rng):
        def inputs(*published, prefix="", names=NAMES, asked=(), **given):
            weights = {name: rng.normal(2, 3) for name in published} | given.get("weights", {})
            return {"weights": weights, "names": names, "prefix": prefix, "asked": list(asked), "look": "values"}

        layers, old, errors = self.parts
        yield Case("layers outside the blocks", inputs("table.weight", "head.dense.weight", "head.dense.bias"), layers)
        first = [f"stack.{block}.mix.in_1.{kind}" for block in (0, 1) for kind in ("weight", "bias")]
        yield Case("two blocks", inputs(*first, "stack.1.norm.weight"), layers)
        many = [f"stack.{block}.mix.out.weight" for block in (2, 9, 10, 11, 123)]
        yield Case("numbers with several digits", inputs(*many), layers)
        yield Case("a part of a name that begins with a digit", inputs("stem.2d.7.dense.weight"), layers)
        yield Case("a layer that ends in a number", inputs("tail.3.weight", "stack.3.norm.bias"), layers)
        yield Case("a kind that is neither weight nor bias", inputs("table.scale", "stack.3.norm.scale"), layers)
        yield Case("no tensor", inputs(), layers)
        of_gpt2 = ["wte.weight", "h.4.attn.c_attn.bias", "h.10.mlp.c_fc.weight", "ln_f.bias"]
        yield Case("names of GPT-2", inputs(*of_gpt2, names=pretrained.GPT2_NAMES), layers)
        yield Case("the tensors themselves", inputs("table.weight", "head.bias") | {"look": "shared"}, layers)
        yield Case("the file afterwards", inputs("table.weight", "head.bias") | {"look": "kept"}, layers)

        prefixed = ["net.table.weight", "net.head.dense.bias"]
        yield Case("a prefix", inputs(*prefixed, prefix="net."), old)
        yield Case("a prefix that only some have", inputs("net.table.weight", "head.bias", prefix="net."), old)
        yield Case("a prefix that stands there twice", inputs("model.model.last.bias", prefix="model."), old)
        yield Case("a layer made of the prefix's letters", inputs("net.ten.model.last.bias", prefix="net."), old)
        yield Case("gamma and beta", inputs("model.last.gamma", "model.last.beta", "head.dense.bias"), old)
        yield Case("layers with gamma and beta in their names", inputs("gamma.beta.weight", "gamma.beta.bias"), old)
        left_out = ["positions.ids", "stack.0.mix.bias", "stack.1.mix.masked_bias", "table.weight"]
        yield Case("layers that are left out", inputs(*left_out), old)
        tied = rng.normal(4, 3)
        twice = {"head.weight": tied, "head.decoder.weight": tied.clone()}
        yield Case("a tensor that is there twice", inputs("table.weight", weights=twice), old)
        both = {f"model.last.{kind}": tied[0].clone() for kind in ("gamma", "weight")}
        yield Case("an old and a new name", inputs("table.weight", weights=both), old, hidden=True)

        def broken(title, *published, hidden=False, **rest):
            asked = rest.pop("asked", published[-1:])
            return Case(title, inputs(*published, asked=asked, **rest), errors, hidden)

        yield broken("a layer that is not in the names", "table.weight", "adapter.down.weight")
        yield broken("an unknown layer of a block", "table.weight", "stack.3.adapter.weight")
        yield broken("an unknown layer behind a prefix", "table.weight", "net.adapter.weight", prefix="net.")
        yield broken("no number where the names have a star", "table.weight", "stack.norm.weight", hidden=True)

        def double(title, one, other, **rest):
            weights = {"head.weight": one, "head.decoder.weight": other}
            return broken(title, "table.weight", weights=weights, asked=list(weights), **rest)

        yield double("two different tensors for one name", tied, rng.normal(4, 3))
        nearly = tied.clone()
        nearly[-1, -1] += 1e-10
        yield double("two tensors that differ a little in one number", tied, nearly)
        yield double("two tensors with the same numbers in two shapes", tied[:1], tied[0])
        yield double("two tensors with the same numbers in another order", tied, tied.flip(0))

    @staticmethod
    def probe(rename_weights, case, /):
        before = {name: tensor.clone() for name, tensor in case.weights.items()}
        names = dict(case.names)
        extra = [case.prefix] if case.prefix else []
        try:
            found = rename_weights(case.weights, case.names, *extra)
        except ValueError as error:
            if not case.asked:
                raise
            return {"error": "ValueError", "named": any(name in str(error) for name in case.asked)}
        renamed = dict(found) if isinstance(found, dict) else found
        if case.look == "shared":
            given = {tensor.data_ptr() for tensor in case.weights.values()}
            tensors = list(renamed.values()) if isinstance(found, dict) else []
            own = [isinstance(tensor, Tensor) and tensor.data_ptr() in given for tensor in tensors]
            return {"renamed": renamed, "shared": bool(own) and all(own)}
        if case.look == "kept":
            kept = case.weights.keys() == before.keys()
            kept = kept and all(torch.equal(case.weights[name], tensor) for name, tensor in before.items())
            return {"renamed": renamed, "kept": kept, "names_kept": case.names == names}
        return {"renamed": renamed}

    def judge(self, case, got):
        if case.part == "errors":
            yield holds(hasattr(got, "error"), NO_ERROR.format("the file cannot be renamed"))
            yield holds(got.named, UNNAMED.format("the name of the tensor as it stands in `weights`"))
            return
        yield is_kind(got.renamed, dict, "a dict from our names to tensors")
        if case.look == "shared":
            yield holds(got.shared, "The tensors are copies. Put the very tensors of `weights` into the result.")
        if case.look == "kept":
            yield holds(got.kept, "`weights` is not what it was. Make a new dict and leave the given one as it is.")
            yield holds(got.names_kept, "`names` is not what it was. The next file is renamed with the same table.")
        yield same_table(got.renamed, pretrained.rename_weights(case.weights, case.names, case.prefix))


_PREFIX = "name.removeprefix(prefix)"
_LOOP = "for name, tensor in weights.items():"
_KIND = "{'gamma': 'weight', 'beta': 'bias'}.get(kind, kind)"
_TWICE = "if ours in renamed and not torch.equal(renamed[ours], tensor):"
_SECOND = 'raise ValueError(f"the tensor {name!r} is a second one for {ours!r}, and differs from the first")'
_UNKNOWN = 'raise ValueError(f"the tensor {name!r} belongs to no known layer")'
for _name, _message, _edits in [
    (
        "skips what is unknown",
        "A tensor whose layer is not in `names` is passed over without a word, and the model keeps random numbers in some "
        "place. Raise a ValueError that names it.",
        {_UNKNOWN: "continue"},
    ),
    (
        "keeps what is unknown",
        "A tensor whose layer is not in `names` is kept under its old name, for which the model has no place. Raise a "
        "ValueError that names it.",
        {_UNKNOWN: "renamed[name] = tensor\n            continue"},
    ),
    (
        "a KeyError for what is unknown",
        "A layer that is not in `names` ends in a KeyError. Look first whether it is there, and raise a ValueError that "
        "holds the tensor's name.",
        {"if pattern not in names:": "if False:"},
    ),
    (
        "keeps what should be left out",
        "A layer for which `names` has None is kept under its old name. It is no layer: leave its tensors out.",
        {"if ours is None:": "if ours is None:\n            renamed[name] = tensor"},
    ),
    (
        "None for a name",
        "None is taken for a name. A layer for which `names` has None is left out.",
        {"if ours is None:": "ours = str(ours)\n        if False:"},
    ),
    (
        "refuses what should be left out",
        "A layer for which `names` has None is refused as unknown. It is known and left out; unknown is what `names` does "
        "not hold at all.",
        {"if pattern not in names:": "if names.get(pattern) is None:"},
    ),
    (
        "the prefix stays",
        "The prefix is not taken off, so no layer behind it is found in `names`.",
        {_PREFIX: "name"},
    ),
    (
        "cuts without looking",
        "As many letters as the prefix has are cut off every name, whether it begins with the prefix or not. Use "
        "`name.removeprefix(prefix)`.",
        {_PREFIX: "name[len(prefix):]"},
    ),
    (
        "the prefix taken out everywhere",
        "The prefix is taken out wherever it occurs in a name. Only the beginning counts, and it counts once.",
        {_PREFIX: 'name.replace(prefix, "")'},
    ),
    (
        "lstrip",
        "`lstrip` takes off single letters as long as they occur in the prefix, and eats into the name. Use "
        "`removeprefix`.",
        {_PREFIX: "name.lstrip(prefix)"},
    ),
    (
        "only names with the prefix",
        "Names without the prefix are passed over. They are taken as they are.",
        {_LOOP: _LOOP + "\n        if not name.startswith(prefix):\n            continue"},
    ),
    (
        "one digit only",
        "Only numbers with one digit are found: in the blocks from 10 on no layer is known. A number may have several "
        "digits.",
        {r"\d+": r"\d"},
    ),
    (
        "the first digit alone",
        "Of a block's number only the first digit is kept, so block 10 becomes block 1. A number may have several digits.",
        {"number[1]": "number[1][0]"},
    ),
    (
        "every digit a star",
        "Digits within a part of a name were taken for the number of a block, as in `ln_1`. It is a number between two "
        "dots.",
        {r'r"\.\d+\.", ".*."': r'r"\d+", "*"'},
    ),
    (
        "a number at the end of a layer",
        "A number at the end of a layer was taken for that of a block. The number of a block stands between two dots of the "
        "layer, without the kind behind it: `tail.3.weight` belongs to the layer `tail.3`.",
        {
            r'r"\.(\d+)\.", layer': r'r"\.(\d+)(?:\.|$)", layer',
            r're.sub(r"\.\d+\.", ".*.", layer)': r're.sub(r"\.\d+(?=\.|$)", ".*", layer)',
        },
    ),
    (
        "block 0 without its number",
        "In block 0 the star stays. The number 0 counts as False: ask whether a number `is not None`.",
        {"if number is not None:": "if number is not None and int(number[1]):"},
    ),
    (
        "the star stays",
        "Our names still have a star. Put the number of the block in its place.",
        {'ours.replace("*", number[1])': "ours"},
    ),
    (
        "one number for all blocks",
        "All blocks get the number 0. Each tensor goes to the block whose number stands in its name.",
        {"number[1]": '"0"'},
    ),
    (
        "blocks counted from 1",
        "The blocks are counted from 1. Our blocks are counted from 0, as those of the file: the number stays.",
        {"number[1]": "str(int(number[1]) + 1)"},
    ),
    (
        "the first dot",
        "The layer is taken to end at the first dot. It ends at the last.",
        {".rpartition": ".partition"},
    ),
    (
        "the layer alone",
        "The kind of tensor is lost: the name ends with the layer. Add the dot and what stands behind the last dot of the "
        "published name, such as `weight`.",
        {f'ours = f"{{ours}}.{{ {_KIND} }}"': "pass"},
    ),
    (
        "gamma and beta stay",
        "gamma and beta keep their names. They are the weight and the bias of a norm.",
        {_KIND: "kind"},
    ),
    (
        "gamma and beta exchanged",
        "gamma and beta are exchanged. gamma multiplies, so it is the weight; beta is added, so it is the bias.",
        {_KIND: "{'beta': 'weight', 'gamma': 'bias'}.get(kind, kind)"},
    ),
    (
        "gamma replaced everywhere",
        "gamma and beta are replaced within the names of layers, too. Only what stands behind the last dot is a kind of "
        "tensor.",
        {_PREFIX: _PREFIX + '.replace("gamma", "weight").replace("beta", "bias")'},
    ),
    (
        "the last one wins",
        "Where two different tensors get one name, the second takes the place of the first without a word. One of them "
        "would be lost: raise a ValueError.",
        {_TWICE: "if False:"},
    ),
    (
        "the first one wins",
        "Where two different tensors get one name, the second is dropped without a word. Raise a ValueError.",
        {_TWICE: "if ours in renamed:", _SECOND: "continue"},
    ),
    (
        "refuses equal ones",
        "Two equal tensors with one name are refused. Many files hold a tied table twice: that is no error.",
        {_TWICE: "if ours in renamed:"},
    ),
    (
        "nearly equal",
        "Two tensors that are only nearly equal pass for one. They must have the same shape and the same numbers: use "
        "torch.equal.",
        {"torch.equal": "torch.allclose"},
    ),
    (
        "sums compared",
        "Two tensors with the same sum pass for one. They must have the same numbers in the same places: use torch.equal.",
        {
            "torch.equal(renamed[ours], tensor)": "(renamed[ours].shape == tensor.shape and torch.isclose(renamed[ours].sum(), "
            "tensor.sum(), rtol=0, atol=1e-12))"
        },
    ),
    (
        "shapes not compared",
        "The numbers of two tensors are compared and their shapes are not: broadcasting makes one fit the other. Use "
        "torch.equal.",
        {"not torch.equal(renamed[ours], tensor)": "not (renamed[ours] == tensor).all()"},
    ),
    (
        "the layer in the message",
        "The message holds the layer, and not the name of the tensor as it stands in `weights`. With that name one finds it "
        "in the file.",
        {
            "{name!r} belongs": "{layer!r} belongs",
            "{name!r} is a second": "{layer!r} is a second",
            "for {ours!r}, ": "",
        },
    ),
    (
        "no prefix in the message",
        "The prefix is missing in the name that the message holds. Give the name as it stands in `weights`.",
        {"{name!r} belongs": "{name.removeprefix(prefix)!r} belongs"},
    ),
    (
        "our name in the message",
        "Where two tensors get one name, the message holds our name alone. Give a published one, as it stands in `weights`.",
        {"{name!r} is a second one for {ours!r}": "{ours!r} is a second one"},
    ),
    (
        "copies",
        "The tensors are copied, and a large model is in memory twice. Put the same tensors into the new dict.",
        {"= tensor\n": "= tensor.clone()\n"},
    ),
    (
        "empties the file",
        "The tensors are taken out of `weights`, which the caller may still need. Make a new dict and leave the given one "
        "as it is.",
        {_LOOP: "for name in list(weights):\n        tensor = weights.pop(name)"},
    ),
    (
        "changes the names",
        "`names` is not what it was. Whoever handed it over uses it again for the next file: leave it as it is.",
        {
            _LOOP: "names.update({layer: ours for layer, ours in names.items() if ours})\n    for layer in "
            "[layer for layer, ours in names.items() if ours is None]:\n        del names[layer]\n        "
            "weights = {name: one for name, one in weights.items() if re.sub(r'\\.\\d+\\.', '.*.', "
            "name.removeprefix(prefix).rpartition('.')[0]) != layer}\n    " + _LOOP
        },
    ),
    (
        "a list of pairs",
        "A list came back. Return a dict from names to tensors.",
        {"return renamed": "return list(renamed.items())"},
    ),
]:
    slip(RenameWeights, _name, _message, _edits)


def _tensors(rng, names):
    """A matrix for each weight and a vector for everything else; the shapes are not those of a model."""
    return {name: rng.normal(*(5, 3) if name.endswith("weight") else (4,)) for name in names}


def _without(table, *left_out):
    return {name: tensor for name, tensor in table.items() if name not in left_out}


@exercise(
    "pretrained.convert_bert",
    parts={"names": 1, "head": 1},
    difficulty=1,
    minutes=10,
    read="12_real_weights#bert-weights",
)
class ConvertBert(Check):
    """Files of BERT. "names" looks at everything but the matrix of the head, and "head" at nothing else."""

    def prepare(self, rng):
        def inputs(published, valid=True):
            return {"weights": _tensors(rng, published), "valid": valid, "look": "values"}

        table, matrix = "embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
        bias, judge = "cls.predictions.bias", "cls.seq_relationship.weight"
        head = [f"cls.predictions.transform.{layer}.{kind}" for layer in ("dense", "LayerNorm") for kind in _KINDS]
        embeddings = [table, "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"]
        norm = [f"embeddings.LayerNorm.{kind}" for kind in _KINDS]
        of_block = [name for name in pretrained.BERT_NAMES if "*" in name]
        blocks = [f"{name.replace('*', str(block))}.{kind}" for block in (0, 1) for name in of_block for kind in _KINDS]
        encoder = [*embeddings, *norm, *blocks, *(f"pooler.dense.{kind}" for kind in _KINDS)]

        names, with_head = self.parts
        yield Case("an encoder with its pooler", inputs(encoder), names)
        yield Case("both heads, and names with a prefix",
                   inputs([*(f"bert.{name}" for name in encoder), *head, bias, matrix, judge]), names)  # fmt: skip
        yield Case("position numbers, and block 11",
                   inputs(["embeddings.position_ids", "encoder.layer.11.output.dense.bias"]), names)  # fmt: skip
        yield Case("old names", inputs(["bert.embeddings.LayerNorm.gamma", "pooler.dense.bias"]), names)
        yield Case("a layer that no BERT has", inputs([table, "bert.adapter.weight"], valid=False), names)
        yield Case("the file afterwards", inputs([f"bert.{table}", *norm]) | {"look": "kept"}, names)
        yield Case("a head without its matrix", inputs([table, *embeddings[1:], *head, bias]), with_head)
        yield Case("the table and a bias", inputs([table, bias]), with_head)
        yield Case("a head with a matrix of its own", inputs([table, bias, matrix]), with_head)
        yield Case("no head", inputs([table, "pooler.dense.weight"]), with_head)
        yield Case("a head alone", inputs([*head, bias]), with_head)
        yield Case("a head with no bias for the tokens", inputs([table, *head]), with_head, hidden=True)

    @staticmethod
    def probe(convert_bert, case, /):
        before = {name: tensor.clone() for name, tensor in case.weights.items()}
        try:
            found = convert_bert(case.weights)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        converted = dict(found) if isinstance(found, dict) else found
        if case.look == "kept":
            kept = case.weights.keys() == before.keys()
            kept = kept and all(torch.equal(case.weights[name], tensor) for name, tensor in before.items())
            return {"converted": converted, "kept": kept}
        return {"converted": converted}

    def judge(self, case, got):
        if not case.valid:
            yield holds(hasattr(got, "error"), NO_ERROR.format("a layer is not in BERT_NAMES"))
            return
        yield is_kind(got.converted, dict, "a dict from our names to tensors")
        right = pretrained.convert_bert(case.weights)
        if case.part == "names":
            if case.look == "kept":
                yield holds(got.kept, "`weights` is not what it was. Leave the given dict and its tensors as they are.")
            yield same_table(_without(got.converted, OUTPUT), _without(right, OUTPUT))
        elif OUTPUT not in right:
            yield holds(OUTPUT not in got.converted, f"There is a tensor `{OUTPUT}`, and this file asks for none.")
        else:
            yield holds(OUTPUT in got.converted, f"There is no tensor `{OUTPUT}`, and this file asks for one.")
            yield same(got.converted[OUTPUT], right[OUTPUT], f"`{OUTPUT}`")


_RENAME = 'rename_weights(weights, BERT_NAMES, prefix="bert.")'
_SET = 'converted.setdefault("output.weight", converted["embedding.tokens.weight"])'
_IF = 'if "output.bias" in converted and "embedding.tokens.weight" in converted:'
_KNOWN = (
    '{name: tensor for name, tensor in weights.items() if re.sub(r"\\.\\d+\\.", ".*.", '
    'name.removeprefix("PREFIX").rpartition(".")[0]) in NAMES}'
)
for _name, _message, _edits in [
    (
        "the prefix stays",
        "Names that begin with `bert.` are not understood. Tell `rename_weights` the prefix.",
        {', prefix="bert."': ""},
    ),
    (
        "the names of another model",
        "The names were looked up in GPT2_NAMES. BERT's layers stand in BERT_NAMES.",
        {"BERT_NAMES": "GPT2_NAMES"},
    ),
    (
        "skips what is unknown",
        "Tensors of layers that are not in BERT_NAMES are passed over. Hand all of them to `rename_weights`, and let its "
        "ValueError through.",
        {"(weights, BERT": f"({_KNOWN.replace('PREFIX', 'bert.').replace('NAMES', 'BERT_NAMES')}, BERT"},
    ),
    (
        "empties the file",
        "The tensors are taken out of `weights`, or put there under other names. The caller may still need it: leave it as "
        "it is.",
        {"    converted = rename": "    for name in list(weights):\n        weights[name.removeprefix('bert.')] = "
         "weights.pop(name)\n    converted = rename"},
    ),
    (
        "pooler and next sentence left out",
        "Tensors of the pooler or of the layer that judges the next sentence are left out. Every tensor is used: whoever "
        "loads the weights says what the model does without.",
        {"return converted": "return {name: tensor for name, tensor in converted.items() if not name.startswith(('pooler', "
         "'next_sentence'))}"},
    ),
    (
        "no matrix for the head",
        "A head whose file holds no matrix gets none. It has the table of the tokens: add `output.weight`.",
        {_IF: "if False:"},
    ),
    (
        "a matrix without a head",
        "A file without a head gets an `output.weight`, for which an encoder has no place. Only a file with `output.bias` "
        "gets one.",
        {_IF: 'if "embedding.tokens.weight" in converted:'},
    ),
    (
        "the head's own matrix lost",
        "The file has a matrix for the head, and the table took its place. Add the table only where there is none.",
        {_SET: 'converted["output.weight"] = converted["embedding.tokens.weight"]'},
    ),
    (
        "a head alone",
        "A file with a head and no table of the tokens ends in a KeyError. Look whether the table is there.",
        {_IF: 'if "output.bias" in converted:'},
    ),
    (
        "the table moved",
        "The table of the tokens is gone from its place. It stands in two: the embedding needs it as well as the head.",
        {_SET: 'converted.setdefault("output.weight", converted.pop("embedding.tokens.weight"))'},
    ),
    (
        "the table transposed",
        "The table was transposed for the head. nn.Linear keeps its weight as (out, in), and so does the table: "
        "(V, D).",
        {'converted["embedding.tokens.weight"])': 'converted["embedding.tokens.weight"].T)'},
    ),
    (
        "the table of the positions",
        "The head has the table of the positions. It must have that of the tokens.",
        {'converted["embedding.tokens.weight"])': 'converted.get("embedding.positions.weight", '
         'converted["embedding.tokens.weight"].flip(0)))'},
    ),
    (
        "nothing returned",
        "Nothing comes back. End with `return`.",
        {"return converted": "pass"},
    ),
]:  # fmt: skip
    slip(ConvertBert, _name, _message, _edits)


@exercise(
    "pretrained.convert_gpt2",
    parts={"names": 1, "matrices": 1, "query, key and value": 1, "output": 1},
    difficulty=3,
    minutes=30,
    read="12_real_weights#gpt2-weights",
    sections={"matrices": "conv1d", "query, key and value": "query-key-value"},
)
class ConvertGPT2(Check):
    """Files of GPT-2, each with the tensors that its part is about, so that a slip costs that part alone.

    Only "query, key and value" has `c_attn`, and only "names" has a prefix. "names" looks at what things are called, and
    at tensors with one axis. "output" compares a table that was added with the table as it was converted.
    """

    equivalent: ClassVar = {
        f"convert_gpt2: {old} -> {new}": why
        for old, new, why in [
            (_WIDTH, _WIDTH.replace("!=", ">"), "no rest is negative"),
            (_PARTS, _PARTS.replace(", strict=True", ""), "what can be cut into three gives three"),
            (_PARTS, _PARTS.replace("True", "False"), "what can be cut into three gives three"),
        ]
    }

    def prepare(self, rng):
        def inputs(shapes, broken="", prefix="", table=True):
            shapes = ({"wte.weight": (7, 5)} if table else {}) | shapes
            return {"weights": {prefix + name: rng.normal(*shape) for name, shape in shapes.items()}, "broken": broken}

        d, last = 5, {"ln_f.weight": (5,), "ln_f.bias": (5,)}

        def block(number):
            norms = {f"h.{number}.{norm}.{kind}": (d,) for norm in ("ln_1", "ln_2") for kind in _KINDS}
            biases = {"attn.c_proj": d, "mlp.c_fc": 4 * d, "mlp.c_proj": d}
            return norms | {f"h.{number}.{layer}.bias": (size,) for layer, size in biases.items()}

        def matrices(number, d):
            sides = {"attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
            return {f"h.{number}.{layer}.weight": shape for layer, shape in sides.items()}

        def joined(number, d, more=0):
            return {
                f"h.{number}.attn.c_attn.weight": (d, 3 * d + more),
                f"h.{number}.attn.c_attn.bias": (3 * d + more,),
            }

        names, turned, three, output = self.parts
        small = {"wpe.weight": (9, d)} | last
        yield Case("two blocks", inputs(small | block(0) | block(1)), names)
        yield Case("names with a prefix", inputs(small | block(11), prefix="transformer."), names)
        masks = {"h.0.attn.bias": (1, 1, 9, 9), "h.0.attn.masked_bias": (1,)}
        yield Case("a file with causal masks", inputs(block(0) | masks), names)
        unknown = {"h.0.attn.rope.weight": (d,)}
        yield Case("a layer that no GPT-2 has", inputs(block(0) | unknown, broken="layer"), names)
        yield Case("the matrices of a block", inputs(matrices(0, d)), turned)
        yield Case("blocks 1 and 10", inputs(matrices(1, 4) | matrices(10, 4)), turned)
        narrow = {"h.2.mlp.c_fc.weight": (d, d), "h.2.mlp.c_proj.weight": (d, d)}
        yield Case("a feed-forward network as wide as the stream", inputs(narrow), turned)
        square = {"wte.weight": (d, d), "wpe.weight": (d, d)}
        yield Case("tables, which may be square", inputs(square | matrices(3, d)), turned)
        yield Case("tables alone", inputs({"wpe.weight": (9, d)}), turned)
        yield Case("query, key and value", inputs(joined(0, d)), three)
        yield Case("a width that is a multiple of three", inputs(joined(0, 6) | joined(12, 6)), three)
        yield Case("a width of 1", inputs(joined(2, 1)), three, hidden=True)
        whole = "blocks.4.attention.query_key_value."
        one_more = joined(4, d, more=1)
        for kind in _KINDS:
            shapes = {name: shape for name, shape in one_more.items() if name.endswith(kind)}
            yield Case(f"a {kind} that cannot be cut in three", inputs(shapes, broken=whole + kind), three)
        two_more = {"h.4.attn.c_attn.bias": (3 * d + 2,)}
        yield Case("a bias of two too many", inputs(two_more, broken=f"{whole}bias"), three)
        yield Case("no lm_head", inputs(last), output)
        yield Case("an lm_head of its own", inputs({"lm_head.weight": (7, d)}), output)
        yield Case("no table", inputs(last, table=False), output)

    @staticmethod
    def probe(convert_gpt2, case, /):
        before = {name: tensor.clone() for name, tensor in case.weights.items()}
        try:
            found = convert_gpt2(case.weights)
        except ValueError as error:
            if not case.broken:
                raise
            return {"error": "ValueError", "named": case.broken in str(error)}
        kept = case.weights.keys() == before.keys()
        kept = kept and all(torch.equal(case.weights[name], tensor) for name, tensor in before.items())
        return {"converted": dict(found) if isinstance(found, dict) else found, "kept": kept}

    def judge(self, case, got):
        if case.broken:
            why = "a layer is not in GPT2_NAMES" if case.broken == "layer" else "what should be cut in three cannot be"
            yield holds(hasattr(got, "error"), NO_ERROR.format(why))
            named = got.named or case.broken == "layer"
            yield holds(named, UNNAMED.format("our name of the tensor, such as it is before it is cut"))
            return
        yield is_kind(got.converted, dict, "a dict from our names to tensors")
        right = pretrained.convert_gpt2(case.weights)
        if case.part == "output":
            yield from self._output(case, got.converted, right)
            return
        lost = {TABLE} - got.converted.keys()  # a table that was moved is the business of "output"
        own, right = (_without(table, OUTPUT, *lost) for table in (got.converted, right))
        if case.part != "matrices":
            own, right = (_without(table, TABLE) for table in (own, right))
        if case.part == "names":
            own, right = ({name: _with_one_axis(one) for name, one in table.items()} for table in (own, right))
        yield same_table(own, right)
        if case.part == "matrices":
            yield holds(got.kept, "A tensor of `weights` was changed in place. Transpose without changing it: `.T`.")

    def _output(self, case, own, right):
        if OUTPUT not in right:
            yield holds(OUTPUT not in own, f"There is a tensor `{OUTPUT}`, and this file asks for none.")
            return
        yield holds(OUTPUT in own, f"There is no tensor `{OUTPUT}`, and this file asks for one.")
        table = own.get(TABLE)
        yield holds(
            isinstance(table, Tensor), f"There is no tensor `{TABLE}`, though the file has the table of the tokens."
        )
        tied = "lm_head.weight" not in case.weights
        possible = [table] if tied else [right[OUTPUT], right[OUTPUT].T]
        yield holds(
            any(close(own[OUTPUT], one) for one in possible),
            f"`{OUTPUT}` is not what this file says. Without `lm_head` it is the table of the tokens.",
        )


def _with_one_axis(tensor):
    """A tensor with one axis; None for the others, whose numbers are the business of other parts."""
    return tensor if isinstance(tensor, Tensor) and tensor.dim() == 1 else None


_TURN = "tensor = tensor.T"
_WHEN = 'if name.startswith("blocks.") and tensor.dim() == 2:'
_CUT = 'zip(("query", "key", "value"), tensor.chunk(3), strict=True)'
_TOLD = 'f"the width of {name!r} is {tensor.size(0)}: it cannot be cut into query, key and value"'
_TABLE = 'if "embedding.tokens.weight" in converted:'
for _name, _message, _edits, _read in [
    (
        "the prefix stays",
        "Names that begin with `transformer.` are not understood. Tell `rename_weights` the prefix.",
        {', prefix="transformer."': ""},
        "",
    ),
    (
        "skips what is unknown",
        "Tensors of layers that are not in GPT2_NAMES are passed over. Hand all of them to `rename_weights`, and let its "
        "ValueError through.",
        {"(weights, GPT2": f"({_KNOWN.replace('PREFIX', 'transformer.').replace('NAMES', 'GPT2_NAMES')}, GPT2"},
        "",
    ),
    (
        "biases lost",
        "Only matrices come back. Tensors with one axis are not transposed, and are kept.",
        {_WHEN: 'if tensor.dim() < 2 and "query_key_value" not in name:\n            continue\n        ' + _WHEN},
        "",
    ),
    (
        "nothing transposed",
        "A matrix of a block is not transposed. GPT-2 keeps all of them as (in, out), nn.Linear as (out, in).",
        {_WHEN: "if False:"},
        "conv1d",
    ),
    (
        "tables transposed",
        "The tables of tokens and positions are transposed, too. Only the matrices within the blocks are (in, out).",
        {'name.startswith("blocks.") and ': ""},
        "conv1d",
    ),
    (
        "square matrices forgotten",
        "Square matrices are not transposed. They fit either way, and give another model: what is transposed depends on the "
        "layer, and not on its shape.",
        {"tensor.dim() == 2:": "tensor.dim() == 2 and tensor.size(0) != tensor.size(1):"},
        "conv1d",
    ),
    (
        "the feed-forward alone",
        "Only the matrices of the feed-forward network are transposed. Those of the attention are (in, out), too.",
        {_WHEN: 'if tensor.dim() == 2 and ("feed_forward" in name or "query_key_value" in name):'},
        "conv1d",
    ),
    (
        "the attention alone",
        "Only the matrices of the attention are transposed. Those of the feed-forward network are (in, out), too.",
        {_WHEN: 'if tensor.dim() == 2 and ".attention." in name:'},
        "conv1d",
    ),
    (
        "transposed in place",
        "The tensors that were given are transposed in place: whoever handed them over finds them changed. `tensor.T` is a "
        "new view.",
        {_TURN: "tensor.t_()"},
        "conv1d",
    ),
    (
        "query, key and value not transposed",
        "The matrix of query, key and value is cut along the right axis and not transposed: each part is still (in, out).",
        {"] = piece": "] = piece.T if piece.dim() == 2 else piece"},
        "query-key-value",
    ),
    (
        "not cut",
        "Query, key and value are still one tensor. Cut it into three, each with a name of its own.",
        {'if "query_key_value" not in name:': "if True:"},
        "query-key-value",
    ),
    (
        "the bias not cut",
        "The matrix of query, key and value is cut and its bias is not. The bias has the three behind each other, too.",
        {'if "query_key_value" not in name:': 'if "query_key_value.weight" not in name:'},
        "query-key-value",
    ),
    (
        "the whole one kept",
        "The tensor with query, key and value is still there beside its parts. The model has no place for it.",
        {'if "query_key_value" not in name:\n            converted[name] = tensor': 'converted[name] = tensor\n        '
         'if "query_key_value" not in name:'},
        "query-key-value",
    ),
    (
        "the whole one three times",
        "Query, key and value each got the whole tensor. Each gets its third.",
        {"] = piece": "] = tensor"},
        "query-key-value",
    ),
    (
        "in another order",
        "The three parts are not in the order query, key, value.",
        {'("query", "key", "value")': '("key", "query", "value")'},
        "query-key-value",
    ),
    (
        "value first",
        "The three parts are taken from the end. The order is query, key, value.",
        {'("query", "key", "value")': '("value", "key", "query")'},
        "query-key-value",
    ),
    (
        "every third row",
        "Every third row was taken for a part. The parts lie side by side: the first third is the query, the second the "
        "key, the last the value.",
        {"tensor.chunk(3)": "[tensor[part::3] for part in range(3)]"},
        "query-key-value",
    ),
    (
        "cut along the input",
        "The matrix is cut along its input. Cut it along the output, which is three times as wide: the rows, once it is "
        "transposed.",
        {"tensor.chunk(3)": "tensor.tensor_split(3, dim=-1)"},
        "query-key-value",
    ),
    (
        "any width",
        "What cannot be cut into three equal parts is cut into unequal ones. Raise a ValueError.",
        {_WIDTH: "if False:", ", strict=True": ""},
        "query-key-value",
    ),
    (
        "a width without a name",
        "The error for a tensor that cannot be cut does not say which one it is. Put our name into the message.",
        {_TOLD: '"it cannot be cut"'},
        "query-key-value",
    ),
    (
        "no output",
        "A file without `lm_head` gets no `output.weight`. It is the table of the tokens.",
        {_TABLE: "if False:"},
        "",
    ),
    (
        "the file's own output lost",
        "The file has an `lm_head`, and the table took its place. Add the table only where there is none.",
        {_SET: 'converted["output.weight"] = converted["embedding.tokens.weight"]'},
        "",
    ),
    (
        "no table",
        "A file without the table of the tokens ends in a KeyError. Look whether it is there.",
        {_TABLE: "if True:"},
        "",
    ),
    (
        "the table moved",
        "The table of the tokens is gone from its place. It stands in two: the embedding needs it as well as the output.",
        {_SET: 'converted.setdefault("output.weight", converted.pop("embedding.tokens.weight"))'},
        "",
    ),
    (
        "the table transposed for the output",
        "The table was transposed for the output. nn.Linear keeps its weight as (out, in), and so does the table: (V, D).",
        {'converted["embedding.tokens.weight"])': 'converted["embedding.tokens.weight"].T)'},
        "",
    ),
    (
        "nothing returned",
        "Nothing comes back. End with `return`.",
        {"return converted": "pass"},
        "",
    ),
]:  # fmt: skip
    slip(ConvertGPT2, _name, _message, _edits, read=_read)


def _near(got, right, name):
    """The same type, shape, dtype and, to five digits, values: whatever was added to a length to keep it from zero."""
    yield same_shape(got, right, name)
    yield same(got.float(), right.float(), name)


@exercise(
    "pretrained.mean_pool",
    parts={"mean": 1, "whatever is at padding": 1},
    difficulty=1,
    minutes=10,
    read="12_real_weights#one-vector",
    instead="Build it from a mask, a sum and a count.",
)
class MeanPool(Check):
    """Ordinary numbers everywhere for the mean; what is infinite, no number, or not there at all for the other part."""

    def prepare(self, rng):
        def inputs(*lengths, shift=0, filler=None, dtype=torch.float32):
            width = max(lengths) + 1
            mask = torch.stack([torch.arange(width) < length for length in lengths]).roll(shift, 1)
            vectors = rng.normal(len(lengths), width, 4, dtype=dtype) + 3
            return {
                "vectors": vectors if filler is None else vectors.masked_fill(~mask.unsqueeze(-1), filler),
                "mask": mask,
            }

        mean, padding = self.parts
        yield Case("three texts of different lengths", inputs(2, 5, 3), mean)
        yield Case("a text of one token", inputs(1, 2), mean)
        yield Case("padding in front", inputs(4, 2, shift=1), mean)
        mixed = inputs(5, 5)
        mixed["mask"] = torch.tensor(
            [[True, False, True, True, False, False], [False, True, False, False, False, True]]
        )
        yield Case("padding in between", mixed, mean)
        zeros = inputs(4, 3)
        zeros["vectors"][:, 1] = 0.0
        yield Case("a real token whose vector is zero", zeros, mean)
        one = inputs(6)
        yield Case("one text without padding", {"vectors": one["vectors"][:, :6], "mask": one["mask"][:, :6]}, mean)
        yield Case("float64", inputs(4, 1, dtype=torch.float64), mean)  # whose shares float32 has exactly
        yield Case("huge numbers at padding", inputs(3, 1, filler=1e30), padding)
        yield Case("infinity at padding", inputs(2, 4, filler=float("inf")), padding)
        yield Case("NaN at padding", inputs(4, 2, filler=float("nan")), padding)
        yield Case("a text without a real token", inputs(0, 3), padding)
        yield Case(
            "texts without a real token, minus infinity there", inputs(0, 0, filler=-float("inf")), padding, hidden=True
        )

    @staticmethod
    def probe(mean_pool, case, /):
        return {"pooled": mean_pool(case.vectors, case.mask)}

    def judge(self, case, got):
        yield from _near(got.pooled, pretrained.mean_pool(case.vectors, case.mask), "the result")


_KEPT = "kept = vectors.masked_fill(~mask.unsqueeze(-1), 0.0)"
_COUNT = "mask.sum(1, keepdim=True).clamp(min=1)"
_MEAN = f"return kept.sum(1) / {_COUNT}"
for _name, _message, _edits in [
    (
        "the mask ignored",
        "The mean goes over the padding, too, so a text's vector depends on how far its batch was filled up. Use the mask.",
        {_MEAN: "return vectors.mean(1)"},
    ),
    (
        "divided by T",
        "The sum over the real tokens is divided by the length of the whole row. Divide by the number of real tokens.",
        {_MEAN: "return kept.mean(1)"},
    ),
    (
        "divided by all real tokens",
        "The sums are divided by the number of real tokens in the whole batch. Each row has a number of its own.",
        {"mask.sum(1, keepdim=True)": "mask.sum()"},
    ),
    (
        "zeros not counted",
        "Only numbers that are not 0 were counted. A real token may have zeros in its vector: count with the mask.",
        {_COUNT: "(kept != 0).sum(1).clamp(min=1)"},
    ),
    (
        "not divided",
        "The sum came back. Divide it by the number of real tokens.",
        {_MEAN: "return kept.sum(1)"},
    ),
    (
        "the mask inverted",
        "The mask is used the wrong way round: it is True at real tokens, and those must count.",
        {_KEPT: "mask = ~mask\n    " + _KEPT},
    ),
    (
        "the first token",
        "The vector of the first token came back. Take the mean over all real ones.",
        {_MEAN: "return vectors[:, 0]"},
    ),
    (
        "without the first token",
        "The first place is left out. [CLS] is a real token here, and so is [SEP].",
        {_KEPT: "vectors, mask = vectors[:, 1:], mask[:, 1:]\n    " + _KEPT},
    ),
    (
        "the largest",
        "The largest number of each component came back. Take the mean.",
        {_MEAN: "return vectors.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)"},
    ),
    (
        "the first n places",
        "The first places were averaged, as many as there are real tokens. Padding may stand anywhere: the mask says where.",
        {_KEPT: "mask = torch.arange(mask.size(1)) < mask.sum(1, keepdim=True)\n    " + _KEPT},
    ),
    (
        "multiplied by the mask",
        "What stands at padding is multiplied by 0, and that leaves NaN where it is infinite or NaN. Put zeros in its place, "
        "with `masked_fill` or `torch.where`.",
        {_KEPT: "kept = vectors * mask.unsqueeze(-1)"},
    ),
    (
        "divided by zero",
        "A text without a real token gives NaN, for 0 is divided by 0. Let the number to divide by be at least 1.",
        {".clamp(min=1)": ""},
    ),
    (
        "one token too many",
        "One is added to the number of real tokens, and every mean is too small. Only a number of 0 must be raised to 1.",
        {".clamp(min=1)": " + 1"},
    ),
    (
        "another dtype",
        "The result is float32 whatever came in. Keep the dtype of `vectors`.",
        {"vectors.masked_fill": "vectors.float().masked_fill"},
    ),
    (
        "an axis too many",
        "The result has shape (B, 1, D). One vector a text is (B, D).",
        {_MEAN: f"return kept.sum(1, keepdim=True) / {_COUNT}.unsqueeze(-1)"},
    ),
    (
        "one mean for all texts",
        "All texts got the same vector, the mean over the whole batch. Each has a mean of its own.",
        {_MEAN: "return (kept.sum((0, 1)) / mask.sum().clamp(min=1)).expand(len(vectors), -1)"},
    ),
    (
        "one vector for the batch",
        "One vector came back for the whole batch. Each text has one of its own: (B, D).",
        {_MEAN: "return kept.sum((0, 1)) / mask.sum().clamp(min=1)"},
    ),
]:
    slip(MeanPool, _name, _message, _edits)


@exercise(
    "pretrained.search",
    parts={"one query": 1, "several queries": 1, "edge cases": 1},
    difficulty=2,
    minutes=15,
    read="12_real_weights#searching",
    sections={"one query": "cosine"},
    builds_on=("F.normalize", "F.cosine_similarity"),
    instead="Build it from vectors of length 1, a product of matrices and `topk`.",
)
class Search(Check):
    """Which vectors were found is judged by their cosines, so that equal ones may come in either order.

    Only "one query" has vectors of different lengths. All others have the length 1 or 0, so that who takes dot products
    for cosines loses that part alone.
    """

    equivalent: ClassVar = {
        f"search: {_COSINES} -> {_COSINES.replace('(vectors, dim=-1)', new)}": "the last axis of two"
        for new in ("(vectors)", "(vectors, dim=1)")
    }

    def prepare(self, rng):
        def inputs(n, k, queries=0, unit=True, dtype=torch.float32, width=6):
            query = rng.normal(*([queries, width] if queries else [width]), dtype=dtype)
            vectors = rng.normal(n, width, dtype=dtype)
            query, vectors = (x / x.norm(dim=-1, keepdim=True) for x in (query, vectors))
            if not unit:
                query, vectors = 3 * query, vectors * torch.linspace(0.2, 8, n, dtype=dtype).roll(n // 2).unsqueeze(1)
            return {"query": query, "vectors": vectors, "k": k, "valid": 1 <= k <= n}

        def sorted_by(data, largest_first):
            order = (data["vectors"] @ data["query"] / data["vectors"].norm(dim=-1)).argsort(descending=largest_first)
            return data | {"vectors": data["vectors"][order]}

        def with_zeros(data, *rows, query=False):
            vectors = data["vectors"].clone()
            vectors[-1] = -data["query"]  # behind all others, those of zeros among them
            vectors[list(rows)] = 0.0
            return data | {"vectors": vectors, "query": torch.zeros_like(data["query"]) if query else data["query"]}

        one, several, edges = self.parts
        yield Case("the three nearest of nine", inputs(9, 3, unit=False), one)
        yield Case("the nearest", inputs(8, 1, unit=False), one)
        yield Case("the nearest stand last", sorted_by(inputs(9, 4, unit=False), largest_first=False), one)
        yield Case("the nearest stand first", sorted_by(inputs(9, 4, unit=False), largest_first=True), one)
        opposite = inputs(5, 2, unit=False)
        opposite["vectors"][3] = -2 * opposite["query"]
        yield Case("a vector that points the other way", opposite, one)
        yield Case("float64", inputs(6, 2, unit=False, dtype=torch.float64), one)
        yield Case("several queries", inputs(8, 3, queries=4), several)
        yield Case("one query in a batch", inputs(5, 2, queries=1), several)
        yield Case("more queries than vectors", inputs(3, 2, queries=6), several)
        yield Case("as many queries as are to be found", inputs(7, 3, queries=3), several, hidden=True)
        yield Case("a vector of zeros", with_zeros(inputs(6, 5), 2), edges)
        yield Case("two vectors of zeros", with_zeros(inputs(7, 6, width=3), 0, 4), edges)
        yield Case("a query of zeros", with_zeros(inputs(5, 3), query=True), edges)
        yield Case("all of them", inputs(7, 7), edges)
        yield Case("nothing to be found", inputs(5, 0), edges)
        yield Case("fewer than nothing", inputs(5, -1), edges)
        yield Case("one more than there are", inputs(5, 6), edges)
        yield Case("several queries, one more than there are", inputs(3, 4, queries=5), edges)

    @staticmethod
    def probe(search, case, /):
        try:
            found = search(case.query, case.vectors, case.k)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        return {"found": tuple(found) if isinstance(found, tuple) else found}

    def judge(self, case, got):
        if not case.valid:
            yield holds(hasattr(got, "error"), NO_ERROR.format(f"k={case.k} of {len(case.vectors)} cannot be found"))
            return
        yield is_kind(got.found, tuple, "two tensors: the cosines and the places")
        yield holds(len(got.found) == 2, "Return two tensors: the cosines and the places.")
        cosines, places = got.found
        right, _ = pretrained.search(case.query, case.vectors, case.k)
        yield from _near(cosines, right, "the cosines")
        yield is_kind(places, Tensor, "a torch.Tensor", "the places")
        whole = not places.is_floating_point() and not places.is_complex() and places.dtype != torch.bool
        yield holds(whole, "The places must be integers: the numbers of rows of `vectors`.")
        places = places.long()
        yield holds(
            places.shape == right.shape,
            f"The places have shape {tuple(places.shape)}; here it should be {tuple(right.shape)}.",
        )
        inside = bool(((places >= 0) & (places < len(case.vectors))).all())
        yield holds(inside, "A place is not the number of a row of `vectors`. Rows are counted from 0.")
        once = all(len(set(row)) == case.k for row in places.reshape(-1, case.k).tolist())
        yield holds(once, "A place comes twice. Each vector can be found once.")
        of_all, _ = pretrained.search(case.query, case.vectors, len(case.vectors))
        yield holds(bool(of_all.isfinite().all()), "The cosines are not finite.")
        unit = torch.nn.functional.normalize(case.vectors, dim=-1)
        at_places = (unit[places] * torch.nn.functional.normalize(case.query, dim=-1).unsqueeze(-2)).sum(-1)
        yield same(at_places.float(), cosines.float(), "the cosines of the vectors at these places")


_PRODUCT = _COSINES.removeprefix("cosines = ")
_BEST = "best = cosines.topk(k)"
_RETURN = "return best.values, best.indices"
_CHECK = "if not 1 <= k <= len(vectors):"
for _name, _message, _edits, _read in [
    (
        "dot products",
        "These are dot products, in which a long vector wins whatever its direction. Divide by both lengths.",
        {_PRODUCT: "query @ vectors.T"},
        "cosine",
    ),
    (
        "the query's length",
        "The dot products are divided by the length of the query alone. Divide by the lengths of the vectors, too: their "
        "order depends on it.",
        {_PRODUCT: "functional.normalize(query, dim=-1) @ vectors.T"},
        "cosine",
    ),
    (
        "the vectors' lengths",
        "The dot products are not divided by the length of the query. The order is right, and the cosines are not.",
        {_PRODUCT: "query @ functional.normalize(vectors, dim=-1).T"},
        "cosine",
    ),
    (
        "ordered by dot products",
        "The vectors with the largest dot products were found, with their cosines. A long vector wins there whatever its "
        "direction: choose by the cosines.",
        {_BEST: "order = (query @ vectors.T).topk(k).indices", _RETURN: "return cosines.gather(-1, order), order"},
        "cosine",
    ),
    (
        "squared lengths",
        "The dot products are divided by the squares of the lengths. Take the roots.",
        {_PRODUCT: "query / query.square().sum(-1, keepdim=True).clamp(min=1e-20) @ "
         "(vectors / vectors.square().sum(-1, keepdim=True).clamp(min=1e-20)).T"},
        "cosine",
    ),
    (
        "the components normalised",
        "`vectors` is normalised along the wrong axis: each component over all vectors. Each vector has a length, along the "
        "last axis.",
        {"functional.normalize(vectors, dim=-1)": "functional.normalize(vectors, dim=0)"},
        "cosine",
    ),
    (
        "distances",
        "These are distances, not cosines.",
        {_PRODUCT: "-(query.unsqueeze(-2) - vectors).norm(dim=-1)", _RETURN: "return -best.values, best.indices"},
        "cosine",
    ),
    (
        "one minus the cosine",
        "The result is 1 minus the cosine. Return the cosines themselves, the largest first.",
        {_RETURN: "return 1 - best.values, best.indices"},
        "cosine",
    ),
    (
        "without a sign",
        "A vector that points the other way counts as near: the sign of the cosines is lost.",
        {_PRODUCT: f"({_PRODUCT}).abs()"},
        "cosine",
    ),
    (
        "one length for all queries",
        "All queries together were taken for one vector and divided by its length. Each query has a length of its own: "
        "along the last axis.",
        {"functional.normalize(query, dim=-1)": "query / query.norm().clamp(min=1e-12)"},
        "",
    ),
    (
        "queries normalised along the wrong axis",
        "Several queries are normalised along the wrong axis: each component over all queries. Use the last axis.",
        {"functional.normalize(query, dim=-1)": "functional.normalize(query, dim=0)"},
        "",
    ),
    (
        "the first query alone",
        "With several queries, only the first was searched for. Give a row of results for each.",
        {_BEST: "cosines = cosines[:1] if cosines.dim() == 2 else cosines\n    " + _BEST},
        "",
    ),
    (
        "the first query for all",
        "Each row has the result of the first query. Every query has a row of its own.",
        {_BEST: "cosines = cosines[:1].expand_as(cosines) if cosines.dim() == 2 else cosines\n    " + _BEST},
        "",
    ),
    (
        "the queries' axis dropped",
        "One query in a batch, of shape (1, D), lost its axis. Its result has shape (1, k).",
        {_RETURN: "return best.values.squeeze(0), best.indices.squeeze(0)"},
        "",
    ),
    (
        "the best over all queries",
        "The best of all queries together came back. Each query has a list of its own: (Q, k).",
        {_BEST: "best = cosines.flatten().topk(k)"},
        "",
    ),
    (
        "the best queries",
        "For several queries the best were chosen along the wrong axis: the nearest queries of each vector. Choose along the "
        "vectors, the last axis.",
        {_BEST: "best = cosines.topk(min(k, cosines.size(0)), dim=0)"},
        "",
    ),
    (
        "several queries refused",
        "A batch of queries, (Q, D), ends in an error. `@` with the vectors transposed serves one query and several.",
        {_PRODUCT: "functional.normalize(vectors, dim=-1) @ functional.normalize(query, dim=-1)"},
        "",
    ),
    (
        "an axis for the batch too many",
        "For a single query, (D,), the result has an axis too many. It has shape (k,).",
        {_BEST: "cosines = torch.atleast_2d(cosines)\n    " + _BEST},
        "",
    ),
    (
        "the smallest first",
        "The vectors that point least in the query's direction came back. The largest cosine is the nearest.",
        {"cosines.topk(k)": "cosines.topk(k, largest=False)"},
        "",
    ),
    (
        "the largest last",
        "The right vectors, with the largest cosine last. It comes first.",
        {_RETURN: "return best.values.flip(-1), best.indices.flip(-1)"},
        "",
    ),
    (
        "in the order of the rows",
        "The right vectors, in the order in which they stand in `vectors`. The largest cosine comes first.",
        {_RETURN: "order = best.indices.argsort(-1)\n    return best.values.gather(-1, order), best.indices.gather(-1, order)"},
        "",
    ),
    (
        "all of them",
        "All vectors came back. `k` says how many to return.",
        {"cosines.topk(k)": "cosines.topk(len(vectors))"},
        "",
    ),
    (
        "places first",
        "Places and cosines are exchanged. Return the cosines first.",
        {_RETURN: "return best.indices, best.values"},
        "",
    ),
    (
        "places counted from 1",
        "The places are counted from 1. Count rows from 0.",
        {_RETURN: "return best.values, best.indices + 1"},
        "",
    ),
    (
        "ranks",
        "The second result counts from 0 to k - 1. Return the places in `vectors`, the numbers of the rows.",
        {_RETURN: "return best.values, torch.arange(k).expand_as(best.indices)"},
        "",
    ),
    (
        "the vectors themselves",
        "The vectors that were found came back. Return their places, the numbers of the rows.",
        {_RETURN: "return best.values, vectors[best.indices]"},
        "",
    ),
    (
        "places that are no integers",
        "The places are floating point numbers. Return integers, with which a list can be looked up.",
        {_RETURN: "return best.values, best.indices.to(best.values.dtype)"},
        "",
    ),
    (
        "the places alone",
        "Only the places came back. Return the cosines and the places.",
        {_RETURN: "return best.indices"},
        "",
    ),
    (
        "another dtype",
        "The cosines are float32 whatever came in. Keep the dtype of the vectors.",
        {"return best.values": "return best.values.float()"},
        "",
    ),
    (
        "divided by zero",
        "A vector of zeros gives NaN, for 0 is divided by 0. Its cosine is 0: keep the length from zero, with `clamp` for "
        "example.",
        {_PRODUCT: "(query / query.norm(dim=-1, keepdim=True)) @ (vectors / vectors.norm(dim=-1, keepdim=True)).T"},
        "",
    ),
    (
        "zeros left out",
        "Vectors of zeros are never found. Their cosine is 0, which is more than a negative one.",
        {_BEST: "cosines = cosines.masked_fill((vectors == 0).all(-1), -1.0)\n    " + _BEST},
        "",
    ),
    (
        "nothing passes",
        "k=0 is not refused. Raise a ValueError where k is not from 1 to N.",
        {_CHECK: "if not 0 <= k <= len(vectors):"},
        "",
    ),
    (
        "k is not looked at",
        "`k` is not looked at: what is impossible ends in PyTorch's own error or in an empty result. Raise a ValueError "
        "where k is not from 1 to N.",
        {_CHECK: "if False:"},
        "",
    ),
    (
        "fewer than asked for",
        "Where more were asked for than there are, all came back. Raise a ValueError where k is not from 1 to N.",
        {_CHECK: "if k < 1:", "topk(k)": "topk(min(k, len(vectors)))"},
        "",
    ),
    (
        "all of them refused",
        "k = N is refused. All vectors may be asked for.",
        {_CHECK: "if not 1 <= k < len(vectors):"},
        "",
    ),
    (
        "one refused",
        "k = 1 is refused. One vector may be asked for.",
        {_CHECK: "if not 1 < k <= len(vectors):"},
        "",
    ),
]:  # fmt: skip
    slip(Search, _name, _message, _edits, read=_read)

reflection(
    "pretrained.fits",
    chapter="12_real_weights",
    points=2,
    rubric="""
    1 point: two faults, and for each why every tensor still has its place and shape: a square matrix that is not
    transposed; another number of heads (the matrices are cut only when the model runs); query, key and value exchanged;
    another eps or activation function, no mask for padding, tokens not scaled (none of these has a tensor); pairs of
    rotary components in another order.

    1 point: how to find them: put the same inputs through the original and one's own, in eval mode, and compare the
    outputs to about five digits; texts of different lengths in one batch for the mask; layer by layer to find the first
    place where they part. That the results look sensible is not enough.
    """,
)
reflection(
    "pretrained.meaning",
    chapter="12_real_weights",
    points=2,
    rubric="""
    1 point: two kinds of questions, each with its reason: negation and opposites (the vector says above all what a text
    is about); exact names, numbers, dates and identifiers, or words that the model has not seen (they are lost in one
    vector); who did what to whom; a detail of a long text (the mean blurs it, or the text was cut off); several
    conditions at once; questions to which no text is the answer (something is always nearest).

    1 point: what to put beside it, for one of these: search by words, alone or summed with the cosines; a second stage
    that reads question and text together; shorter passages; filters on dates and the like; a person who looks.
    """,
)
