"""The course's language models, trained anew with several seeds, beside what counting and compressing can do."""

import argparse
import gzip
import lzma
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from rich.progress import track

from benchmarks.results import write
from course import checkpoints, corpora, evaluate
from course.baselines import masked_baselines
from course.chapters import root
from course.checkpoints import CLS, END, MASK, PAD, SEP, Checkpoint, token_id
from course.corpora import stories
from course.ngrams import KneserNey
from course.tasks import FillIn, ids_of

GPT_MINUTES, BERT_MINUTES = 15.0, 20.0
RUNS = (
    ("stories-gpt", 10.0),
    ("stories-gpt", 30.0),
    ("docstrings-gpt", GPT_MINUTES),
    ("docstrings-bert", BERT_MINUTES),
)
"""What is trained, and for how many minutes at the most: a recipe that has done its steps is ready earlier."""

SAMPLED = 200
Row = dict[str, Any]


def main() -> None:
    """Train what is not there yet, measure all, and write the means with their spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-only", nargs="+", metavar="NAME", help="Train these with these seeds; write nothing.")
    parser.add_argument("--measure-only", action="store_true", help="Train nothing: measure what is there.")
    parser.add_argument("--minutes", type=float, help="With --train-only: only the runs of so many minutes.")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Of each training.")
    options = parser.parse_args()
    for name, minutes in () if options.measure_only else RUNS:
        wanted = not options.train_only or name in options.train_only
        if wanted and options.minutes in (None, minutes):
            for seed in options.seeds:
                train(name, minutes, seed, options.threads)
    if not options.train_only:
        report(options.seeds, options.threads)


def place(name: str, minutes: float, seed: int) -> Path:
    """Where a run's checkpoint lies."""
    return root() / "artifacts" / "pretraining" / f"{name}-{minutes:g}-{seed}"


def of_seeds(name: str, minutes: float, seeds: Sequence[int]) -> dict[int, Checkpoint]:
    """The trained models that are there, by their seeds."""
    places = {seed: place(name, minutes, seed) for seed in seeds}
    return {seed: checkpoints.load(where) for seed, where in places.items() if (where / "card.json").exists()}


def train(name: str, minutes: float, seed: int, threads: int) -> None:
    """Train one model by `course train`, unless its checkpoint is there; one that was stopped goes on."""
    folder = place(name, minutes, seed)
    if not (folder / "card.json").exists():
        command = [sys.executable, "-m", "course", "train", name, "--minutes", str(minutes), "--seed", str(seed)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run([*command, "--output", str(folder)], check=True, env=environment)


def report(seeds: Sequence[int], threads: int) -> None:
    """Measure the trained models and what they are compared with."""
    rows = [*_of_stories(seeds), *_of_docstrings(seeds)]
    write(
        "pretraining",
        what="Language models, measured on the test split; the minutes are those that their training took, on average. "
        "The standard deviation is that of runs with different seeds; text, split and chosen places are the same in "
        "all.",
        command="python -m benchmarks.pretraining",
        machine=f"{threads} threads of {os.cpu_count()} CPU cores a training, {platform.system()} {platform.machine()}",
        versions={name: version(name) for name in ("torch", "tokenizers", "numpy")},
        rows=rows,
    )


def spent(trained: Collection[Checkpoint]) -> float:
    """The minutes that a training took, on average."""
    return round(statistics.mean(float(one.card["minutes"]) for one in trained), 1)


def row(case: str, minutes: float | None, measure: str, values: Sequence[float]) -> Row:
    """One line of the table."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {
        "case": case,
        "minutes": minutes,
        "measure": measure,
        "mean": statistics.mean(values),
        "sd": spread,
        "runs": len(values),
    }


def _of_stories(seeds: Sequence[int]) -> Iterator[Row]:
    test = corpora.load("stories")["test"]
    for name, minutes in RUNS:
        if name != "stories-gpt":
            continue
        models = of_seeds(name, minutes, seeds)
        losses, gaps, accepted = [], [], []
        for seed, trained in track(models.items(), description=f"{name}, {minutes:g} minutes"):
            nats, count = evaluate.nats_apart(trained, test["text"])
            floor = -sum(test["log_probability"])
            losses.append(nats / count)
            gaps.append(100 * (nats / floor - 1))
            longest: int = trained.model.config.max_length - 1  # type: ignore[union-attr, operator, assignment]
            texts = evaluate.write(trained, SAMPLED, longest, torch.Generator().manual_seed(seed))
            accepted.append(100 * sum(map(stories.is_story, texts)) / SAMPLED)
        if minutes == RUNS[0][1]:
            yield row("stories: entropy of the grammar", None, "loss per token", [floor / count])
        yield row(name, spent(models.values()), "loss per token", losses)
        yield row(name, spent(models.values()), "above the entropy, %", gaps)
        yield row(name, spent(models.values()), f"of {SAMPLED} sampled stories accepted, %", accepted)


def _of_docstrings(seeds: Sequence[int]) -> Iterator[Row]:
    data = corpora.load("docstrings")
    size = sum(len(text.encode()) for text in data["test"]["text"])
    for name, bits in compressed(data["train"]["text"], data["test"]["text"]).items():
        yield row(name, None, "bits per byte", [bits / size])
    trained = list(of_seeds("docstrings-gpt", GPT_MINUTES, seeds).values())
    yield row("5-gram Kneser-Ney", None, "bits per byte", [_kneser_ney(trained[0], data) / size])
    nats = [evaluate.nats_packed(one, data["test"]["text"])[0] for one in trained]
    yield row("docstrings-gpt", spent(trained), "bits per byte", [value / math.log(2) / size for value in nats])
    yield from _of_masked(list(of_seeds("docstrings-bert", BERT_MINUTES, seeds).values()), data)


def compressed(train: Sequence[str], test: Sequence[str]) -> dict[str, float]:
    """Bits that gzip and xz need for the test texts, alone and behind the training texts."""
    known, asked = ("\n\n".join(texts).encode() for texts in (train, test))
    needs: dict[str, Callable[[bytes], int]] = {
        "gzip": lambda text: 8 * len(gzip.compress(text, 9)),
        "xz": lambda text: 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
    }
    bits = {name: float(need(asked)) for name, need in needs.items()}
    return bits | {"xz behind the training text": float(needs["xz"](known + asked) - needs["xz"](known))}


def _kneser_ney(trained: Checkpoint, data: DatasetDict) -> float:
    """Bits that a 5-gram model of the same tokens needs for the test split."""
    tokenizer = trained.tokenizer
    model = KneserNey(ids_of(tokenizer, data["train"]), tokenizer.get_vocab_size(), token_id(tokenizer, END))
    return float(-model.log_probabilities(ids_of(tokenizer, data["test"])).sum() / math.log(2))


def _of_masked(trained: Sequence[Checkpoint], data: DatasetDict) -> Iterator[Row]:
    tokenizer = trained[0].tokenizer
    special = [token_id(tokenizer, name) for name in (PAD, CLS, SEP, MASK)]
    length: int = trained[0].model.config.max_length  # type: ignore[union-attr, assignment]
    task = FillIn(DatasetDict(train=data["train"], validation=data["test"]), tokenizer, length)
    rows = list(task.rows["validation"])
    counted = masked_baselines(task.rows["train"], rows, tokenizer.get_vocab_size(), special, seed=0)
    # The baselines choose their weights on one half of the rows; all are measured on the other.
    found = [evaluate.masked(one, rows[1::2], special, seed=0) for one in trained]
    for place, measure in enumerate(("loss per masked token", "masked-token accuracy")):
        for name, figures in counted.items():
            yield row(name, None, measure, [figures[place]])
        yield row("docstrings-bert", spent(trained), measure, [figures[place] for figures in found])


if __name__ == "__main__":
    main()
