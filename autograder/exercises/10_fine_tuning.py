"""Checks of chapter 10: the classifier above an encoder, what is frozen, weights for rare classes, scores, and spans."""

import itertools
from typing import ClassVar

import torch
from torch import Tensor, nn

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, is_kind, same, same_gradients, same_items, same_shape
from autograder.forbidden import SOFTMAXES
from autograder.probe import gradients, load_weights, make_config
from solutions import finetuning

NO_ERROR = "No ValueError was raised, though {}."
SUM = "a sum or a product in another order"
NUMBER = "a tensor of one number is compared like a number"
WORDS = "only the words of an error differ"
_WITHIN = "if len(labels) and (not 0 <= int(labels.min()) <= int(labels.max()) < num_classes):"
_NONE = "missing = (counts == 0).nonzero().flatten().tolist()"
_WEIGH = "return len(labels) / (num_classes * counts)"
_ALLOWED = "if average not in (None, 'macro', 'micro'):"
_LOOKED = "for name, values in (('targets', targets), ('predictions', predictions)):"
_CLASSES = "if values.numel() and (not 0 <= int(values.min()) <= int(values.max()) < num_classes):"
_SHARES = "shares = ((right, predicted), (right, there), (2 * right, predicted + there))"


@exercise(
    "finetuning.SequenceClassifier",
    parts={"cls": 1, "mean": 1, "dropout": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=25,
    read="10_fine_tuning#the-classifier",
    sections={"mean": "pooling", "error": "pooling"},
)
class SequenceClassifier(Check):
    """Logits above an encoder with known numbers, whose vectors of padding are not zero; and what dropout does to them.

    Only the part "mean" has padding within what is pooled. What is dropped is compared with what the same model gives in
    eval mode, so that it does not matter there which vector was pooled.
    """

    equivalent: ClassVar = {
        "SequenceClassifier.__init__: if pooling not in ('cls', 'mean'): -> if pooling not in ('mean', 'cls'):": (
            "the same two names"
        ),
    }

    def prepare(self, rng):
        def inputs(ids, kind="logits", num_classes=3, width=4, pad_id=0, words=11, gradients=True, **options):
            weights = {
                "encoder.embedding.tokens.weight": rng.normal(words, width, dtype=torch.float32),
                "encoder.output.weight": rng.normal(words, width, dtype=torch.float32),
                "encoder.output.bias": rng.normal(words, dtype=torch.float32),
                "output.weight": rng.normal(num_classes, width, dtype=torch.float32),
                "output.bias": rng.normal(num_classes, dtype=torch.float32),
            }
            if kind == "dropout":  # then each logit shows what became of one component
                weights["output.weight"] = torch.eye(width)
            config = {"vocab_size": words, "d_model": width, "num_heads": 1, "pad_id": pad_id}
            data = {"config": config, "weights": weights, "num_classes": num_classes, "options": options}
            return {"kind": kind, "ids": ids, "gradients": gradients} | data

        cls, mean, dropout, error = self.parts
        ids = rng.integers(1, 11, 3, 5)
        short = ids * torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
        yield Case("three texts, no pooling given", inputs(ids), cls)
        yield Case('pooling="cls", five classes', inputs(ids, num_classes=5, pooling="cls"), cls)
        yield Case("one class", inputs(ids, num_classes=1, pooling="cls"), cls)
        yield Case("texts of different lengths", inputs(short, pooling="cls"), cls)
        yield Case("no pad_id", inputs(ids - 1, pad_id=None, pooling="cls"), cls)
        yield Case("texts of one token", inputs(ids[:, :1], num_classes=2), cls, hidden=True)
        yield Case("texts of equal length", inputs(ids, pooling="mean"), mean)
        yield Case("texts of different lengths", inputs(short, pooling="mean"), mean)
        nines = torch.where(short == 0, 9, short % 9)
        nines[0, 1] = 0
        yield Case("pad_id=9, and 0 is a real token", inputs(nines, pad_id=9, pooling="mean"), mean)
        zeros = torch.tensor([[4, 0, 7, 0], [0, 3, 3, 8], [0, 0, 0, 0]])
        yield Case("no pad_id, and 0 is a real token", inputs(zeros, pad_id=None, pooling="mean"), mean)
        nothing = torch.cat([short, torch.zeros_like(short[:1])])
        yield Case("a row of padding alone", inputs(nothing, gradients=False, pooling="mean"), mean)
        around = ids * torch.tensor([[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 0, 0, 0]])
        yield Case("padding in front and in between", inputs(around, pooling="mean"), mean)
        yield Case("one text", inputs(short[1:2], num_classes=2, pooling="mean"), mean, hidden=True)
        many = {"kind": "dropout", "num_classes": 64, "width": 64, "words": 40}
        tokens = rng.integers(1, 40, 256, 2)
        yield Case("dropout=0.5", inputs(tokens[:, :1], dropout=0.5, **many), dropout)
        yield Case("dropout=0.25", inputs(tokens[:, :1], dropout=0.25, **many), dropout)
        yield Case("texts of two tokens", inputs(tokens, pooling="mean", dropout=0.5, **many), dropout)
        yield Case("no dropout given", inputs(tokens[:, :1], **many), dropout)
        yield Case('pooling="max"', inputs(ids, "error", pooling="max"), error)
        yield Case('pooling="CLS"', inputs(ids, "error", pooling="CLS"), error)

    @staticmethod
    def probe(classifier_class, case, /):
        class Encoder(nn.Module):
            """Gives each place its token's vector and half the mean of the real ones; its forward has a head on top."""

            def __init__(self):
                super().__init__()
                self.config = make_config(**case.config)
                words, width = case.config["vocab_size"], case.config["d_model"]
                self.embedding = nn.ModuleDict({"tokens": nn.Embedding(words, width)})
                self.output = nn.Linear(width, words)

            def encode(self, ids, segments=None):
                x, pad_id = self.embedding["tokens"](ids), self.config.pad_id
                real = (torch.ones_like(ids) if pad_id is None else (ids != pad_id).long()).unsqueeze(-1)
                return x + 0.5 * (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)

            def forward(self, ids, segments=None, chosen=None):
                return self.output(self.encode(ids))

        encoder = Encoder()
        try:
            model = classifier_class(encoder, case.num_classes, **case.options)
        except ValueError:
            if case.kind != "error":
                raise
            return {"error": "ValueError"}
        if case.kind == "error":
            return {"error": ""}
        load_weights(model, case.weights)
        model.eval()
        logits = model(case.ids)
        if case.kind == "logits":
            names = ("encoder.embedding.tokens.weight", "output.weight", "output.bias") if case.gradients else ()
            own = dict(model.named_parameters())
            learning = {name: own[name] for name in names if own[name].requires_grad}
            facts = {"logits": logits, "kept": model.encoder is encoder}
            arriving = gradients(logits, learning) if learning else {}
            facts |= {"gradients": dict.fromkeys(names) | arriving, "padded": None}
            if case.config["pad_id"] is not None:
                padding = torch.full_like(case.ids[:, :1], case.config["pad_id"]).expand(-1, 3)
                facts |= {"padded": model(torch.cat([case.ids, padding], dim=1))}
            return facts
        same_again = model(case.ids)
        if not isinstance(logits, Tensor) or logits.shape != (len(case.ids), case.num_classes):
            return {"logits": logits}
        if not torch.equal(logits, same_again):
            return {"steady": False}
        model.train()
        # In twentieths, and 1 / (1 - dropout) as a few digits: facts that are the same whatever chance gave.
        pooled = logits - model.output.bias
        clear = pooled.abs() > 0.1  # of a smaller number, rounding is too large a part
        share = ((model(case.ids) - model.output.bias) / pooled)[clear]
        kept = share[share.abs() > 1e-3]
        scales = sorted({round(number, 3) for number in kept.tolist()})
        dropped = round(20 * (1 - len(kept) / share.numel()))
        return {"steady": True, "dropped": dropped, "scales": scales if len(scales) < 3 else []}

    def judge(self, case, got):
        if case.kind == "error":
            yield holds(
                got.error == "ValueError", NO_ERROR.format("a classifier was made with a pooling that does not exist")
            )
            return
        if case.kind == "dropout":
            if hasattr(got, "logits"):
                yield same_shape(got.logits, torch.zeros(len(case.ids), case.num_classes), "the logits")
            yield holds(
                got.steady, "In eval mode the same texts get other logits the second time: something is dropped there."
            )
            probability = case.options.get("dropout", 0.0)
            again = "In training, another share of the pooled vector's components is dropped than `dropout` says."
            yield holds(got.dropped == round(20 * probability), again)
            right = [round(1 / (1 - probability), 3)]
            yield holds(
                got.scales == right, "What dropout leaves of the pooled vector is not what nn.Dropout makes of it."
            )
            return
        right = type(self).probe(finetuning.SequenceClassifier, case)
        yield same(got.logits, right["logits"].detach(), "the logits")
        if right["padded"] is not None:
            alike = isinstance(got.padded, Tensor) and close(got.padded, got.logits)
            yield holds(alike, "Three more padding tokens behind the texts change their logits.")
        yield from same_gradients(got.gradients, right["gradients"])
        if case.part == "cls":
            yield holds(got.kept, "`encoder` is not the encoder that was handed over. Keep that one, not a copy.")


_ENCODE = "x = self.encoder.encode(ids)"
_REAL = "real = torch.ones_like(ids, dtype=torch.bool) if pad_id is None else ids != pad_id"
_TOTAL = "x.masked_fill(~real.unsqueeze(-1), 0.0).sum(1)"
_COUNT = "real.sum(1, keepdim=True).clamp(min=1)"
_MEAN = f"{_TOTAL} / {_COUNT}"
_RETURN = "return self.output(self.dropout(pooled))"
_REFUSE = """        if pooling not in ("cls", "mean"):
            raise ValueError(f"pooling must be 'cls' or 'mean', not {pooling!r}")
"""
for _name, _message, _edits, _read in [
    (
        "the encoder's head",
        "The encoder was called with its head on top, which gives logits over the vocabulary. Call `self.encoder.encode(ids)`.",
        {_ENCODE: "x = self.encoder(ids)"},
        "",
    ),
    (
        "the last token",
        "The vector of the last place was taken. For \"cls\" it is the first place's: that is where pretraining puts [CLS].",
        {"x[:, 0]": "x[:, -1]"},
        "",
    ),
    (
        "always cls",
        "The first token's vector is taken whatever `pooling` says.",
        {'if self.pooling == "cls":': "if True:"},
        "pooling",
    ),
    (
        "always the mean",
        "The mean is taken whatever `pooling` says.",
        {'if self.pooling == "cls":': "if False:"},
        "pooling",
    ),
    (
        "the mean by default",
        "Without `pooling` the mean is taken. The default is \"cls\".",
        {'= "cls",': '= "mean",'},
        "",
    ),
    (
        "BERT's pooler",
        "A tanh was put upon the pooled vector, as BERT's own pooler has it. Here the vector goes into `output` as it is.",
        {_RETURN: "return self.output(self.dropout(pooled.tanh()))"},
        "",
    ),
    (
        "returns probabilities",
        "A softmax was applied. Logits leave a model: the loss takes the softmax itself.",
        {_RETURN: f"{_RETURN}.softmax(-1)"},
        "",
    ),
    (
        "the encoder cut off",
        "No gradient reaches the encoder: it was called under torch.no_grad(), its result was detached, or it was frozen. "
        "Whether it learns is for `freeze` to say.",
        {_ENCODE: "x = self.encoder.encode(ids).detach()"},
        "",
    ),
    (
        "a copy of the encoder",
        "The classifier holds a copy of the encoder, so the one that was handed over never learns. Keep it itself.",
        {"self.encoder = encoder": "import copy\n        self.encoder = copy.deepcopy(encoder)"},
        "",
    ),
    (
        "output without bias",
        "The output has no bias. Leave nn.Linear's.",
        {"num_classes)\n\n": "num_classes, bias=False)\n\n"},
        "",
    ),
    (
        "padding in the mean",
        "Padding is pooled with the rest, so a text's logits change with what it is padded to. Only real tokens count: those "
        "whose id is not the config's pad_id.",
        {_MEAN: "x.mean(1)"},
        "pooling",
    ),
    (
        "divided by the length of the row",
        "The real tokens are summed, and then divided by the length of the row. Divide by the number of real tokens.",
        {_COUNT: "ids.size(1)"},
        "pooling",
    ),
    (
        "padding summed",
        "Padding is part of the sum, though not of the number by which it is divided. Its vectors are not zero: set them to "
        "zero before you sum.",
        {_TOTAL: "x.sum(1)"},
        "pooling",
    ),
    (
        "as many places as tokens",
        "The first places of a row were pooled, as many as it has real tokens. Padding may stand in front or in between: look "
        "at each id.",
        {_TOTAL: "x.masked_fill(~real.sort(1, descending=True).values.unsqueeze(-1), 0.0).sum(1)"},
        "pooling",
    ),
    (
        "up to the first padding",
        "What stands behind the first padding is left out. A real token counts wherever it stands.",
        {_REAL: f"{_REAL}\n            real = real.long().cumprod(1).bool()"},
        "pooling",
    ),
    (
        "the sum",
        "The sum of the vectors was taken. Divide it by the number of real tokens.",
        {_MEAN: _TOTAL},
        "pooling",
    ),
    (
        "the mean of the padding",
        "The mean is that of the padding. Exchange what is kept and what is set to zero.",
        {"else ids != pad_id": "else ids == pad_id"},
        "pooling",
    ),
    (
        "the maximum",
        "The largest number of each component was taken. The mean is the sum divided by the number of real tokens.",
        {_MEAN: 'x.masked_fill(~real.unsqueeze(-1), float("-inf")).amax(1).clamp(min=-1e9)'},
        "pooling",
    ),
    (
        "the mean without the first token",
        "The first token is left out of the mean. It is a real token, and counts as any other.",
        {"            pooled = x.mask": "            real = real.clone()\n            real[:, 0] = False\n"
         "            pooled = x.mask"},
        "pooling",
    ),
    (
        "divided by zero",
        "A row of padding alone becomes NaN: 0 / 0. The mean of no token is zero; divide by at least 1.",
        {".clamp(min=1)": ""},
        "pooling",
    ),
    (
        "takes 0 for padding",
        "Id 0 is treated as padding although the config names another pad_id, or none. Use config.pad_id.",
        {_REAL: "real = ids != 0"},
        "pooling",
    ),
    (
        "pad id 0 forgotten",
        "A pad_id of 0 is treated as if there were none: 0 counts as false. Ask `pad_id is None`.",
        {"if pad_id is None else": "if not pad_id else"},
        "pooling",
    ),
    (
        "always a pad_id",
        "The config need not have a pad_id. Where it is None, every token is real.",
        {_REAL: "real = ids.ne(pad_id)"},
        "pooling",
    ),
    (
        "no dropout",
        "Nothing is dropped in training. Put the pooled vector through an nn.Dropout.",
        {"self.dropout(pooled)": "pooled"},
        "",
    ),
    (
        "dropout in eval mode too",
        "Dropout goes on in eval mode. `nn.Dropout` asks the model's mode by itself; the function must be told, "
        "`training=self.training`.",
        {"self.dropout(pooled)": "nn.functional.dropout(pooled, self.dropout.p)"},
        "",
    ),
    (
        "dropout on the logits",
        "Dropout falls on the logits, so the score of a whole class becomes 0. It belongs on the pooled vector, before "
        "`output`.",
        {_RETURN: "return self.dropout(self.output(pooled))"},
        "",
    ),
    (
        "dropout before the mean",
        "Dropout falls on each token's vector, and the mean hides it again. Pool first, then drop.",
        {_ENCODE: "x = self.dropout(self.encoder.encode(ids))", "self.dropout(pooled)": "pooled"},
        "",
    ),
    (
        "dropout twice",
        "Dropout is applied twice, so that more is dropped than was asked for.",
        {"self.dropout(pooled)": "self.dropout(self.dropout(pooled))"},
        "",
    ),
    (
        "always 0.1",
        "The probability of dropout is 0.1 whatever was asked for. It is an argument, and 0 by default.",
        {"nn.Dropout(dropout)": "nn.Dropout(0.1)"},
        "",
    ),
    (
        "0.1 by default",
        "Without `dropout` a tenth of the vector is dropped in training. By default nothing is.",
        {"dropout: float = 0.0": "dropout: float = 0.1"},
        "",
    ),
    (
        "any pooling",
        "A pooling that does not exist is not refused with a ValueError.",
        {_REFUSE: ""},
        "pooling",
    ),
    (
        "super().__init__() missing",
        "`super().__init__()` is missing, so nn.Module cannot register the layers. Call it first in `__init__`.",
        {"super().__init__()": "pass"},
        "",
    ),
]:  # fmt: skip
    slip(SequenceClassifier, _name, _message, _edits, read=_read)


@exercise(
    "finetuning.freeze",
    parts={"what learns": 1, "counts": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=20,
    read="10_fine_tuning#freezing",
)
class Freeze(Check):
    """A model with eleven blocks and a tied table: which of its parameters learn afterwards, and how many numbers.

    The part "counts" keeps a norm or the whole encoder, with its tied table under both names: nothing whose choice could
    go wrong.
    """

    def prepare(self, rng):
        def inputs(*keep, frozen=(), kind="learning", tied=True, sequence=tuple):
            data = {"keep": sequence(keep), "frozen": list(frozen), "tied": tied}
            return data | {"kind": kind, "given": bool(keep)}

        learning, counts, error = self.parts
        yield Case("nothing is kept", inputs(), learning)
        yield Case("the output layer", inputs("output"), learning)
        yield Case("a block and the output layer", inputs("encoder.blocks.3", "output"), learning)
        yield Case("block 1 of eleven", inputs("encoder.blocks.1"), learning)
        yield Case("one parameter", inputs("output.bias"), learning)
        yield Case("a parameter deep inside", inputs("encoder.blocks.10.up.weight"), learning)
        yield Case("the whole encoder, as a list", inputs("encoder", sequence=list), learning)
        yield Case("a tied table by its first name", inputs("encoder.embedding"), learning)
        yield Case("a tied table by its second name", inputs("encoder.output"), learning)
        yield Case("a tied table by its full second name", inputs("encoder.output.weight"), learning)
        yield Case(
            "everything was frozen before", inputs("output", "encoder.norm", frozen=["encoder", "output"]), learning
        )
        yield Case("some was frozen before", inputs("encoder.blocks", frozen=["encoder.blocks.2", "output"]), learning)
        yield Case("a block, and one of its parameters", inputs("encoder.blocks.4", "encoder.blocks.4.up.bias"), learning,
                   hidden=True)  # fmt: skip
        yield Case("nothing is kept", inputs(kind="counts"), counts)
        yield Case("a norm", inputs("encoder.norm", kind="counts"), counts)
        yield Case("two tables that are not tied", inputs("encoder.norm", kind="counts", tied=False), counts)
        yield Case("the whole encoder", inputs("encoder", kind="counts"), counts)
        yield Case("a name that does not occur", inputs("head", kind="error"), error)
        yield Case("the beginning of a name", inputs("outp", kind="error"), error)
        yield Case("the end of a name", inputs("blocks.1", kind="error"), error)
        yield Case("a good name and another one", inputs("output", "encoder.blocks.11", kind="error"), error)
        yield Case("another one and a good name", inputs("encoder.layers", "output", kind="error"), error)
        yield Case("a module without parameters", inputs("dropout", kind="error"), error)
        yield Case("a capital letter", inputs("Output", kind="error"), error)
        yield Case("a dot at the end", inputs("outpu.", kind="error"), error)
        some = {"frozen": ["encoder.blocks.2", "output"], "kind": "error"}
        yield Case("another name, and some was frozen before", inputs("encoder.norm", "head", **some), error)

    @staticmethod
    def probe(freeze, case, /):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(2, 3), nn.Linear(3, 2)

        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = nn.ModuleDict({"tokens": nn.Embedding(7, 2)})
                self.blocks = nn.ModuleList(Block() for _ in range(11))
                self.norm = nn.LayerNorm(2)
                self.output = nn.Linear(2, 7)
                if case.tied:
                    self.output.weight = self.embedding["tokens"].weight

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.dropout, self.output = Encoder(), nn.Dropout(0.1), nn.Linear(2, 3)

        model = Model()
        own = dict(model.named_parameters(remove_duplicate=False))
        for name, parameter in own.items():
            if any(name.startswith(part + ".") for part in case.frozen):
                parameter.requires_grad_(False)
        before = {name: parameter.requires_grad for name, parameter in own.items()}
        try:
            counts = freeze(model, case.keep) if case.given else freeze(model)
        except ValueError:
            if case.kind != "error":
                raise
            return {"error": "ValueError", "before": before, "after": {name: own[name].requires_grad for name in own}}
        if case.kind == "error":
            return {"error": ""}
        if case.kind == "counts":
            return {"counts": counts}
        now = dict(model.named_parameters(remove_duplicate=False))
        same_ones = now.keys() == own.keys() and all(now[name] is own[name] for name in own)
        return {"learning": {name: now[name].requires_grad for name in now}, "same": same_ones}

    def judge(self, case, got):
        if case.kind == "error":
            yield holds(got.error == "ValueError", NO_ERROR.format("the model has nothing of one of the names"))
            yield holds(
                got.after == got.before,
                "A ValueError was raised, and the model was changed before. Look at all names first.",
            )
            return
        right = type(self).probe(finetuning.freeze, case)
        if case.kind == "counts":
            yield is_kind(got.counts, tuple, "two numbers: how many learn, and how many are frozen")
            yield holds(len(got.counts) == 2, "Return two numbers: how many learn, and how many are frozen.")
            for value, expected, what in zip(got.counts, right["counts"], ("learn", "are frozen"), strict=True):
                yield is_kind(value, int, "two ints", "one of the two numbers")
                yield holds(value == expected, f"{value} is not how many numbers {what}.")
            return
        yield holds(
            got.same, "The model's parameters are others than before. Set their requires_grad, and nothing else."
        )
        wrong = [name for name, learns in right["learning"].items() if got.learning.get(name) is not learns]
        if wrong:
            first = "goes on learning" if got.learning.get(wrong[0]) else "is frozen"
            yield holds(False, f"`{wrong[0]}` {first}, which it must not; so with {len(wrong)} names in all.")


_CHECKED = """    for kept in keep:
        if not any(name == kept or name.startswith(kept + ".") for name in names):
            raise ValueError(f"keep has {kept!r}, and the model has no parameter of that name or within it")
"""
_OFF = "    model.requires_grad_(False)\n"
_EACH = "for name, parameter in model.named_parameters(remove_duplicate=False):"
_CHOSEN = """        if any(name == kept or name.startswith(kept + ".") for kept in keep):
            parameter.requires_grad_(True)
"""
_LEARNING = "learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)"
_COUNTED = "return learning, sum(parameter.numel() for parameter in model.parameters()) - learning"
for _name, _message, _edits in [
    (
        "names that begin alike",
        "Names that only begin alike are kept too: `encoder.blocks.1` also keeps block 10. A name is the parameter's own, or "
        "that of a module around it: what follows must be a dot.",
        {_CHOSEN: _CHOSEN.replace('kept + "."', "kept")},
    ),
    (
        "the name anywhere",
        "A parameter is kept where its name contains the one that was given, wherever it stands: `output` is also a part of "
        "`encoder.output.bias`. Names begin at the model.",
        {_CHOSEN: _CHOSEN.replace('name == kept or name.startswith(kept + ".")', "kept in name")},
    ),
    (
        "modules only",
        "A parameter's full name is not recognised. `keep` may name modules and parameters.",
        {_CHECKED: _CHECKED.replace("name == kept or ", ""), _CHOSEN: _CHOSEN.replace("name == kept or ", "")},
    ),
    (
        "parameters only",
        "A module's name is not recognised. `keep` may name modules and parameters.",
        {_CHECKED: _CHECKED.replace(' or name.startswith(kept + ".")', ""),
         _CHOSEN: _CHOSEN.replace(' or name.startswith(kept + ".")', "")},
    ),
    (
        "top modules only",
        "Only the first word of a name was looked at. A name may lead deep into the model, as `encoder.blocks.3` does.",
        {_CHOSEN: _CHOSEN.replace('name == kept or name.startswith(kept + ".")', 'name.split(".")[0] == kept.split(".")[0]')},
    ),
    (
        "the first name of a tied table",
        "A tied table has two names, and only its first one is recognised: `named_parameters()` shows each parameter once. "
        "Ask it for all names with remove_duplicate=False.",
        {"remove_duplicate=False": ""},
    ),
    (
        "the last name of a tied table decides",
        "A tied table is kept under one name and frozen under the other, and the last name decides. Freeze everything first; "
        "then let learn what is kept.",
        {_OFF: "", _CHOSEN: '        parameter.requires_grad_(any(name == kept or name.startswith(kept + ".") for kept '
         "in keep))\n"},
    ),
    (
        "all names must be kept",
        "A tied table is kept only where all its names are. One of them is enough.",
        {_EACH: "every = list(model.named_parameters(remove_duplicate=False))\n    for name, parameter in every:",
         _CHOSEN: _CHOSEN.replace("if any(name == kept", "if all(any(name == kept").replace(
             "for kept in keep)", "for kept in keep) for name, other in every if other is parameter)")},
    ),
    (
        "changed before the error",
        "A ValueError was raised when the model was frozen already. Look at all names first, and change it then.",
        {_CHECKED: "", _OFF: _OFF + _CHECKED},
    ),
    (
        "never back on",
        "What was frozen before stays frozen though it is kept. Set requires_grad to True there.",
        {_OFF: "    for name, parameter in model.named_parameters():\n        if not any(name == kept or "
         'name.startswith(kept + ".") for kept in keep):\n            parameter.requires_grad_(False)\n',
         _CHOSEN: _CHOSEN.replace("parameter.requires_grad_(True)", "pass")},
    ),
    (
        "freezes nothing",
        "What is not kept still learns. Set its requires_grad to False.",
        {_OFF: ""},
    ),
    (
        "keep is what is frozen",
        "It is the wrong way round: what `keep` names is frozen, and the rest learns.",
        {_OFF: "    model.requires_grad_(True)\n", _CHOSEN: _CHOSEN.replace("_(True)", "_(False)")},
    ),
    (
        "everything is frozen",
        "Nothing learns, not even what is kept.",
        {_CHOSEN: "        pass\n"},
    ),
    (
        "only the first name",
        "Only the first of the names is kept.",
        {_CHOSEN: _CHOSEN.replace("in keep)", "in keep[:1])")},
    ),
    (
        "an attribute nobody reads",
        "Something other than `requires_grad` was set, such as the module's mode. Set requires_grad of each parameter.",
        {_OFF: "    model.eval()\n    model.requires_grad = False\n", _CHOSEN: "        parameter.trainable = True\n"},
    ),
    (
        "tied tables counted twice",
        "A tied table is counted under each of its names. It is one parameter: `model.parameters()` gives each once.",
        {_LEARNING: "every = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]\n    "
         + _LEARNING.replace("model.parameters()", "every"), _COUNTED: _COUNTED.replace("model.parameters()", "every")},
    ),
    (
        "tensors counted",
        "The parameters are counted, not the numbers in them. Sum `parameter.numel()`.",
        {"parameter.numel()": "1"},
    ),
    (
        "all instead of the frozen ones",
        "The second number is that of all parameters. It is how many are frozen.",
        {_COUNTED: _COUNTED.replace(" - learning", "")},
    ),
    (
        "counts exchanged",
        "The two counts are exchanged: first how many learn, then how many are frozen.",
        {_COUNTED: "return sum(parameter.numel() for parameter in model.parameters()) - learning, learning"},
    ),
    (
        "counted before it is frozen",
        "The numbers were counted before anything was frozen.",
        {"    names = [": f"    {_LEARNING}\n    names = [", f"    {_LEARNING}\n    {_COUNTED}": f"    {_COUNTED}"},
    ),
    (
        "no counts",
        "Return how many numbers go on learning, and how many are frozen.",
        {_COUNTED: "return None"},
    ),
    (
        "any name",
        "A name that nothing in the model has is not refused with a ValueError. A slip of the pen would freeze what should "
        "learn, and nobody would see it.",
        {_CHECKED: ""},
    ),
    (
        "one good name is enough",
        "A name that nothing in the model has passes where another one is right. Look at each.",
        {_CHECKED: '    if keep and not any(name == kept or name.startswith(kept + ".") for name in names for kept in keep):\n'
         '        raise ValueError("none")\n'},
    ),
    (
        "a name's beginning passes",
        "The mere beginning of a name is not refused with a ValueError.",
        {_CHECKED: _CHECKED.replace('kept + "."', "kept")},
    ),
    (
        "a name's end passes",
        "The end of a name is not refused with a ValueError. Names begin at the model.",
        {_CHECKED: _CHECKED.replace('name.startswith(kept + ".")', 'f".{kept}." in f"{name}."')},
    ),
    (
        "another error",
        "An unknown name ends in an AttributeError. Raise a ValueError that tells the name.",
        {_CHECKED: "    for kept in keep:\n        part = model\n        for word in kept.split(\".\"):\n"
         "            part = getattr(part, word)\n"},
    ),
]:  # fmt: skip
    slip(Freeze, _name, _message, _edits)


@exercise(
    "finetuning.class_weights",
    parts={"weights": 1, "errors": 1},
    claims=("errors",),
    difficulty=1,
    minutes=10,
    read="10_fine_tuning#skewed-labels",
    instead="Build it from a count of each class and a quotient.",
)
class ClassWeights(Check):
    """Labels of known frequencies in random order; every class occurs but where an error is asked for."""

    equivalent: ClassVar = {
        f"class_weights: {old} -> {new}": why
        for old, new, why in [
            (_WEIGH, _WEIGH.replace("num_classes * counts", "counts * num_classes"), SUM),
            (_NONE, _NONE.replace(".flatten()", ""), "whether there are any is all that is asked"),
            (_WITHIN, _WITHIN.replace("int(labels.min())", "labels.min()"), NUMBER),
            (_WITHIN, _WITHIN.replace("int(labels.max())", "labels.max()"), NUMBER),
        ]
    }

    def prepare(self, rng):
        def inputs(counts, valid=True, extra=(), num_classes=None):
            labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)] + list(extra))
            order = rng.normal(len(labels)).argsort()
            data = {"labels": labels.long()[order], "num_classes": num_classes or len(counts)}
            return data | {"valid": valid, "named": ""}

        def broken(*arguments, **rest):
            return inputs(*arguments, valid=False, **rest)

        weights, errors = self.parts
        yield Case("three labels of one class, one of the other", inputs([3, 1]), weights)
        yield Case("as many of each", inputs([4, 4, 4]), weights)
        yield Case("five classes", inputs([7, 1, 20, 3, 9]), weights)
        yield Case("one label in a hundred", inputs([99, 1]), weights)
        yield Case("one class", inputs([6]), weights)
        yield Case("a thousand labels", inputs([600, 250, 149, 1]), weights, hidden=True)
        yield Case("a class in the middle has no label", broken([3, 0, 2]), errors)
        yield Case("the first class has no label", broken([0, 3, 2]), errors)
        yield Case("the last class has no label", broken([3, 2, 0]), errors)
        unnamed = broken([3] * 47 + [0] + [2])
        yield Case("class 47 has no label, and the message names it", unnamed | {"named": "47"}, errors)
        yield Case("a label beyond the last class", broken([3, 2], extra=[2]), errors)
        yield Case("a label -1", broken([3, 2], extra=[-1]), errors)
        yield Case("a label -100", broken([3, 2], extra=[-100]), errors)
        yield Case("no label at all", broken([], num_classes=2), errors)

    @staticmethod
    def probe(class_weights, case, /):
        try:
            weights = class_weights(case.labels, case.num_classes)
        except ValueError as error:
            if case.valid:
                raise
            return {"error": "ValueError", "named": case.named in str(error)}
        return {"weights": weights} if case.valid else {"error": "", "instead": weights}

    def judge(self, case, got):
        if not case.valid:
            yield holds(got.error == "ValueError", NO_ERROR.format("a label is out of range, or a class has no label"))
            yield holds(got.named, "The message of the ValueError does not say which class has no label.")
            return
        yield same(got.weights, finetuning.class_weights(case.labels, case.num_classes), "the weights")


_RANGE = """    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels run from {int(labels.min())} to {int(labels.max())}, not 0 to {num_classes - 1}")
"""
_COUNTS = "counts = torch.bincount(labels, minlength=num_classes)"
_MISSING = """    if missing:
        raise ValueError(f"class {missing[0]} has no label among the {len(labels)}: no weight makes up for that")
"""
for _name, _message, _edits in [
    (
        "shares",
        "The weights are the classes' shares of the labels, so that the frequent class counts even more. Rare ones need "
        "large weights: divide by the counts.",
        {_WEIGH: "return counts / len(labels)"},
    ),
    (
        "not divided by the classes",
        "The number of labels is divided by each count alone. Divide by the number of classes too: then the weights have the "
        "mean 1 over the labels.",
        {_WEIGH: "return len(labels) / counts"},
    ),
    (
        "one over the counts",
        "The weights are one over the counts, and the more labels there are the smaller is the loss. Multiply by the number "
        "of labels, and divide by that of classes.",
        {_WEIGH: "return 1 / counts"},
    ),
    (
        "a sum of 1",
        "The weights are scaled so that their sum is 1. Over the *labels* their mean must be 1.",
        {_WEIGH: "return (1 / counts) / (1 / counts).sum()"},
    ),
    (
        "a mean of 1 over the classes",
        "The weights are scaled so that their mean over the classes is 1. Over the *labels* it must be 1.",
        {_WEIGH: "return (1 / counts) / (1 / counts).mean()"},
    ),
    (
        "the most frequent class has 1",
        "The weights are scaled so that the most frequent class has 1. Over the labels their mean must be 1.",
        {_WEIGH: "return counts.max() / counts"},
    ),
    (
        "the square root",
        "The square root of the weights was taken. That is a milder weighting than the one that is asked for.",
        {_WEIGH: "return (len(labels) / (num_classes * counts)).sqrt()"},
    ),
    (
        "weights of the labels",
        "There is a weight for each label. Return one for each class: the loss looks them up.",
        {_WEIGH: "return (len(labels) / (num_classes * counts))[labels]"},
    ),
    (
        "whole numbers",
        "The weights were rounded down to whole numbers by `//`. Divide with `/`.",
        {_WEIGH: "return (len(labels) // (num_classes * counts)).float()"},
    ),
    (
        "float64",
        "The weights are float64. Return float32, as the loss of a model's logits needs it.",
        {_WEIGH: "return (len(labels) / (num_classes * counts)).double()"},
    ),
    (
        "a list",
        "A list came back. Return a tensor of shape (C,).",
        {_WEIGH: f"{_WEIGH}.tolist()"},
    ),
    (
        "a class without a label passes",
        "A class without a label gets an infinite weight. Raise a ValueError that names it.",
        {_MISSING: ""},
    ),
    (
        "the class is not named",
        "The message does not say which class has no label, counted from 0. Whoever reads it must find it among many.",
        {"class {missing[0]} has no label among the {len(labels)}": "a class has no label"},
    ),
    (
        "only the classes that occur",
        "The last class is forgotten where it has no label. Count with minlength=num_classes.",
        {", minlength=num_classes": ""},
    ),
    (
        "0 / 0 avoided",
        "A class without a label is treated as if it had one. No weight makes up for that: raise a ValueError.",
        {_MISSING: "", _WEIGH: "return len(labels) / (num_classes * counts.clamp(min=1))"},
    ),
    (
        "large labels pass",
        "A label beyond the last class is not refused with a ValueError.",
        {" < num_classes:": ":", _COUNTS: f"{_COUNTS}[:num_classes]"},
    ),
    (
        "negative labels pass",
        "A negative label is not refused with a ValueError.",
        {"not 0 <= int(labels.min()) <= int(labels.max()) < num_classes": "int(labels.max()) >= num_classes",
         _COUNTS: "counts = torch.bincount(labels[labels >= 0], minlength=num_classes)"},
    ),
]:  # fmt: skip
    slip(ClassWeights, _name, _message, _edits)


@exercise(
    "finetuning.precision_recall_f1",
    parts={"per class": 1, "0 / 0": 1, "averages": 1, "errors": 1},
    claims=("errors",),
    difficulty=2,
    minutes=25,
    read="10_fine_tuning#precision-and-recall",
    sections={"averages": "averages"},
    instead="Build it from sums over comparisons.",
)
class PrecisionRecallF1(Check):
    """Answers of a classifier that is right two times in three, over classes of unequal size.

    Every class is there and answered, but in the part "0 / 0", which looks only at what is 0 and what is not, and in one
    case of "averages". There the macro average is compared with the mean of the solution's own scores.
    """

    equivalent: ClassVar = {
        f"precision_recall_f1: {old} -> {new}": why
        for old, new, why in [
            (_ALLOWED, "if average not in ('micro', 'macro', None):", "the same three"),
            (_LOOKED, "for name, values in (('predictions', predictions), ('targets', targets)):", "the same two"),
            (_LOOKED, _LOOKED.replace("'targets'", "'targets?'"), WORDS),
            (_LOOKED, _LOOKED.replace("'predictions'", "'predictions?'"), WORDS),
            (_SHARES, _SHARES.replace("2 * right", "right * 2"), SUM),
            (_SHARES, _SHARES.replace("predicted + there", "there + predicted"), SUM),
            (_CLASSES, _CLASSES.replace("int(values.min())", "values.min()"), NUMBER),
            (_CLASSES, _CLASSES.replace("int(values.max())", "values.max()"), NUMBER),
        ]
    }

    def prepare(self, rng):
        def answers(num_classes, *shape, average=None):
            count = torch.Size(shape).numel()
            # Classes of sizes 1 : 2 : 3 and so on, each with one right and one wrong answer for certain.
            sizes = torch.cat([torch.full((size + 1,), size) for size in range(num_classes)])
            targets = sizes[rng.integers(0, len(sizes), count)]
            predictions = torch.where(rng.integers(0, 3, count) < 2, targets, rng.integers(0, num_classes, count))
            every = torch.arange(num_classes)
            targets[: 2 * num_classes] = torch.cat([every, every])
            predictions[: 2 * num_classes] = torch.cat([every, every.roll(1)])
            return data(targets.view(shape), predictions.view(shape), num_classes, average=average)

        def data(targets, predictions, num_classes, valid=True, average=None):
            targets, predictions = (torch.as_tensor(one).long() for one in (targets, predictions))
            return {"targets": targets, "predictions": predictions, "num_classes": num_classes, "average": average,
                    "valid": valid}  # fmt: skip

        def broken(targets, predictions, num_classes=3, **rest):
            return data(targets, predictions, num_classes, valid=False, **rest)

        each, nothing, averages, errors = self.parts
        small = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 0])
        yield Case("six answers, two classes", data(*small, 2), each)
        yield Case("forty answers, four classes", answers(4, 40), each)
        yield Case("a table of answers", answers(3, 5, 8), each)
        yield Case("all are right", data([0, 1, 2, 1], [0, 1, 2, 1], 3), each)
        yield Case("six hundred answers, two classes", answers(2, 600), each)
        yield Case("a batch of tables", answers(5, 2, 3, 10), each, hidden=True)
        yield Case("a class that is never predicted", data([0, 1, 2, 1, 0], [0, 1, 1, 1, 0], 3), nothing)
        yield Case("a class that is never there", data([0, 1, 1, 1, 0], [0, 1, 2, 1, 0], 3), nothing)
        yield Case("a class that is neither", data([0, 2, 0, 2], [0, 2, 2, 0], 3), nothing)
        yield Case("the last class is neither", data([0, 1, 1, 0], [0, 1, 0, 0], 4), nothing)
        yield Case("all are wrong", data([0, 1, 2], [1, 2, 0], 3), nothing)
        yield Case("no answers", data([], [], 3), nothing)
        yield Case("micro: no answers", data([], [], 3, average="micro"), nothing)
        for average in ("macro", "micro"):
            yield Case(f"{average}: forty answers, four classes", answers(4, 40, average=average), averages)
            yield Case(f"{average}: a table of answers", answers(3, 5, 8, average=average), averages)
            yield Case(f"{average}: one class", data([0, 0], [0, 0], 1, average=average), averages)
        absent = data([0, 0, 1, 4, 4], [0, 1, 1, 4, 0], 5, average="macro")
        yield Case("macro: two classes that are neither there nor predicted", absent, averages)
        yield Case("four targets, three predictions", broken([0, 1, 2, 0], [0, 1, 2]), errors)
        yield Case("shapes (2, 3) and (3, 2)", broken([[0, 1, 2], [0, 1, 2]], [[0, 1], [2, 0], [1, 2]]), errors)
        yield Case("shapes (3,) and (1,)", broken([0, 1, 2], [0]), errors)
        yield Case("a target beyond the last class", broken([0, 1, 3], [0, 1, 2]), errors)
        yield Case("a prediction beyond the last class", broken([0, 1, 2], [0, 3, 2]), errors)
        yield Case("a target -100", broken([0, -100, 2], [0, 1, 2]), errors)
        yield Case("a prediction -1", broken([0, 1, 2], [-1, 1, 2]), errors)
        for average in ("weighted", "MACRO", ""):
            yield Case(f'average="{average}"', broken([0, 1, 2], [0, 1, 2], average=average), errors)

    @staticmethod
    def probe(precision_recall_f1, case, /):
        options = {} if case.average is None else {"average": case.average}
        try:
            scores = precision_recall_f1(case.targets, case.predictions, case.num_classes, **options)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        if not case.valid:
            return {"error": ""}
        macro = case.average == "macro"
        each = precision_recall_f1(case.targets, case.predictions, case.num_classes) if macro else None
        return {"scores": scores, "each": each}

    def judge(self, case, got):
        if not case.valid:
            yield holds(got.error == "ValueError", NO_ERROR.format("these arguments cannot be used"))
            return
        yield is_kind(got.scores, tuple, "three tensors: precision, recall and F1")
        yield holds(len(got.scores) == 3, "Return three tensors: precision, recall and F1.")
        right = finetuning.precision_recall_f1(case.targets, case.predictions, case.num_classes, case.average)
        vector = torch.zeros(case.num_classes)
        if isinstance(got.each, tuple) and all(same_shape(score, vector).ok for score in got.each):
            right = tuple(score.mean() for score in got.each)
        for score, expected, name in zip(got.scores, right, ("the precision", "the recall", "F1"), strict=True):
            if case.part != "0 / 0":
                yield same(score, expected, name)
                continue
            if case.average is None:
                yield same_shape(score, expected, name)
            else:  # what an average looks like is asked in another part
                score = torch.tensor(score) if isinstance(score, int | float) else score
                yield same_shape(score, score if isinstance(score, Tensor) else expected, name)
            zeros = score.isfinite().all() and torch.equal(score == 0, (expected == 0).expand(score.shape))
            yield holds(zeros, f"Of {name}, other classes are 0 than should be. A share of nothing, 0 / 0, is 0.")


_SHAPES = """    if targets.shape != predictions.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, predictions {tuple(predictions.shape)}")
"""
_AVERAGES = """    if average not in (None, "macro", "micro"):
        raise ValueError(f"average must be None, 'macro' or 'micro', not {average!r}")
"""
_BOTH = '(("targets", targets), ("predictions", predictions))'
_MICRO = """    if average == "micro":
        there, predicted, right = there.sum(), predicted.sum(), right.sum()
"""
_SCORES = "scores = (part / whole.clamp(min=1) for part, whole in shares)"
_MEANS = 'precision, recall, f1 = (score.mean() if average == "macro" else score for score in scores)'
_SCORED = "return precision, recall, f1"
_BINS = "torch.bincount(chosen.flatten(), minlength=num_classes)"
for _name, _message, _edits, _read in [
    (
        "precision and recall exchanged",
        "Precision and recall are exchanged. Precision is the share of the right ones among what was *predicted*, recall "
        "among what is *there*.",
        {"(right, predicted), (right, there)": "(right, there), (right, predicted)"},
        "",
    ),
    (
        "precision twice",
        "Recall is divided by how often the class was predicted, as precision is. Divide it by how often the class is there.",
        {"(right, there)": "(right, predicted)"},
        "",
    ),
    (
        "recall twice",
        "Precision is divided by how often the class is there, as recall is. Divide it by how often the class was predicted.",
        {"(right, predicted)": "(right, there)"},
        "",
    ),
    (
        "the accuracy",
        "The right answers are divided by the number of all answers. Divide by how often the class was predicted, and by how "
        "often it is there.",
        {_SHARES: "every = torch.as_tensor(max(targets.numel(), 1))\n    shares = ((right, every), (right, every), "
         "(right, every))"},
        "",
    ),
    (
        "the mean of the two",
        "F1 is the plain mean of precision and recall. The harmonic mean is nearer to the smaller one.",
        {_SCORED: "return precision, recall, (precision + recall) / 2"},
        "",
    ),
    (
        "F1 without the 2",
        "F1 is half of what it should be: a factor 2 is missing.",
        {"(2 * right, predicted + there)": "(right, predicted + there)"},
        "",
    ),
    (
        "the geometric mean",
        "F1 is the geometric mean of precision and recall: the square root of their product. It is the harmonic one.",
        {_SCORED: "return precision, recall, (precision * recall).sqrt()"},
        "",
    ),
    (
        "right over all that was right or wrong",
        "F1 is the right ones over those that were predicted or there: that is the Jaccard index. F1 counts the right ones "
        "twice, above and below.",
        {"(2 * right, predicted + there)": "(right, predicted + there - right)"},
        "",
    ),
    (
        "one class alone",
        "Only the scores of the class 1 came back. Return those of every class.",
        {_SCORED: "return (precision, recall, f1) if average else (precision[1:2].squeeze(), recall[1:2].squeeze(), "
         "f1[1:2].squeeze())"},
        "",
    ),
    (
        "only one row of answers",
        "The answers may have any shape. Flatten them before you count.",
        {_BINS: "torch.bincount(chosen, minlength=num_classes)"},
        "",
    ),
    (
        "a stacked tensor",
        "One tensor came back. Return three: precision, recall and F1.",
        {_SCORED: "return torch.stack([precision, recall, f1])"},
        "",
    ),
    (
        "float64",
        "The scores are float64. Return float32.",
        {_SCORED: "return precision.double(), recall.double(), f1.double()"},
        "",
    ),
    (
        "0 / 0",
        "A share of nothing came out as NaN. 0 / 0 counts as 0 here.",
        {".clamp(min=1)": ""},
        "",
    ),
    (
        "0 / 0 is 1",
        "A share of nothing came out as 1. It counts as 0 here.",
        {_SCORES: "scores = (torch.where(whole == 0, 1.0, part / whole.clamp(min=1)) for part, whole in shares)"},
        "",
    ),
    (
        "F1 of two zeros",
        "F1 is NaN where precision and recall are both 0. Count 2 right / (predicted + there) instead; its 0 / 0 is 0.",
        {_MEANS: "precision, recall, _ = scores\n    f1 = 2 * precision * recall / (precision + recall)\n"
         "    if average == \"macro\":\n        precision, recall, f1 = precision.mean(), recall.mean(), f1.mean()"},
        "",
    ),
    (
        "only the classes that occur",
        "A class without any answer is missing where it is the last one. Count with minlength=num_classes.",
        {_BINS: "torch.bincount(chosen.flatten(), minlength=int(max(targets.max(), predictions.max())) + 1 if "
         "targets.numel() else 0)"},
        "",
    ),
    (
        "F1 of the means",
        "The macro F1 was worked out from the mean precision and the mean recall. It is the mean of the classes' F1.",
        {_SCORED: "if average == \"macro\":\n        f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)\n    "
         + _SCORED},
        "averages",
    ),
    (
        "weighted by the classes' sizes",
        "The macro average is weighted by how often each class is there. Every class counts alike.",
        {_MEANS: 'precision, recall, f1 = ((score * there).sum() / there.sum() if average == "macro" else score for score in '
         "scores)"},
        "averages",
    ),
    (
        "absent classes left out",
        "The macro average leaves out classes that have no answer. They count as 0: the mean is over all C.",
        {_MEANS: "found = predicted + there > 0\n    "
         'precision, recall, f1 = (score[found].mean() if average == "macro" else score for score in scores)'},
        "averages",
    ),
    (
        "average ignored",
        "The scores of the classes came back where an average was asked for.",
        {_MICRO: "", _MEANS: "precision, recall, f1 = scores"},
        "averages",
    ),
    (
        "macro and micro exchanged",
        "Macro and micro are exchanged. Macro is the mean over the classes; micro counts over all classes first.",
        {'if average == "micro":': 'if average == "macro":', 'if average == "macro" else': 'if average == "micro" else'},
        "averages",
    ),
    (
        "micro like macro",
        "The micro average is the mean over the classes. Sum the counts over all classes first, and divide then.",
        {_MICRO: "", 'if average == "macro"': "if average"},
        "averages",
    ),
    (
        "macro like micro",
        "The macro average counts over all classes. Take the mean of the classes' scores.",
        {'if average == "micro":': "if average:"},
        "averages",
    ),
    (
        "micro for each class",
        "The micro average divides by what all classes have, and leaves a number for each class. Sum the right ones, too.",
        {"predicted.sum(), right.sum()": "predicted.sum(), right"},
        "averages",
    ),
    (
        "small counts",
        "Counts above 255 came out too small: they were kept as uint8. Count with int64, as torch.bincount does.",
        {_BINS: f"{_BINS}.to(torch.uint8).long()"},
        "",
    ),
    (
        "the share of right answers for micro",
        "Without any answer the micro average is NaN. It is 0, as every 0 / 0 here.",
        {_MEANS: f"{_MEANS}\n    if average == 'micro':\n        precision = recall = f1 = (targets == "
         "predictions).float().mean()"},
        "averages",
    ),
    (
        "plain numbers",
        "An average came back as a plain number. Return tensors without a dimension.",
        {_SCORED: "return (precision.item(), recall.item(), f1.item()) if average else (precision, recall, f1)"},
        "averages",
    ),
    (
        "any shapes",
        "Targets and predictions of different shapes are not refused with a ValueError.",
        {_SHAPES: "    count = min(targets.numel(), predictions.numel())\n    targets, predictions = "
         "targets.flatten()[:count], predictions.flatten()[:count]\n"},
        "",
    ),
    (
        "as many is enough",
        "Shapes that differ are not refused where the number of answers is the same.",
        {_SHAPES: _SHAPES.replace("targets.shape != predictions.shape", "targets.numel() != predictions.numel()"),
         "targets[targets == predictions]": "targets.flatten()[targets.flatten() == predictions.flatten()]"},
        "",
    ),
    (
        "any targets",
        "A target that is no class is not refused with a ValueError. Leave out what is not asked for before you call it.",
        {_BOTH: '(("predictions", predictions),)', _BINS: "torch.bincount(chosen.flatten()[(chosen.flatten() >= 0) & "
         "(chosen.flatten() < num_classes)], minlength=num_classes)"},
        "",
    ),
    (
        "any predictions",
        "A prediction that is no class is not refused with a ValueError.",
        {_BOTH: '(("targets", targets),)', _BINS: "torch.bincount(chosen.flatten()[(chosen.flatten() >= 0) & "
         "(chosen.flatten() < num_classes)], minlength=num_classes)"},
        "",
    ),
    (
        "any numbers",
        "Numbers that are no class are not refused with a ValueError, neither among the targets nor among the predictions.",
        {_BOTH: "()", _BINS: "torch.bincount(chosen.flatten()[(chosen.flatten() >= 0) & "
         "(chosen.flatten() < num_classes)], minlength=num_classes)"},
        "",
    ),
    (
        "any average",
        "An average that does not exist is not refused with a ValueError.",
        {_AVERAGES: ""},
        "averages",
    ),
]:  # fmt: skip
    slip(PrecisionRecallF1, _name, _message, _edits, read=_read)


@exercise(
    "finetuning.align_labels",
    parts={"first tokens": 1, "no word": 1, "errors": 1},
    claims=("errors",),
    difficulty=1,
    minutes=15,
    read="10_fine_tuning#tagging",
)
class AlignLabels(Check):
    """Words of one token and of several, and tokens that belong to none.

    The part "first tokens" has a word for every token, and "no word" does not look at further tokens of a word. A word never comes back after another token: whether it would
    begin again is not asked.
    """

    def prepare(self, rng):
        def inputs(labels, word_ids, valid=True, ignore_index=None):
            return {"labels": labels, "word_ids": word_ids, "ignore_index": ignore_index, "valid": valid}

        first, none, errors = self.parts
        yield Case("one token each", inputs([3, 0, 5], [0, 1, 2]), first)
        yield Case("a word of three tokens", inputs([3, 0, 5], [0, 1, 1, 1, 2]), first)
        yield Case("neighbours with the same label", inputs([4, 4, 4], [0, 0, 1, 2, 2]), first)
        yield Case("the first word in two tokens", inputs([6, 2], [0, 0, 1]), first)
        yield Case("one word alone, in two tokens", inputs([5], [0, 0]), first)
        yield Case("the text was cut off", inputs([1, 2, 3, 4, 5], [0, 1, 1, 2]), first)
        yield Case("a word without tokens", inputs([1, 2, 3, 4], [0, 2, 2, 3]), first)
        yield Case("ignore_index=-1", inputs([2, 7], [0, 0, 1, 1], ignore_index=-1), first)
        long = rng.integers(0, 9, 12).tolist()
        times = rng.integers(1, 4, 12).tolist()
        words = [word for word, count in enumerate(times) for _ in range(count)]
        yield Case("twelve words", inputs(long, words), first, hidden=True)
        yield Case("[CLS] and [SEP]", inputs([3, 0, 5], [None, 0, 1, 2, None]), none)
        yield Case("padding behind", inputs([3, 6], [None, 0, 1, None, None, None]), none)
        yield Case("a token of no word between two words", inputs([2, 8], [0, None, 1]), none)
        yield Case("words in pieces", inputs([7, 1], [None, 0, 0, 1, 1, 1, None]), none)
        yield Case("tokens of no word alone", inputs([], [None, None]), none)
        yield Case("ignore_index=-1, with [CLS]", inputs([2, 7], [None, 0, 1, None], ignore_index=-1), none)
        yield Case("no tokens", inputs([1, 2], []), none)
        yield Case("more words than labels", inputs([1, 2], [None, 0, 1, 2, None], valid=False), errors)
        yield Case("the second token of a word without a label", inputs([1, 2], [0, 2, 2], valid=False), errors)
        yield Case("no labels", inputs([], [None, 0, None], valid=False), errors)
        yield Case("a word -1", inputs([1, 2], [0, 1, -1], valid=False), errors)

    @staticmethod
    def probe(align_labels, case, /):
        options = {} if case.ignore_index is None else {"ignore_index": case.ignore_index}
        try:
            aligned = align_labels(case.labels, case.word_ids, **options)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        return {"aligned": aligned} if case.valid else {"error": "", "instead": aligned}

    def judge(self, case, got):
        if not case.valid:
            yield holds(got.error == "ValueError", NO_ERROR.format("a token belongs to a word that has no label"))
            return
        options = {} if case.ignore_index is None else {"ignore_index": case.ignore_index}
        right = finetuning.align_labels(case.labels, case.word_ids, **options)
        aligned = got.aligned
        if case.part == "no word" and isinstance(aligned, list) and len(aligned) == len(right):
            seen = [case.word_ids[:place] for place in range(len(right))]
            looked = [word is None or word not in before for word, before in zip(case.word_ids, seen, strict=True)]
            aligned, right = (list(itertools.compress(one, looked)) for one in (aligned, right))
        yield same_items(aligned, right, "the list of labels")


_LACKING = """        if word is not None and not 0 <= word < len(labels):
            raise ValueError(f"word_ids name the word {word}, and there are labels for words 0 to {len(labels) - 1}")
"""
_ALIGNED = "aligned.append(ignore_index if word is None or word == before else labels[word])"
for _name, _message, _edits in [
    (
        "every token labelled",
        "Every token of a word has the word's label. Only the first one has it; the others get `ignore_index`.",
        {" or word == before": ""},
    ),
    (
        "the last token of a word",
        "The label is at the last token of each word. It belongs at the first.",
        {"for word in word_ids:": "for word in reversed(word_ids):", "return aligned": "return aligned[::-1]"},
    ),
    (
        "word 0 taken for none",
        "The first word gets no label: its number 0 counts as false. Ask `word is None`.",
        {"ignore_index if word is None": "ignore_index if not word"},
    ),
    (
        "the first token beside the last",
        "The first token was compared with the last one, for `word_ids[-1]` is the last. It has nothing before it.",
        {"word == before": "word == word_ids[len(aligned) - 1]"},
    ),
    (
        "word 0 not looked at",
        "Word 0 is not looked at where there are no labels: the number 0 counts as false. Ask `word is not None`.",
        {"if word is not None and not 0 <=": "if word and not 0 <="},
    ),
    (
        "labels compared",
        "A word whose label is that of the word before it gets none. Compare the numbers of the words, not their labels.",
        {"word == before": "(before is not None and labels[word] == labels[before])"},
    ),
    (
        "words counted",
        "The labels are handed out in turn. A word may have no token, and is passed over then: take the label by the word's "
        "number.",
        {"    before = None\n": "    before, count = None, -1\n", "        before = word\n": "", _ALIGNED:
         "new = word is not None and word != before\n        count += new\n        before = word\n        "
         "aligned.append(labels[min(count, len(labels) - 1)] if new else ignore_index)"},
    ),
    (
        "tokens numbered",
        "A token's label was looked up by the token's own number. Look it up by the number of its word.",
        {"for word in word_ids:": "for place, word in enumerate(word_ids):",
         "else labels[word]": "else labels[min(place, len(labels) - 1)]"},
    ),
    (
        "always -100",
        "Ignored tokens get -100 whatever `ignore_index` says.",
        {_ALIGNED: _ALIGNED.replace("ignore_index", "-100")},
    ),
    (
        "class 0 for the rest",
        "Tokens that are not learned have the label 0, which is a class. Give them `ignore_index`.",
        {_ALIGNED: _ALIGNED.replace("ignore_index", "0")},
    ),
    (
        "class 0 outside words",
        "Tokens of no word have the label 0, which is a class. Give them `ignore_index`.",
        {_ALIGNED: _ALIGNED.replace("ignore_index if word is None or", "0 if word is None else ignore_index if")},
    ),
    (
        "tokens of no word left out",
        "Tokens that belong to no word are left out, so that labels and tokens no longer stand side by side. Give them "
        "`ignore_index`.",
        {_ALIGNED: "if word is not None:\n            aligned.append(ignore_index if word == before else labels[word])"},
    ),
    (
        "further tokens left out",
        "The further tokens of a word are left out, so that labels and tokens no longer stand side by side. Give them "
        "`ignore_index`.",
        {_ALIGNED: "if word is None or word != before:\n            aligned.append(ignore_index if word is None else "
         "labels[word])"},
    ),
    (
        "None as a number",
        "None was used as the number of a word. Tokens of no word get `ignore_index`.",
        {"word is not None and ": "", "word is None or word == before": "word == before"},
    ),
    (
        "None stays",
        "Tokens of no word got None. Give them `ignore_index`.",
        {_ALIGNED: _ALIGNED.replace("ignore_index if word is None or", "None if word is None else ignore_index if")},
    ),
    (
        "a tensor",
        "Return a list of ints, not a tensor.",
        {"return aligned": "return torch.tensor(aligned)"},
    ),
    (
        "no error of its own",
        "A word without a label ends in an IndexError, and a word -1 in the last label. Raise a ValueError.",
        {_LACKING: ""},
    ),
    (
        "words without a label ignored",
        "A word without a label is passed over. Something is wrong with the data: raise a ValueError.",
        {_LACKING: "        if word is not None and not 0 <= word < len(labels):\n            word = None\n"},
    ),
    (
        "one word too many",
        "The word behind the last label passes the look at the numbers. With n labels the words are 0 to n - 1.",
        {"< len(labels):": "<= len(labels):"},
    ),
    (
        "negative words pass",
        "A negative number of a word is not refused with a ValueError: Python takes it from the end of the list.",
        {"not 0 <= word < len(labels)": "word >= len(labels)"},
    ),
]:  # fmt: skip
    slip(AlignLabels, _name, _message, _edits)


@exercise(
    "finetuning.best_span",
    parts={"one text": 1, "batches": 1, "errors": 1},
    claims=("errors",),
    difficulty=2,
    minutes=25,
    read="10_fine_tuning#spans",
    builds_on=SOFTMAXES,
    instead="Build it from a table of sums, a mask and an argmax.",
)
class BestSpan(Check):
    """Logits in which the best start and the best end do not fit together: in the wrong order, too far apart, or lonely.

    The part "batches" has several texts at once, each with a trap of its own. Equally good spans have sums of eighths,
    which are exact in whatever order they are made. To take the first end instead of the first start is no other rule:
    of equally good spans, the one that starts first has the first end, too.
    """

    equivalent: ClassVar = {
        "best_span: scores = start_logits.unsqueeze(-1) + end_logits.unsqueeze(-2) -> scores = end_logits.unsqueeze(-2) + "
        "start_logits.unsqueeze(-1)": SUM,
    }

    def prepare(self, rng):
        def peaks(length, starts, ends, dtype=torch.float64, shift=0.0):
            """Noise of size 1, with peaks above it at some places."""
            start, end = (rng.normal(length).clamp(-2.5, 2.5) + shift for _ in range(2))
            for logits, heights in ((start, starts), (end, ends)):
                for place, height in heights.items():
                    logits[place] = shift + height
            return start.to(dtype), end.to(dtype)

        def inputs(pair, max_length, valid=True):
            start, end = (torch.as_tensor(one) for one in pair)
            return {"start_logits": start, "end_logits": end, "max_length": max_length, "valid": valid}

        def ties(starts, ends):
            return tuple(torch.tensor(one, dtype=torch.float64) / 8 for one in (starts, ends))

        one, batches, errors = self.parts
        yield Case("a clear answer", inputs(peaks(8, {2: 9.0}, {4: 9.0}), 5), one)
        yield Case("the best end is before the best start", inputs(peaks(8, {5: 10.0}, {2: 10.5}), 4), one)
        yield Case("start and end too far apart", inputs(peaks(9, {1: 10.0}, {7: 10.0, 2: 7.0}), 3), one)
        yield Case("one token too far apart", inputs(peaks(9, {2: 10.0}, {5: 10.0}), 3), one)
        yield Case("just as long as allowed", inputs(peaks(9, {2: 10.0}, {4: 10.0}), 3), one)
        lonely = peaks(8, {1: 19.0, 5: 20.0}, {3: 20.0, 5: -20.0, 6: -20.0, 7: -20.0})
        yield Case("the best start has no good end", inputs(lonely, 8), one)
        lonely = peaks(8, {0: -20.0, 1: -20.0, 2: -20.0, 4: 20.0}, {2: 20.0, 6: 19.0})
        yield Case("the best end has no good start", inputs(lonely, 8), one)
        yield Case("an answer of one token", inputs(peaks(7, {3: 9.0}, {3: 9.0}), 4), one)
        yield Case("max_length=1", inputs(peaks(7, {1: 9.0, 4: 8.0}, {2: 9.0, 4: 8.0}), 1), one)
        yield Case("all logits far below 0", inputs(peaks(7, {2: 5.0}, {1: 5.0}, shift=-60.0), 3), one)
        nowhere = torch.tensor([-torch.inf, -torch.inf, 0.0]), torch.tensor([0.0, -torch.inf, -torch.inf])
        yield Case("every allowed span has the sum -inf", inputs(nowhere, 2), one)
        yield Case("a text of one token", inputs(peaks(1, {}, {}), 3), one)
        yield Case("an answer at the end of the text", inputs(peaks(6, {4: 9.0}, {5: 9.0}), 30), one)
        yield Case("float32", inputs(peaks(8, {6: 9.0}, {3: 8.0}, dtype=torch.float32), 4), one)
        asked = peaks(8, {5: 4.0}, {4: 4.0})
        for logits in asked:
            logits[:3] = float("-inf")
        yield Case("places that cannot be, with -inf", inputs(asked, 3), one)
        yield Case("all spans are equally good", inputs(ties([0] * 5, [0] * 5), 3), one)
        yield Case("two starts, equally good", inputs(ties([0, 24, 0, 24, 0], [0, 0, 16, 0, 16]), 2), one)
        yield Case("two ends, equally good", inputs(ties([0, 24, 0, 0, 0], [0, 0, 16, 16, 0]), 3), one)
        yield Case("a long span that starts first, a short one", inputs(ties([16, 0, 0, 24], [0, 0, 24, 16]), 3), one)

        def stacked(*pairs):
            return tuple(torch.stack(column) for column in zip(*pairs, strict=True))

        reversed_, far = peaks(8, {5: 10.0}, {2: 10.5}), peaks(8, {1: 10.0}, {7: 10.0, 2: 7.0})
        clear, short = peaks(8, {0: 9.0}, {2: 9.0}), peaks(8, {6: 9.0}, {6: 9.0})
        yield Case("three texts", inputs(stacked(clear, reversed_, far), 3), batches)
        yield Case("one text in a batch", inputs(stacked(far), 3), batches)
        table = tuple(both.view(2, 2, 8) for both in stacked(reversed_, clear, short, far))
        yield Case("two batches of two texts", inputs(table, 3), batches)
        many = tuple(3 * rng.normal(20, 6) for _ in range(2))
        yield Case("twenty texts", inputs(many, 4), batches, hidden=True)

        def broken(starts, ends, max_length):
            return inputs((rng.normal(*starts), rng.normal(*ends)), max_length, valid=False)

        yield Case("five starts, four ends", broken((5,), (4,), 3), errors)
        yield Case("a batch of starts, one text of ends", broken((2, 5), (5,), 3), errors)
        yield Case("no place", broken((0,), (0,), 3), errors)
        yield Case("two texts without a place", broken((2, 0), (2, 0), 3), errors)
        yield Case("max_length=0", broken((5,), (5,), 0), errors)
        yield Case("max_length=-1", broken((2, 5), (2, 5), -1), errors)

    @staticmethod
    def probe(best_span, case, /):
        try:
            span = best_span(case.start_logits, case.end_logits, case.max_length)
        except ValueError:
            if case.valid:
                raise
            return {"error": "ValueError"}
        return {"span": span} if case.valid else {"error": ""}

    def judge(self, case, got):
        if not case.valid:
            yield holds(got.error == "ValueError", NO_ERROR.format("these arguments cannot be used"))
            return
        yield is_kind(got.span, tuple, "two tensors: start and end")
        yield holds(len(got.span) == 2, "Return two tensors: start and end.")
        right = finetuning.best_span(case.start_logits, case.end_logits, case.max_length)
        for place, expected, name in zip(got.span, right, ("the start", "the end"), strict=True):
            yield same(place, expected, name)


_SHAPED = "start_logits.shape != end_logits.shape or start_logits.size(-1) == 0"
_SCORED = "scores = start_logits.unsqueeze(-1) + end_logits.unsqueeze(-2)  # (..., start, end)"
_BEST = 'best = scores.masked_fill(~allowed, float("-inf")).flatten(-2).argmax(-1)'
_SPAN = "return best // length, best % length"
_POSITIVE = """    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1")
"""
for _name, _message, _edits in [
    (
        "start and end each by itself",
        "The best start and the best end were each chosen alone, and the end can stand before the start. Look for the pair "
        "with the largest sum among those that are allowed.",
        {_SPAN: "return start_logits.argmax(-1), end_logits.argmax(-1)"},
    ),
    (
        "exchanged where they are reversed",
        "The best start and the best end were each chosen alone, and exchanged where the end came first. What is found then "
        "was never scored: look for the best pair among those that are allowed.",
        {_SPAN: "one, other = start_logits.argmax(-1), end_logits.argmax(-1)\n    return torch.minimum(one, other), "
         "torch.maximum(one, other)"},
    ),
    (
        "the start first",
        "The best start was fixed first, and then the best end for it. Another start may have a far better end: compare "
        "pairs.",
        {_SPAN: "start = start_logits.argmax(-1)\n    row = scores.masked_fill(~allowed, float(\"-inf\")).take_along_dim("
         "start[..., None, None], -2).squeeze(-2)\n    return start, row.argmax(-1)"},
    ),
    (
        "the end first",
        "The best end was fixed first, and then the best start for it. Another end may have a far better start: compare "
        "pairs.",
        {_SPAN: "end = end_logits.argmax(-1)\n    column = scores.masked_fill(~allowed, float(\"-inf\")).take_along_dim("
         "end[..., None, None], -1).squeeze(-1)\n    return column.argmax(-1), end"},
    ),
    (
        "the end before the start",
        "A span may end before it starts. Only pairs with start <= end are allowed.",
        {".triu()": ""},
    ),
    (
        "at least two tokens",
        "An answer of one token is not found. Start and end may be the same place.",
        {".triu()": ".triu(1)"},
    ),
    (
        "the length ignored",
        "Spans longer than `max_length` are found.",
        {".tril(max_length - 1)": ""},
    ),
    (
        "one token too long",
        "Spans of max_length + 1 tokens are allowed. Both ends are included: end - start is at most max_length - 1.",
        {".tril(max_length - 1)": ".tril(max_length)"},
    ),
    (
        "one token too short",
        "Spans of max_length tokens are not allowed. Both ends are included: end - start may be max_length - 1.",
        {".tril(max_length - 1)": ".tril(max(max_length - 2, 0))"},
    ),
    (
        "zero for what is not allowed",
        "Pairs that are not allowed have the score 0, which beats a negative sum. Set them to -inf.",
        {'scores.masked_fill(~allowed, float("-inf"))': 'scores.masked_fill(~allowed, 0.0)'},
    ),
    (
        "a large negative number for what is not allowed",
        "Pairs that are not allowed have a large negative sum, and one of them wins where the allowed ones are lower still, "
        "such as -inf. Set them to -inf.",
        {_BEST: _BEST.replace('float("-inf")', "-1e9")},
    ),
    (
        "zero times infinity",
        "What is not allowed was multiplied by infinity, and what is allowed by 0 with it: 0 times infinity is NaN. Fill in "
        "-inf with masked_fill.",
        {_BEST: "best = (scores * allowed - ~allowed * float('inf')).flatten(-2).argmax(-1)"},
    ),
    (
        "the product",
        "The logits were multiplied. Two that are far below 0 have a large product: add them.",
        {_SCORED: "scores = start_logits.unsqueeze(-1) * end_logits.unsqueeze(-2)"},
    ),
    (
        "the sum of the probabilities",
        "Probabilities were added. A pair's probability is the product of two: add the logits.",
        {_SCORED: "scores = start_logits.softmax(-1).unsqueeze(-1) + end_logits.softmax(-1).unsqueeze(-2)"},
    ),
    (
        "start and end exchanged",
        "Start and end are exchanged.",
        {_SPAN: "return best % length, best // length"},
    ),
    (
        "the end behind the answer",
        "The end is the place behind the answer. It must be the last token's own.",
        {_SPAN: "return best // length, best % length + 1"},
    ),
    (
        "the last of equals",
        "Of equally good spans the last one was taken. Take the one that starts first, and of these the shortest: compare "
        "with `>`, not `>=`.",
        {_BEST: _BEST.replace("flatten(-2)", "flatten(-2).flip(-1)"), _SPAN: "best = length**2 - 1 - best\n    " + _SPAN},
    ),
    (
        "the longest of equals",
        "Of equally good spans with the same start the longest was taken. Take the shortest.",
        {_BEST: _BEST.replace(".flatten", ".flip(-1).flatten"), _SPAN: "return best // length, length - 1 - best % length"},
    ),
    (
        "the shortest of equals",
        "Of equally good spans the shortest was taken. The one that starts first goes before: only among spans with the same "
        "start is the shortest taken.",
        {_BEST: "places = torch.arange(length)\n    scores = scores - 1e-7 * (places - places.unsqueeze(-1))\n    " + _BEST},
    ),
    (
        "one answer for the whole batch",
        "One span came back for the whole batch. Find one for each text.",
        {_BEST: _BEST.replace("flatten(-2).argmax(-1)", "flatten().argmax() % length**2")},
    ),
    (
        "one text only",
        "Only a text without a batch can be read. There may be any number of dimensions before the last.",
        {_SCORED: "scores = start_logits[:, None] + end_logits"},
    ),
    (
        "needs a batch",
        "A text alone, of shape (T,), cannot be read. There may be any number of dimensions before the last, or none.",
        {"length = start_logits.size(-1)": "length = start_logits.size(1)"},
    ),
    (
        "batches of two dimensions only",
        "More than one dimension before the last cannot be read. There may be any number.",
        {"length = start_logits.size(-1)": "length = start_logits.size(-1)\n    if start_logits.dim() == 3:\n        "
         "start_logits, end_logits = start_logits.flatten(0, 1), end_logits.flatten(0, 1)"},
    ),
    (
        "plain numbers",
        "Plain numbers came back. Return tensors, without a dimension for one text.",
        {_SPAN: "return (best // length).tolist(), (best % length).tolist()"},
    ),
    (
        "one tensor",
        "One tensor came back. Return two: start and end.",
        {_SPAN: "return torch.stack([best // length, best % length], dim=-1)"},
    ),
    (
        "any shapes",
        "Starts and ends of different shapes are not refused with a ValueError.",
        {_SHAPED: "start_logits.size(-1) == 0 or end_logits.size(-1) == 0",
         "length = start_logits.size(-1)": "length = end_logits.size(-1)"},
    ),
    (
        "a batch beside one text",
        "Shapes that can be broadcast are taken for the same. Starts and ends must have the same shape.",
        {_SHAPED: "start_logits.shape[-1] != end_logits.shape[-1] or start_logits.size(-1) == 0"},
    ),
    (
        "no place passes",
        "A text without any place is not refused with a ValueError.",
        {" or start_logits.size(-1) == 0": ""},
    ),
    (
        "any max_length",
        "A max_length below 1, which allows no span, is not refused with a ValueError.",
        {_POSITIVE: ""},
    ),
    (
        "a max_length of 0",
        "A max_length of 0, which allows no span, is not refused with a ValueError.",
        {"if max_length < 1:": "if max_length < 0:"},
    ),
]:  # fmt: skip
    slip(BestSpan, _name, _message, _edits)

reflection(
    "finetuning.accuracy",
    chapter="10_fine_tuning",
    points=2,
    rubric="""
    1 point: says why the accuracy deceives: it counts answers, and nearly all answers belong to the frequent class, so a
    classifier that always names that class is nearly always right and finds not one of the rare cases. (Good answers
    compare with what such a classifier would get on the set in question.)

    1 point: names a measure that shows it, and why: recall of the rare class (0 there), or its F1, or the macro average,
    in which every class counts alike; not the micro average, which is the accuracy again. Also right: says which of
    precision and recall matters in the case at hand, by what a missed case and a false alarm cost.
    """,
)
reflection(
    "finetuning.frozen",
    chapter="10_fine_tuning",
    points=2,
    rubric="""
    1 point: a case for freezing, with its reason: few labels, so that many parameters would learn them by heart or lose
    what pretraining taught; or many tasks that share one encoder; or little memory and time, because nothing below the
    frozen layers needs gradients, and their vectors can be computed once and kept.

    1 point: a case against it, with its reason: many labels, or texts unlike those of pretraining, or a task that asks for
    something the vectors do not show; and how to decide: try both (or something between, such as the last blocks alone)
    and compare on held-out labels, over several seeds.
    """,
)
