"""Fine-tuning an encoder on a few hundred labelled texts: examples as tensors, and one loop for every task."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from course.checkpoints import CLS, PAD, SEP, Checkpoint, padded, token_id
from course.corpora.parameters import TAGS
from solutions.bert import MaskedLanguageModel
from solutions.finetuning import align_labels
from solutions.gpt import IGNORED
from solutions.training import clip_gradients, warmup_cosine

WARMUP = 20
"""Steps over which the learning rate rises; half of the steps, if there are fewer than twice as many."""


def pretrained(trained: Checkpoint) -> MaskedLanguageModel:
    """A copy of a checkpoint's encoder, to be changed."""
    assert isinstance(trained.model, MaskedLanguageModel)
    return copy.deepcopy(trained.model)


def fresh(trained: Checkpoint, seed: int) -> MaskedLanguageModel:
    """The same encoder as a checkpoint's, untrained."""
    assert isinstance(trained.model, MaskedLanguageModel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedLanguageModel(trained.model.config)


def text_ids(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tensor:
    """Texts as ids (N, T): [CLS], the text, [SEP], padding; what is longer than `length` is cut off."""
    first, last = token_id(tokenizer, CLS), token_id(tokenizer, SEP)
    rows = [[first, *encoding.ids[: length - 2], last] for encoding in tokenizer.encode_batch(list(texts))]
    return padded(rows, token_id(tokenizer, PAD))


def word_rows(tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> tuple[list[list[int]], list[list[int | None]]]:
    """Rows of words as rows of ids, and the number of each token's word.

    A word is cut into tokens as within a text, with a space before it, unless it is the first.
    """
    spaced = [[words[0], *(f" {word}" for word in words[1:])] for words in texts]
    encodings = tokenizer.encode_batch(spaced, is_pretokenized=True)
    return [encoding.ids for encoding in encodings], [encoding.word_ids for encoding in encodings]


def tagged_ids(
    tokenizer: Tokenizer, texts: Sequence[Sequence[str]], tags: Sequence[Sequence[int]], length: int
) -> tuple[Tensor, Tensor]:
    """Tagged words as ids and labels (N, T): [CLS], the words' tokens, [SEP], padding.

    A word's first token has the word's tag, every other token -100. What is longer than `length` is cut off.
    """
    first, last = token_id(tokenizer, CLS), token_id(tokenizer, SEP)
    rows, numbers = word_rows(tokenizer, texts)
    ids = [[first, *row[: length - 2], last] for row in rows]
    labels = [align_labels(row, [None, *places[: length - 2], None]) for row, places in zip(tags, numbers, strict=True)]
    return padded(ids, token_id(tokenizer, PAD)), padded(labels, IGNORED)


@dataclass(frozen=True)
class Questions:
    """Questions about texts whose answer is a span of the text: [CLS] question [SEP] text [SEP], padding.

    Args:
        ids: (N, T)
        segments: 0 up to the first [SEP], 1 behind it (N, T).
        start: the place of the answer's first token (N).
        end: the place of its last token (N).
    """

    ids: Tensor
    segments: Tensor
    start: Tensor
    end: Tensor

    def outside(self) -> Tensor:
        """Where no answer can be: bool (N, T), True at the question, at [SEP] and at padding."""
        last = self.segments.sum(1, keepdim=True) + (self.segments == 0).cumprod(1).sum(1, keepdim=True) - 1
        return (self.segments == 0) | (torch.arange(self.ids.size(1)) == last)


def type_questions(tokenizer: Tokenizer, rows: Iterable[Mapping[str, Any]], length: int) -> Questions:
    """For each parameter of the corpus `parameters` the question what its type is.

    The text is the parameter with its neighbours, so that the question decides which type is meant. Questions that do
    not fit into T, and parameters without a type, are left out.
    """
    first, last = token_id(tokenizer, CLS), token_id(tokenizer, SEP)
    asked, texts, answers = [], [], []
    for row in rows:
        marked = list(zip(row["words"], row["tags"], row["entries"], strict=True))
        for entry in sorted(set(row["entries"])):
            near = [word for word in marked if abs(word[2] - entry) <= 1]
            answer = [place for place, (_, tag, owner) in enumerate(near) if (TAGS[tag], owner) == ("type", entry)]
            name = [word for word, tag, owner in near if (TAGS[tag], owner) == ("name", entry)]
            if answer:
                asked.append(" ".join(["type of", *name]))
                texts.append([word for word, _, _ in near])
                answers.append((answer[0], answer[-1]))
    found = []
    contexts = zip(*word_rows(tokenizer, texts), answers, strict=True)
    for question, (text, owners, (begin, finish)) in zip(tokenizer.encode_batch(asked), contexts, strict=True):
        before = len(question.ids) + 2
        ids = [first, *question.ids, last, *text, last]
        if len(ids) <= length:
            places = [before + place for place, owner in enumerate(owners) if owner in range(begin, finish + 1)]
            found.append((ids, [0] * before + [1] * (len(text) + 1), places[0], places[-1]))
    return Questions(
        padded([ids for ids, *_ in found], token_id(tokenizer, PAD)),
        padded([segments for _, segments, *_ in found], 0),
        torch.tensor([start for *_, start, _ in found]),
        torch.tensor([end for *_, end in found]),
    )


def fit(
    model: nn.Module,
    data: Sequence[Tensor],
    loss: Callable[..., Tensor],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    batch_size: int = 32,
    weights: Tensor | None = None,
    tick: Callable[[], None] = lambda: None,
) -> list[float]:
    """Train what of a model is not frozen.

    Args:
        model: is in training mode meanwhile, and in eval mode afterwards.
        data: tensors with one entry an example each, the ids (N, T) first.
        loss: called with a batch of each; gives the mean loss.
        steps: how many batches.
        learning_rate: the highest one, after the warm-up.
        seed: of the order and of dropout.
        batch_size: how many examples in one.
        weights: with which probability each example is drawn, in proportion (N,). None goes through all of them
            before one is seen again.
        tick: called after each step.

    Returns:
        The loss of each step.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=learning_rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.long)
    losses = []
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout's
        for step in range(steps):
            while weights is None and len(waiting) < batch_size:
                waiting = torch.cat([waiting, torch.randperm(len(data[0]), generator=generator)])
            if weights is not None:
                waiting = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
            places, waiting = waiting[:batch_size], waiting[batch_size:]
            longest = int(_lengths(model, data[0][places]).max())
            batch = [part[places][:, :longest] if part.dim() > 1 else part[places] for part in data]
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(step, learning_rate, 0.0, min(WARMUP, steps // 2), steps)
            optimizer.zero_grad()
            value = loss(*batch)
            value.backward()  # type: ignore[no-untyped-call]
            clip_gradients(learned, 1.0)
            optimizer.step()
            losses.append(float(value.detach()))
            tick()
    model.eval()
    return losses


def predict(model: nn.Module, ids: Tensor, *more: Tensor, batch_size: int = 128) -> Tensor:
    """The logits of all examples, computed without gradients.

    Args:
        model: called with a part of the ids, and of what else there is.
        ids: (N, T)
        more: other tensors (N, T) that the model takes.
        batch_size: how many examples are computed together.

    Returns:
        (N, C), or (N, T, C) where the model judges tokens; zeros behind the end of a row's part.
    """
    lengths = _lengths(model, ids)
    order = lengths.argsort()
    parts = []
    with torch.no_grad():
        for start in range(0, len(ids), batch_size):
            places = order[start : start + batch_size]
            longest = int(lengths[places].max())
            logits = model(*(part[places][:, :longest] for part in (ids, *more)))
            if logits.dim() == 3:  # token by token: all parts need one length to be put together
                logits = nn.functional.pad(logits, (0, 0, 0, ids.size(1) - longest))
            parts.append(logits)
    return torch.cat(parts)[order.argsort()]


def _lengths(model: nn.Module, ids: Tensor) -> Tensor:
    """How many real tokens each row has (N,)."""
    return ids.ne(model.encoder.config.pad_id).sum(1)  # type: ignore[union-attr, arg-type]
