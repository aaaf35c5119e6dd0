"""What `course train` can train: data, tokenizer, model and settings of each."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, DatasetDict
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from course import corpora
from course.checkpoints import END, PAD, START

SPECIAL = [PAD, START, END, "[UNK]"]


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Args:
        data: makes the splits, with columns `source` and `target`.
        tokenizer: makes the tokenizer from the training split.
        config: what the model is made from, vocabulary and padding aside.
        steps: how many batches.
        tokens_per_batch: source and target tokens of one batch, padding included; about.
        learning_rate: the highest one, after the warm-up.
        label_smoothing: the share of the target's probability that is spread over all tokens.
        says: what it learns, for the user.
    """

    data: Callable[[], DatasetDict]
    tokenizer: Callable[[Dataset], Tokenizer]
    config: dict[str, Any]
    steps: int
    tokens_per_batch: int
    learning_rate: float
    says: str
    label_smoothing: float = 0.0
    warmup_steps: int = 200
    architecture: str = "transformer.EncoderDecoder"
    betas: tuple[float, float] = (0.9, 0.98)


def characters(train: Dataset) -> Tokenizer:
    """Each character is a token."""
    alphabet = sorted(set("".join(train["source"])) | set("".join(train["target"])))
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def subwords(size: int) -> Callable[[Dataset], Tokenizer]:
    """Byte-pair encoding with `size` entries, learned from both columns."""

    def learn(train: Dataset) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator([*train["source"], *train["target"]], trainer)
        return tokenizer

    return learn


def reversals(seed: int = 0) -> DatasetDict:
    """Strings of letters, and the same strings read backwards; no string stands in two splits."""
    random_numbers = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < 21_000:
        length = random_numbers.randint(4, 12)
        texts["".join(random_numbers.choice("abcdefghijklmnop") for _ in range(length))] = None
    every = list(texts)
    parts = {"train": every[:20_000], "validation": every[20_000:20_500], "test": every[20_500:]}
    return DatasetDict(
        {
            name: Dataset.from_dict({"source": part, "target": [text[::-1] for text in part]})
            for name, part in parts.items()
        }
    )


RECIPES = {
    "reversal": Recipe(
        data=reversals,
        tokenizer=characters,
        config={"d_model": 64, "num_heads": 4, "num_layers": 1, "feed_forward": "gelu"},
        steps=600,
        tokens_per_batch=3000,
        learning_rate=3e-3,
        warmup_steps=100,
        says="to write a string of letters backwards",
    ),
    "dates": Recipe(
        data=lambda: corpora.load("dates"),
        tokenizer=characters,
        config={"d_model": 64, "num_heads": 4, "num_layers": 2, "fused": True},
        steps=2500,
        tokens_per_batch=1500,
        learning_rate=3e-3,
        says="to write dates in ISO 8601",
    ),
    "translation": Recipe(
        data=lambda: corpora.load("kjv_bbe"),
        tokenizer=subwords(2500),
        config={"d_model": 160, "num_heads": 5, "num_layers": 2, "fused": True},
        steps=10_000,
        tokens_per_batch=3000,
        learning_rate=2e-3,
        warmup_steps=300,
        label_smoothing=0.1,
        says="to put verses of the King James Version into Basic English",
    ),
}
