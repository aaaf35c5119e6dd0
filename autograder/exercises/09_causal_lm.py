"""Checks of chapter 09: packed documents, the causal language model, perplexity, and the fit of a power law."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, is_kind, same, same_gradients, same_shape
from autograder.forbidden import PARTS, SOFTMAXES
from autograder.models import random_weights, with_weights
from autograder.probe import gradients, load_weights, make_config
from solutions import gpt

NO_ERROR = "No ValueError was raised, though {}."
SUM = "a sum or a product in another order"
ON_CPU = "the check runs on the CPU, where the ids are already"
LAST = "the loop ends when all is scored"
SEARCH = "another way to the same exponent"
_MASK = "mask = causal_mask(before + ids.size(1))[before:].to(ids.device)"
_SAME = "documents.unsqueeze(-1) == documents.unsqueeze(-2)"
_TOGETHER = f"mask = mask & ({_SAME})"
_SLIDE = "for start in range(0, len(ids) - 1, stride):"
_NEW = "new = start + len(window) - 1 - scored"
_WEIGH = "total += float(cross_entropy(logits, window[-new:])) * new"
_WINDOW = "window = ids[start:start + context_length + 1]"
_LOGITS_OF = "logits = model(window[None, :-1])[0, -new:]"
_RANGE = "low, high = (0.01, 3.0)"
_ROUNDS = "for _ in range(10):"
_GRID = "grid = torch.linspace(low, high, 21, dtype=torch.float64).tolist()"
_BEST = "best = min(range(21), key=lambda place: line(grid[place])[0])"
_NEAR = "low, high = (grid[max(best - 1, 0)], grid[min(best + 1, 20)])"
_ERROR = "error = float((loss - floor - slope * x).square().sum())"
_LINE_END = "return (error, slope * float(size.min()) ** exponent, floor)"
_FLOOR = "floor = float(loss.mean() - slope * x.mean())"
_SLOPE = "slope = float(((x - x.mean()) * loss).sum() / (x - x.mean()).square().sum())"
PRE_NORM = {"vocab_size": 11, "d_model": 8, "num_heads": 2, "num_layers": 2, "d_ff": 12, "positions": "learned"} | {
    "max_length": 8,
    "scale_embeddings": False,
    "feed_forward": "gelu",
}
POST_NORM = PRE_NORM | {"norm_first": False}
TABLES = ["embedding.tokens.weight", "output.weight"]


@exercise(
    "gpt.pack_documents",
    parts={"inputs": 1, "targets": 1, "the last row": 1, "documents": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=20,
    read="09_causal_lm#packing",
    sections={"documents": "kept-apart", "the last row": "last-row"},
)
class PackDocuments(Check):
    """Documents of all lengths, none and empty ones among them, in rows that they fill and in rows that they do not.

    Each part looks at what it is about alone; all but "the last row" have documents that fill their rows exactly.
    """

    equivalent: ClassVar = {
        f"pack_documents: {name} += {old} -> {name} += {new}": SUM
        for name, old, new in [
            ("inputs", "[end_id] * missing", "missing * [end_id]"),
            ("targets", "[IGNORED] * missing", "missing * [IGNORED]"),
            ("numbers", "[-1] * missing", "missing * [-1]"),
            ("numbers", "[number] * (len(document) + 1)", "(len(document) + 1) * [number]"),
            ("numbers", "[number] * (len(document) + 1)", "[number] * (1 + len(document))"),
        ]
    }

    def prepare(self, rng):
        def inputs(lengths, context_length, end_id=0, once=False):
            documents = [rng.integers(1, 90, length).tolist() for length in lengths]
            return {"documents": documents, "context_length": context_length, "end_id": end_id, "once": once}

        ins, targets, last, numbers, error = self.parts
        yield Case("two documents, one row", inputs([3, 2], 7), ins)
        yield Case("a document longer than three rows", inputs([15], 4), ins)
        yield Case("end_id=95", inputs([2, 5, 2], 4, end_id=95), ins)
        yield Case("documents that can be read once only", inputs([4, 3], 3, once=True), ins)
        yield Case("rows of one token", inputs([1, 2], 1), ins)
        yield Case("five documents, three rows", inputs([1, 2, 3, 4, 3], 6), targets)
        yield Case("an empty document", inputs([2, 0, 3], 4), targets)
        yield Case("a document that ends with its row", inputs([3, 3], 4), targets)
        yield Case("a row that is not full", inputs([4, 3], 6), last)
        yield Case("one short document", inputs([2], 8), last)
        yield Case("a last row with one place", inputs([3, 4], 8, end_id=92), last)
        yield Case("one place is left over", inputs([6], 8), last, hidden=True)
        yield Case("three documents", inputs([2, 4, 3], 6), numbers)
        yield Case("a document over three rows", inputs([1, 9, 1], 7), numbers)
        yield Case("no document", inputs([], 5), error)

    @staticmethod
    def probe(pack_documents, case, /):
        documents = iter(case.documents) if case.once else case.documents
        try:
            packed = pack_documents(documents, case.context_length, case.end_id)
        except ValueError:
            if case.documents:
                raise
            return {"error": "ValueError"}
        return {"packed": packed}

    def judge(self, case, got):
        if case.part == "error":
            yield holds(hasattr(got, "error"), NO_ERROR.format("there is no document"))
            return
        yield is_kind(got.packed, tuple, "three tensors: inputs, targets and numbers")
        yield holds(len(got.packed) == 3, "Return three tensors: inputs, targets and numbers.")
        right = gpt.pack_documents(case.documents, case.context_length, case.end_id)
        wanted = {"inputs": (0,), "targets": (1,), "documents": (2,)}.get(case.part, (0, 1, 2))
        for place in wanted:
            yield same(got.packed[place], right[place], ("the inputs", "the targets", "the numbers")[place])


_LOOP = "for number, document in enumerate(documents):"
_IN, _OUT = "inputs += [end_id, *document]", "targets += [*document, end_id]"
_CUT = """    packed_inputs, packed_targets, packed_numbers = (
        torch.tensor(row).view(-1, context_length) for row in (inputs, targets, numbers)
    )
    return packed_inputs, packed_targets, packed_numbers"""
_FILL = """    inputs += [end_id] * missing
    targets += [IGNORED] * missing
    numbers += [-1] * missing
"""
slip(
    PackDocuments,
    "the last row dropped",
    "What does not fill a row is dropped, and tokens are lost. Fill the last row: inputs `end_id`, targets -100, numbers -1.",
    {
        "missing = -len(inputs) % context_length": "full = len(inputs) // context_length * context_length",
        _FILL: "    inputs, targets, numbers = inputs[:full], targets[:full], numbers[:full]\n",
    },
    read="last-row",
)
slip(
    PackDocuments,
    "the last target of each row lost",
    "The targets are the inputs of the same row, moved by one, so the last place of every row has none. Its target is the "
    "first token of the next row: move the whole list before it is cut into rows.",
    {
        _CUT: _CUT.replace(
            "    return", "    packed_targets = packed_targets.clone()\n    packed_targets[:, -1] = IGNORED\n    return"
        )
    },
)
slip(
    PackDocuments,
    "each document in rows of its own",
    "Every document begins a new row, and the rest of the row before it is filled up. Packed documents follow each other "
    "without a gap.",
    {
        "numbers += [number] * (len(document) + 1)": "numbers += [number] * (len(document) + 1)\n"
        "        gap = -len(inputs) % context_length\n        inputs += [end_id] * gap\n"
        "        targets += [IGNORED] * gap\n        numbers += [-1] * gap",
    },
)
slip(
    PackDocuments,
    "long documents cut off",
    "A document longer than a row loses its end. It goes on in the next row.",
    {_LOOP: _LOOP + "\n        document = document[:context_length - 1]"},
)
slip(
    PackDocuments,
    "nothing between the documents",
    "No end stands between the documents, so the model can never learn where one ends. Put `end_id` before each.",
    {_IN: "inputs += [*document] if inputs else [end_id, *document]", _OUT: "targets += [*document]",
     "(len(document) + 1)": "(len(document) + (number == 0))", "    missing =": "    targets += [end_id]\n    missing ="},
)  # fmt: skip
slip(
    PackDocuments,
    "two ends between documents",
    "Two ends stand between the documents. The end of one is the beginning of the next: one is enough.",
    {_IN: "inputs += [end_id, *document, end_id]", _OUT: "targets += [*document, end_id, end_id]",
     "(len(document) + 1)": "(len(document) + 2)"},
)  # fmt: skip
slip(
    PackDocuments,
    "no end before the first",
    "The first document has no end before it, so nothing predicts its first token. Every document begins with `end_id`.",
    {"    missing =": "    inputs, targets, numbers = inputs[1:], targets[1:], numbers[1:]\n    missing ="},
)
slip(
    PackDocuments,
    "targets equal inputs",
    "The targets are the inputs themselves. The target of a place is the token that *follows* it.",
    {_OUT: "targets += [end_id, *document]"},
)
slip(
    PackDocuments,
    "shifted to the wrong side",
    "The target of a place is the token before it. It must be the one behind it.",
    {_IN: "inputs += [*document, end_id]", _OUT: "targets += [end_id, *document]"},
)
slip(
    PackDocuments,
    "the end is no target",
    "The end of a document is not a target, so the model never learns to stop. The target of a document's last token is "
    "`end_id`.",
    {_OUT: "targets += [*document, IGNORED]"},
)
slip(
    PackDocuments,
    "fills with targets that count",
    "What fills the last row has the target `end_id`, and the model is trained to write ends after an end. Give it -100.",
    {"[IGNORED] * missing": "[end_id] * missing"},
    read="last-row",
)
slip(
    PackDocuments,
    "fills with -100",
    "What fills the last row has the input -100, which is no token: the embedding cannot look it up. Use `end_id`.",
    {"inputs += [end_id] * missing": "inputs += [IGNORED] * missing"},
    read="last-row",
)
slip(
    PackDocuments,
    "fills with zeros",
    "What fills the last row has the input 0. Use `end_id`.",
    {"inputs += [end_id] * missing": "inputs += [0] * missing"},
    read="last-row",
)
slip(
    PackDocuments,
    "a row of nothing",
    "Where the documents fill their rows exactly, a whole row of filling follows. `-n % T` gives 0 there; `T - n % T` "
    "gives T.",
    {"-len(inputs) % context_length": "context_length - len(inputs) % context_length"},
    read="last-row",
)
slip(
    PackDocuments,
    "the filling belongs to the last document",
    "What fills the last row has the number of the last document. It belongs to none: -1.",
    {"numbers += [-1] * missing": "numbers += numbers[-1:] * missing"},
    read="last-row",
)
slip(
    PackDocuments,
    "numbers from 1",
    "Documents are counted from 1. Count from 0.",
    {"enumerate(documents)": "enumerate(documents, 1)"},
    read="kept-apart",
)
slip(
    PackDocuments,
    "numbers begin anew in each row",
    "The numbers begin again at 0 in every row. Two rows may hold parts of one document: count over all rows.",
    {_CUT: _CUT.replace("    return", "    packed_numbers = packed_numbers - packed_numbers[:, :1]\n    return")},
    read="kept-apart",
)
slip(
    PackDocuments,
    "the end belongs to the document before",
    "The `end_id` before a document has the number of the document before it. It is the beginning of its own: the first "
    "token is predicted from it.",
    {"numbers += [number] * (len(document) + 1)": "numbers += [max(number - 1, 0), *([number] * len(document))]"},
    read="kept-apart",
)
slip(
    PackDocuments,
    "no document passes",
    "Without any document no ValueError is raised.",
    {"if not inputs:": "if False:"},
)
slip(
    PackDocuments,
    "reads the documents twice",
    "The documents are read more than once, and a stream can be read only once: it is empty the second time. Do everything "
    "in one loop.",
    {_LOOP: "for document in documents:\n        pass\n    " + _LOOP},
)
slip(
    PackDocuments,
    "lists of rows",
    "Return tensors of shape (N, T), not lists.",
    {"return packed_inputs, packed_targets, packed_numbers": "return packed_inputs.tolist(), packed_targets.tolist(), packed_numbers.tolist()"},
)  # fmt: skip
slip(
    PackDocuments,
    "one long row",
    "The result is one long list. Cut it into rows of `context_length`: (N, T).",
    {".view(-1, context_length)": ""},
)


@exercise(
    "gpt.CausalLanguageModel",
    parts={"logits": 2, "causal": 1, "last norm": 1, "documents": 1, "cache": 1, "tables": 1},
    difficulty=3,
    minutes=35,
    read="09_causal_lm#the-model",
    sections={"documents": "kept-apart", "cache": "cache", "last norm": "the-model", "tables": "the-model"},
    forbidden=("nn.TransformerEncoder", "nn.TransformerEncoderLayer", "nn.Transformer"),
    builds_on=PARTS,
    instead="Build it from an `Embedding`, your `TransformerBlock`, `make_norm` and a linear layer.",
)
class CausalLanguageModel(Check):
    """Logits from known weights, the past alone, documents kept apart, and text that is read in two parts.

    Only the part "last norm" sees what stands in `norm`: elsewhere the norm is post-norm, and `norm` is taken out. Only
    "tables" sees whether the tables are one. All but "causal", "documents" and "cache" have one token, for which the
    mask changes nothing.
    """

    equivalent: ClassVar = {
        f"CausalLanguageModel.forward: {_MASK} -> {_MASK.removesuffix('.to(ids.device)')}": ON_CPU,
        f"CausalLanguageModel.forward: {_MASK} -> {_MASK.replace('before + ids.size(1)', 'ids.size(1) + before')}": SUM,
        f"CausalLanguageModel.forward: {_TOGETHER} -> mask = ({_SAME}) & mask": SUM,
    }

    def prepare(self, rng):
        def inputs(ids, strict=False, documents=None, cut=0, dtype=torch.float64, **config):
            weights = random_weights(rng, gpt.CausalLanguageModel, config, dtype)
            if not strict:
                weights |= {name: weights[TABLES[0]].clone() for name in TABLES}
            data = {"ids": ids, "documents": documents, "cut": cut, "strict": strict, "tables": TABLES}
            return {"config": config, "weights": weights} | data

        logits, causal, norm, documents, cache, tables = self.parts
        one, ids = rng.integers(0, 11, 3, 1), rng.integers(0, 11, 2, 6)
        rotary = {"positions": "rope", "norm": "rms", "feed_forward": "swiglu", "bias": False}
        yield Case("one token", inputs(one, **POST_NORM), logits)
        yield Case("three blocks", inputs(one, **POST_NORM | {"num_layers": 3}), logits)
        yield Case("RMSNorm, SwiGLU, no bias", inputs(one, **POST_NORM | rotary), logits)
        yield Case("tokens scaled by sqrt(D)", inputs(one, **POST_NORM | {"scale_embeddings": True}), logits)
        yield Case("float32", inputs(one, dtype=torch.float32, **POST_NORM), logits)
        yield Case("six tokens", inputs(ids, **POST_NORM), causal)
        yield Case("rotary positions", inputs(ids[:, :5], **POST_NORM | rotary), causal)
        yield Case("ALiBi", inputs(ids, **POST_NORM | {"positions": "alibi"}), causal)
        yield Case("as long as can be", inputs(rng.integers(0, 11, 1, 8), **POST_NORM), causal, hidden=True)
        yield Case("pre-norm", inputs(one, strict=True, **PRE_NORM), norm)
        yield Case("pre-norm with RMSNorm", inputs(one, strict=True, **PRE_NORM | {"norm": "rms"}), norm)
        yield Case("post-norm, which needs no last norm", inputs(one, strict=True, **POST_NORM), norm)
        numbers = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 2, 3, 3, -1]])
        yield Case("two rows with several documents", inputs(ids, documents=numbers, **POST_NORM), documents)
        alone = torch.tensor([[4, 4, 4, 4, 5, 5]])
        yield Case("one row", inputs(ids[:1], documents=alone, **POST_NORM | rotary), documents)
        yield Case("two tokens, then four", inputs(ids, cut=2, **POST_NORM), cache)
        yield Case("five tokens, then one", inputs(ids, cut=5, **POST_NORM | rotary), cache)
        yield Case("one token, then five", inputs(ids, cut=1, **POST_NORM | {"num_layers": 3}), cache)
        yield Case("tie_embeddings=True", inputs(one, strict=True, **PRE_NORM), tables)
        yield Case("tie_embeddings=False", inputs(one, strict=True, **PRE_NORM | {"tie_embeddings": False}), tables)

    @staticmethod
    def probe(model_class, case, /):
        class Store:
            """Keeps keys and values, layer by layer; its length grows when the last layer has been read."""

            def __init__(self):
                self.kept, self.read = {}, []

            @property
            def length(self):
                return self.kept[max(self.kept)][0].size(-2) if self.kept else 0

            def attend(self, layer, attend):
                def longer(query, key, value, mask=None):
                    self.read.append((layer, key.size(-2)))
                    before = self.kept.get(layer)
                    if before is not None:
                        key = torch.cat([before[0], key], dim=-2)
                        value = torch.cat([before[1], value], dim=-2)
                    self.kept[layer] = (key, value)
                    return attend(query, key, value, mask)

                return longer

        model = model_class(make_config(**case.config))
        if not case.strict and hasattr(model, "norm"):
            model.norm = nn.Identity()
        load_weights(model, case.weights, strict=case.strict)
        own = dict(model.named_parameters(remove_duplicate=False))
        asked = case.tables if case.strict else [name for name in own if name not in case.tables]
        if case.cut:
            store = Store()
            first = model(case.ids[:, : case.cut], cache=store)
            second = model(case.ids[:, case.cut :], cache=store)
            logits = torch.cat([first, second], dim=1)
            return {"logits": logits, "gradients": None, "read": [list(pair) for pair in store.read]}
        logits = model(case.ids) if case.documents is None else model(case.ids, documents=case.documents)
        changed = case.ids.clone()
        changed[:, -1] = (changed[:, -1] + 1) % case.config["vocab_size"]
        return {
            "logits": logits,
            "changed": model(changed) if case.documents is None else None,
            "gradients": gradients(logits, {name: own[name] for name in asked}),
            "tied": all(own[name] is own[case.tables[0]] for name in case.tables) if case.strict else None,
        }

    def judge(self, case, got):
        model = with_weights(gpt.CausalLanguageModel, case)
        right, own = model(case.ids, documents=case.documents), dict(model.named_parameters(remove_duplicate=False))
        yield same_shape(got.logits, right, "the logits")
        if case.part == "causal":
            same_past = isinstance(got.changed, Tensor) and close(got.logits[:, :-1], got.changed[:, :-1])
            yield holds(
                same_past, "Changing the last token changes earlier logits, which the causal mask must prevent."
            )
        if case.part == "tables" and case.config.get("tie_embeddings", True):
            yield holds(got.tied, "tie_embeddings is True, and the two tables are not one and the same parameter.")
        name = "the logits of the two parts" if case.cut else "the logits"
        yield same(got.logits, right.detach(), name)
        if case.cut:
            layers = range(case.config["num_layers"])
            once = [[layer, count] for count in (case.cut, case.ids.size(1) - case.cut) for layer in layers]
            yield holds(
                got.read == once,
                "With a cache, each layer must compute keys and values of the new tokens alone, once: those of earlier "
                "tokens are in the cache.",
            )
            return
        asked = TABLES if case.strict else [name for name in own if name not in TABLES]
        yield from same_gradients(got.gradients, gradients(right, {name: own[name] for name in asked}))


_BLOCK = "x = block(x, mask, attend=attend)"
_ATTEND = "attend = None if cache is None else cache.attend(layer, attention_function(self.config))"
_BLOCKS = "nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))"
_NORM = "make_norm(config) if config.norm_first else nn.Identity()"
_BEFORE = "before = 0 if cache is None else cache.length"
_LOGITS = "return self.output(self.norm(x))"
for _name, _message, _edits, _read in [
    (
        "no causal mask",
        "Each place sees the tokens after it, among them the very one that it has to predict. Give every block "
        "`causal_mask(T)`.",
        {_MASK: "mask = torch.ones_like(causal_mask(before + ids.size(1))[before:])"},
        "the-model",
    ),
    (
        "causal mask inverted",
        "The causal mask is used the wrong way round: a place sees only what comes after it. True means allowed.",
        {_MASK: _MASK.replace("causal_mask(before + ids.size(1))", "(~causal_mask(before + ids.size(1)))")},
        "the-model",
    ),
    (
        "causal mask excludes the place itself",
        "A place does not see its own token, so the first sees nothing. `causal_mask` has True on its diagonal.",
        {_MASK: _MASK + "\n        mask = mask & ~torch.eye(before + ids.size(1), dtype=torch.bool)[before:]"},
        "the-model",
    ),
    (
        "blocks side by side",
        "Each block reads the embedding instead of what the block before it gave, so only the last one counts. Write "
        "`x = block(...)`.",
        {_BLOCK: "y" + _BLOCK.removeprefix("x"), "self.norm(x)": "self.norm(y)"},
        "",
    ),
    (
        "one block used again",
        "The list holds the same block several times, so all layers share their weights. Make a new block for each layer.",
        {_BLOCKS: "nn.ModuleList([TransformerBlock(config)] * config.num_layers)"},
        "",
    ),
    (
        "a plain list",
        "The blocks are in a plain Python list, and nn.Module does not see what is in there: their weights are not trained, "
        "moved or saved. Use nn.ModuleList.",
        {_BLOCKS: "[TransformerBlock(config) for _ in range(config.num_layers)]"},
        "",
    ),
    (
        "no last norm",
        "There is no last norm. With pre-norm nothing normalises what the last block adds to the stream: make `norm` with "
        "make_norm(config) when config.norm_first, and apply it before `output`.",
        {_NORM: "nn.Identity()"},
        "",
    ),
    (
        "last norm not applied",
        "`norm` is made and not used. Return `self.output(self.norm(x))`.",
        {"self.norm(x)": "x"},
        "",
    ),
    (
        "last norm for post-norm too",
        "There is a last norm with post-norm too, where each block already ends in one. Make it only when "
        "config.norm_first.",
        {_NORM: "make_norm(config)"},
        "",
    ),
    (
        "last norm the wrong way round",
        "The last norm is there for post-norm and missing for pre-norm. Make it when config.norm_first.",
        {_NORM: "nn.Identity() if config.norm_first else make_norm(config)"},
        "",
    ),
    (
        "always LayerNorm",
        "The last norm is a LayerNorm whatever the config says. `make_norm(config)` makes the right one.",
        {"make_norm(config) if": "nn.LayerNorm(config.d_model) if"},
        "",
    ),
    (
        "documents ignored",
        "With `documents` given, a place still attends to the documents before its own. Allow only places with the same "
        "number.",
        {_TOGETHER: "pass"},
        "kept-apart",
    ),
    (
        "documents instead of the causal mask",
        "With `documents` given, the causal mask is gone: a place sees what follows in its own document. Both must hold.",
        {_TOGETHER: "mask = documents.unsqueeze(-1) == documents.unsqueeze(-2)"},
        "kept-apart",
    ),
    (
        "only other documents",
        "A place attends to all documents but its own. Allow places with the same number.",
        {_TOGETHER: _TOGETHER.replace("==", "!=")},
        "kept-apart",
    ),
    (
        "earlier documents allowed",
        "A place may attend to documents with smaller numbers. Only its own is allowed: the numbers must be equal.",
        {_TOGETHER: _TOGETHER.replace("==", ">=")},
        "kept-apart",
    ),
    (
        "the first row's documents for all",
        "The documents of the first row of the batch are used for all rows. The mask has shape (B, T, T).",
        {_TOGETHER: _TOGETHER.replace("documents.", "documents[0].")},
        "kept-apart",
    ),
    (
        "cache ignored",
        "The cache is not used: the second part of the text knows nothing of the first. Give each block "
        "`attend=cache.attend(layer, attend)`.",
        {_ATTEND: "attend = None", _BEFORE: "before = 0"},
        "cache",
    ),
    (
        "positions from 0 again",
        "With a cache, the new tokens get the positions from 0 on. They stand behind the `cache.length` tokens that were "
        "read before: `self.embedding(ids, start=cache.length)`.",
        {", start=before": ""},
        "cache",
    ),
    (
        "no mask for what was read before",
        "With a cache there are more keys than queries. The mask needs a column for every token read before, and only the "
        "rows of the new ones: `causal_mask(before + T)[before:]`.",
        {_MASK: "mask = causal_mask(ids.size(1)).to(ids.device)\n"
         "        mask = torch.cat([mask.new_zeros(ids.size(1), before), mask], dim=1)"},
        "cache",
    ),
    (
        "the mask too large",
        "With a cache the mask has rows for tokens that were read before. Keep the rows of the new ones: "
        "`causal_mask(before + T)[before:]`.",
        {"causal_mask(before + ids.size(1))[before:]": "causal_mask(before + ids.size(1))"},
        "cache",
    ),
    (
        "one layer's keys for all",
        "All layers share one place in the cache. Each has keys and values of its own: `cache.attend(layer, attend)` with "
        "the number of the layer.",
        {"cache.attend(layer": "cache.attend(0"},
        "cache",
    ),
    (
        "wrapped again and again",
        "Each layer wraps the attention function of the layer before it, so keys and values of all layers so far are put "
        "together. Start anew in each layer: `cache.attend(layer, attention_function(config))`.",
        {"cache.attend(layer, attention_function(self.config))":
         "cache.attend(layer, attend if layer else attention_function(self.config))"},
        "cache",
    ),
    (
        "layers counted from 1",
        "The first layer's number must be 0.",
        {"enumerate(self.blocks)": "enumerate(self.blocks, 1)"},
        "cache",
    ),
    (
        "plain attention in the cache",
        "With a cache the attention function is not the one that the config asks for: rotary positions are lost. Wrap "
        "`attention_function(config)`.",
        {"attention_function(self.config)": "attention_function(type(self.config)(2))"},
        "cache",
    ),
    (
        "returns probabilities",
        "A softmax was applied. Logits leave a model: the loss takes the softmax itself, and does it more exactly.",
        {_LOGITS: _LOGITS + ".softmax(-1)"},
        "",
    ),
    (
        "logits of the last place only",
        "Logits came back for the last place only. Every place predicts its next token: (B, T, V).",
        {_LOGITS: _LOGITS + "[:, -1]"},
        "",
    ),
    (
        "no output layer",
        "The stream itself came back, (B, T, D). Put it through `output`, which gives a logit for each token.",
        {_LOGITS: "return self.norm(x)"},
        "",
    ),
    (
        "never tied",
        "The config asks for tied embeddings, and the tables are two. Make `output.weight` the embedding's "
        "`tokens.weight` itself: a copy has the same numbers and parts from it at the first step.",
        {"if config.tie_embeddings": "if False"},
        "",
    ),
    (
        "always tied",
        "The tables are tied although tie_embeddings is False.",
        {"if config.tie_embeddings": "if True"},
        "",
    ),
    (
        "output with bias",
        "The output layer has a bias, and the exercise asks for none: pass bias=False to nn.Linear.",
        {", bias=False": ""},
        "",
    ),
    (
        "cross-attention",
        "The blocks have cross-attention, and there is nothing to attend to. Leave cross_attention out.",
        {"TransformerBlock(config)": "TransformerBlock(config, cross_attention=True)", "block(x, mask, attend":
         "block(x, mask, x, attend"},
        "",
    ),
    (
        "super().__init__() missing",
        "`super().__init__()` is missing, so nn.Module cannot register the layers. Call it first in `__init__`.",
        {"super().__init__()": "pass"},
        "",
    ),
]:  # fmt: skip
    slip(CausalLanguageModel, _name, _message, _edits, read=_read)


@exercise(
    "gpt.perplexity",
    parts={"one window": 1, "windows": 2, "mode": 1, "errors": 1},
    claims=("mode", "errors"),
    difficulty=3,
    minutes=25,
    read="09_causal_lm#perplexity",
    sections={"windows": "sliding-window"},
    builds_on=(*SOFTMAXES, "F.cross_entropy", "F.nll_loss"),
    instead="Build it from the model's log-probabilities, window by window.",
)
class Perplexity(Check):
    """A model whose logits depend on all that it is shown, so that which window scores a token can be told apart."""

    equivalent: ClassVar = {
        f"perplexity: {old} -> {new}": why
        for old, new, why in [
            ("if not 1 <= stride <= context_length:", "if not 0 <= stride <= context_length:",
             "range() refuses a step of 0 with a ValueError, too"),
            (_SLIDE, _SLIDE.replace("- 1", "+ 1"), LAST),
            (_SLIDE, _SLIDE.replace(" - 1", ""), LAST),
            (_SLIDE, _SLIDE.replace("- 1", "- 0"), LAST),
            (_WEIGH, "total += new * float(cross_entropy(logits, window[-new:]))", SUM),
            (_WEIGH, "total += cross_entropy(logits, window[-new:]) * new", "math.exp takes a tensor of one number too"),
            (_WINDOW, _WINDOW.replace("start + context_length + 1", "1 + (start + context_length)"), SUM),
            (_WINDOW, _WINDOW.replace("start + context_length", "context_length + start"), SUM),
            (_NEW, "new = len(window) + start - 1 - scored", SUM),
            (_LOGITS_OF, _LOGITS_OF.replace("[0, ", "[-1, "), "there is one row"),
        ]
    }  # fmt: skip

    def prepare(self, rng):
        def inputs(tokens, context_length, stride, dtype=torch.float64, training=True):
            table = rng.normal(7, 7, dtype=dtype)
            ids = rng.integers(0, 7, tokens)
            return {
                "table": table,
                "ids": ids,
                "context_length": context_length,
                "stride": stride,
                "training": training,
                "valid": tokens > 1 and 1 <= stride <= context_length,
            }

        one, windows, mode, errors = self.parts
        yield Case("a text that fits", inputs(6, 8, 8), one)
        yield Case("a text that fits exactly", inputs(9, 8, 8), one)
        yield Case("two tokens", inputs(2, 4, 1), one)
        yield Case("float32", inputs(7, 10, 10, dtype=torch.float32), one)
        yield Case("windows side by side", inputs(17, 4, 4), windows)
        yield Case("windows that overlap by half", inputs(23, 6, 3), windows)
        yield Case("a stride of 1", inputs(12, 5, 1), windows)
        yield Case("a last window with one new token", inputs(14, 4, 3), windows)
        yield Case("windows of one token", inputs(6, 1, 1), windows)
        yield Case("a stride that does not divide the context", inputs(40, 7, 5), windows, hidden=True)
        yield Case("a model in training mode", inputs(12, 5, 2), mode)
        yield Case("a model in eval mode", inputs(12, 5, 2, training=False), mode)
        yield Case("one token", inputs(1, 4, 2), errors)
        yield Case("no token", inputs(0, 4, 2), errors)
        yield Case("a stride of 0", inputs(9, 4, 0), errors)
        yield Case("a stride longer than the context", inputs(9, 4, 5), errors)
        yield Case("a stride longer than the context, a short text", inputs(3, 4, 5), errors)

    @staticmethod
    def probe(perplexity, case, /):
        seen = []

        class Counts(nn.Module):
            """Its logits are means over all tokens so far: another window gives other ones."""

            def __init__(self):
                super().__init__()
                self.table = nn.Parameter(case.table.clone())

            def forward(self, ids):
                seen.append((ids.size(-1), self.training, torch.is_grad_enabled()))
                ordinal = torch.arange(1, ids.size(1) + 1).view(1, -1, 1)
                return 2 * self.table[ids].cumsum(1) / ordinal

        model = Counts().train(case.training)
        try:
            value = perplexity(model, case.ids, case.context_length, case.stride)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        return {
            "value": value,
            "longest": max((length for length, _, _ in seen), default=0),
            "calls": len(seen),
            "in_training": any(training for _, training, _ in seen),
            "recorded": any(recorded for _, _, recorded in seen),
            "left": model.training,
        }

    def judge(self, case, got):
        if case.part == "errors":
            yield holds(hasattr(got, "error"), NO_ERROR.format("the text or the stride cannot be used"))
            return
        right = type(self).probe(gpt.perplexity, case)
        if case.part == "mode":
            yield holds(got.calls > 0, "The model was never called.")
            yield holds(not got.in_training, "The model was called in training mode, where dropout disturbs it.")
            yield holds(not got.recorded, "Gradients are recorded. Call the model under torch.no_grad().")
            yield holds(
                got.left == case.training, "The model was left in another mode than it came in. Put its mode back."
            )
            return
        yield is_kind(got.value, float, "a float")
        yield holds(
            got.longest <= case.context_length,
            f"The model was shown {got.longest} tokens at once. It can read {case.context_length}.",
        )
        wanted = torch.tensor(right["value"], dtype=case.table.dtype)
        yield same(torch.tensor(got.value, dtype=case.table.dtype), wanted, "the perplexity")


for _name, _message, _edits, _read in [
    (
        "the mean loss",
        "The mean loss itself came back. The perplexity is e to that power.",
        {"return math.exp(total / scored)": "return total / scored"},
        "",
    ),
    (
        "2 to the power of the loss",
        "The result is 2 to the mean loss. The loss has natural logarithms: use `math.exp`.",
        {"return math.exp(total / scored)": "return 2 ** (total / scored)"},
        "",
    ),
    (
        "overlaps scored again",
        "Tokens in the overlap of two windows are scored twice. Each is scored once: of a window only the targets that no "
        "window before it had.",
        {_NEW: "new = len(window) - 1"},
        "sliding-window",
    ),
    (
        "windows cut off from their past",
        "Each window starts at its first new token, so that nothing before it is seen. Let it begin `stride` after the one "
        "before it, and score its new targets only.",
        {"window = ids[start : start + context_length + 1]": "window = ids[start : start + stride + 1]"},
        "sliding-window",
    ),
    (
        "windows behind the end",
        "The windows go on behind the one that reaches the end of the text. They have no new target, and a slice [-0:] "
        "takes all of them: the last tokens are scored again. Stop when every token is scored.",
        {_WEIGH: _WEIGH.replace("* new", "* len(logits)"),
         "            if scored == len(ids) - 1:\n                break\n": ""},
        "sliding-window",
    ),
    (
        "the mean of the windows' means",
        "The windows' mean losses are averaged, and a window with few new targets counts as much as a full one. Weigh "
        "each with the number of its targets.",
        {_WEIGH: "total += float(cross_entropy(logits, window[-new:]))\n            count = locals().get('count', 0) + 1",
         "total / scored": "total / count"},
        "sliding-window",
    ),
    (
        "the mean of the windows' perplexities",
        "Perplexities are averaged. Average the losses, and take the power of their mean.",
        {_WEIGH: "total += math.exp(float(cross_entropy(logits, window[-new:]))) * new",
         "math.exp(total / scored)": "total / scored"},
        "",
    ),
    (
        "the rest left out",
        "What does not fill a window is left out. The last window is shorter, and its targets count too.",
        {_SLIDE: "for start in range(0, max(len(ids) - context_length, 1), stride):"},
        "sliding-window",
    ),
    (
        "divided by the tokens",
        "The sum is divided by the number of tokens. The first token is not predicted: divide by the number of targets.",
        {"total / scored": "total / len(ids)"},
        "",
    ),
    (
        "windows of one target too few",
        "A window has one token too few: T inputs and T targets take T + 1 tokens of the text.",
        {"start + context_length + 1]": "start + context_length]", "range(0, len(ids) - 1, stride)":
         "range(0, len(ids) - 1, min(stride, max(context_length - 1, 1)))"},
        "sliding-window",
    ),
    (
        "not shifted",
        "The logits are compared with the tokens that the model was shown. Place t predicts token t + 1.",
        {"window[-new:]))": "window[:-1][-new:]))"},
        "",
    ),
    (
        "one token shown at a time",
        "The model is shown one token at a time. Show it the whole window.",
        {"model(window[None, :-1])[0, -new:]": "torch.cat([model(token.view(1, 1))[0] for token in window[:-1]])[-new:]"},
        "",
    ),
    (
        "training mode",
        "The model is scored in training mode, where dropout disturbs it. Call `model.eval()` first.",
        {"model.eval()": "pass"},
        "",
    ),
    (
        "left in eval mode",
        "The model is left in eval mode, and whoever trains it goes on without dropout. Put its mode back.",
        {"model.train(training)": "pass"},
        "",
    ),
    (
        "always back to training mode",
        "The model is put into training mode at the end, whatever it came in.",
        {"model.train(training)": "model.train()"},
        "",
    ),
    (
        "records gradients",
        "Gradients are recorded, which costs memory and is never used. Call the model under torch.no_grad().",
        {"torch.no_grad()": "torch.enable_grad()"},
        "",
    ),
    (
        "a tensor",
        "A tensor came back. Return a float.",
        {"return math.exp(total / scored)": "return torch.tensor(total / scored).exp()"},
        "",
    ),
    (
        "any stride",
        "A stride longer than the context is accepted, and the tokens between two windows are scored by none.",
        {"not 1 <= stride <= context_length": "stride < 1", _NEW: "new = min(start + len(window) - 1 - scored, "
         "len(window) - 1)"},
        "sliding-window",
    ),
    (
        "a stride of 0",
        "A stride of 0, with which the window never moves, is not refused with a ValueError.",
        {"not 1 <= stride <= context_length": "stride > context_length", _SLIDE: _SLIDE.replace("stride", "max(stride, 1)")},
        "sliding-window",
    ),
    (
        "any text",
        "A text with nothing to predict is not refused with a ValueError.",
        {"len(ids) < 2": "False", "math.exp(total / scored)": "math.exp(total / max(scored, 1))"},
        "",
    ),
    (
        "one token passes",
        "A text of one token is not refused. Its only token is not predicted: nothing is left to score.",
        {"len(ids) < 2": "len(ids) < 1", "math.exp(total / scored)": "math.exp(total / max(scored, 1))"},
        "",
    ),
]:  # fmt: skip
    slip(Perplexity, _name, _message, _edits, read=_read)


@exercise(
    "gpt.fit_power_law",
    parts={"exponent": 1, "small differences": 1, "coefficient": 1, "floor": 1, "noise": 1, "errors": 1},
    claims=("errors",),
    difficulty=3,
    minutes=30,
    read="09_causal_lm#power-law",
    sections={"noise": "least-squares", "small differences": "least-squares"},
)
class FitPowerLaw(Check):
    """Points on a curve, for which the curve must come back, and points beside one, for which the best must.

    What the best one is follows from the squared error alone, not from how it was found.
    """

    equivalent: ClassVar = {
        f"fit_power_law: {old} -> {new}": why
        for old, new, why in [
            *((_RANGE, f"low, high = {new}", "what is searched includes what must be")
              for new in ("(3.0, 0.01)", "(-0.99, 3.0)", "(0.01, 4.0)")),
            *((_ROUNDS, _ROUNDS.replace("10", new), "ten rounds are more than enough") for new in ("11", "9")),
            *((_GRID, _GRID.replace(old, new), SEARCH) for old, new in [
                ("low, high", "high, low"), (", dtype=torch.float64", ""), ("float64", "float32"), ("21", "22")]),
            (_BEST, _BEST.replace("21", "20"), SEARCH),
            (_NEAR, "low, high = (grid[min(best + 1, 20)], grid[max(best - 1, 0)])", SEARCH),
            *((_NEAR, _NEAR.replace(old, new), SEARCH) for old, new in [
                ("max(best - 1, 0)", "max(0, best - 1)"), ("min(best + 1, 20)", "min(20, best + 1)"),
                ("min(best + 1", "min(1 + best"), ("+ 1, 20", "+ 1, 21"), ("+ 1, 20", "+ 1, 19"),
                ("best - 1", "best - 2"), ("best + 1", "best + 2")]),
            ("exponent = (low + high) / 2", "exponent = (high + low) / 2", SUM),
        ]
    } | {
        f"fit_power_law.line: {old} -> {new}": why
        for old, new, why in [
            (_ERROR, "error = (loss - floor - slope * x).square().sum()", "tensors of one number are compared like floats"),
            (_ERROR, _ERROR.replace("sum()", "mean()"), "the mean is smallest where the sum is"),
            (_ERROR, _ERROR.replace("loss - floor - slope * x", "slope * x - (loss - floor)"), "squares have no sign"),
            (_ERROR, _ERROR.replace("slope * x", "x * slope"), SUM),
            (_LINE_END, _LINE_END.replace("slope * float(size.min()) ** exponent", "float(size.min()) ** exponent * slope"),
             SUM),
            (_FLOOR, _FLOOR.replace("slope * x.mean()", "x.mean() * slope"), SUM),
            (_SLOPE, _SLOPE.replace("(x - x.mean()) * loss", "loss * (x - x.mean())"), SUM),
            (_SLOPE, _SLOPE.replace("(x - x.mean()).square()", "(x.mean() - x).square()"), "squares have no sign"),
        ]
    }  # fmt: skip

    def prepare(self, rng):
        def inputs(sizes, exponent, coefficient, floor, noise=0.0):
            sizes = [float(size) for size in sizes]
            losses = [floor + coefficient * size**-exponent for size in sizes]
            losses = [loss + noise * shift for loss, shift in zip(losses, rng.normal(len(sizes)).tolist(), strict=True)]
            truth = {"exponent": exponent, "coefficient": coefficient, "floor": floor}
            return {"sizes": sizes, "losses": losses, "truth": truth, "noise": noise, "valid": True}

        def broken(sizes, **rest):
            return inputs(sizes, 0.5, 1.0, 1.0) | {"valid": False} | rest

        exponent, small, coefficient, floor, noise, errors = self.parts
        usual = [1e5, 3e5, 1e6, 3e6, 1e7]
        for part in (exponent, coefficient, floor):
            yield Case("five models", inputs(usual, 0.34, 120.0, 1.7), part)
            yield Case("sizes from 1 to 8", inputs([1, 2, 4, 8], 0.5, 3.0, 2.0), part)
            yield Case("a floor of 0", inputs([10, 100, 1000, 10_000], 0.25, 7.0, 0.0), part)
            yield Case("an exponent of 1.5", inputs([2, 3, 5, 9, 17], 1.5, 4.0, 0.5), part)
            yield Case("three sizes, not in order", inputs([900, 30, 200], 0.7, 9.0, 3.0), part)
        yield Case("an exponent of 2.5", inputs([1, 2, 3, 4, 5], 2.5, 6.0, 1.0), exponent)
        # The one part that needs float64, as the exercise says: of such differences float32 keeps three digits.
        yield Case("losses that hardly differ", inputs([10, 30, 100, 300, 1000], 0.3, 0.001, 3.0), small)
        yield Case("an exponent of 0.08", inputs([1e3, 1e5, 1e7, 1e9], 0.08, 6.0, 1.0), exponent, hidden=True)
        yield Case(
            "measured losses, eight sizes", inputs([2**power for power in range(10, 18)], 0.4, 60.0, 2.5, 0.02), noise
        )
        yield Case("a size measured twice", inputs([50, 50, 200, 800, 3200], 0.6, 11.0, 1.2, 0.01), noise)
        three = [10, 100, 1000]
        yield Case("two sizes", broken([10, 100]), errors)
        yield Case("three sizes, two of them equal", broken([10, 10, 100]), errors)
        yield Case("four losses for three sizes", broken(three, losses=[1.3, 1.1, 1.03, 1.01]), errors)
        yield Case("three losses for four sizes", broken([*three, 10_000], losses=[1.3, 1.1, 1.03]), errors)

    @staticmethod
    def probe(fit_power_law, case, /):
        try:
            found = fit_power_law(case.sizes, case.losses)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        return {"found": found}

    def judge(self, case, got):
        if case.part == "errors":
            yield holds(hasattr(got, "error"), NO_ERROR.format("the points do not settle a curve"))
            return
        yield is_kind(got.found, tuple, "three numbers: exponent, coefficient and floor")
        yield holds(len(got.found) == 3, "Return three numbers: exponent, coefficient and floor.")
        for value in got.found:
            yield is_kind(value, float, "three floats", "one of the three numbers")
        exponent, coefficient, floor = got.found
        if case.part == "noise":
            best = gpt.fit_power_law(case.sizes, case.losses)
            mine, theirs = (_squared_error(case, *curve) for curve in (best, (exponent, coefficient, floor)))
            yield holds(
                theirs <= mine * 1.001,
                "Another curve is closer to the points: the sum of the squared differences can be made smaller.",
            )
            return
        truth = case.truth
        if case.part in ("exponent", "small differences"):
            near = abs(exponent - truth["exponent"]) <= 1e-5 * truth["exponent"]
            yield holds(near, "The points lie on a curve with another exponent.")
        if case.part == "coefficient":
            near = abs(coefficient - truth["coefficient"]) <= 1e-4 * truth["coefficient"]
            yield holds(near, "The points lie on a curve with another coefficient.")
        if case.part == "floor":
            yield holds(abs(floor - truth["floor"]) <= 1e-5 * max(case.losses), "The points lie above another floor.")


def _squared_error(case, exponent, coefficient, floor):
    pairs = zip(case.sizes, case.losses, strict=True)
    return sum((loss - floor - coefficient * size**-exponent) ** 2 for size, loss in pairs)


_RETURN = "return exponent, coefficient, floor"
for _name, _message, _edits, _read in [
    (
        "no floor",
        "The curve has no floor: a straight line was fitted to the logarithms, and that is right only where the loss goes "
        "down to 0. Search the exponent, and fit a line to the losses themselves.",
        {"    low, high = 0.01, 3.0": "    x, y = size.log(), loss.log()\n    slope = float(((x - x.mean()) * (y - y.mean()))"
         ".sum() / (x - x.mean()).square().sum())\n    return -slope, math.exp(float(y.mean()) - slope * float(x.mean())), 0.0"
         "\n    low, high = 0.01, 3.0"},
        "least-squares",
    ),
    (
        "the smallest loss for a floor",
        "The smallest loss was taken for the floor. The floor is below every loss that was measured: it must be fitted.",
        {"    low, high = 0.01, 3.0": "    low_one = float(loss.min())\n    left = loss > low_one\n    x, y = "
         "size[left].log(), (loss[left] - low_one).log()\n    slope = float(((x - x.mean()) * (y - y.mean())).sum() / "
         "(x - x.mean()).square().sum())\n    return -slope, math.exp(float(y.mean()) - slope * float(x.mean())), low_one"
         "\n    low, high = 0.01, 3.0"},
        "least-squares",
    ),
    (
        "the exponent's sign",
        "The exponent has the wrong sign. In loss = floor + coefficient * size ** -exponent it is positive where the loss "
        "falls.",
        {_RETURN: "return -exponent, coefficient, floor"},
        "power-law",
    ),
    (
        "a coarse grid",
        "The exponent is only near the best one: a grid without refinement. Search again around the best point, with "
        "smaller steps.",
        {"range(10)": "range(1)"},
        "least-squares",
    ),
    (
        "the coefficient at the smallest size",
        "The coefficient belongs to sizes measured in units of the smallest one. Turn it back: multiply by "
        "smallest ** exponent.",
        {"slope * float(size.min()) ** exponent, floor": "slope, floor"},
        "power-law",
    ),
    (
        "the coefficient turned the wrong way",
        "The coefficient was divided by smallest ** exponent where it should be multiplied.",
        {"slope * float(size.min()) ** exponent": "slope / float(size.min()) ** exponent"},
        "power-law",
    ),
    (
        "coefficient and floor exchanged",
        "Coefficient and floor are exchanged.",
        {_RETURN: "return exponent, floor, coefficient"},
        "",
    ),
    (
        "exponents up to 1",
        "No exponent above 1 was tried.",
        {"low, high = 0.01, 3.0": "low, high = 0.01, 1.0"},
        "",
    ),
    (
        "absolute differences",
        "The sum of the absolute differences was made small. Least squares asks for the sum of their squares.",
        {"(loss - floor - slope * x).square().sum()": "(loss - floor - slope * x).abs().sum()"},
        "least-squares",
    ),
    (
        "two sizes pass",
        "Two different sizes settle no curve with three unknowns, and no ValueError was raised.",
        {"len(set(sizes)) < 3": "len(set(sizes)) < 2"},
        "",
    ),
    (
        "equal sizes counted",
        "Equal sizes were counted as different ones. At least three *different* sizes are needed.",
        {"len(set(sizes)) < 3": "len(sizes) < 3"},
        "",
    ),
    (
        "any lengths",
        "Sizes and losses of different number are not refused with a ValueError.",
        {"len(sizes) != len(losses) or ": "", "in (sizes, losses))": "in zip(*zip(sizes, losses)))"},
        "",
    ),
]:  # fmt: skip
    slip(FitPowerLaw, _name, _message, _edits, read=_read)

reflection(
    "gpt.bits_per_byte",
    chapter="09_causal_lm",
    points=2,
    rubric="""
    1 point: perplexity and loss per token depend on the tokenizer: with longer tokens each is harder to guess and there
    are fewer of them, so the figures of models with different tokenizers cannot be compared.

    1 point: turns both into a common unit, bits per byte (or nats per character): loss times the number of tokens,
    divided by ln 2 and by the number of bytes of the same text. Also right: the total log-probability of the same text.
    """,
)
reflection(
    "gpt.floor",
    chapter="09_causal_lm",
    points=2,
    rubric="""
    1 point: the entropy of the language is a floor for every model; what is above it is the model's own, and more or
    better training can remove only that.

    1 point: says what a held-out loss *below* the floor would mean: an error, such as test stories in the training text,
    a target that the model can see, or a mean over too many places; by chance only within the spread of a small test set.
    """,
)
