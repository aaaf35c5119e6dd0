"""What models are trained to do: rows, batches and losses; and several processes that train one model."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch.nn import functional

from course import checkpoints
from course.checkpoints import CLS, END, MASK, PAD, SEP, build
from course.recipes import RECIPES, subwords
from course.tasks import FillIn, NextToken, Rows, pieces, whole
from course.training import STATE
from solutions.config import TransformerConfig
from solutions.gpt import IGNORED, CausalLanguageModel, pack_documents

TEXTS = ["A cat sat. It was a cat.", "", "The dog, which was old, saw the cat and the bird and the fox.", "Yes.", "No?"]
DATA = DatasetDict(train=Dataset.from_dict({"text": TEXTS * 8}), validation=Dataset.from_dict({"text": TEXTS}))
ids_lists = st.lists(st.lists(st.integers(1, 60), max_size=12), min_size=1, max_size=8)


class TestRows:
    @given(st.lists(st.lists(st.integers(0, 65535), max_size=5), max_size=8))
    def test_give_back_what_was_put_in(self, rows: list[list[int]]) -> None:
        kept = Rows(iter(rows), 1 << 16)
        assert list(kept) == rows
        assert kept.lengths().tolist() == [len(row) for row in rows]

    def test_hold_ids_of_more_than_two_bytes(self) -> None:
        assert list(Rows([[70_000]], 70_001)) == [[70_000]]

    @given(ids_lists, st.integers(1, 7))
    def test_pieces_are_what_packing_gives(self, documents: list[list[int]], length: int) -> None:
        cut = list(pieces(documents, length, end_id=0))
        inputs, targets, _ = pack_documents(documents, length, end_id=0)
        assert [token for row in cut for token in row[:-1]] == inputs[targets != IGNORED].tolist()
        assert [token for row in cut for token in row[1:]] == targets[targets != IGNORED].tolist()
        assert all(len(row) == length + 1 for row in cut[:-1])

    @given(ids_lists, st.integers(1, 7))
    def test_whole_texts_have_rows_of_their_own(self, documents: list[list[int]], length: int) -> None:
        rows = list(whole(documents, length, end_id=0))
        assert [token for row in rows for token in row[1:]] == [token for text in documents for token in [*text, 0]]
        assert sum(row[0] == 0 for row in rows) == len(documents)
        assert max(map(len, rows)) <= length + 1


class TestNextToken:
    @pytest.mark.parametrize("packed", [True, False])
    def test_the_texts_can_be_read_from_the_targets(self, packed: bool) -> None:
        tokenizer = subwords(300, ["text"], [PAD, END])(DATA["train"])
        task = NextToken(DATA, tokenizer, context_length=16, packed=packed)
        read: list[int] = []
        for place in range(len(task.sizes("validation"))):
            inputs, targets = task.batch("validation", [place], seed=0)
            assert inputs.shape == targets.shape
            assert inputs.size(1) <= 16
            assert torch.equal(inputs[0, 1:], targets[0, :-1])
            read += targets[0].tolist()
        texts: list[list[int]] = [[]]
        for token in read:
            if token == task.end_id:
                texts.append([])
            else:
                texts[-1].append(token)
        assert [tokenizer.decode(text) for text in texts] == [*TEXTS, ""]

    def test_padding_is_not_learned(self) -> None:
        tokenizer = subwords(300, ["text"], [PAD, END])(DATA["train"])
        task = NextToken(DATA, tokenizer, context_length=64, packed=False)
        config = TransformerConfig(tokenizer.get_vocab_size(), d_model=8, num_heads=2, num_layers=1)
        model = build("gpt.CausalLanguageModel", config)
        parts = [task.loss(model, task.batch("validation", [place], 0), 0.0) for place in range(5)]
        total, count = task.loss(model, task.batch("validation", range(5), 0), 0.0)
        assert count == sum(number for _, number in parts)
        assert torch.allclose(total, torch.stack([part for part, _ in parts]).sum(), rtol=1e-5)


class TestFillIn:
    def test_labels_are_what_was_hidden(self) -> None:
        tokenizer = subwords(300, ["text"], [PAD, CLS, SEP, MASK])(DATA["train"])
        task = FillIn(DATA, tokenizer, context_length=12)
        whole = [task.rows["train"][place] for place in range(20)]
        inputs, labels = task.batch("train", range(20), seed=3)
        assert inputs.size(1) <= 12
        for row, seen, hidden in zip(whole, inputs.tolist(), labels.tolist(), strict=True):
            assert row[0] == task.first_id
            assert row[-1] == task.last_id
            again = [a if b == IGNORED else b for a, b in zip(seen, hidden, strict=True)]
            assert again[: len(row)] == row
            assert set(again[len(row) :]) <= {task.pad_id}
        same, other = (task.batch("train", range(20), seed=seed)[0] for seed in (3, 4))
        assert torch.equal(same, inputs)
        assert not torch.equal(other, inputs)

    def test_training_may_ask_for_more_than_measuring(self) -> None:
        tokenizer = subwords(300, ["text"], [PAD, CLS, SEP, MASK])(DATA["train"])
        task = FillIn(DatasetDict(train=DATA["train"], validation=DATA["train"]), tokenizer, 64, probability=0.5)
        asked = {}
        for split in ("train", "validation"):
            _, labels = task.batch(split, range(len(task.rows[split])), seed=0)
            ordinary = int(sum(len(row) - 2 for row in task.rows[split]))
            asked[split] = int((labels != IGNORED).sum()) / ordinary
        assert asked["train"] == pytest.approx(0.5, abs=0.05)
        assert asked["validation"] == pytest.approx(0.15, abs=0.05)

    def test_its_loss_is_that_of_the_whole_head(self) -> None:
        tokenizer = subwords(300, ["text"], [PAD, CLS, SEP, MASK])(DATA["train"])
        task = FillIn(DATA, tokenizer, context_length=12)
        config = TransformerConfig(tokenizer.get_vocab_size(), d_model=8, num_heads=2, num_layers=1, pad_id=task.pad_id)
        model = build("bert.MaskedLanguageModel", config)
        inputs, labels = task.batch("train", range(20), seed=3)
        total, count = task.loss(model, (inputs, labels), 0.0)
        mean = functional.cross_entropy(model(inputs).flatten(0, 1), labels.flatten())
        assert torch.allclose(total / count, mean, rtol=1e-5)


SCRIPT = """
import sys
from dataclasses import replace
from datasets import DatasetDict
from course.cli import main
from course.recipes import RECIPES, reversals
few = DatasetDict({name: split.select(range(150)) for name, split in reversals().items()})
config = {"d_model": 16, "num_heads": 2, "num_layers": 1}
RECIPES["reversal"] = replace(RECIPES["reversal"], data=lambda: few, config=config, steps=10, tokens_per_batch=300)
main(["train", "reversal", "--output", sys.argv[1]])
"""


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    losses, said = [], []
    for folder, start in {"one": [], "two": together}.items():
        command = [sys.executable, *start, str(tmp_path / "run.py"), str(tmp_path / folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
        with safe_open(tmp_path / folder / STATE, framework="pt") as file:
            losses.append(json.loads(file.metadata()["progress"])["losses"])
    assert len(losses[0]) == 10
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != losses[1]  # it was another way to the same sum
    assert said[1].count("Reading the data") == 1


def test_every_language_model_fits_its_task() -> None:
    for name in ("stories-gpt", "docstrings-gpt", "docstrings-bert"):
        recipe = RECIPES[name]
        task = recipe.task(DATA, tokenizer := recipe.tokenizer(DATA["train"]))
        config = TransformerConfig(tokenizer.get_vocab_size(), **recipe.config, pad_id=tokenizer.token_to_id(PAD))
        total, count = task.loss(build(recipe.architecture, config), task.batch("train", [0, 1], 1), 0.0)
        assert 0.5 < total.item() / count / math.log(tokenizer.get_vocab_size()) < 2


class TestTokenizers:
    """What `course train` learns to cut texts with."""

    SPECIAL: ClassVar = ["[PAD]", "[END]", "[END][PAD]"]

    @given(st.lists(st.sampled_from(["[PAD]", "[END]", "[", "END]", "PAD]", " a", "é"]), max_size=12).map("".join))
    @settings(max_examples=30, deadline=None)
    def test_a_special_token_in_a_text_is_text(self, text: str) -> None:
        learned = subwords(300, ["text"], self.SPECIAL)(Dataset.from_dict({"text": ["hello [END] world"] * 5}))
        with TemporaryDirectory() as folder:
            place = Path(folder)
            card = {"architecture": "gpt.CausalLanguageModel"}
            checkpoints.save(place, _model(learned.get_vocab_size()), learned, card)
            loaded = checkpoints.load(place).tokenizer
        for tokenizer in (learned, loaded):
            ids = tokenizer.encode(text).ids
            assert not set(ids) & {tokenizer.token_to_id(name) for name in self.SPECIAL}
            assert tokenizer.decode(ids) == text


def _model(vocab_size: int) -> CausalLanguageModel:
    return CausalLanguageModel(TransformerConfig(vocab_size, d_model=4, num_heads=1, num_layers=1))
