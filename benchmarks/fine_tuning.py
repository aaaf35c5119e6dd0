"""Fine-tuning from few labels: the pretrained encoder, the same encoder from scratch, and counting words."""

import argparse
import json
import os
import platform
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from itertools import product
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from rich.progress import Progress
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor
from torch.nn import functional

from benchmarks.results import write
from course import checkpoints, corpora, finetune
from course.chapters import root
from course.checkpoints import Checkpoint
from course.corpora.parameters import TAGS
from course.files import write_whole
from solutions.finetuning import (
    SequenceClassifier,
    TokenClassifier,
    best_span,
    class_weights,
    freeze,
    precision_recall_f1,
)
from solutions.gpt import IGNORED

TASKS = ("library", "kind")
LABELS = (50, 200, 1000, 5000)
RARE = ("matplotlib", "numpy")
"""The libraries that skewed tasks ask for: one text in nine is from the first, one in seventeen from the second."""

T, LONGEST = 64, 128
"""Tokens of a text that a model reads, and the most that it could; of whole texts there is a comparison."""

DROPOUT = 0.1
TUNED_WITH = (1000, 100)
"""Labels and seed with which learning rates are chosen on the validation split."""

RATES = {
    "pretrained": (3e-4, 1e-3, 3e-3),
    "from scratch": (3e-4, 1e-3, 3e-3, 1e-2),
    "frozen": (3e-3, 1e-2, 3e-2, 1e-1),
}
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Of logistic regression: the smaller, the more its weights are held down."""

NOISE = (0.0, 0.05, 0.1, 0.2)
"""The share of letters that are replaced, dropped or doubled."""

SPAN_STEPS, TAG_STEPS = 900, 200
Row = dict[str, Any]
Measures = dict[str, float]


def main() -> None:
    """Measure what is not there yet, and write means with their spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="Measure these alone; write no table.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts or PARTS:
        with Progress() as bar:
            line = bar.add_task(part, total=None)
            PARTS[part](Kept(part, partial(bar.advance, line)), options.seeds)
    if not options.parts:
        write(
            "fine_tuning",
            what="The encoder docstrings-bert, fine-tuned; the same encoder from scratch; and the vectors of the "
            f"pretrained one, frozen, under a linear layer. They read the first {T} tokens of a docstring, and so does "
            "logistic regression on TF-IDF of words and pairs of words. Learning rates and the strength of the "
            f"regression are chosen on the validation split, with {TUNED_WITH[0]} labels. The standard deviation is "
            "that of runs with different seeds, which draw other texts, other orders and other new weights.",
            command="python -m benchmarks.fine_tuning",
            machine=f"1 thread of {os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
            versions={name: version(name) for name in ("torch", "scikit-learn")},
            rows=[row for part in PARTS for row in table(Kept(part), options.seeds)],
        )


class Kept:
    """Measurements of one part, kept in a file as soon as each is made: a run that was stopped goes on."""

    def __init__(self, part: str, tick: Callable[[], None] = lambda: None) -> None:
        """Read what is there."""
        self.part, self.tick = part, tick
        self.path = root() / "artifacts" / "fine_tuning" / f"{part}.json"
        self.found: dict[str, Measures] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def get(self, case: str, seed: int, measure: Callable[[], Measures]) -> Measures:
        """The measures of a case, made now if they are not there."""
        key = f"{case}|{seed}"
        if key not in self.found:
            self.found[key] = measure()
            text = json.dumps(self.found, indent=1)
            write_whole(self.path, lambda path: path.write_text(text, "utf-8"))
        self.tick()
        return self.found[key]


def table(kept: Kept, seeds: Sequence[int]) -> Iterator[Row]:
    """The mean and the spread of each measure of each case, over the seeds that were asked for."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key, measures in kept.found.items():
        case, _, seed = key.rpartition("|")
        if int(seed) in seeds:
            for name, value in measures.items():
                values[case, name].append(value)
    for (case, name), found in values.items():
        spread = statistics.stdev(found) if len(found) > 1 else None
        mean = statistics.mean(found)
        yield {"part": kept.part, "case": case, "measure": name, "mean": mean, "sd": spread, "runs": len(found)}


@cache
def _trained() -> Checkpoint:
    return checkpoints.load("docstrings-bert")


@cache
def _docs() -> DatasetDict:
    return corpora.load("docstrings")


@cache
def _read(split: str, length: int = T) -> tuple[Tensor, list[str]]:
    """The ids of a split's texts, cut to `length`, and the words that they hold."""
    tokenizer = _trained().tokenizer
    texts = _docs()[split]["text"]
    cut = [tokenizer.decode(encoding.ids[: length - 2]) for encoding in tokenizer.encode_batch(list(texts))]
    return finetune.text_ids(tokenizer, texts, length), cut


def _labels(split: str, task: str) -> Tensor:
    classes = sorted(set(_docs()["train"][task]))
    return torch.tensor([classes.index(name) for name in _docs()[split][task]])


def _some(count: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(len(_docs()["train"])), count)


def _classifier(arm: str, num_classes: int, seed: int) -> SequenceClassifier:
    trained = _trained()
    encoder = finetune.fresh(trained, seed) if arm == "from scratch" else finetune.pretrained(trained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequenceClassifier(encoder, num_classes, "mean", DROPOUT)
    if arm == "frozen":
        freeze(model, ["output"])
    return model


def _train(arm: str, task: str, count: int, seed: int, rate: float, length: int = T) -> SequenceClassifier:
    """Train a classifier on some labelled texts: at least 150 batches of 32, and four times through all of them."""
    places = torch.tensor(_some(count, seed))
    labels = _labels("train", task)
    model = _classifier(arm, int(labels.max()) + 1, seed)
    data = (_read("train", length)[0][places], labels[places])
    steps = max(150, 4 * count // 32)
    finetune.fit(model, data, _loss(model), steps=steps, learning_rate=rate, seed=seed)
    return model


def _loss(model: SequenceClassifier, weight: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda ids, labels: functional.cross_entropy(model(ids), labels, weight)


def _accuracy(model: SequenceClassifier, task: str, split: str, length: int = T) -> float:
    answers = finetune.predict(model, _read(split, length)[0]).argmax(-1)
    return float((answers == _labels(split, task)).float().mean())


def _counting(strength: float) -> Pipeline:
    vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\w+")
    return make_pipeline(vectors, LogisticRegression(C=strength, max_iter=3000))


def _counted(task: str, count: int, seed: int, strength: float, whole: bool = False) -> Pipeline:
    places = _some(count, seed)
    texts = _docs()["train"]["text"] if whole else _read("train")[1]
    labels = _labels("train", task)
    return _counting(strength).fit([texts[place] for place in places], [int(labels[place]) for place in places])


def _counted_accuracy(model: Pipeline, task: str, split: str, whole: bool = False) -> float:
    texts = list(_docs()[split]["text"]) if whole else _read(split)[1]
    return float(model.score(texts, _labels(split, task).tolist()))


def rates(kept: Kept, seeds: Sequence[int]) -> None:
    """Choose on the validation split; the same choice serves all numbers of labels."""
    count, seed = TUNED_WITH
    for task in TASKS:
        for arm, rate in ((arm, rate) for arm, choices in RATES.items() for rate in choices):
            kept.get(f"{task}|{arm}|{rate}", seed, partial(_network, arm, task, count, seed, rate, "validation"))
        for strength in STRENGTHS:
            kept.get(f"{task}|TF-IDF|{strength}", seed, partial(_words, task, count, seed, strength, "validation"))


def _network(arm: str, task: str, count: int, seed: int, rate: float, split: str, length: int = T) -> Measures:
    """Train on some labels and measure."""
    return {"accuracy": _accuracy(_train(arm, task, count, seed, rate, length), task, split, length)}


def _words(task: str, count: int, seed: int, strength: float, split: str, whole: bool = False) -> Measures:
    """The same for logistic regression on counted words."""
    return {"accuracy": _counted_accuracy(_counted(task, count, seed, strength, whole), task, split, whole)}


def _chosen(task: str, arm: str) -> float:
    """The setting that was best on the validation split."""
    kept = Kept("rates").found
    values = {
        float(key.split("|")[2]): found["accuracy"] for key, found in kept.items() if key.startswith(f"{task}|{arm}|")
    }
    return max(values, key=lambda value: values[value])


def curves(kept: Kept, seeds: Sequence[int]) -> None:
    """Accuracy against the number of labels."""
    for seed, task, count in product(seeds, TASKS, LABELS):
        for arm in RATES:
            rate = _chosen(task, arm)
            kept.get(f"{task}|{count}|{arm}", seed, partial(_network, arm, task, count, seed, rate, "test"))
        for name, whole in (("TF-IDF", False), ("TF-IDF, whole texts", True)):
            strength = _chosen(task, "TF-IDF")
            kept.get(f"{task}|{count}|{name}", seed, partial(_words, task, count, seed, strength, "test", whole))
    for seed in seeds:  # does a longer look help where there are many labels?
        task, count, arm = TASKS[0], LABELS[-1], "pretrained"
        more = partial(_network, arm, task, count, seed, _chosen(task, arm), "test", LONGEST)
        kept.get(f"{task}|{count}|{arm}, {LONGEST} tokens", seed, more)


def skew(kept: Kept, seeds: Sequence[int]) -> None:
    """A rare class, found by the plain loss, by a weighted one, and by drawing its examples more often."""
    names = sorted(set(_docs()["train"]["library"]))

    def measure(seed: int, name: str, arm: str) -> Measures:
        rare = {split: (_labels(split, "library") == names.index(name)).long() for split in ("train", "test")}
        if arm == "always the frequent class":
            return _judged(rare["test"], torch.zeros_like(rare["test"]))
        places = torch.tensor(_some(1000, seed))
        ids, labels = _read("train")[0][places], rare["train"][places]
        weights = class_weights(labels, 2)
        model = _classifier("pretrained", 2, seed)
        loss = _loss(model, weights if arm == "weighted loss" else None)
        drawn = weights[labels] if arm == "resampled" else None
        rate = _chosen("library", "pretrained")
        finetune.fit(model, (ids, labels), loss, steps=150, learning_rate=rate, seed=seed, weights=drawn)
        answers = finetune.predict(model, _read("test")[0]).argmax(-1)
        return _judged(rare["test"], answers)

    for seed, name in product(seeds, RARE):
        for arm in ("plain loss", "weighted loss", "resampled", "always the frequent class"):
            kept.get(f"{name}|{arm}", seed, partial(measure, seed, name, arm))


def _judged(labels: Tensor, answers: Tensor) -> Measures:
    precision, recall, f1 = precision_recall_f1(labels, answers, 2)
    accuracy = float((labels == answers).float().mean())
    return {"accuracy": accuracy, "precision": float(precision[1]), "recall": float(recall[1]), "F1": float(f1[1])}


def noisy(text: str, share: float, seed: int) -> str:
    """A text in which a share of the letters is replaced by another, dropped or doubled."""
    chance = random.Random(f"{seed} {text}")
    letters = "abcdefghijklmnopqrstuvwxyz"
    changes: tuple[Callable[[str], str], ...] = (lambda _: chance.choice(letters), lambda _: "", lambda one: one * 2)
    return "".join(chance.choice(changes)(one) if one.isalpha() and chance.random() < share else one for one in text)


def noise(kept: Kept, seeds: Sequence[int]) -> None:
    """Texts with wrong letters, for a model that learned from right ones."""
    labels = _labels("test", "library")

    def measure(seed: int) -> Measures:
        model = _train("pretrained", "library", 1000, seed, _chosen("library", "pretrained"))
        counting = _counted("library", 1000, seed, _chosen("library", "TF-IDF"))
        found = {}
        for share in NOISE:
            texts = [noisy(text, share, seed) for text in _read("test")[1]]
            ids = finetune.text_ids(_trained().tokenizer, texts, T)
            answers = finetune.predict(model, ids).argmax(-1)
            found[f"pretrained|{share}"] = float((answers == labels).float().mean())
            found[f"TF-IDF|{share}"] = float(counting.score(texts, labels.tolist()))
        return found

    for seed in seeds:
        kept.get("accuracy", seed, partial(measure, seed))


def tags(kept: Kept, seeds: Sequence[int]) -> None:
    """What each word of a parameter's description is; and what it most often is, whatever stands around it."""
    data, tokenizer = corpora.load("parameters"), _trained().tokenizer
    learn, judge = (finetune.tagged_ids(tokenizer, data[s]["words"], data[s]["tags"], 128) for s in ("train", "test"))
    asked = judge[1] != IGNORED

    def measure(seed: int, arm: str) -> Measures:
        model = _token_classifier(arm, len(TAGS), seed)

        def loss(ids: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(model(ids).flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

        finetune.fit(model, learn, loss, steps=TAG_STEPS, learning_rate=1e-3, seed=seed)
        return _tag_scores(judge[1][asked], finetune.predict(model, judge[0]).argmax(-1)[asked])

    for seed in seeds:
        for arm in ("pretrained", "from scratch"):
            kept.get(arm, seed, partial(measure, seed, arm))
    kept.get("each word's most frequent tag", 0, lambda: _tag_scores(*most_frequent(data["train"], data["test"])))


def _token_classifier(arm: str, num_classes: int, seed: int) -> TokenClassifier:
    encoder = finetune.fresh(_trained(), seed) if arm == "from scratch" else finetune.pretrained(_trained())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TokenClassifier(encoder, num_classes, DROPOUT)


def _tag_scores(labels: Tensor, answers: Tensor) -> Measures:
    _, _, each = precision_recall_f1(labels, answers, len(TAGS))
    return {"macro F1": float(each.mean())} | {f"F1 of {tag}": float(f1) for tag, f1 in zip(TAGS, each, strict=True)}


def most_frequent(train: Dataset, test: Dataset) -> tuple[Tensor, Tensor]:
    """The true tags of the test split's words, and for each word the tag that it had most often in training."""
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for row in train:
        for word, tag in zip(row["words"], row["tags"], strict=True):
            seen[word][tag] += 1
    pairs = [(tag, word) for row in test for word, tag in zip(row["words"], row["tags"], strict=True)]
    guesses = [seen[word].most_common(1)[0][0] if word in seen else 0 for _, word in pairs]
    return torch.tensor([tag for tag, _ in pairs]), torch.tensor(guesses)


def spans(kept: Kept, seeds: Sequence[int]) -> None:
    """The words that answer a question; and the one word that follows the name asked for."""
    data = corpora.load("parameters")
    learn, judge = (finetune.type_questions(_trained().tokenizer, data[s], 128) for s in ("train", "test"))

    def measure(seed: int, arm: str) -> Measures:
        model = _token_classifier(arm, 2, seed)

        def loss(ids: Tensor, segments: Tensor, start: Tensor, end: Tensor) -> Tensor:
            logits = model(ids, segments)
            return functional.cross_entropy(logits[..., 0], start) + functional.cross_entropy(logits[..., 1], end)

        data = (learn.ids, learn.segments, learn.start, learn.end)
        finetune.fit(model, data, loss, steps=SPAN_STEPS, learning_rate=1e-3, seed=seed)
        logits = finetune.predict(model, judge.ids, judge.segments)
        logits = logits.masked_fill(judge.outside().unsqueeze(-1), float("-inf"))
        start, end = best_span(logits[..., 0], logits[..., 1], 30)
        return {"exact match": float(((start == judge.start) & (end == judge.end)).float().mean())}

    for seed in seeds:
        for arm in ("pretrained", "from scratch"):
            kept.get(arm, seed, partial(measure, seed, arm))
    kept.get("the word behind the name", 0, lambda: {"exact match": word_behind(data["test"])})


def word_behind(rows: Sequence[Mapping[str, Any]]) -> float:
    """How often a parameter's type is the one word that stands behind its name."""
    right = []
    for row in rows:
        for entry in set(row["entries"]):
            kinds = [TAGS[tag] for tag, owner in zip(row["tags"], row["entries"], strict=True) if owner == entry]
            if "type" in kinds:
                right.append(kinds.count("type") == 1 and kinds.index("type") == kinds.count("name"))
    return statistics.mean(right)


PARTS: dict[str, Callable[[Kept, Sequence[int]], None]] = {
    "rates": rates,
    "curves": curves,
    "skew": skew,
    "noise": noise,
    "tags": tags,
    "spans": spans,
}
"""In this order: the later ones use the rates that the first chooses."""


if __name__ == "__main__":
    main()
