"""What the benchmark of language models compares: models of one size, each with a loss that can be learned from."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks import language_models as measured
from solutions.bert import MaskedLanguageModel
from solutions.gpt import CausalLanguageModel

NANOGPT = """
from dataclasses import dataclass
from torch import nn
from torch.nn import functional


@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.table = config, nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, idx, targets=None):
        logits = self.table(idx)
        return logits, functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
"""
"""A file with the interface of nanoGPT's model.py, and a model of one table behind it."""


def size(model: measured.Model) -> int:
    return sum(parameter.numel() for parameter in model[0].parameters())


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_the_models_have_the_same_parameters_and_begin_near_even_guessing(kind: str) -> None:
    if kind == "causal":
        pair = measured.gpt2(), measured.ours(CausalLanguageModel, measured.causal_loss)
    else:
        pair = measured.bert(), measured.ours(MaskedLanguageModel, measured.masked_loss)
    assert size(pair[0]) == size(pair[1])
    for _, loss in pair:
        assert abs(loss().item() - math.log(measured.V)) < 1


def test_nanogpts_file_is_read_from_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(NANOGPT, encoding="utf-8")
    model, loss = measured.nanogpt(tmp_path)
    assert model.config.block_size == measured.T
    first = loss()
    measured.stepper(model, loss)()
    assert torch.isfinite(first)
    assert loss() < first


def test_a_folder_without_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"is no checkout of nanoGPT.*Nothing was measured"):
        measured.nanogpt(tmp_path)
