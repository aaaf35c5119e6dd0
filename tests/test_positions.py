"""The four encodings against other ways to compute them, and the properties that they were made for."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solutions.attention import MultiHeadAttention, causal_mask, fused_attention, scaled_dot_product_attention
from solutions.positions import (
    LearnedPositions,
    alibi_attention,
    alibi_bias,
    apply_rope,
    fused_rope,
    rotary,
    sinusoidal_positions,
)

settings.register_profile("positions", deadline=None, max_examples=60, derandomize=True)
profile = settings.get_profile("positions")

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 6)
halves = st.integers(1, 5)
bases = st.floats(2.0, 1e6)
Rope = Callable[..., Tensor]


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=1e-10)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def agree(ours: Tensor, theirs: Tensor, *inputs: Tensor) -> None:
    """Both have the same values, and the same gradients of the same weighted sum."""
    assert close(ours, theirs)
    weight = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view(ours.shape)
    gradients = [torch.autograd.grad((output * weight).sum(), inputs, retain_graph=True) for output in (ours, theirs)]
    assert all(close(own, other) for own, other in zip(*gradients, strict=True))


def rope_by_complex_numbers(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    d = x.size(-1)
    angles = positions.unsqueeze(-1) * theta ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    numbers = torch.view_as_complex(x.unflatten(-1, (d // 2, 2)).contiguous())
    return torch.view_as_real(numbers * torch.exp(1j * angles)).flatten(-2)


def rope_by_matrices(x: Tensor, positions: list[int], theta: float) -> Tensor:
    d = x.size(-1)
    rows = []
    for t, position in enumerate(positions):
        blocks = []
        for i in range(d // 2):
            angle = position * theta ** (-2 * i / d)
            cos, sin = math.cos(angle), math.sin(angle)
            blocks.append(torch.tensor([[cos, -sin], [sin, cos]], dtype=x.dtype))
        rows.append(x[..., t, :] @ torch.block_diag(*blocks).T)
    return torch.stack(rows, dim=-2)


@pytest.fixture
def double() -> Iterator[None]:
    """Float64 by default: a table takes its dtype from there."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double")
class TestSinusoidalPositions:
    @given(length=st.integers(1, 60), half=halves)
    @settings(profile)
    def test_equals_the_formula_entry_by_entry(self, length: int, half: int) -> None:
        d_model = 2 * half
        rows = []
        for t in range(length):
            angles = [t / 10000 ** (2 * i / d_model) for i in range(half)]
            rows.append([f(angle) for angle in angles for f in (math.sin, math.cos)])
        assert close(sinusoidal_positions(length, d_model), torch.tensor(rows))

    @given(half=halves, first=st.integers(0, 40), second=st.integers(0, 40), shift=st.integers(0, 100))
    @settings(profile)
    def test_dot_products_depend_on_the_offset_alone(self, half: int, first: int, second: int, shift: int) -> None:
        table = sinusoidal_positions(160, 2 * half)
        assert close(table[first] @ table[second], table[first + shift] @ table[second + shift])

    @given(length=st.integers(1, 60), half=halves)
    @settings(profile)
    def test_every_row_has_the_same_length(self, length: int, half: int) -> None:
        squares = sinusoidal_positions(length, 2 * half).square().sum(-1)
        assert close(squares, torch.full((length,), float(half)))

    @given(half=halves, step=st.integers(0, 40))
    @settings(profile)
    def test_a_step_is_the_same_rotation_everywhere(self, half: int, step: int) -> None:
        table = sinusoidal_positions(100, 2 * half)
        exchanged = table.unflatten(-1, (half, 2)).flip(-1).flatten(-2)  # (cos, sin) turns as RoPE's pairs do
        turned = apply_rope(exchanged[:60], torch.full((60,), step))
        assert close(turned, exchanged[step : step + 60])

    def test_a_longer_table_begins_with_a_shorter_one(self) -> None:
        assert torch.equal(sinusoidal_positions(50, 8)[:20], sinusoidal_positions(20, 8))


class TestSinusoidalTable:
    def test_has_the_default_dtype(self) -> None:
        assert sinusoidal_positions(3, 4).dtype == torch.float32

    @pytest.mark.parametrize("d_model", [1, 5, 33])
    def test_refuses_an_odd_width(self, d_model: int) -> None:
        with pytest.raises(ValueError, match=f"d_model={d_model} must be even: sines and cosines come in pairs"):
            sinusoidal_positions(4, d_model)


class TestLearnedPositions:
    @given(seed=seeds, max_length=sizes, d_model=sizes, data=st.data())
    @settings(profile)
    def test_equals_an_embedding_of_the_positions(
        self, seed: int, max_length: int, d_model: int, data: st.DataObject
    ) -> None:
        module = LearnedPositions(max_length, d_model).double()
        module.load_state_dict({"weight": normal(seed, max_length, d_model)})
        length = data.draw(st.integers(1, max_length))
        agree(module(length), torch.nn.functional.embedding(torch.arange(length), module.weight), *module.parameters())

    def test_has_one_parameter_that_starts_small(self) -> None:
        module = LearnedPositions(500, 40)
        assert {name: tuple(tensor.shape) for name, tensor in module.named_parameters()} == {"weight": (500, 40)}
        assert 0.019 < module.weight.std() < 0.021

    def test_rows_past_the_length_get_no_gradient(self) -> None:
        module = LearnedPositions(5, 3)
        module(2).sum().backward()
        assert module.weight.grad is not None
        assert module.weight.grad.tolist() == [[1.0] * 3] * 2 + [[0.0] * 3] * 3

    @pytest.mark.parametrize("length", [7, 100])
    def test_refuses_a_length_past_the_end(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"length={length} is more than max_length=6: no vector was learned there"):
            LearnedPositions(6, 4)(length)


@pytest.mark.parametrize("rope", [apply_rope, fused_rope])
class TestBothRopes:
    @given(seed=seeds, batch=sizes, heads=sizes, length=sizes, half=halves, theta=bases)
    @settings(profile)
    def test_equals_complex_numbers(
        self, rope: Rope, seed: int, batch: int, heads: int, length: int, half: int, theta: float
    ) -> None:
        x = normal(seed, batch, heads, length, 2 * half).requires_grad_()
        positions = torch.randint(0, 50, (batch, 1, length), generator=torch.Generator().manual_seed(seed))
        agree(rope(x, positions, theta), rope_by_complex_numbers(x, positions, theta), x)

    @given(seed=seeds, batch=sizes, positions=st.lists(st.integers(0, 500), min_size=1, max_size=6), half=halves)
    @settings(profile)
    def test_equals_one_rotation_matrix_for_each_position(
        self, rope: Rope, seed: int, batch: int, positions: list[int], half: int
    ) -> None:
        x = normal(seed, batch, len(positions), 2 * half).requires_grad_()
        agree(rope(x, torch.tensor(positions)), rope_by_matrices(x, positions, 10000.0), x)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
    def test_keeps_the_dtype_and_its_precision(self, rope: Rope, dtype: torch.dtype) -> None:
        x, far = normal(0, 3, 8, dtype=dtype), torch.tensor([0, 2049, 3001])
        turned = rope(x, far)
        assert turned.dtype == dtype
        exact = rope(x.double(), far)
        assert torch.allclose(turned.double(), exact, rtol=0, atol=max(8 * torch.finfo(dtype).eps, 4e-4))


class TestApplyRope:
    @given(
        seed=seeds,
        half=halves,
        query_at=st.integers(0, 200),
        key_at=st.integers(0, 200),
        shift=st.integers(0, 1000),
        theta=bases,
    )
    @settings(profile)
    def test_dot_products_depend_on_the_offset_alone(
        self, seed: int, half: int, query_at: int, key_at: int, shift: int, theta: float
    ) -> None:
        pair = normal(seed, 2, 2 * half)
        query, key = apply_rope(pair, torch.tensor([query_at, key_at]), theta)
        moved_query, moved_key = apply_rope(pair, torch.tensor([query_at + shift, key_at + shift]), theta)
        assert close(query @ key, moved_query @ moved_key)

    @given(seed=seeds, half=halves, positions=st.lists(st.integers(0, 500), min_size=1, max_size=6))
    @settings(profile)
    def test_keeps_lengths_and_can_be_undone(self, seed: int, half: int, positions: list[int]) -> None:
        x, where = normal(seed, len(positions), 2 * half), torch.tensor(positions)
        turned = apply_rope(x, where)
        assert close(turned.norm(dim=-1), x.norm(dim=-1))
        assert close(apply_rope(turned, -where), x)

    @given(seed=seeds, half=halves, first=st.integers(0, 300), second=st.integers(0, 300))
    @settings(profile)
    def test_two_turns_are_one_turn_by_the_sum(self, seed: int, half: int, first: int, second: int) -> None:
        x = normal(seed, 1, 2 * half)
        twice = apply_rope(apply_rope(x, torch.tensor([first])), torch.tensor([second]))
        assert close(twice, apply_rope(x, torch.tensor([first + second])))

    def test_changes_nothing_at_position_0(self) -> None:
        x = normal(0, 2, 3, 8)
        assert torch.equal(apply_rope(x, torch.zeros(3)), x)

    @given(seed=seeds, heads=sizes, length=sizes, half=halves)
    @settings(profile)
    def test_equals_the_half_split_form_of_transformers_after_a_permutation(
        self, seed: int, heads: int, length: int, half: int
    ) -> None:
        llama = pytest.importorskip("transformers.models.llama.modeling_llama")
        d = 2 * half
        query, key = normal(seed, 1, heads, length, d), normal(seed + 1, 1, heads, length, d)
        rates = 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angles = torch.arange(length).unsqueeze(1) * torch.cat([rates, rates])
        halves_first = torch.arange(d).view(half, 2).T.flatten()
        theirs = llama.apply_rotary_pos_emb(
            query[..., halves_first], key[..., halves_first], angles.cos()[None], angles.sin()[None]
        )
        ours = [apply_rope(x, torch.arange(length))[..., halves_first] for x in (query, key)]
        assert all(close(own, other) for own, other in zip(ours, theirs, strict=True))

    @pytest.mark.parametrize("width", [1, 5])
    def test_refuses_an_odd_width(self, width: int) -> None:
        message = f"the width of x must be even, because components are rotated in pairs; it is {width}"
        with pytest.raises(ValueError, match=message):
            apply_rope(torch.zeros(3, width), torch.arange(3))


class TestAlibiBias:
    def test_has_the_slopes_of_the_paper_for_8_and_16_heads(self) -> None:
        slopes = {heads: (-alibi_bias(heads, 1, 2)[:, 0, 0]).tolist() for heads in (8, 16)}
        assert slopes[8] == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
        assert slopes[16] == pytest.approx([2 ** (-step / 2) for step in range(1, 17)])

    @given(heads=st.integers(1, 20))
    @settings(profile)
    def test_slopes_are_geometric_and_end_at_one_256th(self, heads: int) -> None:
        slopes = (-alibi_bias(heads, 1, 2)[:, 0, 0]).tolist()
        assert slopes[-1] == pytest.approx(1 / 256)
        assert all(later / earlier == pytest.approx(2 ** (-8 / heads), rel=1e-5) for earlier, later in pairwise(slopes))

    @given(heads=sizes, queries=st.integers(1, 8), earlier=st.integers(0, 8))
    @settings(profile)
    def test_equals_the_formula_entry_by_entry(self, heads: int, queries: int, earlier: int) -> None:
        keys = queries + earlier
        expected = [
            [
                [-(2 ** (-8 * (head + 1) / heads)) * abs(earlier + row - key) for key in range(keys)]
                for row in range(queries)
            ]
            for head in range(heads)
        ]
        assert torch.allclose(alibi_bias(heads, queries, keys), torch.tensor(expected), rtol=1e-6, atol=0)

    @given(heads=sizes, queries=st.integers(1, 8), earlier=st.integers(0, 8))
    @settings(profile)
    def test_fewer_queries_are_the_last_rows(self, heads: int, queries: int, earlier: int) -> None:
        keys = queries + earlier
        assert torch.equal(alibi_bias(heads, queries, keys), alibi_bias(heads, keys, keys)[:, earlier:])


class TestRotary:
    @given(seed=seeds, heads=sizes, length=sizes, half=halves, theta=bases, causal=st.booleans())
    @settings(profile)
    def test_is_attention_of_rotated_queries_and_keys(
        self, seed: int, heads: int, length: int, half: int, theta: float, causal: bool
    ) -> None:
        query, key, value = normal(seed, 3, 2, heads, length, 2 * half).requires_grad_()
        mask = causal_mask(length) if causal else None
        where = torch.arange(length)
        theirs = torch.nn.functional.scaled_dot_product_attention(
            rope_by_complex_numbers(query, where, theta), rope_by_complex_numbers(key, where, theta), value, mask
        )
        for attend, rotate in ((scaled_dot_product_attention, apply_rope), (fused_attention, fused_rope)):
            agree(rotary(attend, theta, rotate)(query, key, value, mask)[0], theirs, query, key, value)

    @given(seed=seeds, length=st.integers(2, 8), newest=st.integers(1, 3))
    @settings(profile)
    def test_places_fewer_queries_at_the_end_of_the_keys(self, seed: int, length: int, newest: int) -> None:
        query, key, value = normal(seed, 3, 1, 2, length, 4)
        attend = rotary(scaled_dot_product_attention)
        newest = min(newest, length)
        assert close(attend(query[..., -newest:, :], key, value)[0], attend(query, key, value)[0][..., -newest:, :])

    def test_leaves_the_weights_where_the_function_gives_none(self) -> None:
        query, key, value = normal(0, 3, 1, 2, 4, 6)
        assert rotary(fused_attention)(query, key, value)[1] is None
        assert rotary(scaled_dot_product_attention)(query, key, value)[1] is not None

    def test_in_multi_head_attention_the_order_matters(self) -> None:
        x, order = normal(1, 1, 5, 8), torch.tensor([4, 2, 0, 3, 1])
        module = MultiHeadAttention(8, 2).double()
        module.load_state_dict({name: normal(2, *weight.shape) for name, weight in module.state_dict().items()})
        assert close(module(x[:, order]), module(x)[:, order])
        for attend in (rotary(scaled_dot_product_attention), alibi_attention):
            assert not close(module(x[:, order], attend=attend), module(x, attend=attend)[:, order])


class TestAlibiAttention:
    @given(seed=seeds, heads=sizes, queries=sizes, earlier=st.integers(0, 3), d_k=sizes, masked=st.booleans())
    @settings(profile)
    def test_equals_pytorch_with_the_bias_as_a_float_mask(
        self, seed: int, heads: int, queries: int, earlier: int, d_k: int, masked: bool
    ) -> None:
        keys = queries + earlier
        query = normal(seed, 2, heads, queries, d_k).requires_grad_()
        key, value = normal(seed + 1, 2, 2, heads, keys, d_k).requires_grad_()
        mask = causal_mask(keys)[earlier:] if masked else None
        bias = alibi_bias(heads, queries, keys).double()
        full = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, full.expand(2, -1, -1, -1))
        agree(alibi_attention(query, key, value, mask)[0], theirs, query, key, value)

    def test_gives_weights_that_sum_to_one(self) -> None:
        query, key, value = normal(0, 3, 2, 4, 5, 3)
        weights = alibi_attention(query, key, value)[1]
        assert weights is not None
        assert close(weights.sum(-1), torch.ones(2, 4, 5, dtype=torch.float64))

    def test_a_query_with_nothing_to_attend_to_gets_zeros(self) -> None:
        query, key, value = normal(0, 3, 1, 2, 3, 4)
        mask = torch.tensor([[True, True, True], [False, False, False], [True, False, True]])
        output, weights = alibi_attention(query, key, value, mask)
        assert weights is not None
        assert not output[:, :, 1].any()
        assert not weights[:, :, 1].any()
        assert output.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_the_dtype(self, dtype: torch.dtype) -> None:
        query, key, value = normal(0, 3, 1, 2, 3, 4, dtype=dtype)
        assert alibi_attention(query, key, value)[0].dtype == dtype


def test_no_function_changes_its_inputs_or_the_global_seed() -> None:
    x, where = normal(0, 2, 3, 4, 6), torch.arange(4)
    before = x.clone(), where.clone(), torch.get_rng_state()
    apply_rope(x, where)
    rotary(scaled_dot_product_attention)(x, x, x)
    alibi_attention(x, x, x)
    sinusoidal_positions(4, 6)
    assert torch.equal(x, before[0])
    assert torch.equal(where, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
