"""Learning merges and encoding text: our plain Python beside the `tokenizers` library, which is written in Rust."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from benchmarks.results import write
from course import corpora
from course.fast_tokenizer import fast_tokenizer
from solutions.tokenization import BPETokenizer, train_bpe

RUNS = 5
VOCAB_SIZE = 500
SMALL, LARGE = 130_000, 1_300_000


def main() -> None:
    """Measure both, turn and turn about, and write the medians and their ratio."""
    text = "\n".join(corpora.load("kjv_bbe")["train"]["target"])
    rows = []
    for size in (SMALL, LARGE):
        part = text[:size]
        ways = {"ours": lambda part=part: train_bpe(part, VOCAB_SIZE), "tokenizers": lambda part=part: learn(part)}
        rows += compare(f"learn {VOCAB_SIZE} tokens from {size:,} characters", ways)
    prose = text[LARGE : 2 * LARGE]
    vocab, merges = train_bpe(text[:SMALL], VOCAB_SIZE)
    library = fast_tokenizer(vocab, merges)
    ways = {
        # A tokenizer made anew: what it has remembered is no part of the work.
        "ours": lambda: BPETokenizer(vocab, merges).encode(prose),
        "tokenizers": lambda: library.encode(prose).ids,
    }
    rows += compare(f"encode {len(prose):,} characters", ways, len(prose.encode()))
    write(
        "tokenizer",
        what="Byte-pair encoding on verses in Basic English, on one core. The ratio is our time to the library's.",
        command="python -m benchmarks.tokenizer",
        machine=f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        versions={name: version(name) for name in ("tokenizers", "regex")},
        rows=rows,
    )


def learn(text: str) -> None:
    """Learn as many tokens with the library; it breaks ties by another rule."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)


def compare(case: str, ways: dict[str, Callable[[], object]], size: int = 0) -> list[dict[str, object]]:
    """A row for each way of doing the same; the last is what the others are compared with."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    peer = list(medians.values())[-1]
    return [
        {
            "case": f"{name}: {case}",
            "seconds, median": round(median, 3),
            "MB/s": round(size / median / 1e6, 2) if size else "",
            "time ratio": round(median / peer, 2),
            "runs": RUNS,
        }
        for name, median in medians.items()
    ]


if __name__ == "__main__":
    main()
