"""Norms, gelu and feed-forward networks against PyTorch's own, in values and gradients, and what they leave alone."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from solutions.layers import FeedForward, LayerNorm, RMSNorm, SwiGLU, gelu
from tests.equality import agree, close, normal

settings.register_profile("layers", deadline=None, max_examples=60, derandomize=True)
profile = settings.get_profile("layers")

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 7)
shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)
epsilons = st.sampled_from([1e-12, 1e-5, 1e-2, 1.0])


def with_random_weights(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """The module in float64, with numbers from the generator for its parameters."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(generator, *parameter.shape))
    return module


def modules_agree(ours: nn.Module, theirs: Callable[..., Tensor], x: Tensor) -> None:
    """A module, and a function of x and of the module's parameters in their order, agree."""
    names, weights = zip(*((name, p.detach()) for name, p in ours.named_parameters()), strict=True)

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(ours, dict(zip(names, weights, strict=True)), (x,))

    agree(call, theirs, x, *weights)


class TestLayerNorm:
    @given(shape=shapes, seed=seeds, eps=epsilons, shift=st.sampled_from([0.0, -3.0, 1000.0]))
    @settings(profile)
    def test_equals_pytorch(self, shape: tuple[int, ...], seed: int, eps: float, shift: float) -> None:
        if shape[-1] == 1 and eps < 1e-5:
            eps = 1e-5  # a single component is its own mean: 0/sqrt(eps), whose gradient is all rounding
        generator = torch.Generator().manual_seed(seed)
        ours = with_random_weights(LayerNorm(shape[-1], eps=eps), generator)
        x = normal(generator, *shape)
        # Two components can lie so close together that 1/std multiplies rounding; keep them apart.
        x = x + torch.linspace(0, 3, shape[-1], dtype=torch.float64) + shift
        modules_agree(ours, lambda x, weight, bias: functional.layer_norm(x, (shape[-1],), weight, bias, eps), x)

    @given(shape=shapes.filter(lambda shape: shape[-1] > 1), seed=seeds)
    @settings(profile)
    def test_a_new_one_gives_every_vector_mean_0_and_variance_1(self, shape: tuple[int, ...], seed: int) -> None:
        x = 10 * normal(torch.Generator().manual_seed(seed), *shape) + 5
        y = LayerNorm(shape[-1], eps=0.0).double()(x)
        assert torch.allclose(y.mean(-1), torch.zeros(shape[:-1], dtype=torch.float64), atol=1e-9)
        assert torch.allclose(y.var(-1, unbiased=False), torch.ones(shape[:-1], dtype=torch.float64), atol=1e-9)

    @given(seed=seeds, factor=st.floats(0.1, 100), shift=st.floats(-100, 100))
    @settings(profile)
    def test_neither_shift_nor_scale_of_a_vector_matters(self, seed: int, factor: float, shift: float) -> None:
        x = normal(torch.Generator().manual_seed(seed), 3, 6)
        norm = LayerNorm(6, eps=0.0).double()
        assert torch.allclose(norm(factor * x + shift), norm(x), rtol=0, atol=1e-9)

    @given(seed=seeds)
    @settings(profile)
    def test_a_vector_does_not_depend_on_the_others(self, seed: int) -> None:
        x = normal(torch.Generator().manual_seed(seed), 2, 3, 5)
        norm = LayerNorm(5).double()
        assert torch.equal(norm(x)[1:, 2:], norm(x[1:, 2:]))

    def test_equal_components_give_the_bias_and_finite_gradients(self) -> None:
        norm = LayerNorm(4)
        x = torch.full((2, 4), 3.0, requires_grad=True)
        y = norm(x)
        assert (y == 0).all()
        (gradient,) = torch.autograd.grad(y.square().sum() + y[0, 0], x)
        assert torch.isfinite(gradient).all()

    def test_eps_is_1e_5_unless_told_otherwise(self) -> None:
        assert LayerNorm(3).eps == RMSNorm(3).eps == nn.LayerNorm(3).eps == 1e-5


class TestRMSNorm:
    @given(shape=shapes, seed=seeds, eps=epsilons)
    @settings(profile)
    def test_equals_pytorch(self, shape: tuple[int, ...], seed: int, eps: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        ours = with_random_weights(RMSNorm(shape[-1], eps=eps), generator)
        x = normal(generator, *shape)
        x = x + 0.1 * torch.where(x < 0, -1.0, 1.0)  # away from zero, where 1/rms multiplies rounding
        modules_agree(ours, lambda x, weight: functional.rms_norm(x, (shape[-1],), weight, eps), x)

    @given(shape=shapes, seed=seeds)
    @settings(profile)
    def test_equals_layer_norm_of_vectors_with_mean_zero(self, shape: tuple[int, ...], seed: int) -> None:
        x = normal(torch.Generator().manual_seed(seed), *shape)
        centred = x - x.mean(-1, keepdim=True)
        assert close(RMSNorm(shape[-1])(centred), LayerNorm(shape[-1]).double()(centred))

    @given(seed=seeds, factor=st.floats(0.1, 100))
    @settings(profile)
    def test_scale_does_not_matter_and_shift_does(self, seed: int, factor: float) -> None:
        x = normal(torch.Generator().manual_seed(seed), 3, 6)
        norm = RMSNorm(6, eps=0.0).double()
        assert torch.allclose(norm(factor * x), norm(x), rtol=0, atol=1e-10)
        assert not torch.allclose(norm(x + 1), norm(x), rtol=0, atol=1e-2)

    def test_zeros_stay_zeros(self) -> None:
        assert RMSNorm(4)(torch.zeros(2, 4)).tolist() == [[0.0] * 4] * 2


class TestParameters:
    @pytest.mark.parametrize(
        ("module", "expected"),
        [
            (LayerNorm(3), {"weight": (3,), "bias": (3,)}),
            (RMSNorm(3), {"weight": (3,)}),
            (FeedForward(2, 5), {"up.weight": (5, 2), "up.bias": (5,), "down.weight": (2, 5), "down.bias": (2,)}),
            (FeedForward(2, 5, bias=False), {"up.weight": (5, 2), "down.weight": (2, 5)}),
            (SwiGLU(2, 5), {"gate.weight": (5, 2), "up.weight": (5, 2), "down.weight": (2, 5)}),
            (
                SwiGLU(2, 5, bias=True),
                {"gate.weight": (5, 2), "gate.bias": (5,), "up.weight": (5, 2), "up.bias": (5,), "down.weight": (2, 5),
                 "down.bias": (2,)},
            ),
        ],
    )  # fmt: skip
    def test_are_these_and_no_others(self, module: nn.Module, expected: dict[str, tuple[int, ...]]) -> None:
        assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == expected

    def test_a_new_norm_scales_by_one_and_shifts_by_zero(self) -> None:
        assert LayerNorm(3).weight.tolist() == RMSNorm(3).weight.tolist() == [1.0] * 3
        assert LayerNorm(3).bias.tolist() == [0.0] * 3


class TestGelu:
    @given(shape=shapes, seed=seeds, scale=st.sampled_from([0.1, 1.0, 5.0]), form=st.sampled_from(["none", "tanh"]))
    @settings(profile)
    def test_equals_pytorch(self, shape: tuple[int, ...], seed: int, scale: float, form: str) -> None:
        x = scale * normal(torch.Generator().manual_seed(seed), *shape)
        agree(lambda x: gelu(x, approximate=form), lambda x: functional.gelu(x, approximate=form), x)

    def test_is_exact_unless_told_otherwise(self) -> None:
        x = torch.linspace(-5, 5, 101, dtype=torch.float64)
        assert torch.equal(gelu(x), gelu(x, approximate="none"))
        assert not torch.equal(gelu(x), gelu(x, approximate="tanh"))

    @given(x=st.floats(-20, 20))
    @settings(profile)
    def test_gelu_of_x_minus_gelu_of_minus_x_is_x(self, x: float) -> None:
        for form in ("none", "tanh"):
            both = gelu(torch.tensor([x, -x], dtype=torch.float64), approximate=form)
            assert math.isclose(both[0] - both[1], x, abs_tol=1e-10)

    @pytest.mark.parametrize("form", ["sigmoid", "", "None"])
    def test_another_form_is_refused_by_name(self, form: str) -> None:
        with pytest.raises(ValueError, match=rf"^approximate must be 'none' or 'tanh', not '{form}'$"):
            gelu(torch.zeros(2), approximate=form)


def network(d_model: int, d_ff: int, activation: str, bias: bool, seed: int) -> nn.Module:
    return with_random_weights(FeedForward(d_model, d_ff, activation, bias), torch.Generator().manual_seed(seed))


class TestFeedForward:
    functions: dict[str, Callable[[Tensor], Tensor]] = {  # noqa: RUF012
        "relu": functional.relu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    }

    @given(shape=shapes, d_ff=sizes, seed=seeds, activation=st.sampled_from(list(functions)), bias=st.booleans())
    @settings(profile)
    def test_equals_linear_activation_linear(
        self, shape: tuple[int, ...], d_ff: int, seed: int, activation: str, bias: bool
    ) -> None:
        ours = network(shape[-1], d_ff, activation, bias, seed)
        function = self.functions[activation]

        def theirs(x: Tensor, up: Tensor, *rest: Tensor) -> Tensor:
            up_bias, down, down_bias = rest if bias else (None, rest[0], None)
            return functional.linear(function(functional.linear(x, up, up_bias)), down, down_bias)

        modules_agree(ours, theirs, normal(torch.Generator().manual_seed(seed + 1), *shape))

    @given(seed=seeds)
    @settings(profile)
    def test_treats_each_position_alone(self, seed: int) -> None:
        ours = network(4, 6, "relu", True, seed)
        x = normal(torch.Generator().manual_seed(seed), 2, 3, 4)
        assert close(ours(x)[:, 1], ours(x[:, 1]))

    @pytest.mark.parametrize("activation", ["tanh", "", "RELU", "swiglu"])
    def test_another_activation_is_refused_by_name(self, activation: str) -> None:
        words = rf"^activation must be 'relu', 'gelu' or 'gelu_tanh', not '{activation}'$"
        with pytest.raises(ValueError, match=words):
            FeedForward(2, 3, activation)


class TestSwiGLU:
    @given(shape=shapes, d_ff=sizes, seed=seeds, bias=st.booleans())
    @settings(profile)
    def test_equals_silu_times_linear(self, shape: tuple[int, ...], d_ff: int, seed: int, bias: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        ours = with_random_weights(SwiGLU(shape[-1], d_ff, bias=bias), generator)

        def theirs(x: Tensor, *weights: Tensor) -> Tensor:
            step = 2 if bias else 1
            gate, up, down = (weights[i : i + step] for i in range(0, 3 * step, step))
            return functional.linear(functional.silu(functional.linear(x, *gate)) * functional.linear(x, *up), *down)

        modules_agree(ours, theirs, normal(generator, *shape))

    def test_with_8_thirds_of_d_it_has_as_many_weights_as_a_network_of_4_d(self) -> None:
        plain, gated = FeedForward(96, 4 * 96, bias=False), SwiGLU(96, 8 * 96 // 3)
        assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in gated.parameters())


@pytest.mark.parametrize("make", [FeedForward, SwiGLU])
class TestDropout:
    @staticmethod
    def made(make: type[nn.Module], p: float) -> nn.Module:
        module = with_random_weights(make(64, 64, bias=True, dropout=p), torch.Generator().manual_seed(0))
        with torch.no_grad():  # what comes out is what lies between the layers
            module.down.weight.copy_(torch.eye(64))
            module.down.bias.zero_()
        return module

    def test_keeps_the_expected_value(self, make: type[nn.Module]) -> None:
        x = normal(torch.Generator().manual_seed(1), 1, 64) / 8
        module = self.made(make, 0.25)
        torch.manual_seed(0)
        mean = module(x.expand(20_000, 64)).mean(0)
        assert torch.allclose(mean, module.eval()(x)[0], atol=0.05)

    def test_drops_a_number_or_divides_it_by_1_minus_p(self, make: type[nn.Module]) -> None:
        x = normal(torch.Generator().manual_seed(1), 50, 64)
        module = self.made(make, 0.25)
        torch.manual_seed(0)
        dropped = module(x)
        whole = module.eval()(x) / 0.75
        assert ((dropped == 0) | torch.isclose(dropped, whole, rtol=0, atol=1e-12)).all()
        share = (dropped == 0)[whole != 0].double().mean().item()
        assert abs(share - 0.25) < 0.03

    def test_is_off_unless_asked_for_and_after_eval(self, make: type[nn.Module]) -> None:
        x = normal(torch.Generator().manual_seed(1), 5, 64)
        assert torch.equal(self.made(make, 0.0)(x), self.made(make, 0.5).eval()(x))


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "LayerNorm": LayerNorm(6),
    "RMSNorm": RMSNorm(6),
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
    "FeedForward": FeedForward(6, 8),
    "SwiGLU": SwiGLU(6, 8),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("function", list(CALLS.values()), ids=list(CALLS))
def test_keeps_dtype_input_and_seed(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = normal(torch.Generator().manual_seed(0), 2, 5, 6, dtype=dtype)
    before, state = x.clone(), torch.get_rng_state()
    y = (function.to(dtype) if isinstance(function, nn.Module) else function)(x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
