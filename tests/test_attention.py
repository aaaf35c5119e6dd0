"""The references against PyTorch's own code, in values and gradients, and the properties that attention must have."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from solutions.attention import SelfAttention, causal_mask, padding_mask, scaled_dot_product_attention, softmax
from tests.equality import agree, close, normal

settings.register_profile("attention", deadline=None, max_examples=60, derandomize=True)
profile = settings.get_profile("attention")

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 6)
shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)


@st.composite
def attention_inputs(draw: st.DrawFn, masked: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Query, key, value of equal batch axes, and a mask of any rank that allows each query something."""
    generator = torch.Generator().manual_seed(draw(seeds))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    queries, keys, d_k, d_v = (draw(sizes) for _ in range(4))
    query = normal(generator, *batch, queries, d_k)
    key, value = normal(generator, *batch, keys, d_k), normal(generator, *batch, keys, d_v)
    if not masked:
        return query, key, value, None
    full = [*batch, queries, keys]
    shape = full[draw(st.integers(0, len(batch))) :]
    shape = [size if draw(st.booleans()) else 1 for size in shape[:-1]] + shape[-1:]
    mask = torch.rand(shape, generator=generator) < 0.6
    mask[..., draw(st.integers(0, keys - 1))] = True
    return query, key, value, mask


class TestSoftmax:
    @given(shape=shapes, seed=seeds, axis=st.integers(0, 3), from_the_end=st.booleans(), power=st.floats(-2, 4))
    @settings(profile)
    def test_equals_pytorch(
        self, shape: tuple[int, ...], seed: int, axis: int, from_the_end: bool, power: float
    ) -> None:
        x = normal(torch.Generator().manual_seed(seed), *shape).clamp(-1, 1) * 10**power
        dim = axis % len(shape) - len(shape) * from_the_end
        agree(lambda x: softmax(x, dim=dim), lambda x: torch.softmax(x, dim=dim), x)

    def test_works_along_the_last_axis_unless_told_otherwise(self) -> None:
        x = normal(torch.Generator().manual_seed(0), 3, 4)
        agree(softmax, lambda x: torch.softmax(x, -1), x)

    @given(shape=shapes, seed=seeds, axis=st.integers(0, 3))
    @settings(profile)
    def test_gives_finite_positive_weights_that_sum_to_one(self, shape: tuple[int, ...], seed: int, axis: int) -> None:
        dim = axis % len(shape)
        weights = softmax(normal(torch.Generator().manual_seed(seed), *shape).clamp(-1, 1) * 1e4, dim=dim)
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()
        assert close(weights.sum(dim), torch.ones_like(weights.sum(dim)))

    @given(shape=shapes, seed=seeds, shift=st.floats(-1e4, 1e4))
    @settings(profile)
    def test_does_not_change_when_all_scores_are_shifted(self, shape: tuple[int, ...], seed: int, shift: float) -> None:
        x = normal(torch.Generator().manual_seed(seed), *shape)
        assert torch.allclose(softmax(x + shift), softmax(x), rtol=0, atol=1e-10)

    def test_keeps_far_separated_scores_apart(self) -> None:
        weights = softmax(torch.tensor([[1e4, -1e4], [-1e4, -1e4]], dtype=torch.float32))
        assert weights.tolist() == [[1.0, 0.0], [0.5, 0.5]]


class TestScaledDotProductAttention:
    @given(inputs=attention_inputs(masked=False))
    @settings(profile)
    def test_equals_pytorch_without_a_mask(self, inputs: tuple[Tensor, Tensor, Tensor, None]) -> None:
        agree(
            lambda q, k, v: scaled_dot_product_attention(q, k, v)[0],
            functional.scaled_dot_product_attention,
            *inputs[:3],
        )

    @given(inputs=attention_inputs())
    @settings(profile)
    def test_equals_pytorch_with_a_mask_of_any_rank(self, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        *tensors, mask = inputs
        agree(
            lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[0],
            lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            *tensors,
        )

    @given(inputs=attention_inputs())
    @settings(profile)
    def test_weights_are_the_softmax_of_the_allowed_scores(self, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        *tensors, mask = inputs

        def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = torch.einsum("...qd,...kd->...qk", q, k) / math.sqrt(q.size(-1))
            return torch.softmax(scores.masked_fill(~mask, -math.inf), -1) + 0 * v.sum()

        agree(lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[1] + 0 * v.sum(), theirs, *tensors)

    @pytest.mark.parametrize("mask", [None, causal_mask(5)], ids=["no mask", "causal"])
    def test_equals_multi_head_attention_with_one_head_and_identity_projections(self, mask: Tensor | None) -> None:
        theirs = nn.MultiheadAttention(4, 1, bias=False, batch_first=True, dtype=torch.float64)
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.eye(4).repeat(3, 1))
            theirs.out_proj.weight.copy_(torch.eye(4))
        generator = torch.Generator().manual_seed(0)
        tensors = [normal(generator, 2, 5, 4) for _ in range(3)]
        forbidden = None if mask is None else ~mask  # there, True means blocked
        agree(
            lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[0],
            lambda q, k, v: theirs(q, k, v, attn_mask=forbidden)[0],
            *tensors,
        )
        with torch.no_grad():
            assert close(scaled_dot_product_attention(*tensors, mask)[1], theirs(*tensors, attn_mask=forbidden)[1])

    @given(inputs=attention_inputs(), seed=seeds)
    @settings(profile)
    def test_a_query_with_nothing_allowed_gets_zeros_and_finite_gradients(
        self, inputs: tuple[Tensor, Tensor, Tensor, Tensor], seed: int
    ) -> None:
        *tensors, mask = inputs
        shape = (*tensors[0].shape[:-1], tensors[1].size(-2))
        empty = torch.rand((*shape[:-1], 1), generator=torch.Generator().manual_seed(seed)) < 0.5
        mask = mask.expand(shape) & ~empty
        tensors = [tensor.clone().requires_grad_() for tensor in tensors]
        output, weights = scaled_dot_product_attention(*tensors, mask)
        rows = empty.squeeze(-1)
        assert (output[rows] == 0).all()
        assert (weights[rows] == 0).all()
        gradients = torch.autograd.grad((output.sum() + (weights**2).sum()), tensors)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert (gradients[0][rows] == 0).all()

    def test_a_mask_that_allows_nothing_at_all_gives_zeros(self) -> None:
        tensors = [normal(torch.Generator().manual_seed(0), 2, 3, 4).requires_grad_() for _ in range(3)]
        output, weights = scaled_dot_product_attention(*tensors, torch.zeros(3, 3, dtype=torch.bool))
        assert not output.any()
        assert not weights.any()
        assert all((gradient == 0).all() for gradient in torch.autograd.grad(output.sum(), tensors))

    @given(inputs=attention_inputs(), axis=seeds)
    @settings(profile)
    def test_the_order_of_the_keys_does_not_matter(
        self, inputs: tuple[Tensor, Tensor, Tensor, Tensor], axis: int
    ) -> None:
        query, key, value, mask = inputs
        order = torch.randperm(key.size(-2), generator=torch.Generator().manual_seed(axis))
        output, weights = scaled_dot_product_attention(query, key, value, mask)
        moved = scaled_dot_product_attention(query, key[..., order, :], value[..., order, :], mask[..., order])
        assert close(moved[0], output)
        assert close(moved[1], weights[..., order])


class TestMasks:
    @given(length=st.integers(1, 30))
    @settings(profile)
    def test_causal_mask_allows_a_position_itself_and_its_past(self, length: int) -> None:
        mask = causal_mask(length)
        assert mask.dtype == torch.bool
        assert mask.tolist() == [[key <= query for key in range(length)] for query in range(length)]

    @given(length=st.integers(2, 30))
    @settings(profile)
    def test_causal_mask_of_a_prefix_is_a_part_of_the_whole(self, length: int) -> None:
        assert torch.equal(causal_mask(length)[:-1, :-1], causal_mask(length - 1))

    @given(
        ids=st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=4), pad=st.integers(0, 4)
    )
    @settings(profile)
    def test_padding_mask_allows_the_real_tokens(self, ids: list[list[int]], pad: int) -> None:
        mask = padding_mask(torch.tensor(ids), pad)
        assert mask.dtype == torch.bool
        assert mask.tolist() == [[[token != pad for token in row]] for row in ids]

    def test_the_two_masks_combine_to_one_of_batch_queries_keys(self) -> None:
        ids = torch.tensor([[5, 6, 0], [7, 0, 0]])
        both = padding_mask(ids, 0) & causal_mask(3)
        assert both.shape == (2, 3, 3)
        assert both[1].tolist() == [[True, False, False]] * 3

    def test_padding_changes_nothing_for_the_real_tokens(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x, ids = normal(generator, 1, 5, 4), torch.tensor([[1, 2, 3, 0, 0]])
        alone = scaled_dot_product_attention(x[:, :3], x[:, :3], x[:, :3])[0]
        padded = scaled_dot_product_attention(x, x, x, padding_mask(ids, 0))[0]
        assert close(padded[:, :3], alone)


class TestSelfAttention:
    @staticmethod
    def module(seed: int, d_model: int, d_head: int, dtype: torch.dtype = torch.float64) -> SelfAttention:
        generator = torch.Generator().manual_seed(seed)
        module = SelfAttention(d_model, d_head).to(dtype)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(normal(generator, *parameter.shape))
        return module

    @given(seed=seeds, batch=sizes, length=sizes, d_model=sizes, d_head=sizes, causal=st.booleans())
    @settings(profile)
    def test_equals_pytorch_with_its_weights(
        self, seed: int, batch: int, length: int, d_model: int, d_head: int, causal: bool
    ) -> None:
        module = self.module(seed, d_model, d_head)
        x = normal(torch.Generator().manual_seed(seed + 1), batch, length, d_model)
        mask = causal_mask(length) if causal else None
        names, weights = zip(*module.state_dict().items(), strict=True)

        def ours(x: Tensor, *weights: Tensor) -> Tensor:
            return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x, mask))

        def theirs(x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(x @ query.T, x @ key.T, x @ value.T, attn_mask=mask)

        agree(ours, theirs, x, *weights)

    def test_has_these_parameters_and_no_others(self) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in SelfAttention(6, 4).state_dict().items()}
        assert shapes == {"query.weight": (4, 6), "key.weight": (4, 6), "value.weight": (4, 6)}

    @given(seed=seeds, length=st.integers(2, 6), data=st.data())
    @settings(profile)
    def test_with_a_causal_mask_the_future_changes_nothing(self, seed: int, length: int, data: st.DataObject) -> None:
        module = self.module(seed, 5, 3)
        x = normal(torch.Generator().manual_seed(seed + 1), 2, length, 5)
        now = data.draw(st.integers(1, length - 1))
        changed = x.clone()
        changed[:, now:] = 100.0
        before, after = module(x, causal_mask(length)), module(changed, causal_mask(length))
        assert torch.equal(before[:, :now], after[:, :now])
        assert not torch.equal(before[:, now:], after[:, now:])

    @given(seed=seeds, length=st.integers(1, 7))
    @settings(profile)
    def test_without_a_mask_it_is_equivariant_under_permutation(self, seed: int, length: int) -> None:
        module, generator = self.module(seed, 5, 3), torch.Generator().manual_seed(seed)
        x, order = normal(generator, 2, length, 5), torch.randperm(length, generator=generator)
        assert close(module(x[:, order]), module(x)[:, order])


CALLS: list[tuple[str, Callable[..., object], list[tuple[int, ...]], list[object]]] = [
    ("softmax", softmax, [(3, 5)], []),
    ("attention", scaled_dot_product_attention, [(2, 3, 4), (2, 5, 4), (2, 5, 6)], []),
    ("masked", scaled_dot_product_attention, [(5, 4), (5, 4), (5, 4)], [causal_mask(5)]),
    ("module", TestSelfAttention.module(0, 6, 4), [(2, 5, 6)], []),
    ("masked module", TestSelfAttention.module(0, 6, 4), [(2, 5, 6)], [causal_mask(5)]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("function", "shapes", "rest"), [call[1:] for call in CALLS], ids=[call[0] for call in CALLS])
class TestEveryReference:
    @staticmethod
    def inputs(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [normal(generator, *shape, dtype=dtype) for shape in shapes]

    @staticmethod
    def call(function: Callable[..., object], dtype: torch.dtype, *arguments: object) -> list[Tensor]:
        if isinstance(function, nn.Module):
            function = TestSelfAttention.module(0, 6, 4, dtype)
        result = function(*arguments)
        return list(result) if isinstance(result, tuple) else [result]  # type: ignore[list-item]

    def test_keeps_the_dtype(
        self, function: Callable[..., object], shapes: list[tuple[int, ...]], rest: list[object], dtype: torch.dtype
    ) -> None:
        results = self.call(function, dtype, *self.inputs(shapes, dtype), *rest)
        assert [result.dtype for result in results] == [dtype] * len(results)

    def test_leaves_its_inputs_as_they_were(
        self, function: Callable[..., object], shapes: list[tuple[int, ...]], rest: list[object], dtype: torch.dtype
    ) -> None:
        inputs = self.inputs(shapes, dtype) + rest
        before = [tensor.clone() for tensor in inputs]
        self.call(function, dtype, *inputs)
        assert all(torch.equal(old, new) for old, new in zip(before, inputs, strict=True))

    def test_neither_reads_nor_moves_the_global_seed(
        self, function: Callable[..., object], shapes: list[tuple[int, ...]], rest: list[object], dtype: torch.dtype
    ) -> None:
        inputs = self.inputs(shapes, dtype)
        if isinstance(function, nn.Module):  # its weights are given, so only its forward pass is asked
            function = TestSelfAttention.module(0, 6, 4, dtype).forward
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            results.append(self.call(function, dtype, *inputs, *rest))
            assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
