"""Multi-head attention against PyTorch's own modules, in values and gradients, and the properties that it must have."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from solutions.attention import (
    MultiHeadAttention,
    causal_mask,
    fused_attention,
    mask_for_heads,
    merge_heads,
    padding_mask,
    repeat_heads,
    scaled_dot_product_attention,
    split_heads,
)
from tests.equality import agree, close, normal

settings.register_profile("multi_head", deadline=None, max_examples=40, derandomize=True)
profile = settings.get_profile("multi_head")

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)


def filled(module: nn.Module, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The module with parameters from the generator, of a size that keeps its outputs near 1."""
    module = module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(generator, *parameter.shape, dtype=dtype) / math.sqrt(parameter.size(-1)))
    return module


def layer(
    generator: torch.Generator, *arguments: int, dtype: torch.dtype = torch.float64, **options: object
) -> MultiHeadAttention:
    module = filled(MultiHeadAttention(*arguments, **options), generator, dtype)  # type: ignore[arg-type]
    assert isinstance(module, MultiHeadAttention)
    return module


def called(module: nn.Module, names: list[str], weights: tuple[Tensor, ...], *arguments: object, **options: object):
    """The module's result with these weights in place of its own."""
    return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), arguments, options)


@st.composite
def widths(draw: st.DrawFn) -> tuple[int, int, int]:
    """H_kv, G and d_head: heads that share keys and values, query heads to each, and their width."""
    return draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))


class TestSplitAndMerge:
    @given(batch=sizes, length=sizes, heads=sizes, d_head=sizes)
    @settings(profile)
    def test_each_component_goes_to_its_head(self, batch: int, length: int, heads: int, d_head: int) -> None:
        x = torch.arange(batch * length * heads * d_head).view(batch, length, heads * d_head)
        pieces = split_heads(x, heads)
        assert pieces.shape == (batch, heads, length, d_head)
        for head in range(heads):
            assert torch.equal(pieces[:, head], x[..., head * d_head : (head + 1) * d_head])

    @given(seed=seeds, batch=sizes, length=sizes, heads=sizes, d_head=sizes)
    @settings(profile)
    def test_merge_undoes_split_and_split_undoes_merge(
        self, seed: int, batch: int, length: int, heads: int, d_head: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        x = normal(generator, batch, length, heads * d_head)
        pieces = normal(generator, batch, heads, length, d_head)
        assert torch.equal(merge_heads(split_heads(x, heads)), x)
        assert torch.equal(split_heads(merge_heads(pieces), heads), pieces)
        agree(lambda x: merge_heads(split_heads(x, heads)), lambda x: x * 1, x)

    @given(seed=seeds, heads=sizes, d_head=sizes)
    @settings(profile)
    def test_both_take_tensors_in_any_memory_order(self, seed: int, heads: int, d_head: int) -> None:
        x = normal(torch.Generator().manual_seed(seed), 3, heads * d_head, 2).transpose(1, 2)
        assert torch.equal(split_heads(x, heads), split_heads(x.contiguous(), heads))
        pieces = split_heads(x, heads)
        assert torch.equal(merge_heads(pieces), merge_heads(pieces.contiguous()))

    @pytest.mark.parametrize(("width", "heads"), [(8, 3), (4, 8), (5, 2)])
    def test_a_width_that_cannot_be_divided_is_refused(self, width: int, heads: int) -> None:
        words = f"num_heads={heads} must divide the width of x, which is {width}"
        with pytest.raises(ValueError, match=f"^{words}$"):
            split_heads(torch.zeros(1, 2, width), heads)


class TestRepeatHeads:
    @given(seed=seeds, batch=sizes, shared=sizes, group=sizes, length=sizes, d_head=sizes)
    @settings(profile)
    def test_neighbours_share(self, seed: int, batch: int, shared: int, group: int, length: int, d_head: int) -> None:
        x = normal(torch.Generator().manual_seed(seed), batch, shared, length, d_head)
        repeated = repeat_heads(x, shared * group)
        assert repeated.shape == (batch, shared * group, length, d_head)
        for head in range(shared * group):
            assert torch.equal(repeated[:, head], x[:, head // group])

    @pytest.mark.parametrize(("shared", "heads"), [(2, 5), (4, 2), (3, 4)])
    def test_heads_that_cannot_be_shared_out_are_refused(self, shared: int, heads: int) -> None:
        words = f"num_heads={heads} must be a multiple of the number of heads in x, which is {shared}"
        with pytest.raises(ValueError, match=f"^{words}$"):
            repeat_heads(torch.zeros(1, shared, 2, 3), heads)


class TestMaskForHeads:
    def test_no_mask_stays_no_mask(self) -> None:
        assert mask_for_heads(None) is None

    @pytest.mark.parametrize(
        ("shape", "result"),
        [((5, 6), (5, 6)), ((2, 5, 6), (2, 1, 5, 6)), ((2, 1, 6), (2, 1, 1, 6)), ((2, 3, 5, 6), (2, 3, 5, 6))],
    )
    def test_only_a_mask_of_three_axes_gets_another(self, shape: tuple[int, ...], result: tuple[int, ...]) -> None:
        mask = torch.ones(shape, dtype=torch.bool)
        for_heads = mask_for_heads(mask)
        assert for_heads is not None
        assert for_heads.shape == result

    def test_a_mask_that_is_not_boolean_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"mask must be boolean, .* it has dtype torch\.float32$"):
            mask_for_heads(torch.zeros(5, 5))

    @pytest.mark.parametrize("shape", [(5,), (1, 1, 1, 5, 5)])
    def test_another_number_of_axes_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"mask must have 2, 3 or 4 axes, .* its shape is \("):
            mask_for_heads(torch.ones(shape, dtype=torch.bool))


def theirs_from(weights: dict[str, Tensor], heads: int, *inputs: Tensor, **masks: Tensor | None) -> Tensor:
    """What nn.MultiheadAttention gives with our weights; its masks are True where attention is blocked."""
    width = weights["query.weight"].size(0)
    bias = "query.bias" in weights
    module = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True, dtype=torch.float64)
    stacked = {
        f"in_proj_{kind}": torch.cat([weights[f"{name}.{kind}"] for name in ("query", "key", "value")])
        for kind in (("weight", "bias") if bias else ("weight",))
    }
    out = {f"out_proj.{kind}": weights[f"output.{kind}"] for kind in (("weight", "bias") if bias else ("weight",))}
    return torch.func.functional_call(module, stacked | out, inputs, {"need_weights": False, **masks})[0]


class TestAgainstPyTorch:
    @given(
        seed=seeds, batch=sizes, queries=sizes, keys=sizes, heads=st.integers(1, 4), d_head=st.integers(1, 4),
        bias=st.booleans(), crossed=st.booleans(), causal=st.booleans(), padded=st.booleans(),
    )  # fmt: skip
    @settings(profile, max_examples=100)
    def test_equals_multihead_attention_with_the_same_weights(
        self, seed: int, batch: int, queries: int, keys: int, heads: int, d_head: int, bias: bool, crossed: bool,
        causal: bool, padded: bool,
    ) -> None:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        module = layer(generator, heads * d_head, heads, bias=bias)
        names, weights = zip(*module.named_parameters(), strict=True)
        keys = keys if crossed else queries
        inputs = [normal(generator, batch, queries, heads * d_head)]
        inputs += [normal(generator, batch, keys, heads * d_head)] * crossed
        allowed = torch.ones(queries, keys, dtype=torch.bool).tril() if causal else None
        ids = torch.rand(batch, keys, generator=generator).gt(0.3).long()
        ids[:, 0] = 1  # every query may attend to something: theirs gives NaN where it may not
        padding = padding_mask(ids, 0) if padded else None
        mask = allowed if padding is None else padding if allowed is None else padding & allowed
        blocked = {
            "attn_mask": None if allowed is None else ~allowed,
            "key_padding_mask": None if padding is None else ~padding.squeeze(1),
        }

        def ours(*tensors: Tensor) -> Tensor:
            xs, parameters = tensors[: len(inputs)], tensors[len(inputs) :]
            return called(module, list(names), parameters, *xs, mask=mask)

        def theirs(*tensors: Tensor) -> Tensor:
            xs, parameters = tensors[: len(inputs)], tensors[len(inputs) :]
            given = dict(zip(names, parameters, strict=True))
            return theirs_from(given, heads, xs[0], xs[-1], xs[-1], **blocked)

        agree(ours, theirs, *inputs, *(weight.detach() for weight in weights))

    @given(seed=seeds, shape=widths(), batch=sizes, queries=sizes, keys=sizes, masked=st.booleans())
    @settings(profile)
    def test_equals_grouped_query_attention(
        self, seed: int, shape: tuple[int, int, int], batch: int, queries: int, keys: int, masked: bool
    ) -> None:
        shared, group, d_head = shape
        heads, generator = shared * group, torch.Generator().manual_seed(seed)
        module = layer(generator, heads * d_head, heads, num_kv_heads=shared)
        names, weights = zip(*module.named_parameters(), strict=True)
        inputs = [normal(generator, batch, length, heads * d_head) for length in (queries, keys)]
        mask = torch.rand(batch, queries, keys, generator=generator) < 0.7
        mask[..., 0] = True

        def theirs(x: Tensor, context: Tensor, *parameters: Tensor) -> Tensor:
            given = dict(zip(names, parameters, strict=True))

            def projected(name: str, source: Tensor, count: int) -> Tensor:
                return split_heads(functional.linear(source, given[f"{name}.weight"], given[f"{name}.bias"]), count)

            mixed = functional.scaled_dot_product_attention(
                projected("query", x, heads), projected("key", context, shared), projected("value", context, shared),
                attn_mask=mask.unsqueeze(1) if masked else None, enable_gqa=True,
            )  # fmt: skip
            merged = mixed.transpose(1, 2).flatten(2)
            return functional.linear(merged, given["output.weight"], given["output.bias"])

        def ours(x: Tensor, context: Tensor, *parameters: Tensor) -> Tensor:
            return called(module, list(names), parameters, x, context, mask if masked else None)

        agree(ours, theirs, *inputs, *(weight.detach() for weight in weights))

    @given(seed=seeds, shape=widths(), length=sizes, masked=st.booleans())
    @settings(profile)
    def test_fused_attention_gives_the_same(
        self, seed: int, shape: tuple[int, int, int], length: int, masked: bool
    ) -> None:
        shared, group, d_head = shape
        generator = torch.Generator().manual_seed(seed)
        module = layer(generator, shared * group * d_head, shared * group, num_kv_heads=shared)
        x = normal(generator, 2, length, shared * group * d_head)
        mask = causal_mask(length) if masked else None
        agree(lambda x: module(x, mask=mask), lambda x: module(x, mask=mask, attend=fused_attention), x)


class TestMultiHeadAttention:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize(("heads", "shared"), [(4, None), (4, 4), (4, 2), (4, 1)])
    def test_has_these_parameters_and_no_others(self, heads: int, shared: int | None, bias: bool) -> None:
        module = MultiHeadAttention(8, heads, shared, bias=bias)
        narrow = 2 * (heads if shared is None else shared)
        expected = {"query": 8, "key": narrow, "value": narrow, "output": 8}
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        wanted: dict[str, tuple[int, ...]] = {f"{name}.weight": (width, 8) for name, width in expected.items()}
        if bias:
            wanted |= {f"{name}.bias": (width,) for name, width in expected.items()}
        assert shapes == wanted

    def test_a_width_that_the_heads_cannot_share_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^num_heads=3 must divide d_model=8$"):
            MultiHeadAttention(8, 3)

    @pytest.mark.parametrize("shared", [4, 12])
    def test_key_and_value_heads_that_cannot_be_shared_out_are_refused(self, shared: int) -> None:
        with pytest.raises(ValueError, match=rf"^num_kv_heads={shared} must divide num_heads=6$"):
            MultiHeadAttention(12, 6, shared)

    def test_a_wrong_mask_is_refused(self) -> None:
        module = MultiHeadAttention(4, 2)
        with pytest.raises(ValueError, match="mask must be boolean"):
            module(torch.zeros(1, 3, 4), mask=torch.zeros(3, 3))

    @given(seed=seeds, batch=st.integers(1, 3), heads=st.integers(1, 3), length=sizes)
    @settings(profile)
    def test_a_mask_means_the_same_in_every_form(self, seed: int, batch: int, heads: int, length: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        module = layer(generator, heads * 2, heads)
        x = normal(generator, batch, length, heads * 2)
        mask = torch.rand(length, length, generator=generator) < 0.6
        result = module(x, mask=mask)
        assert close(module(x, mask=mask.expand(batch, -1, -1)), result)
        assert close(module(x, mask=mask.expand(batch, heads, -1, -1)), result)

    @given(seed=seeds, heads=st.integers(1, 3), length=sizes)
    @settings(profile)
    def test_a_mask_of_each_head_is_its_own(self, seed: int, heads: int, length: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        module = layer(generator, heads * 2, heads)
        x = normal(generator, 2, length, heads * 2)
        mask = torch.rand(2, heads, length, length, generator=generator) < 0.6
        kept: list[Tensor] = []

        def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, /) -> tuple[Tensor, Tensor]:
            output, weights = scaled_dot_product_attention(query, key, value, mask)
            kept.append(weights)
            return output, weights

        module(x, mask=mask, attend=attend)
        assert not kept[0][~mask].any()
        assert (kept[0][mask] > 0).all()

    def test_a_query_with_nothing_allowed_gets_the_output_bias_and_finite_gradients(self) -> None:
        generator = torch.Generator().manual_seed(0)
        module = layer(generator, 6, 3)
        x = normal(generator, 2, 4, 6).requires_grad_()
        mask = causal_mask(4)
        mask[2] = False
        output = module(x, mask=mask)
        assert close(output[:, 2], module.output.bias.expand(2, 6))
        gradients = torch.autograd.grad(output.sum(), [x, *module.parameters()])
        assert all(torch.isfinite(gradient).all() for gradient in gradients)

    @given(seed=seeds, length=st.integers(1, 6), heads=st.integers(1, 3))
    @settings(profile)
    def test_without_a_mask_it_is_equivariant_under_permutation(self, seed: int, length: int, heads: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        module = layer(generator, heads * 2, heads)
        x, context = normal(generator, 2, length, heads * 2), normal(generator, 2, length, heads * 2)
        order = torch.randperm(length, generator=generator)
        assert close(module(x[:, order]), module(x)[:, order])
        assert close(module(x, context[:, order]), module(x, context))

    @given(seed=seeds, heads=st.integers(1, 3), length=st.integers(2, 5))
    @settings(profile)
    def test_with_a_causal_mask_the_future_changes_nothing(self, seed: int, heads: int, length: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        module = layer(generator, heads * 2, heads)
        x = normal(generator, 2, length, heads * 2)
        changed = x.clone()
        changed[:, -1] = 100.0
        before, after = (module(tensor, mask=causal_mask(length)) for tensor in (x, changed))
        assert close(before[:, :-1], after[:, :-1])
        assert not close(before[:, -1:], after[:, -1:])

    @given(seed=seeds, heads=st.integers(1, 4), d_head=st.integers(1, 3))
    @settings(profile)
    def test_the_output_is_a_sum_over_heads(self, seed: int, heads: int, d_head: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        module = layer(generator, heads * d_head, heads)
        x = normal(generator, 2, 4, heads * d_head)
        total = module.output.bias
        for head in range(heads):
            own = slice(head * d_head, (head + 1) * d_head)
            query, key, value = (part(x)[..., own] for part in (module.query, module.key, module.value))
            total = total + scaled_dot_product_attention(query, key, value)[0] @ module.output.weight[:, own].T
        assert close(module(x), total)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_the_dtype_its_inputs_and_the_global_seed(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        module = layer(generator, 4, 2, 1, dtype=dtype)
        x, context = normal(generator, 2, 3, 4, dtype=dtype), normal(generator, 2, 5, 4, dtype=dtype)
        mask = torch.ones(2, 1, 5, dtype=torch.bool)
        before = [tensor.clone() for tensor in (x, context, mask)]
        state = torch.get_rng_state()
        assert module(x, context, mask).dtype == dtype
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(old, new) for old, new in zip(before, (x, context, mask), strict=True))


class TestAttend:
    def test_gets_every_head_in_one_call(self) -> None:
        generator = torch.Generator().manual_seed(0)
        module = layer(generator, 12, 6, 2)
        x, context = normal(generator, 3, 4, 12), normal(generator, 3, 5, 12)
        mask = torch.ones(3, 1, 5, dtype=torch.bool)
        calls: list[list[tuple[int, ...]]] = []

        def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, /) -> tuple[Tensor, None]:
            assert mask is not None
            calls.append([tuple(tensor.shape) for tensor in (query, key, value, mask)])
            return query * 0 + 1, None

        output = module(x, context, mask, attend)
        assert calls == [[(3, 6, 4, 2), (3, 6, 5, 2), (3, 6, 5, 2), (3, 1, 1, 5)]]
        assert close(output, module.output(torch.ones(3, 4, 12, dtype=torch.float64)))


class TestDropout:
    def test_drops_nothing_outside_training(self) -> None:
        generator = torch.Generator().manual_seed(0)
        module, x = layer(generator, 4, 2, dropout=0.5), normal(generator, 2, 3, 4)
        plain = MultiHeadAttention(4, 2).double()
        plain.load_state_dict(module.state_dict())
        assert close(module.eval()(x), plain(x))

    def test_drops_weights_and_keeps_their_mean(self) -> None:
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        module = layer(generator, 4, 2, dropout=0.25, bias=False)
        with torch.no_grad():
            module.output.weight.copy_(torch.eye(4))
        x = normal(generator, 8, 1, 4).expand(8, 60, 4)  # equal positions: each of 60 weights is 1/60
        sums = module(x) / module.eval()(x)
        assert close(sums[..., 0], sums[..., 1])  # one sum of weights for each head
        assert close(sums[..., 2], sums[..., 3])
        left = sums * 60 * 0.75
        assert torch.allclose(left, left.round(), atol=1e-8)
        assert sums.mean().item() == pytest.approx(1.0, abs=0.02)
        assert sums[..., ::2].std().item() == pytest.approx(math.sqrt(0.25 / 0.75 / 60), rel=0.1)

    def test_with_everything_dropped_only_the_bias_is_left(self) -> None:
        generator = torch.Generator().manual_seed(0)
        module, x = layer(generator, 4, 2, dropout=1.0), normal(generator, 2, 3, 4)
        assert close(module(x), module.output.bias.expand(2, 3, 4))

    def test_an_attend_without_weights_does_its_own_dropping(self) -> None:
        generator = torch.Generator().manual_seed(0)
        module, x = layer(generator, 4, 2, dropout=0.5), normal(generator, 2, 3, 4)
        assert close(module(x, attend=fused_attention), module.eval()(x))
        nothing = module.train()(x, attend=partial(fused_attention, dropout=1.0))
        assert close(nothing, module.output.bias.expand(2, 3, 4))
