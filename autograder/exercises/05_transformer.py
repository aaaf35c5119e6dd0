"""Checks of chapter 05: encoder, decoder, the two together, the shifted target, and greedy writing."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, same, same_gradients, same_shape
from autograder.forbidden import PARTS, SOFTMAXES
from autograder.models import random_weights, with_weights
from autograder.probe import gradients, load_weights, make_config
from solutions import transformer

POST_NORM = {"vocab_size": 11, "d_model": 8, "num_heads": 2, "num_layers": 2, "d_ff": 12, "norm_first": False}
PRE_NORM = POST_NORM | {"norm_first": True}


def _stack_slips(check, call, arguments):
    """What goes wrong in an encoder and in a decoder alike."""
    block = f"TransformerBlock({arguments})"
    blocks = f"nn.ModuleList({block} for _ in range(config.num_layers))"
    norm = "make_norm(config) if config.norm_first else nn.Identity()"
    slip(
        check,
        "blocks side by side",
        "Each block reads the embedding instead of what the block before it gave, so only the last one counts. Write "
        "`x = block(...)`.",
        {f"x = {call}": f"y = {call}", "self.norm(x)": "self.norm(y)"},
    )
    slip(
        check,
        "one block used again",
        "The list holds the same block several times, so all layers share their weights. Make a new block for each layer.",
        {blocks: f"nn.ModuleList([{block}] * config.num_layers)"},
    )
    slip(
        check,
        "a plain list",
        "The blocks are in a plain Python list, and nn.Module does not see what is in there: their weights are not trained, "
        "moved or saved. Use nn.ModuleList.",
        {blocks: f"[{block} for _ in range(config.num_layers)]"},
    )
    slip(
        check,
        "no last norm",
        "There is no last norm. With pre-norm nothing normalises what the last block adds to the stream: make `norm` with "
        "make_norm(config) when config.norm_first, and apply it at the end.",
        {norm: "nn.Identity()"},
        read="last-norm",
    )
    slip(
        check,
        "last norm not applied",
        "`norm` is made and not used. Return `self.norm(x)`.",
        {"self.norm(x)": "x"},
        read="last-norm",
    )
    slip(
        check,
        "last norm for post-norm too",
        "There is a last norm with post-norm too, where each block already ends in one. Make it only when "
        "config.norm_first.",
        {norm: "make_norm(config)"},
        read="last-norm",
    )
    slip(
        check,
        "last norm the wrong way round",
        "The last norm is there for post-norm and missing for pre-norm. Make it when config.norm_first.",
        {norm: "nn.Identity() if config.norm_first else make_norm(config)"},
        read="last-norm",
    )
    slip(
        check,
        "always LayerNorm",
        "The last norm is a LayerNorm whatever the config says. `make_norm(config)` makes the right one.",
        {"make_norm(config) if": "nn.LayerNorm(config.d_model) if"},
        read="last-norm",
    )
    _super_slip(check)


def _super_slip(check):
    slip(
        check,
        "super().__init__() missing",
        "`super().__init__()` is missing, so nn.Module cannot register the layers. Call it first in `__init__`.",
        {"super().__init__()": "pass"},
    )


@exercise(
    "transformer.Encoder",
    parts={"output": 2, "mask": 1, "last norm": 1},
    difficulty=2,
    minutes=15,
    read="05_transformer#encoder",
    sections={"last norm": "last-norm"},
    forbidden=("nn.TransformerEncoder", "nn.TransformerEncoderLayer", "nn.Transformer"),
    builds_on=PARTS,
    instead="Build it from an `Embedding`, your `TransformerBlock` and `make_norm`.",
)
class Encoder(Check):
    """Blocks in their order, the mask in each of them, and a last norm for pre-norm only.

    Only the part "last norm" sees what stands in `norm`: elsewhere the norm is post-norm, and `norm` is taken out.
    """

    def prepare(self, rng):
        def inputs(ids, mask=None, strict=False, dtype=torch.float64, **config):
            weights = random_weights(rng, transformer.Encoder, config, dtype)
            return {"config": config, "weights": weights, "ids": ids, "mask": mask, "strict": strict}

        output, mask, norm = self.parts
        ids = rng.integers(0, 11, 2, 5)
        learned = {"positions": "learned", "max_length": 6, "scale_embeddings": False}
        yield Case("two blocks, post-norm", inputs(ids, **POST_NORM), output)
        yield Case("three blocks", inputs(ids, **POST_NORM | {"num_layers": 3}), output)
        yield Case("one block, no positions", inputs(ids, **POST_NORM | {"num_layers": 1, "positions": "none"}), output)
        yield Case("rotary positions, RMSNorm", inputs(ids, **POST_NORM | {"positions": "rope", "norm": "rms"}), output)
        yield Case("learned positions, no sqrt(D)", inputs(ids, **POST_NORM | learned), output)
        yield Case("float32", inputs(ids, dtype=torch.float32, **POST_NORM), output)
        yield Case("one token", inputs(rng.integers(0, 11, 1, 1), **POST_NORM), output, hidden=True)
        yield Case("a padding mask (B, 1, T)", inputs(ids, rng.booleans(2, 1, 5), **POST_NORM), mask)
        yield Case("a mask (B, T, T)", inputs(ids, rng.booleans(2, 5, 5), **POST_NORM), mask)
        yield Case("a mask (T, T)", inputs(ids, rng.booleans(5, 5), **POST_NORM), mask)
        yield Case("pre-norm", inputs(ids, strict=True, **PRE_NORM), norm)
        yield Case("pre-norm with RMSNorm", inputs(ids, strict=True, **PRE_NORM | {"norm": "rms"}), norm)
        yield Case("post-norm, which needs no last norm", inputs(ids, strict=True, **POST_NORM), norm)

    @staticmethod
    def probe(encoder_class, case, /):
        encoder = encoder_class(make_config(**case.config))
        if not case.strict and hasattr(encoder, "norm"):
            encoder.norm = nn.Identity()
        load_weights(encoder, case.weights, strict=case.strict)
        output = encoder(case.ids) if case.mask is None else encoder(case.ids, case.mask)
        return {"output": output, "gradients": gradients(output, dict(encoder.named_parameters()))}

    def judge(self, case, got):
        encoder = with_weights(transformer.Encoder, case)
        right = encoder(case.ids, case.mask)
        yield same(got.output, right.detach(), "the output")
        yield from same_gradients(got.gradients, gradients(right, dict(encoder.named_parameters())))


slip(
    Encoder,
    "mask ignored",
    "The mask is not handed on: every position attends to every other. Give it to each block, `block(x, mask)`.",
    {"block(x, mask)": "block(x)"},
)
slip(
    Encoder,
    "causal",
    "Earlier positions do not see later ones: there is a causal mask. An encoder has the whole sequence before it; leave "
    "the causal mask to the decoder.",
    {"block(x, mask)": "block(x, causal_mask(ids.size(1)) if mask is None else mask & causal_mask(ids.size(1)))"},
)
_stack_slips(Encoder, "block(x, mask)", "config")


@exercise(
    "transformer.Decoder",
    parts={"output": 2, "causal": 1, "context mask": 1, "last norm": 1},
    difficulty=2,
    minutes=15,
    read="05_transformer#decoder",
    sections={"last norm": "last-norm"},
    forbidden=("nn.TransformerDecoder", "nn.TransformerDecoderLayer", "nn.Transformer"),
    builds_on=PARTS,
    instead="Build it from an `Embedding`, your `TransformerBlock` and `make_norm`.",
)
class Decoder(Check):
    """Blocks with cross-attention, the causal mask made inside, and a mask for the context.

    The cases of the other parts have one token each, for which the causal mask changes nothing.
    """

    equivalent: ClassVar = {
        "Decoder.forward: mask = causal_mask(ids.size(1)).to(ids.device) -> mask = causal_mask(ids.size(1))": "checks run "
        "on the CPU, where there is nothing to move",
    }

    def prepare(self, rng):
        def inputs(batch, length, context, mask=None, strict=False, dtype=torch.float64, **config):
            weights = random_weights(rng, transformer.Decoder, config, dtype)
            ids, vectors = (
                rng.integers(0, 11, batch, length),
                rng.normal(batch, context, config["d_model"], dtype=dtype),
            )
            data = {"ids": ids, "context": vectors, "context_mask": mask}
            return {"config": config, "weights": weights, "strict": strict} | data

        output, causal, masked, norm = self.parts
        swiglu = {"norm": "rms", "feed_forward": "swiglu"}
        yield Case("one token and a context of 4", inputs(2, 1, 4, **POST_NORM), output)
        yield Case("three blocks", inputs(2, 1, 3, **POST_NORM | {"num_layers": 3}), output)
        yield Case("RMSNorm and SwiGLU", inputs(2, 1, 3, **POST_NORM | swiglu), output)
        yield Case("float32", inputs(2, 1, 4, dtype=torch.float32, **POST_NORM), output)
        yield Case("one block", inputs(1, 1, 5, **POST_NORM | {"num_layers": 1}), output, hidden=True)
        yield Case("five tokens", inputs(2, 5, 4, **POST_NORM), causal)
        yield Case("as many tokens as context", inputs(1, 4, 4, **POST_NORM), causal)
        yield Case("rotary positions", inputs(2, 6, 3, **POST_NORM | {"positions": "rope"}), causal)
        yield Case("a context mask (B, 1, Tc)", inputs(2, 1, 4, rng.booleans(2, 1, 4), **POST_NORM), masked)
        yield Case("a context of 6 and a mask", inputs(3, 1, 6, rng.booleans(3, 1, 6), **POST_NORM), masked)
        yield Case("pre-norm", inputs(2, 1, 4, strict=True, **PRE_NORM), norm)
        yield Case("pre-norm with RMSNorm", inputs(2, 1, 4, strict=True, **PRE_NORM | {"norm": "rms"}), norm)
        yield Case("post-norm, which needs no last norm", inputs(2, 1, 4, strict=True, **POST_NORM), norm)

    @staticmethod
    def probe(decoder_class, case, /):
        decoder = decoder_class(make_config(**case.config))
        if not case.strict and hasattr(decoder, "norm"):
            decoder.norm = nn.Identity()
        load_weights(decoder, case.weights, strict=case.strict)

        def call(ids, context):
            return decoder(ids, context) if case.context_mask is None else decoder(ids, context, case.context_mask)

        context = case.context.clone().requires_grad_()
        output = call(case.ids, context)
        changed = case.ids.clone()
        changed[:, -1] = (changed[:, -1] + 1) % case.config["vocab_size"]
        return {
            "output": output,
            "changed": call(changed, case.context),
            "gradients": gradients(output, {"context": context, **dict(decoder.named_parameters())}),
        }

    def judge(self, case, got):
        decoder, context = with_weights(transformer.Decoder, case), case.context.clone().requires_grad_()
        right = decoder(case.ids, context, case.context_mask)
        yield same_shape(got.output, right, "the output")
        if case.part == "causal":
            same_past = isinstance(got.changed, Tensor) and close(got.output[:, :-1], got.changed[:, :-1])
            yield holds(
                same_past, "Changing the last token changes earlier outputs, which the causal mask must prevent."
            )
        yield same(got.output, right.detach(), "the output")
        wanted = {"context": context, **dict(decoder.named_parameters())}
        yield from same_gradients(got.gradients, gradients(right, wanted))


slip(
    Decoder,
    "no causal mask",
    "Each position sees the tokens after it. Give every block `causal_mask(T)` as the mask of its self-attention.",
    {"block(x, mask, context, context_mask)": "block(x, None, context, context_mask)"},
)
slip(
    Decoder,
    "causal mask inverted",
    "The causal mask is used the wrong way round: a position sees only what comes after it. True means allowed.",
    {"mask = causal_mask(ids.size(1)).to(ids.device)": "mask = ~causal_mask(ids.size(1)).to(ids.device)"},
)
slip(
    Decoder,
    "causal mask excludes itself",
    "A position does not see itself, so the first sees nothing. `causal_mask` has True on its diagonal.",
    {"causal_mask(ids.size(1))": "causal_mask(ids.size(1)).tril(-1)"},
)
slip(
    Decoder,
    "context mask ignored",
    "The context mask is not handed on, so the padding of the source gets weight. It is the fourth argument of a block.",
    {"block(x, mask, context, context_mask)": "block(x, mask, context)"},
)
slip(
    Decoder,
    "masks exchanged",
    "The two masks are exchanged: the causal mask is for the self-attention, `block(x, mask, context, context_mask)`.",
    {"block(x, mask, context, context_mask)": "block(x, context_mask, context, mask)"},
)
slip(
    Decoder,
    "hands its own output on as context",
    "From the second block on, the context is the decoder's own stream. Every block attends to the same context, the one "
    "that was passed in.",
    {"x = block(x, mask, context, context_mask)": "x = context = block(x, mask, context)"},
)
slip(
    Decoder,
    "no cross-attention",
    "The blocks have no cross-attention. Make them with cross_attention=True.",
    {", cross_attention=True": "", "block(x, mask, context, context_mask)": "block(x, mask)"},
)
_stack_slips(Decoder, "block(x, mask, context, context_mask)", "config, cross_attention=True")

TABLES = ["encoder.embedding.tokens.weight", "decoder.embedding.tokens.weight", "output.weight"]


@exercise(
    "transformer.EncoderDecoder",
    parts={"logits": 2, "padding": 1, "tables": 1},
    difficulty=2,
    minutes=20,
    read="05_transformer#encoder-decoder",
    sections={"padding": "source-padding", "tables": "tying"},
    forbidden=("nn.Transformer", "nn.TransformerEncoder", "nn.TransformerDecoder"),
    builds_on=PARTS,
    instead="Build it from your `Encoder`, your `Decoder` and a linear layer.",
)
class EncoderDecoder(Check):
    """Logits from known weights, padding that changes nothing, and one table or three.

    Where the tables are not what is asked about, they hold the same numbers, so that tied or not gives the same logits.
    """

    equivalent: ClassVar = {
        "EncoderDecoder.forward: mask = None if pad_id is None else padding_mask(source_ids, pad_id)"
        " -> mask = None if pad_id is None else padding_mask(pad_id, source_ids)": "the reference compares its two "
        "arguments, and `!=` gives the same in either order",
    }

    def prepare(self, rng):
        def inputs(source, target, strict=False, dtype=torch.float64, **config):
            weights = random_weights(rng, transformer.EncoderDecoder, config, dtype)
            if not strict:
                weights |= {name: weights[TABLES[0]].clone() for name in TABLES}
            data = {"source_ids": source, "target_ids": target, "strict": strict, "tables": TABLES}
            return {"config": config, "weights": weights} | data

        logits, padding, tables = self.parts
        source, target = rng.integers(1, 11, 2, 5), rng.integers(1, 11, 2, 4)
        untied = PRE_NORM | {"tie_embeddings": False}
        yield Case("pre-norm", inputs(source, target, **PRE_NORM), logits)
        yield Case("post-norm", inputs(source, target, **POST_NORM), logits)
        yield Case("equal lengths", inputs(target, target.flip(0), **untied), logits)
        yield Case("one token of source, one of target", inputs(source[:, :1], target[:, :1], **PRE_NORM), logits)
        yield Case("float32", inputs(source, target, dtype=torch.float32, **PRE_NORM), logits)
        zeros = source * torch.tensor([[1, 0, 1, 1, 0]])
        yield Case("no pad_id, and 0 is a real token", inputs(zeros, target, **PRE_NORM), padding)
        short = source * torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
        yield Case("pad_id = 0", inputs(short, target, pad_id=0, **PRE_NORM), padding)
        other = torch.tensor([[0, 7, 4, 9, 9], [9, 9, 0, 0, 2]])
        yield Case("pad_id = 9, and 0 is a real token", inputs(other, target, pad_id=9, **PRE_NORM), padding)
        yield Case("the pad id in the target", inputs(source, short, pad_id=0, **PRE_NORM), padding)
        nothing = torch.zeros(2, 3, dtype=torch.long)
        yield Case("nothing but padding", inputs(nothing, target, pad_id=0, **PRE_NORM), padding, hidden=True)
        yield Case("tie_embeddings=True", inputs(source, target, strict=True, **PRE_NORM), tables)
        yield Case("tie_embeddings=False", inputs(source, target, strict=True, **untied), tables)

    @staticmethod
    def probe(model_class, case, /):
        model = model_class(make_config(**case.config))
        load_weights(model, case.weights, strict=case.strict)
        own = dict(model.named_parameters(remove_duplicate=False))
        asked = case.tables if case.strict else [name for name in own if name not in case.tables]
        padding = torch.full_like(case.source_ids[:, :2], case.config.get("pad_id") or 0)
        logits = model(case.source_ids, case.target_ids)
        return {
            "logits": logits,
            "padded": model(torch.cat([case.source_ids, padding], dim=1), case.target_ids),
            "gradients": gradients(logits, {name: own[name] for name in asked}),
            "tied": all(own[name] is own[case.tables[0]] for name in case.tables) if case.strict else None,
        }

    def judge(self, case, got):
        model = with_weights(transformer.EncoderDecoder, case)
        right, own = model(case.source_ids, case.target_ids), dict(model.named_parameters(remove_duplicate=False))
        yield same_shape(got.logits, right, "the logits")
        if "pad_id" in case.config:
            yield holds(close(got.logits, got.padded), "Two more padding tokens behind the source change the logits.")
        if case.part == "tables" and case.config.get("tie_embeddings", True):
            yield holds(got.tied, "tie_embeddings is True, and the three tables are not one and the same parameter.")
        yield same(got.logits, right.detach(), "the logits")
        asked = TABLES if case.part == "tables" else [name for name in own if name not in TABLES]
        yield from same_gradients(got.gradients, gradients(right, {name: own[name] for name in asked}))


RETURN = "return self.output(self.decoder(target_ids, context, mask))"
slip(
    EncoderDecoder,
    "source padding not masked",
    "Padding of the source is attended to. Make `padding_mask(source_ids, pad_id)` when the config has a pad_id, and give "
    "it to the encoder and to the decoder.",
    {"None if pad_id is None else padding_mask(source_ids, pad_id)": "None"},
    read="source-padding",
)
slip(
    EncoderDecoder,
    "padding masked in the encoder only",
    "The encoder masks the padding, and the decoder's cross-attention still sees it. Hand the mask to the decoder as well.",
    {"context, mask)": "context)"},
    read="source-padding",
)
slip(
    EncoderDecoder,
    "padding masked in the decoder only",
    "The cross-attention masks the padding, and the encoder still mixes it into every vector. Hand the mask to the encoder "
    "as well.",
    {"self.encoder(source_ids, mask)": "self.encoder(source_ids)"},
    read="source-padding",
)
slip(
    EncoderDecoder,
    "takes 0 for padding",
    "Id 0 is treated as padding although the config names another pad_id, or none. Use config.pad_id.",
    {"None if pad_id is None else padding_mask(source_ids, pad_id)": "padding_mask(source_ids, 0)"},
    read="source-padding",
)
slip(
    EncoderDecoder,
    "pad id 0 forgotten",
    "A pad_id of 0 is treated as if there were none: 0 counts as false. Ask `pad_id is None`.",
    {"None if pad_id is None else": "None if not pad_id else"},
    read="source-padding",
)
slip(
    EncoderDecoder,
    "the target's padding masked in the context",
    "The mask for the context is made from the target. It says which places of the *source* may be attended to.",
    {
        RETURN: "target_mask = mask if pad_id is None else padding_mask(target_ids, pad_id)\n        "
        + RETURN.replace(", mask", ", target_mask")
    },
    read="source-padding",
)
slip(
    EncoderDecoder,
    "source and target exchanged",
    "The encoder reads the target and the decoder the source. The first argument is the source, for the encoder.",
    {"source_ids: Tensor, target_ids: Tensor": "target_ids: Tensor, source_ids: Tensor"},
)
slip(
    EncoderDecoder,
    "returns probabilities",
    "A softmax was applied. Logits leave a model: the loss takes the softmax itself, and does it more exactly.",
    {RETURN: f"{RETURN}.softmax(-1)"},
)
slip(
    EncoderDecoder,
    "logits of the last place only",
    "Logits came back for the last place only. Every place of the target predicts its next token: (B, T, V).",
    {RETURN: f"{RETURN}[:, -1]"},
)
slip(
    EncoderDecoder,
    "no output layer",
    "The decoder's vectors came back, (B, T, D). Put them through `output`, which gives a logit for each token.",
    {RETURN: "return self.decoder(target_ids, context, mask)"},
)
slip(
    EncoderDecoder,
    "never tied",
    "The config asks for tied embeddings, and the tables are three. Make the three weights one and the same parameter.",
    {"if config.tie_embeddings": "if False"},
    read="tying",
)
slip(
    EncoderDecoder,
    "always tied",
    "The tables are tied although tie_embeddings is False.",
    {"if config.tie_embeddings": "if True"},
    read="tying",
)
slip(
    EncoderDecoder,
    "only the target's table tied",
    "The output shares its table with the decoder, and the encoder keeps its own. With tie_embeddings all three are one.",
    {
        "self.decoder.embedding.tokens.weight = self.encoder.embedding.tokens.weight": "pass",
        "self.output.weight = self.encoder": "self.output.weight = self.decoder",
    },
    read="tying",
)
slip(
    EncoderDecoder,
    "output not tied",
    "Encoder and decoder share their table, and the output keeps its own. With tie_embeddings all three are one.",
    {"self.output.weight = self.encoder.embedding.tokens.weight": "pass"},
    read="tying",
)
slip(
    EncoderDecoder,
    "output with bias",
    "The output layer has a bias, and the exercise asks for none: pass bias=False to nn.Linear.",
    {", bias=False": ""},
    read="tying",
)
_super_slip(EncoderDecoder)


@exercise(
    "transformer.shift_right",
    parts={"values": 1},
    difficulty=1,
    minutes=5,
    read="05_transformer#shift-right",
    instead="Build it from slices and a column of `start_id`.",
)
class ShiftRight(Check):
    """Targets of several lengths, another integer type, and a start id that is not 0."""

    def prepare(self, rng):
        ids = rng.integers(2, 9, 3, 6)
        yield Case("three targets of six tokens", {"target_ids": ids, "start_id": 1}, "values")
        yield Case("start_id = 0", {"target_ids": ids + 1, "start_id": 0}, "values")
        yield Case("one token", {"target_ids": ids[:2, :1], "start_id": 11}, "values")
        yield Case("int32", {"target_ids": ids.to(torch.int32), "start_id": 1}, "values")
        yield Case("one target", {"target_ids": ids[:1], "start_id": 12}, "values", hidden=True)

    @staticmethod
    def probe(shift_right, case, /):
        return {"ids": shift_right(case.target_ids, case.start_id)}

    def judge(self, case, got):
        yield same(got.ids, transformer.shift_right(case.target_ids, case.start_id))


slip(
    ShiftRight,
    "start put in front, nothing dropped",
    "The result is one token longer than the target. Drop the target's last token: nothing has to be predicted after it.",
    {"target_ids[:, :-1]": "target_ids"},
)
slip(
    ShiftRight,
    "shifted left",
    "The target moved to the left. The decoder must see what came *before* each token: put the start first.",
    {"[start, target_ids[:, :-1]]": "[target_ids[:, 1:], start]"},
)
slip(
    ShiftRight,
    "start put over the target",
    "The start took the place of the first token, and the others did not move: from the second place on the decoder sees "
    "what it has to predict. Move every token one place to the right, and drop the last.",
    {"target_ids[:, :-1]": "target_ids[:, 1:]"},
)
slip(
    ShiftRight,
    "last token at the front",
    "The last token came round to the front. What stands in front is start_id.",
    {"torch.full_like(target_ids[:, :1], start_id)": "target_ids[:, -1:]"},
)
slip(
    ShiftRight,
    "not shifted",
    "The target came back as it was: the decoder would see the very token that it has to predict, and learn to copy.",
    {"torch.cat([start, target_ids[:, :-1]], dim=1)": "target_ids"},
    read="not-shifted",
)
slip(
    ShiftRight,
    "takes 0 for the start",
    "The first token is 0, whatever start_id is.",
    {"torch.full_like(target_ids[:, :1], start_id)": "torch.zeros_like(target_ids[:, :1])"},
)
slip(
    ShiftRight,
    "numbers with a point",
    "The ids became floating-point numbers, with which no table can be looked up. Keep the dtype of target_ids: "
    "torch.full_like does.",
    {"target_ids[:, :1], start_id)": "target_ids[:, :1], start_id, dtype=torch.float32)"},
)


@exercise(
    "transformer.greedy_translate",
    parts={"tokens": 1, "stopping": 1, "rows": 1, "no gradient": 1},
    difficulty=3,
    minutes=25,
    read="05_transformer#greedy-translate",
    builds_on=SOFTMAXES,
    instead="Build it from the model's `encode` and `decode`, and an argmax in a loop.",
)
class GreedyTranslate(Check):
    """A model that is a table: it looks at the source, the place, and every token written so far."""

    equivalent: ClassVar = {
        "greedy_translate: ended = ended | (following == end_id) -> ended = (following == end_id) | ended": "`|` gives the "
        "same in either order",
        "greedy_translate: ended = ended | (following == end_id) -> ended = following == end_id": "a row that has ended "
        "was filled with end_id just before, so it still counts as ended",
        "greedy_translate: following = model(source_ids, ids)[:, -1].argmax(-1, keepdim=True) -> following = "
        "model(source_ids, ids)[:, -1].argmax(1, keepdim=True)": "the logits of one place have two axes, so 1 is the last",
    }

    def prepare(self, rng):
        def inputs(ends, max_length, start_id=1, end_id=2, only_calls=False):
            # scores[n, t]: for source n at place t. The end wins at the place that `ends` says, and nowhere else.
            scores, history = rng.normal(len(ends), max_length + 3, 9), rng.normal(9, 9)
            scores[..., end_id], history[:, end_id] = -100.0, 0.0
            for row, end in enumerate(ends):
                if end is not None:
                    scores[row, end, end_id] = 100.0
            source = torch.arange(len(ends)).view(-1, 1).repeat(1, 3)
            sizes = {"start_id": start_id, "end_id": end_id, "max_length": max_length}
            return {"source_ids": source, "scores": scores, "history": history, "only_calls": only_calls} | sizes

        tokens, stopping, rows, gradient = self.parts
        yield Case("one row, no end", inputs([None], 6), tokens)
        yield Case("three rows, no end", inputs([None] * 3, 5), tokens)
        yield Case("max_length = 1", inputs([None, None], 1), tokens)
        yield Case("start_id = 0", inputs([None, None], 7, start_id=0), tokens, hidden=True)
        yield Case("one row that ends", inputs([3], 8), stopping)
        yield Case("an end at once", inputs([0], 4), stopping)
        yield Case("two rows that end together", inputs([2, 2], 6, end_id=0), stopping)
        yield Case("start and end have the same id", inputs([4], 7, start_id=2), stopping)
        yield Case("rows that end at different places", inputs([1, None, 3], 6), rows)
        yield Case("the first row never ends", inputs([None, 0, 2, 4], 5, end_id=5), rows)
        yield Case("a row that ends at max_length", inputs([1, 4], 5), rows)
        yield Case("how the model is called", inputs([None], 3, only_calls=True), gradient)

    @staticmethod
    def probe(greedy_translate, case, /):
        recorded = []

        class Table(nn.Module):
            def __init__(self):
                super().__init__()
                self.scores = nn.Parameter(case.scores.clone())

            def forward(self, source_ids, target_ids):
                recorded.append(torch.is_grad_enabled())
                places = torch.arange(target_ids.size(1)).clamp_max(self.scores.size(1) - 1)
                return self.scores[source_ids[:, :1], places] + case.history[target_ids].cumsum(1)

        model = Table()
        ids = greedy_translate(model, case.source_ids, case.start_id, case.end_id, case.max_length)
        # What was written must not matter where the question is how the model was called.
        how = {"recorded": any(recorded), "calls": len(recorded), "training": model.training}
        return how if case.only_calls else {"ids": ids}

    def judge(self, case, got):
        if case.part == "no gradient":
            yield holds(got.calls > 0, "The model was never called.")
            yield holds(not got.recorded, "Gradients are recorded while the model writes.")
            yield holds(got.training, "The model came in training mode and was left in another.")
            return

        def model(source_ids, target_ids):
            places = torch.arange(target_ids.size(1))
            return case.scores[source_ids[:, :1], places] + case.history[target_ids].cumsum(1)

        right = transformer.greedy_translate(model, case.source_ids, case.start_id, case.end_id, case.max_length)
        yield same(got.ids, right, "what was written")


slip(
    GreedyTranslate,
    "leaves the model in eval mode",
    "The model is left in eval mode. Its mode is the caller's choice: do not touch it, or put it back.",
    {"    with torch.no_grad()": "    model.eval()\n    with torch.no_grad()"},
)
slip(
    GreedyTranslate,
    "start not removed",
    "The start stands in front of what was written. Return the tokens after it.",
    {"return ids[:, 1:]": "return ids"},
)
slip(
    GreedyTranslate,
    "shows the model the last token only",
    "The model gets only the token written last. It needs everything written so far, the start included.",
    {"model(source_ids, ids)": "model(source_ids, ids[:, -1:])"},
)
slip(
    GreedyTranslate,
    "first place's logits",
    "The logits of the first place are used. Those of the last place are for the token that comes next.",
    {"[:, -1].argmax": "[:, 0].argmax"},
)
slip(
    GreedyTranslate,
    "one token too few",
    "There is one token too few: max_length counts the tokens written, and the start is not one of them.",
    {"ids.size(1) <= max_length": "ids.size(1) < max_length"},
)
slip(
    GreedyTranslate,
    "one token too many",
    "There is one token too many: at most max_length tokens are written.",
    {"ids.size(1) <= max_length": "ids.size(1) <= max_length + 1"},
)
slip(
    GreedyTranslate,
    "never stops",
    "Writing goes on to max_length although every row has ended. Stop when all have.",
    {" and not ended.all()": ""},
)
slip(
    GreedyTranslate,
    "stops at the first end",
    "Writing stops as soon as one row has ended, and the others are cut off. Stop when *all* rows have ended.",
    {"ended.all()": "ended.any()"},
)
slip(
    GreedyTranslate,
    "writes on after the end",
    "After its end a row goes on with what the model says. Fill it with end_id.",
    {"following = following.masked_fill(ended, end_id)": "pass"},
)
slip(
    GreedyTranslate,
    "fills with zeros",
    "After its end a row is filled with 0. Fill it with end_id.",
    {"masked_fill(ended, end_id)": "masked_fill(ended, 0)"},
)
slip(
    GreedyTranslate,
    "fills with the start",
    "After its end a row is filled with start_id. Fill it with end_id.",
    {"masked_fill(ended, end_id)": "masked_fill(ended, start_id)"},
)
slip(
    GreedyTranslate,
    "takes the start for an end",
    "Nothing is written when start_id and end_id are the same number: the start was taken for an end. Look at the written "
    "tokens only.",
    {"torch.zeros_like(ids, dtype=torch.bool)": "ids == end_id"},
)
slip(
    GreedyTranslate,
    "drops the end",
    "The end is cut off from what was written. A row keeps its end_id.",
    {"return ids[:, 1:]": "return ids[:, 1:-1] if ended.all() else ids[:, 1:]"},
)
slip(
    GreedyTranslate,
    "records gradients",
    "Gradients are recorded while the model writes, which costs memory for every step and is never used. Call the model "
    "under torch.no_grad().",
    {"torch.no_grad()": "torch.enable_grad()"},
)
slip(
    GreedyTranslate,
    "source for start",
    "Writing starts with the first token of the source. It starts with start_id.",
    {"torch.full_like(source_ids[:, :1], start_id)": "source_ids[:, :1].clone()"},
)
slip(
    GreedyTranslate,
    "takes 0 for the start",
    "Writing starts with token 0, whatever start_id is.",
    {"torch.full_like(source_ids[:, :1], start_id)": "torch.zeros_like(source_ids[:, :1])"},
)

reflection(
    "transformer.teacher_forcing",
    chapter="05_transformer",
    points=2,
    rubric="""
    1 point: in training the decoder sees the true earlier tokens, whatever it would have written itself; when it writes it
    sees its own. With the causal mask one forward pass therefore trains all T places at once, and a mistake at one place
    does not disturb the places after it.

    1 point: says what follows for writing: a first mistake puts the model before a prefix that it never saw in training,
    so mistakes can pile up; and a high accuracy per token is a lower one for whole outputs (0.99 to the power of 10 is
    about 0.90, if the mistakes are independent).
    """,
)
reflection(
    "transformer.which_stack",
    chapter="05_transformer",
    points=2,
    rubric="""
    1 point: chooses a stack for each task with a reason from the masks: the whole text is there and nothing is written, an
    encoder alone; a text is continued, a decoder alone, without cross-attention; one sequence in and another out, both.

    1 point: says what another choice would lose: a decoder alone can translate when source and target stand in one
    sequence, but then it reads the source from left to right only; an encoder alone cannot write a target token by token.
    """,
)
