"""What a model can be trained to do: how its examples become batches, and how much it is wrong on one of them."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from course.checkpoints import CLS, END, MASK, PAD, SEP, START, padded, rows_of, token_id
from solutions.bert import mask_tokens
from solutions.gpt import IGNORED
from solutions.transformer import shift_right

Batch = tuple[Tensor, ...]
"""Tensors with the same first axis, one entry an example: a part of a batch is a batch."""

ASKED = 0.15
"""The share of tokens that a masked model is asked for when it is measured (Devlin et al. 2019)."""

CHUNK = 1000
"""Texts that are turned into ids together."""


class Rows(Sequence[list[int]]):
    """Rows of token ids of different lengths, kept in a file: a corpus may be larger than the memory."""

    def __init__(self, rows: Iterable[Sequence[int]], vocab_size: int) -> None:
        """Copy the rows into a file that goes with this object.

        Args:
            rows: token ids; they may come one by one.
            vocab_size: decides how many bytes a token takes.

        Raises:
            OSError: the disk is full.
        """
        self._kind = "H" if vocab_size <= 1 << 16 else "I"
        self._file = tempfile.TemporaryFile(prefix="rows-")  # noqa: SIM115  # open as long as this object lives
        ends = array("Q", [0])
        for row in rows:
            array(self._kind, row).tofile(self._file)
            ends.append(ends[-1] + len(row))
        self._file.flush()
        self.ends = np.frombuffer(ends, dtype=np.uint64).astype(np.int64)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.ends) - 1

    def __getitem__(self, place: Any) -> Any:
        """One row as a list."""
        start, end = self.ends[place].item(), self.ends[place + 1].item()
        row = array(self._kind)
        # Read and not mapped: what is mapped counts as memory of this process as soon as it was looked at.
        self._file.seek(start * row.itemsize)
        row.fromfile(self._file, end - start)
        return row.tolist()

    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each row has."""
        return np.diff(self.ends)


class Task(Protocol):
    """What a run needs to know of what is learned."""

    def sizes(self, split: str) -> NDArray[np.int64]:
        """The length of each example of a split, for batches of similar ones."""

    def batch(self, split: str, places: Sequence[int], seed: int) -> Batch:
        """Examples as tensors; where chance decides something, the seed decides it."""

    def loss(self, model: nn.Module, batch: Batch, smoothing: float) -> tuple[Tensor, int]:
        """The sum of the losses of a batch, and over how many targets it goes."""


def summed_loss(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, int]:
    """The sum of -log p over the targets that are asked for, and their number."""
    total = functional.cross_entropy(
        logits.flatten(0, -2).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="sum",
    )
    return total, int((targets != IGNORED).sum())


class Translation:
    """Learns to write a target for a source."""

    def __init__(self, data: DatasetDict, tokenizer: Tokenizer) -> None:
        """Turn the columns `source` and `target` of train and validation into ids, targets ended by [END]."""
        self.pad_id, self.start_id = token_id(tokenizer, PAD), token_id(tokenizer, START)
        self.pairs = {
            split: [
                Rows(rows_of(tokenizer, list(data[split][column])), tokenizer.get_vocab_size())
                for column in ("source", "target")
            ]
            for split in ("train", "validation")
        }

    def sizes(self, split: str) -> NDArray[np.int64]:
        """Tokens of source and target together."""
        source, target = self.pairs[split]
        return source.lengths() + target.lengths()

    def batch(self, split: str, places: Sequence[int], seed: int) -> Batch:
        """Source (B, Ts) and target (B, Tt) ids."""
        source, target = ([side[place] for place in places] for side in self.pairs[split])
        return padded(source, self.pad_id), padded(target, self.pad_id)

    def loss(self, model: nn.Module, batch: Batch, smoothing: float) -> tuple[Tensor, int]:
        """Over the targets, padding aside."""
        source, target = batch
        logits = model(source, shift_right(target, self.start_id))
        return summed_loss(logits, target.masked_fill(target == self.pad_id, IGNORED), smoothing)


class NextToken:
    """Learns to say, at every place of a text, which token comes next."""

    def __init__(
        self, data: DatasetDict | IterableDatasetDict, tokenizer: Tokenizer, context_length: int, packed: bool
    ) -> None:
        """Turn the column `text` of train and validation into rows.

        Args:
            data: the splits.
            tokenizer: has the special token [END].
            context_length: T, the longest input.
            packed: True lays all texts one after the other and cuts rows of T; False gives each text a row of its own.
        """
        self.end_id = token_id(tokenizer, END)
        vocab_size = tokenizer.get_vocab_size()
        self.rows = {}
        for split in ("train", "validation"):
            texts = ids_of(tokenizer, data[split])
            cut = pieces(texts, context_length, self.end_id) if packed else whole(texts, context_length, self.end_id)
            self.rows[split] = Rows(cut, vocab_size)

    def sizes(self, split: str) -> NDArray[np.int64]:
        """Tokens of each row."""
        return self.rows[split].lengths()

    def batch(self, split: str, places: Sequence[int], seed: int) -> Batch:
        """Inputs and targets (B, T)."""
        rows = [self.rows[split][place] for place in places]
        inputs = padded([row[:-1] for row in rows], self.end_id)
        return inputs, padded([row[1:] for row in rows], IGNORED)

    def loss(self, model: nn.Module, batch: Batch, smoothing: float) -> tuple[Tensor, int]:
        """Over all tokens but the first of each row, which nothing stands before."""
        inputs, targets = batch
        return summed_loss(model(inputs), targets, smoothing)


class FillIn:
    """Learns to fill in what was masked."""

    def __init__(
        self,
        data: DatasetDict | IterableDatasetDict,
        tokenizer: Tokenizer,
        context_length: int,
        probability: float = ASKED,
    ) -> None:
        """Turn the column `text` of train and validation into rows of T: [CLS], a piece of text, [SEP].

        Args:
            data: the splits.
            tokenizer: has the special tokens [PAD], [CLS], [SEP] and [MASK].
            context_length: T, the length of a row.
            probability: with which a token is asked for in training; on the validation split it is always 15 %.
        """
        self.probability = {"train": probability, "validation": ASKED}
        self.special = [token_id(tokenizer, name) for name in (PAD, CLS, SEP, MASK)]
        self.pad_id, self.first_id, self.last_id, self.mask_id = self.special
        self.vocab_size = tokenizer.get_vocab_size()
        self.rows = {
            split: Rows(
                (
                    [self.first_id, *text[start : start + context_length - 2], self.last_id]
                    for text in ids_of(tokenizer, data[split])
                    for start in range(0, len(text), context_length - 2)
                ),
                self.vocab_size,
            )
            for split in ("train", "validation")
        }

    def sizes(self, split: str) -> NDArray[np.int64]:
        """Tokens of each row."""
        return self.rows[split].lengths()

    def batch(self, split: str, places: Sequence[int], seed: int) -> Batch:
        """Inputs with masks, and labels (B, T)."""
        ids = padded([self.rows[split][place] for place in places], self.pad_id)
        generator = torch.Generator().manual_seed(seed)
        return mask_tokens(ids, self.mask_id, self.vocab_size, self.special, generator, self.probability[split])

    def loss(self, model: nn.Module, batch: Batch, smoothing: float) -> tuple[Tensor, int]:
        """Over the chosen places alone."""
        inputs, labels = batch
        chosen = labels != IGNORED
        return summed_loss(model(inputs, chosen=chosen), labels[chosen], smoothing)


def ids_of(tokenizer: Tokenizer, data: Dataset | IterableDataset) -> Iterator[list[int]]:
    """The ids of each text, some thousand texts at a time: a corpus need not fit into memory."""
    for chunk in data.iter(batch_size=CHUNK):
        for encoding in tokenizer.encode_batch(chunk["text"]):
            yield encoding.ids


def pieces(texts: Iterable[list[int]], context_length: int, end_id: int) -> Iterator[list[int]]:
    """All texts one after the other, an end before, between and after them, in rows of T + 1.

    The last token of a row is the first of the next, so each is a target once, as `solutions.gpt.pack_documents` does.
    """
    waiting = [end_id]
    for text in texts:
        waiting += [*text, end_id]
        while len(waiting) > context_length:
            yield waiting[: context_length + 1]
            waiting = waiting[context_length:]
    if len(waiting) > 1:
        yield waiting


def whole(texts: Iterable[list[int]], context_length: int, end_id: int) -> Iterator[list[int]]:
    """A row for each text, an end before and after it; a longer one goes on in rows of its own."""
    for text in texts:
        yield from pieces([text], context_length, end_id)
