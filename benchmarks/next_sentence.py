"""Whether next-sentence prediction helps: a small masked model with its loss and without it, over several seeds."""

import argparse
import os
import platform
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch
from datasets import Dataset, DatasetDict
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.results import write
from course import corpora
from course.checkpoints import CLS, MASK, PAD, SEP, padded, token_id
from course.recipes import RECIPES
from solutions.bert import IGNORED, MaskedLanguageModel, mask_tokens, sentence_pairs
from solutions.config import TransformerConfig
from solutions.training import clip_gradients, warmup_cosine

T, BATCH, D = 64, 32, 96
SHORTEST = 3
"""Words below which a piece of text counts as no sentence."""

HELD_OUT_PAIRS = 1500
PROBED = 4000
"""Texts on which the classifier of vectors is trained."""

DECAY = 1e-2
"""Of the classifier's weights, against learning its texts by heart."""

ARMS = {"with next-sentence prediction": True, "without": False}
Measures = dict[str, float]


@dataclass(frozen=True)
class Pairs:
    """Pairs of sentences as a model reads them: [CLS] first [SEP] second [SEP].

    Args:
        ids: (N, T)
        segments: 0 up to the first [SEP], 1 behind it (N, T).
        is_next: whether the second follows the first (N).
    """

    ids: Tensor
    segments: Tensor
    is_next: Tensor

    def __getitem__(self, which: Tensor) -> "Pairs":
        """Some of them."""
        return Pairs(self.ids[which], self.segments[which], self.is_next[which])


@dataclass(frozen=True)
class Texts:
    """The corpus as ids.

    Args:
        train: the documents' sentences, each as a text, to draw pairs from.
        held_out: pairs that are not trained on.
        probed: ids of whole texts, to train a classifier on (N, T), and the number of each one's library (N).
        probes: likewise, to test it on.
    """

    train: list[list[str]]
    held_out: Pairs
    probed: tuple[Tensor, Tensor]
    probes: tuple[Tensor, Tensor]


class Reader:
    """Turns sentences into ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer with BERT's special tokens."""
        self.tokenizer = tokenizer
        self.special = [token_id(tokenizer, name) for name in (PAD, CLS, SEP, MASK)]
        self.pad_id, self.first_id, self.last_id, self.mask_id = self.special
        self.vocab_size = tokenizer.get_vocab_size()

    def pairs(self, found: Sequence[tuple[str, str, bool]]) -> Pairs:
        """Pairs of sentences, both cut so that they fit into T together."""
        room = (T - 3) // 2
        firsts, seconds = (
            [encoding.ids[:room] for encoding in self.tokenizer.encode_batch([pair[side] for pair in found])]
            for side in (0, 1)
        )
        heads = [[self.first_id, *first, self.last_id] for first in firsts]
        rows = [[*head, *second, self.last_id] for head, second in zip(heads, seconds, strict=True)]
        ids = padded([*rows, [self.pad_id] * T], self.pad_id)[:-1]
        length = torch.tensor([len(head) for head in heads]).unsqueeze(1)
        segments = (torch.arange(T) >= length).long().masked_fill(ids == self.pad_id, 0)
        return Pairs(ids, segments, torch.tensor([is_next for _, _, is_next in found]))

    def texts(self, data: Dataset, libraries: list[str]) -> tuple[Tensor, Tensor]:
        """Texts, cut to T, and which library each is from."""
        rows = [
            [self.first_id, *encoding.ids[: T - 2], self.last_id]
            for encoding in self.tokenizer.encode_batch(list(data["text"]))
        ]
        return padded(rows, self.pad_id), torch.tensor([libraries.index(name) for name in data["library"]])


def main() -> None:
    """Train every arm with every seed, and write means, standard deviations and differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="Batches of each training.")
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of each kind.")
    options = parser.parse_args()
    data = corpora.load("docstrings")
    reader = Reader(RECIPES["docstrings-bert"].tokenizer(data["train"]))
    texts = read(data, reader)
    found = [
        {arm: one_run(texts, reader, nsp, options.steps, seed) for arm, nsp in ARMS.items()}
        for seed in track(range(options.seeds), description="seeds")
    ]
    write(
        "next_sentence",
        what=f"Masked models of 2 blocks and width {D}, trained on pairs of sentences of docstrings: {options.steps} "
        f"steps of {BATCH} pairs: with the loss of next-sentence prediction and without, on the same batches. The last "
        "measures are accuracies of a linear classifier that names a text's library from the frozen encoder. sd is the "
        "standard deviation over the seeds.",
        command="python -m benchmarks.next_sentence",
        machine=f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        versions={"torch": version("torch")},
        rows=[*rows(found), *baselines(texts)],
    )


def read(data: DatasetDict, reader: Reader) -> Texts:
    """The corpus, ready to be drawn from."""
    held_out = sentence_pairs(documents(data["validation"]), torch.Generator().manual_seed(0))
    libraries = sorted(set(data["train"]["library"]))
    some = data["train"].shuffle(seed=0).select(range(min(PROBED, len(data["train"]))))
    return Texts(
        documents(data["train"]),
        reader.pairs(held_out[:: max(1, len(held_out) // HELD_OUT_PAIRS)]),
        reader.texts(some, libraries),
        reader.texts(data["validation"], libraries),
    )


def documents(data: Dataset) -> list[list[str]]:
    """The sentences of each text that has two or more."""
    split = (list(sentences(text)) for text in data["text"])
    return [found for found in split if len(found) > 1]


def sentences(text: str) -> Iterator[str]:
    """Pieces that end at a full stop, a question or exclamation mark, or an empty line."""
    for piece in re.split(r"(?<=[.?!])\s+|\n\s*\n", text):
        sentence = " ".join(piece.split())
        if len(sentence.split()) >= SHORTEST:
            yield sentence


def one_run(texts: Texts, reader: Reader, nsp: bool, steps: int, seed: int) -> Measures:
    """Train one model and measure it."""
    torch.manual_seed(seed)
    model = MaskedLanguageModel(
        TransformerConfig(
            reader.vocab_size, D, num_heads=3, num_layers=2, max_length=T, positions="rope", feed_forward="gelu",
            pad_id=reader.pad_id, fused=True,
        )
    )  # fmt: skip
    head = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 2))
    train(model, head, texts, reader, nsp, steps, seed)
    return measure(model.eval(), head if nsp else None, texts, reader)


def train(
    model: MaskedLanguageModel, head: nn.Module, texts: Texts, reader: Reader, nsp: bool, steps: int, seed: int
) -> None:
    """Fill in what is masked and, with `nsp`, say what follows; both kinds see the same batches."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.01)
    drawn = sentence_pairs(texts.train, generator)
    order = torch.randperm(len(drawn), generator=generator).tolist()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = warmup_cosine(step + 1, 2e-3, 2e-4, steps // 10, steps + 1)
        places = (order[(step * BATCH + place) % len(order)] for place in range(BATCH))
        pairs = reader.pairs([drawn[place] for place in places])
        inputs, labels = mask_tokens(pairs.ids, reader.mask_id, reader.vocab_size, reader.special, generator)
        chosen = labels != IGNORED
        x = model.encode(inputs, pairs.segments)
        logits = model.output(model.head_norm(model.transform(x[chosen])))
        loss = functional.cross_entropy(logits, labels[chosen])
        if nsp:  # BERT's loss is the sum of the two
            loss = loss + functional.cross_entropy(head(x[:, 0]), pairs.is_next.long())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(parameters, 1.0)
        optimiser.step()


@torch.no_grad()
def measure(model: MaskedLanguageModel, head: nn.Module | None, texts: Texts, reader: Reader) -> Measures:
    """Loss per masked token where the second sentence follows, next-sentence accuracy, and two uses of the encoder."""
    following = texts.held_out[texts.held_out.is_next]
    generator = torch.Generator().manual_seed(0)
    inputs, labels = mask_tokens(following.ids, reader.mask_id, reader.vocab_size, reader.special, generator)
    chosen = labels != IGNORED
    logits = torch.cat(
        [
            model(ids, segments, chosen=asked)
            for ids, segments, asked in zip(
                inputs.split(BATCH), following.segments.split(BATCH), chosen.split(BATCH), strict=True
            )
        ]
    )
    found = {"loss per masked token": functional.cross_entropy(logits, labels[chosen]).item()}
    if head is not None:
        batches = zip(texts.held_out.ids.split(BATCH), texts.held_out.segments.split(BATCH), strict=True)
        answers = torch.cat([head(model.encode(ids, segments)[:, 0]).argmax(-1) for ids, segments in batches])
        found["next-sentence accuracy"] = (answers == texts.held_out.is_next).double().mean().item()
    trained, tested = (vectors(model, ids, reader.pad_id) for ids in (texts.probed[0], texts.probes[0]))
    for name in trained:
        accuracy = probe((trained[name], texts.probed[1]), (tested[name], texts.probes[1]))
        found[f"accuracy of the library from {name}"] = accuracy
    return found


def vectors(model: MaskedLanguageModel, ids: Tensor, pad_id: int) -> dict[str, Tensor]:
    """What the encoder says of each text: the vector of [CLS], and the mean of all vectors, padding aside."""
    firsts, means = [], []
    for batch in ids.split(BATCH):
        x, real = model.encode(batch), (batch != pad_id).unsqueeze(-1)
        firsts.append(x[:, 0])
        means.append((x * real).sum(1) / real.sum(1))
    return {"[CLS]": torch.cat(firsts), "the mean": torch.cat(means)}


@torch.enable_grad()
def probe(trained: tuple[Tensor, Tensor], tested: tuple[Tensor, Tensor]) -> float:
    """The accuracy of logistic regression on vectors that are brought to mean 0 and variance 1."""
    x, y = trained
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    classifier = nn.Linear(x.size(1), int(y.max()) + 1)
    nn.init.zeros_(classifier.weight)
    optimiser = torch.optim.LBFGS(classifier.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (
            functional.cross_entropy(classifier((x - mean) / deviation), y) + DECAY * classifier.weight.square().sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        answers = classifier((tested[0] - mean) / deviation).argmax(-1)
    return (answers == tested[1]).double().mean().item()


def rows(found: list[dict[str, Measures]]) -> Iterator[dict[str, object]]:
    """A row for each kind and measure, then the differences: with less without, seed by seed."""
    first, second = ARMS
    for arm in ARMS:
        for name in found[0][arm]:
            yield row(arm, name, [run[arm][name] for run in found])
    for name in found[0][second]:
        yield row("difference", name, [run[first][name] - run[second][name] for run in found])


def baselines(texts: Texts) -> Iterator[dict[str, object]]:
    """What the same answer to every question earns."""
    is_next = texts.held_out.is_next.double().mean().item()
    yield row("the more frequent answer", "next-sentence accuracy", [max(is_next, 1 - is_next)])
    most_frequent = texts.probes[1] == torch.bincount(texts.probed[1]).argmax()
    yield row("the most frequent library", "accuracy of the library", [most_frequent.double().mean().item()])


def row(case: str, measure: str, values: list[float]) -> dict[str, object]:
    """Mean and standard deviation of one measure."""
    mean = round(statistics.mean(values), 4)
    spread = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return {"case": case, "measure": measure, "mean": mean, "sd": spread, "runs": len(values)}


if __name__ == "__main__":
    main()
