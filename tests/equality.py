"""How the references are compared with code that nobody here wrote: in float64, values and gradients."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=1e-10)


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=dtype)


def agree(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Both give the same values, and the same gradients of the same weighted sum."""
    outcomes = []
    for function in (ours, theirs):
        copies = [tensor.clone().requires_grad_() for tensor in inputs]
        output = function(*copies)
        weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
        outcomes.append((output.detach(), *torch.autograd.grad((output * weight).sum(), copies)))
    for own, other in zip(*outcomes, strict=True):
        assert close(own, other)


def with_random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and without dropout, so that nothing but the arithmetic differs."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.to(torch.float64).parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
    return module.eval()
