"""The config refuses choices that do not fit together, by name, and works out what follows from them."""

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from solutions.config import TransformerConfig

GOOD: dict[str, Any] = {"vocab_size": 10, "d_model": 12, "num_heads": 3}


class TestRefusals:
    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"vocab_size": 0}, "vocab_size=0 must be at least 1"),
            ({"d_model": 0}, "d_model=0 must be at least 1"),
            ({"num_heads": 0}, "num_heads=0 must be at least 1"),
            ({"num_layers": 0}, "num_layers=0 must be at least 1"),
            ({"max_length": -1}, "max_length=-1 must be at least 1"),
            ({"norm": "batch"}, "norm='batch' must be one of 'layer', 'rms'"),
            (
                {"positions": "sine"},
                "positions='sine' must be one of 'sinusoidal', 'learned', 'rope', 'alibi', 'none'",
            ),
            (
                {"feed_forward": "silu"},
                "feed_forward='silu' must be one of 'relu', 'gelu', 'gelu_tanh', 'swiglu'",
            ),
            ({"num_heads": 5}, "num_heads=5 must divide d_model=12"),
            ({"num_kv_heads": 2}, "num_kv_heads=2 must divide num_heads=3"),
            ({"num_kv_heads": 0}, "num_kv_heads=0 must divide num_heads=3"),
            (
                {"num_heads": 4, "positions": "rope"},
                "positions='rope' rotates pairs, so d_model/num_heads must be even; d_model=12 and num_heads=4 give 3",
            ),
            ({"d_model": 9}, "positions='sinusoidal' needs an even d_model, not 9"),
            ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
            ({"dropout": -0.1}, "dropout=-0.1 must be at least 0 and below 1"),
            ({"pad_id": 10}, "pad_id=10 must be at least 0 and below vocab_size=10"),
            ({"pad_id": -1}, "pad_id=-1 must be at least 0 and below vocab_size=10"),
        ],
    )
    def test_name_the_choice_and_what_it_must_be(self, choices: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError) as raised:
            TransformerConfig(**GOOD | choices)
        assert str(raised.value) == message


class TestConfig:
    @pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", "alibi", "none"])
    @pytest.mark.parametrize("feed_forward", ["relu", "gelu", "gelu_tanh", "swiglu"])
    @pytest.mark.parametrize("norm", ["layer", "rms"])
    def test_every_choice_is_accepted(self, positions: Any, feed_forward: Any, norm: Any) -> None:
        TransformerConfig(**GOOD, positions=positions, feed_forward=feed_forward, norm=norm)

    def test_an_odd_width_is_accepted_where_nothing_is_paired(self) -> None:
        assert TransformerConfig(7, d_model=9, num_heads=3, positions="none").d_head == 3

    def test_the_width_inside_the_feed_forward_network_is_4_d_unless_told_otherwise(self) -> None:
        assert TransformerConfig(**GOOD).d_hidden == 48
        assert TransformerConfig(**GOOD, d_ff=5).d_hidden == 5

    def test_a_head_is_as_wide_as_its_share_of_d(self) -> None:
        assert TransformerConfig(**GOOD).d_head == 4

    def test_cannot_be_changed_after_it_is_made(self) -> None:
        config = TransformerConfig(**GOOD)
        with pytest.raises(FrozenInstanceError):
            config.d_model = 6  # type: ignore[misc]

    def test_only_the_size_of_the_vocabulary_has_no_default(self) -> None:
        TransformerConfig(vocab_size=3)
        assert fields(TransformerConfig)[0].name == "vocab_size"
        with pytest.raises(TypeError, match="vocab_size"):
            TransformerConfig()  # type: ignore[call-arg]

    def test_every_field_is_explained(self) -> None:
        assert TransformerConfig.__doc__ is not None
        for field in fields(TransformerConfig):
            assert f"        {field.name}: " in TransformerConfig.__doc__
