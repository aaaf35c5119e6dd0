"""The block against PyTorch's encoder and decoder layers, in values and gradients, in both orders of the norm."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from solutions.attention import causal_mask, fused_attention, padding_mask, scaled_dot_product_attention
from solutions.block import TransformerBlock, attention_function, make_attention, make_feed_forward, make_norm
from solutions.config import TransformerConfig
from solutions.layers import FeedForward, LayerNorm, RMSNorm, SwiGLU

settings.register_profile("block", deadline=None, max_examples=40, derandomize=True)
profile = settings.get_profile("block")

seeds = st.integers(0, 2**32 - 1)
CHOICES: list[dict[str, Any]] = [
    {},
    {"norm_first": False},
    {"norm": "rms", "feed_forward": "swiglu", "bias": False, "num_kv_heads": 1},
    {"norm": "rms", "feed_forward": "gelu_tanh", "positions": "rope", "norm_first": False},
    {"feed_forward": "gelu", "positions": "alibi", "num_kv_heads": 2},
]


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=1e-10)


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=dtype)


def made(seed: int = 0, cross: bool = False, **choices: Any) -> TransformerBlock:
    """A block in float64 with weights from the seed."""
    generator = torch.Generator().manual_seed(seed)
    block = TransformerBlock(TransformerConfig(5, **{"d_model": 8, "num_heads": 2} | choices), cross).double()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            scale = 1.0 if "norm" in name else 0.5
            parameter.copy_(scale * normal(generator, *parameter.shape) + ("norm.weight" in name))
    return block


PAIRS = {
    "attention.output": "self_attn.out_proj",
    "cross_attention.output": "multihead_attn.out_proj",
    "feed_forward.up": "linear1",
    "feed_forward.down": "linear2",
}


def theirs_to_ours(layer: nn.Module, cross: bool) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
    """How to read each of our parameters (or its gradient) from theirs."""
    norms = ["attention", "cross_attention", "feed_forward"] if cross else ["attention", "feed_forward"]
    pairs = {ours: theirs for ours, theirs in PAIRS.items() if cross or not ours.startswith("cross")}
    pairs |= {f"{name}_norm": f"norm{number}" for number, name in enumerate(norms, 1)}
    read: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {}
    for ours, theirs in pairs.items():
        for kind in ("weight", "bias"):
            read[f"{ours}.{kind}"] = lambda found, name=f"{theirs}.{kind}": found[name]  # type: ignore[misc]
    for ours, theirs in (("attention", "self_attn"), ("cross_attention", "multihead_attn"))[: 1 + cross]:
        for index, part in enumerate(("query", "key", "value")):
            for kind in ("weight", "bias"):
                name = f"{theirs}.in_proj_{kind}"
                read[f"{ours}.{part}.{kind}"] = lambda found, name=name, index=index: found[name].chunk(3)[index]  # type: ignore[misc]
    names = {name for name, _ in layer.named_parameters()}
    return {name: reader for name, reader in read.items() if not name.endswith("bias") or "linear1.bias" in names}


@st.composite
def layer_cases(draw: st.DrawFn) -> dict[str, Any]:
    """Widths, lengths, order of the norm, activation, and which masks there are."""
    heads, d_head = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return {
        "seed": draw(seeds), "heads": heads, "d_model": 2 * heads * d_head, "d_ff": draw(st.integers(1, 9)),
        "batch": draw(st.integers(1, 3)), "length": draw(st.integers(1, 6)), "other": draw(st.integers(1, 6)),
        "norm_first": draw(st.booleans()), "activation": draw(st.sampled_from(["relu", "gelu"])),
        "bias": draw(st.booleans()), "causal": draw(st.booleans()), "padded": draw(st.booleans()),
    }  # fmt: skip


def both(case: dict[str, Any], cross: bool) -> tuple[TransformerBlock, nn.Module]:
    """Our block and their layer with the same weights."""
    kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
    layer = kind(
        case["d_model"], case["heads"], case["d_ff"], dropout=0.0, activation=case["activation"], batch_first=True,
        norm_first=case["norm_first"], bias=case["bias"], dtype=torch.float64,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(case["seed"])
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            is_scale = name.startswith("norm") and name.endswith("weight")
            parameter.copy_(0.5 * normal(generator, *parameter.shape) + is_scale)
    config = TransformerConfig(
        5, d_model=case["d_model"], num_heads=case["heads"], d_ff=case["d_ff"], norm_first=case["norm_first"],
        feed_forward=case["activation"], bias=case["bias"],
    )  # fmt: skip
    block = TransformerBlock(config, cross).double()
    found = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    weights = {name: read(found) for name, read in theirs_to_ours(layer, cross).items()}
    # A LayerNorm of ours always has a bias; without one theirs adds nothing.
    weights |= {name: torch.zeros_like(p) for name, p in block.named_parameters() if name not in weights}
    block.load_state_dict(weights)
    return block, layer


def masks(case: dict[str, Any], generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
    """A causal mask and one of real tokens, the first of each sequence among them; None where the case has none."""
    real = torch.rand(case["batch"], case["length"], generator=generator) < 0.6
    real[:, 0] = True
    return causal_mask(case["length"]) if case["causal"] else None, real if case["padded"] else None


def same_outcome(case: dict[str, Any], cross: bool) -> None:
    """Equal outputs, and equal gradients with respect to inputs and to every parameter."""
    block, layer = both(case, cross)
    generator = torch.Generator().manual_seed(case["seed"] + 1)
    triangle, real = masks(case, generator)
    x = normal(generator, case["batch"], case["length"], case["d_model"])
    context = normal(generator, case["batch"], case["other"], case["d_model"])
    mask = triangle
    if real is not None:
        mask = real.unsqueeze(1) if mask is None else mask & real.unsqueeze(1)
    blocked = None if triangle is None else ~triangle  # there, True means blocked
    padding = None if real is None else ~real
    seen = torch.rand(case["batch"], case["other"], generator=generator) < 0.6
    seen[:, 0] = True

    def ours(x: Tensor, context: Tensor) -> Tensor:
        return block(x, mask, context, seen.unsqueeze(1)) if cross else block(x, mask)

    def theirs(x: Tensor, context: Tensor) -> Tensor:
        if cross:
            options = {"tgt_mask": blocked, "tgt_key_padding_mask": padding, "memory_key_padding_mask": ~seen}
            return layer(x, context, **options)
        return layer(x, src_mask=blocked, src_key_padding_mask=padding)

    outcomes = []
    for function, module in ((ours, block), (theirs, layer)):
        inputs = {"x": x.clone().requires_grad_(), "context": context.clone().requires_grad_()}
        output = function(**inputs)
        weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
        wanted = (
            {**inputs, **dict(module.named_parameters())}
            if cross
            else {"x": inputs["x"]} | dict(module.named_parameters())
        )
        found = torch.autograd.grad((output * weight).sum(), list(wanted.values()))
        outcomes.append((output.detach(), dict(zip(wanted, found, strict=True))))
    (own, own_gradients), (other, other_gradients) = outcomes
    assert close(own, other)
    for name in ("x", "context")[: 1 + cross]:
        assert close(own_gradients[name], other_gradients[name])
    for name, read in theirs_to_ours(layer, cross).items():
        assert torch.allclose(own_gradients[name], read(other_gradients), rtol=1e-10, atol=1e-10), name


class TestEqualsPyTorch:
    @given(case=layer_cases())
    @settings(profile)
    def test_encoder_layer(self, case: dict[str, Any]) -> None:
        same_outcome(case, cross=False)

    @given(case=layer_cases())
    @settings(profile)
    def test_decoder_layer(self, case: dict[str, Any]) -> None:
        same_outcome(case, cross=True)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
class TestEveryConfig:
    @staticmethod
    def inputs(cross: bool) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(3)
        found = {"x": normal(generator, 2, 5, 8), "mask": causal_mask(5)}
        if cross:
            found |= {
                "context": normal(generator, 2, 4, 8),
                "context_mask": padding_mask(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]), 0),
            }
        return found

    def test_the_fused_functions_give_the_same(self, choices: dict[str, Any], cross: bool) -> None:
        choices = {"num_heads": 4, "d_model": 8} | choices
        plain, fused = made(0, cross, **choices), made(0, cross, **choices, fused=True)
        assert close(plain(**self.inputs(cross)), fused(**self.inputs(cross)))

    def test_is_the_formula_written_out(self, choices: dict[str, Any], cross: bool) -> None:
        block, inputs = made(1, cross, **{"num_heads": 4} | choices), self.inputs(cross)
        attend = attention_function(block.config)
        steps: list[tuple[str, Callable[[Tensor], Tensor]]] = [
            ("attention", lambda y: block.attention(y, mask=inputs["mask"], attend=attend))
        ]
        if cross:
            context, mask = inputs["context"], inputs["context_mask"]
            steps.append(("cross_attention", lambda y: block.cross_attention(y, context, mask)))
        steps.append(("feed_forward", block.feed_forward))
        x = inputs["x"]
        for name, sublayer in steps:
            norm = getattr(block, f"{name}_norm")
            x = x + sublayer(norm(x)) if block.config.norm_first else norm(x + sublayer(x))
        assert close(block(**inputs), x)

    def test_the_future_changes_nothing(self, choices: dict[str, Any], cross: bool) -> None:
        block, inputs = made(2, cross, **{"num_heads": 4} | choices), self.inputs(cross)
        changed = inputs | {"x": inputs["x"].clone()}
        changed["x"][:, 3:] = 50.0
        assert torch.equal(block(**inputs)[:, :3], block(**changed)[:, :3])

    def test_keeps_the_dtype_and_its_inputs(self, choices: dict[str, Any], cross: bool) -> None:
        for dtype in (torch.float32, torch.float64):
            inputs = {name: t if t.dtype == torch.bool else t.to(dtype) for name, t in self.inputs(cross).items()}
            before = {name: tensor.clone() for name, tensor in inputs.items()}
            assert made(3, cross, **{"num_heads": 4} | choices).to(dtype)(**inputs).dtype == dtype
            assert all(torch.equal(before[name], inputs[name]) for name in before)

    def test_parameters_are_those_of_its_parts(self, choices: dict[str, Any], cross: bool) -> None:
        block = made(0, cross, **{"num_heads": 4} | choices)
        parts = {name.split(".")[0] for name, _ in block.named_parameters()}
        wanted = {"attention", "attention_norm", "feed_forward", "feed_forward_norm"}
        assert parts == wanted | ({"cross_attention", "cross_attention_norm"} if cross else set())


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_masked_context_changes_nothing(choices: dict[str, Any]) -> None:
    block, inputs = made(2, True, **{"num_heads": 4} | choices), TestEveryConfig.inputs(True)
    changed = inputs | {"context": inputs["context"].clone()}
    changed["context"][0, 2:] = 50.0
    assert torch.equal(block(**inputs), block(**changed))


class TestResidual:
    @pytest.mark.parametrize("cross", [False, True])
    def test_pre_norm_with_sublayers_that_give_zero_changes_nothing(self, cross: bool) -> None:
        block = made(0, cross)
        for name, parameter in block.named_parameters():
            if ".output." in name or ".down." in name:
                nn.init.zeros_(parameter)
        x = normal(torch.Generator().manual_seed(0), 2, 3, 8)
        assert torch.equal(block(x, context=x if cross else None), x)

    def test_post_norm_normalises_what_it_gives(self) -> None:
        block = TransformerBlock(TransformerConfig(5, d_model=8, num_heads=2, norm_first=False, norm_eps=0.0)).double()
        y = block(5 * normal(torch.Generator().manual_seed(0), 2, 3, 8))
        assert torch.allclose(y.mean(-1), torch.zeros(2, 3, dtype=torch.float64), atol=1e-10)
        assert torch.allclose(y.var(-1, unbiased=False), torch.ones(2, 3, dtype=torch.float64), atol=1e-10)


class TestAttend:
    def test_the_one_handed_over_is_used_for_the_self_attention_alone(self) -> None:
        block, generator = made(0, True), torch.Generator().manual_seed(0)
        x, context = normal(generator, 2, 3, 8), normal(generator, 2, 4, 8)
        calls = []

        def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
            calls.append(tuple(key.shape))
            return scaled_dot_product_attention(query, key, value, mask)

        assert close(block(x, context=context, attend=attend), block(x, context=context))
        assert calls == [(2, 2, 3, 4)]

    def test_positions_are_not_compared_across_sequences(self) -> None:
        for positions in ("rope", "alibi"):
            config = TransformerConfig(5, d_model=8, num_heads=2, positions=positions)
            assert attention_function(config, cross=True) is scaled_dot_product_attention
            assert attention_function(config) is not scaled_dot_product_attention

    def test_the_fused_function_drops_weights_in_training_only(self) -> None:
        config = TransformerConfig(5, dropout=0.3, fused=True)
        for training, dropout in ((True, 0.3), (False, 0.0)):
            function: Any = attention_function(config, training=training)
            assert function.func is fused_attention
            assert function.keywords == {"dropout": dropout}


class TestMakers:
    @pytest.mark.parametrize(
        ("choices", "kind"),
        [
            ({}, LayerNorm),
            ({"norm": "rms"}, RMSNorm),
            ({"fused": True}, nn.LayerNorm),
            ({"norm": "rms", "fused": True}, nn.RMSNorm),
        ],
        ids=str,
    )
    def test_norm(self, choices: dict[str, Any], kind: type[nn.Module]) -> None:
        norm = make_norm(TransformerConfig(5, d_model=6, num_heads=2, norm_eps=0.25, **choices))
        assert type(norm) is kind
        assert norm.eps == 0.25
        assert tuple(norm.weight.shape) == (6,)

    @pytest.mark.parametrize(("name", "kind"), [("relu", FeedForward), ("gelu", FeedForward), ("swiglu", SwiGLU)])
    def test_feed_forward(self, name: Any, kind: type[nn.Module]) -> None:
        config = TransformerConfig(5, d_model=6, num_heads=2, d_ff=7, feed_forward=name, bias=False, dropout=0.2)
        network = make_feed_forward(config)
        assert type(network) is kind
        assert tuple(network.up.weight.shape) == (7, 6)
        assert network.up.bias is None
        assert network.dropout.p == 0.2

    def test_attention(self) -> None:
        config = TransformerConfig(5, d_model=8, num_heads=4, num_kv_heads=2, bias=False, dropout=0.2)
        attention = make_attention(config)
        assert (attention.num_heads, attention.num_kv_heads, attention.dropout.p) == (4, 2, 0.2)
        assert attention.query.bias is None


class TestDropout:
    def test_acts_in_training_and_not_after_eval(self) -> None:
        x = normal(torch.Generator().manual_seed(0), 2, 5, 8)
        block, whole = made(0, dropout=0.5), made(0)
        torch.manual_seed(0)
        one, other = block(x), block(x)
        assert not torch.equal(one, other)
        assert torch.equal(block.eval()(x), whole(x))

    @pytest.mark.parametrize("fused", [False, True])
    def test_keeps_the_expected_output_of_a_sublayer(self, fused: bool) -> None:
        block = made(0, dropout=0.25, fused=fused)
        nn.init.zeros_(block.feed_forward.down.weight)
        nn.init.zeros_(block.feed_forward.down.bias)
        x = normal(torch.Generator().manual_seed(1), 1, 3, 8)
        torch.manual_seed(0)
        runs = block(x.expand(20_000, 3, 8)) - x
        whole = block.eval()(x) - x
        error = (runs.mean(0) - whole[0]).abs() / (runs.std(0) / math.sqrt(len(runs)) + 1e-12)
        assert error.max() < 5  # standard errors


class TestErrors:
    def test_cross_attention_without_a_context(self) -> None:
        with pytest.raises(ValueError, match=r"^context is None, and a block with cross_attention needs one$"):
            made(0, True)(torch.zeros(1, 2, 8, dtype=torch.float64))

    def test_a_context_without_cross_attention(self) -> None:
        x = torch.zeros(1, 2, 8, dtype=torch.float64)
        with pytest.raises(ValueError, match=r"^context was given to a block without cross_attention$"):
            made(0)(x, context=x)
