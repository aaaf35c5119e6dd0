"""Checks of chapter 12: names of weights, BERT's and GPT-2's files, one vector for a text, and search."""

import ast
from typing import ClassVar

import torch

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, is_kind, same, same_table
from solutions import pretrained

NO_ERROR = "No ValueError was raised, though {}."
_TABLE = {
    "embed": "table",
    "block.*.attention.query": "blocks.*.query",
    "block.*.norm_1": "blocks.*.norm",
    "block.*.shared": "shared",
    "block.*.attention": None,
    "last": "norm",
    "stack.1": "second",
    "twin": "table",
}
_LAYER = 'layer, _, kind = name.removeprefix(prefix).rpartition(".")'
_NUMBER = r'number = re.search(r"\.(\d+)\.", layer)'
_NUMBER_LONGER = r'number = re.search(r"\.(\d+)\.?", layer)'
_PATTERN = r'pattern = re.sub(r"\.\d+\.", ".*.", layer)'
_SKIP = "        if ours is None:\n            continue\n"
_DOUBLE = "if ours in renamed and not torch.equal(renamed[ours], tensor):"
_UNKNOWN = "if pattern not in names:"
_UNKNOWN_ERROR = 'raise ValueError(f"the tensor {name!r} belongs to no known layer")'

_CUT = 'for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):'
_WIDE = "if tensor.size(0) % 3 != 0:"
_COSINES = "cosines = functional.normalize(query, dim=-1) @ functional.normalize(vectors, dim=-1).T"


def _unparsed(line):
    """A line as a mutant's label shows it."""
    return ast.unparse(ast.parse(f"{line}\n    pass" if line.endswith(":") else line)).removesuffix("\n    pass")


@exercise(
    "pretrained.rename_weights",
    parts={"names": 1, "old names": 1, "left out": 1, "doubles": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=25,
    read="12_real_weights#names",
)
class RenameWeights(Check):
    """A small table of names; only "old names" has gammas and betas, only "left out" what is no layer."""

    equivalent: ClassVar = {
        "rename_weights: def rename_weights(weights, names, prefix=''): -> def rename_weights(weights, names, "
        "prefix='?'):": "no name begins with a question mark",
        f"rename_weights: {_unparsed(_NUMBER)} -> {_unparsed(_NUMBER_LONGER)}": "a layer whose name ends with "
        "a number has no block in it",
        f"rename_weights: {_unparsed(_DOUBLE)} -> {_unparsed(_DOUBLE.replace('renamed[ours], tensor', 'tensor, renamed[ours]'))}": (
            "equality has no direction"
        ),
    }

    def prepare(self, rng):
        def inputs(*names, prefix="", same_as=(), bad=False):
            weights = {name: rng.normal(2, 3) for name in names}
            for name, other in same_as:
                weights[name] = weights[other].clone()
            return {"weights": weights, "names": _TABLE, "prefix": prefix, "bad": bad}

        query, norm = "block.{}.attention.query.weight", "block.{}.norm_1.bias"
        plain, old, left, doubles, error = self.parts
        yield Case("two layers without a number", inputs("embed.weight", "last.bias"), plain)
        yield Case("blocks 0 and 1", inputs(*(query.format(n) for n in (0, 1))), plain)
        yield Case("block 12", inputs(query.format(12), query.format(1)), plain)
        yield Case("a layer whose own name has a digit", inputs(norm.format(3), "last.weight"), plain)
        yield Case("a prefix", inputs("model.embed.weight", "model." + query.format(0), prefix="model."), plain)
        yield Case("a prefix that some names have", inputs("model.embed.weight", "last.bias", prefix="model."), plain)
        yield Case(
            "a prefix whose letters stand in the name", inputs("last.bias", "embed.weight", prefix="slate."), plain
        )
        yield Case("a number at the end of a layer's name", inputs("stack.1.weight"), plain)
        yield Case("no tensor", inputs(), plain)
        yield Case(
            "blocks 7 and 70 with a prefix",
            inputs(*("m." + norm.format(n) for n in (7, 70)), prefix="m."),
            plain,
            hidden=True,
        )
        yield Case("gamma and beta", inputs("last.gamma", "last.beta"), old)
        yield Case("gamma in a block", inputs("block.5.norm_1.gamma"), old)
        yield Case("a mask among the weights", inputs("block.0.attention.bias", query.format(0)), left)
        yield Case("masks alone", inputs("block.0.attention.bias", "block.1.attention.masked_bias"), left)
        yield Case(
            "one table under two names", inputs("embed.weight", same_as=[("twin.weight", "embed.weight")]), doubles
        )
        shared = [("block.1.shared.weight", "block.0.shared.weight")]
        yield Case("a layer that all blocks share", inputs("block.0.shared.weight", same_as=shared), doubles)
        yield Case("an unknown layer", inputs("embed.weight", "block.0.gate.weight", bad="block.0.gate.weight"), error)
        unknown = "model.block.2.attention.rotary.bias"
        yield Case(
            "an unknown layer with a prefix", inputs("model.embed.weight", unknown, prefix="model.", bad=unknown), error
        )
        yield Case("two different tables", inputs("embed.weight", "twin.weight", bad="twin.weight"), error)

    @staticmethod
    def probe(rename_weights, case, /):
        given = {name: tensor.clone() for name, tensor in case.weights.items()}
        try:
            prefix = [case.prefix] if case.prefix else []
            renamed = rename_weights(case.weights, case.names, *prefix)
        except ValueError as error:
            if not case.bad:
                raise
            return {"error": str(error)}
        untouched = list(given) == list(case.weights) and all(torch.equal(given[n], case.weights[n]) for n in given)
        return {"renamed": renamed, "untouched": untouched}

    def judge(self, case, got):
        if case.bad:
            yield holds(hasattr(got, "error"), NO_ERROR.format(f"{case.bad!r} must be refused"))
            yield holds(case.bad in str(got.error), "The error's message does not hold the tensor's published name.")
            return
        yield is_kind(got.renamed, dict, "a dictionary")
        yield same_table(got.renamed, pretrained.rename_weights(case.weights, case.names, case.prefix), "the result")
        yield holds(got.untouched, "The dictionary that was given has been changed.")


for _name, _message, _edits in [
    (
        "the star stays",
        "Our names still have a star. Put the number of the block in its place.",
        {'ours = ours.replace("*", number[1])': "pass"},
    ),
    (
        "the first digit only",
        "Of a block's number only the first digit was taken. Numbers may have several digits.",
        {'ours.replace("*", number[1])': 'ours.replace("*", number[1][0])'},
    ),
    (
        "every number is a block's",
        "A digit within a layer's name, as in norm_1, was taken for the number of a block. The number stands alone between "
        "two dots.",
        {_PATTERN: r'pattern = re.sub(r"\d+", "*", layer)'},
    ),
    (
        "one digit between the dots",
        "Block 12 was not recognised: a number between two dots may have several digits.",
        {_NUMBER: r'number = re.search(r"\.(\d)\.", layer)', _PATTERN: r'pattern = re.sub(r"\.\d\.", ".*.", layer)'},
    ),
    (
        "prefix not taken off",
        "The prefix was not taken off, so the layer is not found in the table.",
        {".removeprefix(prefix)": ""},
    ),
    (
        "as many letters as the prefix has",
        "From every name so many letters were taken off as the prefix has, also where a name does not begin with it.",
        {"name.removeprefix(prefix)": "name[len(prefix):]"},
    ),
    (
        "the letters of the prefix",
        "Letters were taken off that stand in the prefix, in any order: that is what lstrip does. removeprefix takes off the "
        "prefix as a whole.",
        {"name.removeprefix(prefix)": "name.lstrip(prefix)"},
    ),
    (
        "names without the prefix dropped",
        "Names that do not begin with the prefix were left out. They are taken as they are.",
        {
            "        layer, _, kind": "        if not name.startswith(prefix):\n            continue\n        layer, _, kind"
        },
    ),
    (
        "gamma and beta stay",
        "gamma and beta kept their old names. They are the weight and the bias of a norm.",
        {".get(kind, kind)": ".get('', kind)"},
    ),
    (
        "gamma and beta swapped",
        "gamma became the bias and beta the weight. It is the other way round.",
        {"'gamma': 'weight', 'beta': 'bias'": "'gamma': 'bias', 'beta': 'weight'"},
    ),
    (
        "what is left out is kept",
        "A tensor whose layer has None in the table was kept. Leave it out.",
        {_SKIP: "        ours = ours or layer\n"},
    ),
    (
        "what is left out is refused",
        "A tensor whose layer has None in the table was refused. It is known, and left out.",
        {_SKIP: "        if ours is None:\n            raise ValueError(name)\n"},
    ),
    (
        "equal doubles refused",
        "Two equal tensors got one name, which is allowed, and an error was raised.",
        {_DOUBLE: "if ours in renamed:"},
    ),
    (
        "doubles never refused",
        "Two different tensors got one name, and one of them was lost without an error.",
        {_DOUBLE: "if False:"},
    ),
    (
        "unknown layers left out",
        "A tensor of an unknown layer was left out without a word. Raise a ValueError: what is left over may be what matters.",
        {_UNKNOWN_ERROR: "continue"},
    ),
    (
        "unknown layers kept",
        "A tensor of an unknown layer was kept under its own name. Raise a ValueError.",
        {_UNKNOWN_ERROR: "renamed[name] = tensor\n            continue"},
    ),
    (
        "the error names the layer only",
        "The error's message must hold the tensor's published name as it stands in `weights`, with its prefix.",
        {_UNKNOWN_ERROR: "raise ValueError(f'unknown layer {pattern}')"},
    ),
    (
        "a copy of each tensor",
        "The numbers are other ones than those given. Hand over the tensors as they are.",
        {"renamed[ours] = tensor": "renamed[ours] = tensor.half().to(tensor.dtype)"},
    ),
    (
        "what the tensor is to its layer is lost",
        "The names lack what stands behind the last dot, such as weight or bias.",
        {'ours = f"{ours}.{ {': 'ours = f"{ours}{ {', "}.get(kind, kind) }": "}.get(kind, '') }"},
    ),
]:
    slip(RenameWeights, _name, _message, _edits)


def _file(rng, layers, prefix="", kinds=("weight", "bias")):
    """Tensors under the published names of these layers: matrices of 2 by 3, biases of 2."""
    shapes = {"weight": (2, 3), "gamma": (2,)}
    return {f"{prefix}{layer}.{kind}": rng.normal(*shapes.get(kind, (2,))) for layer in layers for kind in kinds}


_BERT_TABLES = ["embeddings.word_embeddings", "embeddings.position_embeddings", "embeddings.token_type_embeddings"]
_BERT_BLOCK = [name for name in pretrained.BERT_NAMES if "*" in name]
_BERT_HEAD = ["cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"]


@exercise(
    "pretrained.convert_bert",
    parts={"names": 1, "head": 1, "error": 1},
    claims=("error",),
    difficulty=1,
    minutes=15,
    read="12_real_weights#bert-weights",
    sections={"error": "names"},
)
class ConvertBert(Check):
    """Files of an encoder alone in "names"; in "head" only what stands under `output` counts."""

    equivalent: ClassVar = {}

    def prepare(self, rng):
        def inputs(*layers, prefix="", blocks=1, head=False, decoder="", bad=False, kinds=("weight", "bias")):
            within = [name.replace("*", str(number)) for number in range(blocks) for name in _BERT_BLOCK]
            weights = _file(rng, _BERT_TABLES, prefix, ("weight",))
            weights |= _file(rng, ["embeddings.LayerNorm"], prefix, kinds) | _file(rng, [*within, *layers], prefix)
            if head:
                weights |= _file(rng, _BERT_HEAD) | _file(rng, ["cls.predictions"], kinds=("bias",))
            table = prefix + "embeddings.word_embeddings.weight"
            if decoder:
                weights["cls.predictions.decoder.weight"] = (
                    weights[table].clone() if decoder == "tied" else rng.normal(2, 3)
                )
                weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"].clone()
            return {"weights": weights, "bad": bad}

        names, head, error = self.parts
        yield Case("an encoder of one block", inputs(), names)
        yield Case("three blocks with a prefix", inputs(prefix="bert.", blocks=3), names)
        yield Case("a pooler", inputs("pooler.dense", prefix="bert."), names)
        old = inputs("pooler.dense", kinds=("gamma", "beta"))
        old["weights"]["embeddings.position_ids"] = torch.arange(4)
        yield Case("an old file, with position_ids", old, names)
        yield Case("twelve blocks", inputs(blocks=12), names, hidden=True)
        yield Case("a head without a matrix", inputs(prefix="bert.", head=True), head)
        yield Case("a head whose matrix is the table", inputs(prefix="bert.", head=True, decoder="tied"), head)
        yield Case("a head with a matrix of its own", inputs(head=True, decoder="own"), head)
        yield Case("no head", inputs("pooler.dense"), head)
        alone = _file(rng, _BERT_HEAD) | _file(rng, ["cls.predictions"], kinds=("bias",))
        yield Case("a head without the encoder", {"weights": alone, "bad": False}, head)
        yield Case("an unknown layer", inputs("encoder.layer.0.adapter", bad="encoder.layer.0.adapter.weight"), error)

    @staticmethod
    def probe(convert_bert, case, /):
        try:
            return {"converted": convert_bert(case.weights)}
        except ValueError:
            if not case.bad:
                raise
            return {"error": "ValueError"}

    def judge(self, case, got):
        if case.bad:
            yield holds(hasattr(got, "error"), NO_ERROR.format(f"{case.bad!r} belongs to no layer"))
            return
        yield is_kind(got.converted, dict, "a dictionary")
        right = pretrained.convert_bert(case.weights)
        if case.part == "head":
            right = {name: tensor for name, tensor in right.items() if name.startswith("output.")}
            found = {name: tensor for name, tensor in got.converted.items() if str(name).startswith("output.")}
            yield same_table(found, right, "what is named `output`")
            return
        yield same_table(got.converted, right, "the result")


_BERT_RENAME = 'converted = rename_weights(weights, BERT_NAMES, prefix="bert.")'
_BERT_IF = 'if "output.bias" in converted and "embedding.tokens.weight" in converted:'
_BERT_SET = 'converted.setdefault("output.weight", converted["embedding.tokens.weight"])'
for _name, _message, _edits in [
    (
        "no prefix",
        "Names that begin with bert. were not recognised. Pass it to rename_weights as the prefix.",
        {', prefix="bert."': ""},
    ),
    (
        "no matrix for the head",
        "The file has a head without a matrix, and `output.weight` is missing. It is the table of the tokens.",
        {_BERT_SET: "pass"},
    ),
    (
        "always the table",
        "The file has a matrix of its own for the head, and it was replaced by the table of the tokens.",
        {_BERT_SET: 'converted["output.weight"] = converted["embedding.tokens.weight"]'},
    ),
    (
        "a matrix without a head",
        "The file has no head, and `output.weight` was added. Then load_weights finds a tensor too many.",
        {'"output.bias" in converted and ': ""},
    ),
    (
        "the table's absence not looked at",
        "Where the table of the tokens is missing, a KeyError was raised. Add `output.weight` only if the table is there.",
        {' and "embedding.tokens.weight" in converted': ""},
    ),
    (
        "unknown layers left out",
        "A tensor of an unknown layer was left out without an error. Let the ValueError of rename_weights stay.",
        {_BERT_RENAME: "known = {}\n    for name, tensor in weights.items():\n        try:\n"
         '            known |= rename_weights({name: tensor}, BERT_NAMES, prefix="bert.")\n'
         "        except ValueError:\n            pass\n    converted = known"},
    ),
]:  # fmt: skip
    slip(ConvertBert, _name, _message, _edits)


@exercise(
    "pretrained.convert_gpt2",
    parts={"names": 1, "transposed": 1, "query, key and value": 1, "output": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=30,
    read="12_real_weights#gpt2-weights",
    sections={"error": "names"},
)
class ConvertGPT2(Check):
    """Each part looks at its own tensors: vectors and tables, matrices of the blocks, the cut ones, the output."""

    equivalent: ClassVar = {
        f"convert_gpt2: {_unparsed(_WIDE)} -> {_unparsed(_WIDE.replace('!=', '>'))}": "a remainder is not negative",
        f"convert_gpt2: {_unparsed(_CUT)} -> {_unparsed(_CUT.replace(', strict=True', ''))}": "there are three of each",
        f"convert_gpt2: {_unparsed(_CUT)} -> {_unparsed(_CUT.replace('True', 'False'))}": "there are three of each",
    }

    def prepare(self, rng):
        def inputs(blocks=1, prefix="", d=2, output="", masks=False, drop=(), wide=0, kind="weight"):
            weights = {f"{prefix}wte.weight": rng.normal(5, d), f"{prefix}wpe.weight": rng.normal(4, d)}
            for number in range(blocks):
                start = f"{prefix}h.{number}."
                for norm in ("ln_1", "ln_2"):
                    weights |= {f"{start}{norm}.{kind}": rng.normal(d) for kind in ("weight", "bias")}
                sizes = {
                    "attn.c_attn": (d, 3 * d),
                    "attn.c_proj": (d, d),
                    "mlp.c_fc": (d, 4 * d),
                    "mlp.c_proj": (4 * d, d),
                }
                for name, shape in sizes.items():
                    weights |= {
                        f"{start}{name}.weight": rng.normal(*shape),
                        f"{start}{name}.bias": rng.normal(shape[1]),
                    }
                if masks:
                    weights |= {f"{start}attn.bias": torch.ones(1, 1, 4, 4), f"{start}attn.masked_bias": torch.ones(1)}
            weights |= {f"{prefix}ln_f.{kind}": rng.normal(d) for kind in ("weight", "bias")}
            if output:
                table = weights[f"{prefix}wte.weight"]
                weights["lm_head.weight"] = table.clone() if output == "tied" else rng.normal(5, d)
            for name in drop:
                del weights[name]
            if wide:
                name = f"{prefix}h.0.attn.c_attn.{kind}"
                weights[name] = rng.normal(d, wide) if kind == "weight" else rng.normal(wide)
            return {"weights": weights, "bad": f"a tensor of width {wide} cannot be cut in three" if wide else ""}

        names, transposed, cut, output, error = self.parts
        yield Case("one block", inputs(), names)
        yield Case("two blocks with a prefix", inputs(2, "transformer."), names)
        yield Case("an old file with masks", inputs(2, masks=True), names)
        yield Case("a model of width 3", inputs(1, d=3), transposed)
        yield Case("two blocks", inputs(2, d=3), transposed)
        yield Case("the attention of one block", inputs(1, d=4), cut)
        yield Case("the attention of two blocks, with a prefix", inputs(2, "transformer.", d=4), cut)
        yield Case("eleven blocks", inputs(11, "transformer."), cut, hidden=True)
        yield Case("no lm_head", inputs(), output)
        yield Case("an lm_head that is the table", inputs(prefix="transformer.", output="tied"), output)
        yield Case("an lm_head of its own", inputs(output="own"), output)
        yield Case("no table", inputs(drop=["wte.weight"]), output)
        yield Case("a bias of width 8", inputs(wide=8, kind="bias"), error)
        yield Case("a matrix of width 7", inputs(wide=7), error)
        unknown = inputs()
        unknown["weights"]["h.0.mlp.gate.weight"], unknown["bad"] = (
            rng.normal(2),
            "'h.0.mlp.gate.weight' is of no known layer",
        )
        yield Case("an unknown layer", unknown, error)

    @staticmethod
    def probe(convert_gpt2, case, /):
        given = {name: tensor.clone() for name, tensor in case.weights.items()}
        try:
            converted = convert_gpt2(case.weights)
        except ValueError as error:
            if not case.bad:
                raise
            return {"error": str(error)}
        untouched = list(given) == list(case.weights) and all(torch.equal(given[n], case.weights[n]) for n in given)
        return {"converted": converted, "untouched": untouched}

    def judge(self, case, got):
        if case.bad:
            yield holds(hasattr(got, "error"), NO_ERROR.format(case.bad))
            if case.bad.startswith("a tensor of width"):
                named = "blocks.0.attention.query_key_value" in str(got.error)
                yield holds(named, "The error's message does not hold our name of the tensor.")
            return
        yield is_kind(got.converted, dict, "a dictionary")
        right = pretrained.convert_gpt2(case.weights)
        wanted, found = (
            {name: t for name, t in part.items() if self.belongs(name, t) == case.part}
            for part in (right, got.converted)
        )
        yield same_table(
            found, wanted, {"names": "the result", "output": "what is named `output`"}.get(case.part, case.part)
        )
        yield holds(got.untouched, "The dictionary that was given has been changed.")

    @staticmethod
    def belongs(name, tensor):
        """The part that looks at a tensor."""
        layer = str(name).rpartition(".")[0]
        if layer == "output":
            return "output"
        if layer.endswith((".query", ".key", ".value", ".query_key_value")):
            return "query, key and value"
        matrices = (".attention.output", ".feed_forward.up", ".feed_forward.down")
        return "transposed" if layer.endswith(matrices) and str(name).endswith("weight") else "names"


_T_IF = 'if name.startswith("blocks.") and tensor.dim() == 2:'
_T = "tensor = tensor.T"
_OUT_IF = 'if "embedding.tokens.weight" in converted:'
_OUT_SET = _BERT_SET
for _name, _message, _edits in [
    (
        "not transposed",
        "The matrices of the blocks were not transposed. GPT-2 keeps them as (in, out), nn.Linear as (out, in).",
        {_T_IF: 'if name.startswith("blocks.") and tensor.dim() == 2 and "query_key_value" in name:'},
    ),
    (
        "query, key and value not transposed",
        "The matrix of query, key and value was cut without being transposed.",
        {_T_IF: 'if name.startswith("blocks.") and tensor.dim() == 2 and "query_key_value" not in name:'},
    ),
    (
        "nothing transposed",
        "No matrix was transposed. GPT-2 keeps those of its blocks as (in, out), nn.Linear as (out, in).",
        {_T_IF: "if False:"},
    ),
    (
        "every table transposed",
        "The tables of tokens and positions were transposed too. Only the matrices of the blocks are kept as (in, out).",
        {'name.startswith("blocks.") and ': ""},
    ),
    (
        "square matrices not transposed",
        "A square matrix was not transposed. Its shape does not show it, but it is kept as (in, out) like the others.",
        {"tensor.dim() == 2:": "tensor.dim() == 2 and tensor.size(0) != tensor.size(1):"},
    ),
    (
        "key, query, value",
        "The parts were named in the wrong order. In GPT-2's file they stand as query, key, value.",
        {'("query", "key", "value")': '("key", "query", "value")'},
    ),
    (
        "value, key, query",
        "The parts were named in reverse. In GPT-2's file they stand as query, key, value.",
        {'("query", "key", "value")': '("value", "key", "query")'},
    ),
    (
        "every third row",
        "Every third row was taken for a part. The three stand one after the other: cut with chunk(3).",
        {"tensor.chunk(3)": "(tensor[0::3], tensor[1::3], tensor[2::3])"},
    ),
    (
        "cut along the input",
        "The matrix was cut along its input. The parts stand side by side along the output, which is the first axis after "
        "transposing.",
        {"tensor.chunk(3)": "tensor.chunk(3, dim=-1)", "strict=True": "strict=False"},
    ),
    (
        "only weights cut",
        "The bias of query, key and value was not cut.",
        {'if "query_key_value" not in name:': 'if "query_key_value" not in name or name.endswith("bias"):'},
    ),
    (
        "not cut",
        "query, key and value were left in one tensor. Cut it in three.",
        {'if "query_key_value" not in name:': "if True:"},
    ),
    (
        "no output",
        "`output.weight` is missing. Where the file has no lm_head, the output has the table of the tokens.",
        {_OUT_SET: "pass"},
    ),
    (
        "always the table",
        "The file has an lm_head of its own, and it was replaced by the table of the tokens.",
        {_OUT_SET: 'converted["output.weight"] = converted["embedding.tokens.weight"]'},
    ),
    (
        "the table's absence not looked at",
        "Where the table of the tokens is missing, a KeyError was raised. Add `output.weight` only if the table is there.",
        {_OUT_IF: "if True:"},
    ),
    (
        "no prefix",
        "Names that begin with transformer. were not recognised. Pass it to rename_weights as the prefix.",
        {', prefix="transformer."': ""},
    ),
    (
        "any width is cut",
        "A tensor that cannot be cut into three equal parts was cut all the same.",
        {_WIDE: "if False:", "strict=True": "strict=False"},
    ),
    (
        "the error does not name the tensor",
        "The error's message does not hold our name of the tensor that cannot be cut.",
        {"the width of {name!r} is": "a width is"},
    ),
    (
        "transposed in place",
        "The tensors that were given have been transposed themselves. Leave them as they are.",
        {_T: "tensor.t_()"},
    ),
]:
    slip(ConvertGPT2, _name, _message, _edits)


@exercise(
    "pretrained.mean_pool",
    parts={"mean": 1, "padding": 1, "empty rows": 1},
    difficulty=1,
    minutes=15,
    read="12_real_weights#one-vector",
)
class MeanPool(Check):
    """Rows without padding in "mean"; what stands at padding is large, infinite or NaN in "padding" alone."""

    equivalent: ClassVar = {}

    def prepare(self, rng):
        def inputs(lengths, longest=None, width=4, dtype=torch.float64, filler=None, from_right=False):
            longest = longest or max(lengths)
            mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
            mask = mask.flip(1) if from_right else mask
            vectors = rng.normal(len(lengths), longest, width, dtype=dtype)
            if filler is not None:
                vectors = vectors.masked_fill(~mask.unsqueeze(-1), filler)
            return {"vectors": vectors, "mask": mask}

        mean, padding, empty = self.parts
        yield Case("one row, no padding", inputs([3]), mean)
        yield Case("three rows, no padding", inputs([5, 5, 5]), mean)
        yield Case("float32", inputs([4, 4], dtype=torch.float32), mean)
        yield Case("one token", inputs([1, 1], width=1), mean)
        yield Case("rows of different lengths", inputs([2, 5, 1]), padding)
        yield Case("zeros at padding", inputs([1, 4], 6, filler=0.0), padding)
        yield Case("large numbers at padding", inputs([3, 2], filler=1e30), padding)
        yield Case("infinity at padding", inputs([3, 1], filler=float("inf")), padding)
        yield Case("NaN at padding", inputs([3, 1, 2], filler=float("nan")), padding)
        yield Case("padding in front", inputs([2, 4], 5, from_right=True), padding, hidden=True)
        yield Case("a row of padding alone", inputs([3, 0, 2]), empty)
        yield Case("only rows of padding", inputs([0, 0], 3), empty)

    @staticmethod
    def probe(mean_pool, case, /):
        return {"pooled": mean_pool(case.vectors, case.mask)}

    def judge(self, case, got):
        yield same(got.pooled, pretrained.mean_pool(case.vectors, case.mask), "the pooled vectors")


_KEPT = "kept = vectors.masked_fill(~mask.unsqueeze(-1), 0.0)"
_MEAN = "return kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)"
for _name, _message, _edits in [
    (
        "the mask ignored",
        "Padding went into the mean. Only real tokens count.",
        {_KEPT: "kept = vectors", _MEAN: "return kept.mean(1)"},
    ),
    (
        "divided by the whole length",
        "The sum was divided by T, padding included. Divide by the number of real tokens.",
        {_MEAN: "return kept.mean(1)"},
    ),
    (
        "multiplied by the mask",
        "Padding was multiplied by 0, and infinity or NaN times 0 is NaN. Put zeros in its place, with masked_fill or "
        "torch.where.",
        {_KEPT: "kept = vectors * mask.unsqueeze(-1)"},
    ),
    (
        "the mask inverted",
        "The mean was taken over the padding. True marks real tokens.",
        {_KEPT: _KEPT.replace("~", ""), _MEAN: "return kept.sum(1) / (~mask).sum(1, keepdim=True).clamp(min=1)"},
    ),
    (
        "one mean for the batch",
        "All rows were put into one mean. Each text has a vector of its own.",
        {_MEAN: "return (kept.sum((0, 1)) / mask.sum().clamp(min=1)).expand(len(vectors), -1)"},
    ),
    (
        "the sum",
        "The vectors were added up and not divided by their number.",
        {_MEAN: "return kept.sum(1)"},
    ),
    (
        "the first token",
        "The vector of the first token came back. Take the mean over the real tokens.",
        {_MEAN: "return vectors[:, 0]"},
    ),
    (
        "the largest",
        "The largest number of each component was taken. Take the mean.",
        {_MEAN: 'return vectors.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)'},
    ),
    (
        "empty rows are NaN",
        "A row without a real token gives 0 / 0, which is NaN. It must give zeros.",
        {".clamp(min=1)": ""},
    ),
    (
        "one too many in the divisor",
        "The sum was divided by one more than the number of real tokens. To keep away from 0 / 0, take at least 1: clamp(min=1).",
        {".clamp(min=1)": " + 1"},
    ),
]:
    slip(MeanPool, _name, _message, _edits)


@exercise(
    "pretrained.search",
    parts={"one query": 1, "several queries": 1, "zero vectors": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=20,
    read="12_real_weights#searching",
)
class Search(Check):
    """Vectors of very different lengths, so that the largest dot products are not the largest cosines."""

    equivalent: ClassVar = {
        f"search: {_COSINES} -> {_COSINES.replace('(vectors, dim=-1)', other)}": "there are two axes, and 1 is the default"
        for other in ("(vectors)", "(vectors, dim=1)")
    }

    def prepare(self, rng):
        def inputs(count, k, queries=None, width=4, dtype=torch.float64, zero=(), empty_query=False):
            vectors = rng.normal(count, width) * torch.linspace(-3, 3, count).exp().unsqueeze(1)
            vectors[list(zero)] = 0.0
            query = 10 * rng.normal(*(() if queries is None else (queries,)), width)
            if empty_query:
                query = query * torch.tensor([1.0] * (queries - 1) + [0.0]).unsqueeze(1) if queries else 0 * query
            return {"query": query.to(dtype), "vectors": vectors.to(dtype), "k": k}

        one, several, zero, error = self.parts
        yield Case("the best of six", inputs(6, 1), one)
        yield Case("the best three of eight", inputs(8, 3), one)
        yield Case("all of five", inputs(5, 5), one)
        yield Case("float32", inputs(7, 4, dtype=torch.float32), one)
        yield Case("forty vectors", inputs(40, 11, width=6), one, hidden=True)
        yield Case("three queries", inputs(6, 2, queries=3), several)
        yield Case("one query in a batch", inputs(5, 4, queries=1), several)
        yield Case("five queries for three vectors", inputs(3, 1, queries=5), several)
        yield Case("a vector of zeros", inputs(5, 5, zero=[2]), zero)
        yield Case("a query of zeros", inputs(4, 4, empty_query=True), zero)
        yield Case("k = 0", inputs(4, 0), error)
        yield Case("k = N + 1", inputs(4, 5), error)

    @staticmethod
    def probe(search, case, /):
        try:
            cosines, places = search(case.query, case.vectors, case.k)
        except ValueError:
            if 1 <= case.k <= len(case.vectors):
                raise
            return {"error": "ValueError"}
        return {"cosines": cosines, "places": places}

    def judge(self, case, got):
        if case.part == "error":
            yield holds(hasattr(got, "error"), NO_ERROR.format(f"k is {case.k} and N is {len(case.vectors)}"))
            return
        cosines, places = pretrained.search(case.query, case.vectors, case.k)
        yield same(got.cosines, cosines, "the cosines")
        if case.part == "zero vectors" and not case.query.any():
            yield holds(
                isinstance(got.places, torch.Tensor) and close(got.places.sort().values, places.sort().values),
                "The places are not those of the vectors.",
            )
            return
        yield same(got.places, places, "the places")


_K_RANGE = "if not 1 <= k <= len(vectors):"
_TOP = "best = cosines.topk(k)"
_FOUND = "return (best.values, best.indices)"
_FOUND_SOURCE = "return best.values, best.indices"
for _name, _message, _edits in [
    (
        "dot products",
        "Dot products were compared, which long vectors win. Divide by the lengths of both: the cosine.",
        {_COSINES: "cosines = query @ vectors.T"},
    ),
    (
        "the query's length stays",
        "The products were not divided by the length of the query. The order is right, and the numbers are no cosines.",
        {"functional.normalize(query, dim=-1) @": "query @"},
    ),
    (
        "the vectors' lengths stay",
        "The products were not divided by the lengths of the vectors, so long ones win.",
        {"functional.normalize(vectors, dim=-1)": "vectors"},
    ),
    (
        "distances",
        "The vectors were compared by their distance. The cosine looks at directions alone.",
        {_COSINES: "cosines = -torch.cdist(query.reshape(-1, query.size(-1)), vectors).reshape(*query.shape[:-1], -1)"},
    ),
    (
        "normalised over the wrong axis",
        "The components were divided by the length of a *column*. Each vector has its own length: dim=-1.",
        {"functional.normalize(vectors, dim=-1)": "functional.normalize(vectors, dim=0)"},
    ),
    (
        "the smallest",
        "The k *smallest* cosines came back.",
        {"topk(k)": "topk(k, largest=False)"},
    ),
    (
        "not in order",
        "The cosines are not in order. The largest stands first.",
        {
            _TOP: "best = cosines.topk(k)\n    best = torch.return_types.topk((best.values.flip(-1), best.indices.flip(-1)))"
        },
    ),
    (
        "places and cosines swapped",
        "The places came first. Return the cosines, then the places.",
        {_FOUND_SOURCE: "return best.indices, best.values"},
    ),
    (
        "the first query only",
        "The first query was used for all. Each row of a batch of queries has results of its own.",
        {_COSINES: _COSINES + "\n    cosines = cosines if cosines.dim() == 1 else cosines[:1].expand_as(cosines)"},
    ),
    (
        "one result for all queries",
        "With several queries a single row came back. Return (Q, k).",
        {_TOP: "best = (cosines if cosines.dim() == 1 else cosines.amax(0)).topk(k)"},
    ),
    (
        "zero vectors are NaN",
        "A vector of zeros has length 0, and 0 / 0 is NaN. Its cosine is to be 0; functional.normalize sees to it.",
        {
            _COSINES: "cosines = (query / query.norm(dim=-1, keepdim=True)) @ (vectors / vectors.norm(dim=-1, keepdim=True)).T"
        },
    ),
    (
        "k above N passes",
        "More vectors were asked for than there are, and no ValueError was raised.",
        {_K_RANGE: "if k < 1:", "topk(k)": "topk(min(k, len(vectors)))"},
    ),
    (
        "k of 0 passes",
        "k is 0, and no ValueError was raised.",
        {_K_RANGE: "if k > len(vectors):"},
    ),
]:
    slip(Search, _name, _message, _edits)

reflection(
    "pretrained.fits",
    chapter="12_real_weights",
    points=2,
    rubric="""
    1 point: two faults that keep every shape, such as a square matrix that is not transposed, query and key exchanged,
    another number of heads, eps, activation function, order of norm and sum, scaled embeddings, another tokenizer; with
    the reason why the shapes fit.

    1 point: how each is found: the outputs of both models on the same ids are compared to several digits, on texts of
    different lengths in one batch; where they differ, layer by layer.
    """,
)
reflection(
    "pretrained.meaning",
    chapter="12_real_weights",
    points=2,
    rubric="""
    1 point: two kinds of questions with reasons, such as: negation and numbers, which hardly move a mean of vectors;
    rare names, article numbers and codes, which the model never learned; what stands in one sentence of a long text;
    language or subject that the training texts lack; roles exchanged ("who sued whom").

    1 point: what stands beside it: search by words, filters on fields, re-ranking by a model that reads question and text
    together, or a person; with the reason.
    """,
)
