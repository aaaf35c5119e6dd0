"""What the checks of whole models share: known weights for every parameter, and the reference that has them."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from autograder.checks import Rng
from autograder.probe import load_weights, make_config


def random_weights(
    rng: Rng, module_class: type[nn.Module], config: dict[str, Any], dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Random numbers for every parameter, by name; tied ones get the same numbers under each name.

    Args:
        rng: the source of chance.
        module_class: the reference, made from a config.
        config: the choices that a case holds.
        dtype: of the numbers.
    """
    module, numbers, weights = module_class(make_config(**config)), {}, {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) not in numbers:
            numbers[id(parameter)] = 0.5 * rng.normal(*parameter.shape, dtype=dtype)
        weights[name] = numbers[id(parameter)].clone()
    return weights


def with_weights(module_class: type[nn.Module], case: SimpleNamespace, strict: bool = True) -> Any:
    """The reference with the weights of a case.

    Args:
        module_class: the reference, made from a config.
        case: has `config` and `weights`.
        strict: the weights are all that the module has; otherwise the others become zero.
    """
    module = module_class(make_config(**case.config))
    load_weights(module, case.weights, strict=strict)
    return module
