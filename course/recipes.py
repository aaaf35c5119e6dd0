"""What `course train` can train: data, tokenizer, model and settings of each."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from datasets import Dataset, DatasetDict
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from course import corpora
from course.checkpoints import CLS, END, MASK, PAD, SEP, START, spelled_out
from course.tasks import FillIn, NextToken, Task, Translation

SPECIAL = [PAD, START, END, "[UNK]"]

LEARNED_FROM = 200_000
"""So many texts tell a tokenizer what is frequent; of a corpus larger than the memory the rest changes little."""


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Args:
        data: a corpus by its name, or what makes the splits; with the columns that the task needs.
        tokenizer: makes the tokenizer from the training split.
        task: makes of both what is learned.
        config: what the model is made from, vocabulary and padding aside.
        steps: how many batches.
        tokens_per_batch: tokens of one batch, padding included; about.
        learning_rate: the highest one, after the warm-up.
        label_smoothing: the share of the target's probability that is spread over all tokens.
        says: what it learns, for the user.
        warmup_steps: over which the learning rate rises.
        architecture: the model's class, as `module.Class` of `solutions`.
        betas: AdamW's.
        weight_decay: AdamW's.
    """

    data: str | Callable[[], DatasetDict]
    tokenizer: Callable[[Dataset], Tokenizer]
    task: Callable[[DatasetDict, Tokenizer], Task]
    config: dict[str, Any]
    steps: int
    tokens_per_batch: int
    learning_rate: float
    says: str
    label_smoothing: float = 0.0
    warmup_steps: int = 200
    architecture: str = "transformer.EncoderDecoder"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01

    def splits(self) -> DatasetDict:
        """The data."""
        return corpora.load(self.data) if isinstance(self.data, str) else self.data()

    @property
    def from_text(self) -> bool:
        """Whether it learns from a column `text` alone, so that any text will do."""
        return not self.architecture.endswith("EncoderDecoder")


def characters(train: Dataset) -> Tokenizer:
    """Each character is a token."""
    alphabet = sorted(set("".join(train["source"])) | set("".join(train["target"])))
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def subwords(
    size: int, columns: Sequence[str] = ("source", "target"), special: Sequence[str] = SPECIAL
) -> Callable[[Dataset], Tokenizer]:
    """Byte-pair encoding with `size` entries, learned from these columns.

    What begins a text is spelled as within it, by a space before it, where pairs are translated; a language model must
    give back the text as it was, and has none.
    """

    def learn(train: Dataset) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space="source" in columns)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        first = (text for column in columns for text in islice(train[column], LEARNED_FROM))
        tokenizer.train_from_iterator(first, trainer)
        return spelled_out(tokenizer)

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
        task=Translation,
        config={"d_model": 64, "num_heads": 4, "num_layers": 1, "feed_forward": "gelu"},
        steps=600,
        tokens_per_batch=3000,
        learning_rate=3e-3,
        warmup_steps=100,
        says="to write a string of letters backwards",
    ),
    "dates": Recipe(
        data="dates",
        tokenizer=characters,
        task=Translation,
        config={"d_model": 64, "num_heads": 4, "num_layers": 2, "fused": True},
        steps=2500,
        tokens_per_batch=1500,
        learning_rate=3e-3,
        says="to write dates in ISO 8601",
    ),
    "translation": Recipe(
        data="kjv_bbe",
        tokenizer=subwords(2500),
        task=Translation,
        config={"d_model": 160, "num_heads": 5, "num_layers": 2, "fused": True},
        steps=10_000,
        tokens_per_batch=3000,
        learning_rate=2e-3,
        warmup_steps=300,
        label_smoothing=0.1,
        says="to put verses of the King James Version into Basic English",
    ),
    "stories-gpt": Recipe(
        data="stories",
        tokenizer=subwords(512, ["text"], [PAD, END]),
        task=partial(NextToken, context_length=192, packed=False),
        architecture="gpt.CausalLanguageModel",
        config={
            "d_model": 96, "num_heads": 3, "num_layers": 3, "max_length": 192, "positions": "rope",
            "feed_forward": "gelu", "fused": True,
        },
        steps=20_000,
        tokens_per_batch=2400,
        learning_rate=3e-3,
        says="to tell little stories",
    ),
    "docstrings-gpt": Recipe(
        data="docstrings",
        tokenizer=subwords(2048, ["text"], [PAD, END]),
        task=partial(NextToken, context_length=256, packed=True),
        architecture="gpt.CausalLanguageModel",
        config={
            "d_model": 128, "num_heads": 4, "num_layers": 4, "max_length": 256, "positions": "rope",
            "feed_forward": "gelu", "fused": True,
        },
        steps=10_000,
        tokens_per_batch=2048,
        learning_rate=3e-3,
        weight_decay=0.1,
        says="to write documentation",
    ),
    "docstrings-bert": Recipe(
        data="docstrings",
        tokenizer=subwords(2048, ["text"], [PAD, CLS, SEP, MASK]),
        task=partial(FillIn, context_length=128),
        architecture="bert.MaskedLanguageModel",
        config={
            "d_model": 96, "num_heads": 3, "num_layers": 3, "max_length": 128, "positions": "rope",
            "feed_forward": "gelu", "fused": True,
        },
        steps=20_000,
        tokens_per_batch=1024,
        learning_rate=1.5e-3,
        weight_decay=0.1,
        says="to fill in words of documentation",
    ),
}  # fmt: skip
