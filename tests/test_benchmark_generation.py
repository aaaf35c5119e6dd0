"""What the benchmark of generation compares: ways that write the same text, and a row for each."""

import pytest
import torch

from benchmarks import generation as measured
from solutions.config import TransformerConfig
from solutions.gpt import CausalLanguageModel


@pytest.fixture(scope="module")
def ways() -> dict[str, measured.Write]:
    return measured.writers(2, 16, 2, 50, longest=measured.PROMPT + 12)


def test_all_ways_write_the_same_tokens(ways: dict[str, measured.Write]) -> None:
    texts = [way(12) for way in ways.values()]
    assert all(text.shape == (1, measured.PROMPT + 12) and torch.equal(text, texts[0]) for text in texts)


def test_each_round_is_timed_but_the_first(ways: dict[str, measured.Write]) -> None:
    calls: list[None] = []
    seconds = measured.compare(ways, 3, rounds=2, done=lambda: calls.append(None))
    assert list(seconds) == [measured.PEER, measured.CACHED, measured.AGAIN, measured.TURNED]
    assert all(len(taken) == 2 and min(taken) > 0 for taken in seconds.values())
    assert len(calls) == 12


def test_matrices_in_the_other_order_are_the_same_matrices() -> None:
    model = CausalLanguageModel(TransformerConfig(vocab_size=50, d_model=16, num_heads=2, num_layers=2))
    turned = measured.kept_in_out(model)
    for name, weight in model.named_parameters():
        other = turned.get_parameter(name)
        assert torch.equal(weight, other)
        in_blocks = name.startswith("blocks") and weight.dim() == 2
        assert other.stride() == ((1, weight.size(0)) if in_blocks else weight.stride())


def test_different_texts_are_refused(ways: dict[str, measured.Write]) -> None:
    changed = {**ways, measured.CACHED: lambda length: ways[measured.CACHED](length) + 1}
    with pytest.raises(SystemExit, match=r"different texts of 3 tokens.*Nothing was recorded"):
        measured.compare(changed, 3, rounds=1, done=lambda: None)


def test_a_row_has_the_median_and_its_ratio_to_the_peer() -> None:
    seconds = {measured.PEER: [2.0, 8.0, 4.0], measured.CACHED: [1.0, 1.0, 3.0], measured.AGAIN: [8.0, 8.0, 1.0]}
    rows = measured.table("small", 16, seconds)
    assert [row["way"] for row in rows] == list(seconds)
    assert [row["ratio"] for row in rows] == [1.0, 0.25, 2.0]
    assert rows[1] == {
        "case": "small, 16 tokens, with a cache", "model": "small", "way": "with a cache", "tokens": 16,
        "seconds, median": 1.0, "tokens per second": 16, "ratio": 0.25, "rounds": 3,
    }  # fmt: skip
