"""Checks of chapter 04: norms, gelu, feed-forward networks, and the block that joins them with attention."""

from typing import ClassVar

import torch

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, same, same_gradients, same_shape
from autograder.forbidden import PARTS
from autograder.probe import gradients, load_weights, make_config
from solutions import block, layers
from solutions.config import TransformerConfig

_COMMUTES = "a sum or a product of the same two numbers"


def _load(module_class, weights, *args, **options):
    """The reference with these weights; made on the meta device, so that no random number is drawn."""
    with torch.device("meta"):
        module = module_class(*args, **options)
    module.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
    return module.requires_grad_()


def _shapes(module_class, *args, **options):
    with torch.device("meta"):
        module = module_class(*args, **options)
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _draw(rng, shapes, scale=1.0, dtype=torch.float64):
    return {name: scale * rng.normal(*shape, dtype=dtype) for name, shape in shapes.items()}


def _outcome(module, x, *args, **options):
    """The reference's output, and its gradients with respect to the input and to every parameter."""
    x = x.clone().requires_grad_()
    output = module(x, *args, **options)
    return output.detach(), gradients(output, {"x": x, **dict(module.named_parameters())})


class _NormCheck(Check):
    """What the two norms have in common: parameters and their start, values at any scale, and where eps stands."""

    start: ClassVar[dict[str, float]]

    def prepare(self, rng):
        def inputs(*shape, scale=1.0, eps=None, dtype=torch.float64, strict=False):
            x = scale * rng.normal(*shape, dtype=dtype)
            weights = _draw(rng, dict.fromkeys(self.start, shape[-1:]), dtype=dtype)
            return {"x": x, "d_model": shape[-1], "eps": eps, "weights": weights, "strict": strict}

        # Beside numbers of this size eps is nothing, so a mistake in it costs its own part only; and they are not so large
        # that the gradients, which shrink as they grow, would be nothing beside the tolerance.
        large = 30.0
        yield Case("d_model = 6", inputs(2, 6, scale=large, strict=True), "parameters")
        yield Case("as many positions as components", inputs(5, 5, scale=large), "values")
        yield Case("2 sequences of 3 positions", inputs(2, 3, 4, scale=large), "values")
        yield Case("one vector", inputs(8, scale=large), "values")
        yield Case("float32", inputs(2, 3, 8, scale=large, dtype=torch.float32), "values")
        yield Case("four axes", inputs(2, 2, 3, 5, scale=large), "values", hidden=True)
        yield from self.more(inputs)
        yield Case("the eps that it has unless told otherwise", inputs(3, 6, scale=1e-2), "eps")
        yield Case("eps = 0.5", inputs(3, 6, eps=0.5), "eps")
        yield Case("eps = 1e-12, and small numbers", inputs(3, 6, scale=1e-5, eps=1e-12), "eps", hidden=True)
        zeros = inputs(2, 6)
        yield Case("vectors of zeros", zeros | {"x": torch.zeros_like(zeros["x"])}, "eps")

    def more(self, inputs):
        """Cases for one of the two norms alone."""
        yield from ()

    @staticmethod
    def probe(norm_class, case, /):
        norm = norm_class(case.d_model) if case.eps is None else norm_class(case.d_model, eps=case.eps)
        start = {name: parameter.detach().clone() for name, parameter in norm.named_parameters()}
        load_weights(norm, case.weights, strict=case.strict)
        x = case.x.clone().requires_grad_()
        return {
            "start": start,
            "output": norm(case.x),
            "gradients": gradients(norm(x), {"x": x, **dict(norm.named_parameters())}),
        }

    def judge(self, case, got):
        if case.part == "parameters":
            for name, value in self.start.items():
                yield same(got.start[name], torch.full((case.d_model,), value), f"`{name}` of a new norm")
            return
        norm = _load(self.reference, case.weights, case.d_model, **({} if case.eps is None else {"eps": case.eps}))
        output, right = _outcome(norm, case.x)
        yield same(got.output, output, "the output")
        yield from same_gradients(got.gradients, right)


@exercise(
    "layers.LayerNorm",
    parts={"parameters": 1, "values": 2, "eps": 1, "far from zero": 1},
    claims=("parameters",),
    difficulty=1,
    minutes=15,
    read="04_block#layer-norm",
    sections={"eps": "eps"},
    forbidden=("nn.LayerNorm", "F.group_norm", "F.batch_norm", "F.instance_norm"),
    instead="Build it from a mean, the mean of squares and a root.",
)
class LayerNorm(_NormCheck):
    """Also vectors whose mean is far larger than their spread: whole numbers, of which float32 has the mean exactly."""

    start: ClassVar = {"weight": 1.0, "bias": 0.0}
    equivalent: ClassVar = {
        "LayerNorm.forward: return centred / torch.sqrt(variance + self.eps) * self.weight + self.bias -> return self.bias + centred / torch.sqrt(variance + self.eps) * self.weight": _COMMUTES,
        "LayerNorm.forward: return centred / torch.sqrt(variance + self.eps) * self.weight + self.bias -> return self.weight * (centred / torch.sqrt(variance + self.eps)) + self.bias": _COMMUTES,
        "LayerNorm.forward: return centred / torch.sqrt(variance + self.eps) * self.weight + self.bias -> return centred / torch.sqrt(self.eps + variance) * self.weight + self.bias": _COMMUTES,
    }

    def more(self, inputs):
        for shape, hidden in ((3, 8), False), ((2, 3, 4), True):
            made = inputs(*shape, scale=10.0, dtype=torch.float32)
            made["x"] = 1e6 + made["x"].round()
            yield Case("components far from zero", made, "far from zero", hidden=hidden)


_VARIANCE = "centred.square().mean(-1, keepdim=True)"
_AXIS = {"x.mean(-1, keepdim=True)": "x.mean(AXIS, keepdim=True)", _VARIANCE: _VARIANCE.replace("-1", "AXIS")}


def _along(axis):
    return {old: new.replace("AXIS", axis) for old, new in _AXIS.items()}


slip(
    LayerNorm,
    "over the positions",
    "Mean and variance are taken over the positions (axis -2). Take them over the D components of each vector, the last "
    "axis.",
    _along("-2 % x.dim()"),
    read="why-not-the-batch",
)
slip(
    LayerNorm,
    "over the batch",
    "Mean and variance are taken over the first axis, so each vector depends on the others. Take them over the D "
    "components of each vector, the last axis.",
    _along("0"),
    read="why-not-the-batch",
)
slip(
    LayerNorm,
    "over everything",
    "One mean and one variance are taken over the whole tensor. Take them over the D components of each vector, keeping "
    "that axis.",
    {"x.mean(-1, keepdim=True)": "x.mean()", _VARIANCE: "centred.square().mean()"},
    read="why-not-the-batch",
)
slip(
    LayerNorm,
    "unbiased variance",
    "The variance is divided by D - 1. Divide by D: `x.var` needs unbiased=False, or take the mean of the squares.",
    {_VARIANCE: "x.var(-1, keepdim=True)"},
    read="biased-variance",
)
slip(
    LayerNorm,
    "eps outside the root",
    "eps is added to the standard deviation, outside the root. Add it to the variance, inside.",
    {"torch.sqrt(variance + self.eps)": "(torch.sqrt(variance) + self.eps)"},
    read="eps",
)
slip(
    LayerNorm,
    "no eps",
    "eps is not used, so a vector whose components are all equal is divided by zero. Add it to the variance.",
    {"variance + self.eps": "variance"},
    read="eps",
)
slip(
    LayerNorm,
    "a fixed eps",
    "`eps` is ignored: the norm always uses 1e-5. Keep the argument in `__init__` and use it in `forward`.",
    {"self.eps = eps": "self.eps = 1e-5"},
    read="eps",
)
slip(
    LayerNorm,
    "no root",
    "The vector is divided by its variance. Divide by the square root of it.",
    {"torch.sqrt(variance + self.eps)": "(variance + self.eps)"},
)
slip(
    LayerNorm,
    "not centred",
    "The mean is not subtracted from what is divided, so the result's mean is not 0.",
    {"return centred": "return x"},
)
slip(
    LayerNorm,
    "root mean square",
    "The vector is divided by the root of its mean square, without subtracting the mean first: that is RMSNorm.",
    {"x - x.mean(-1, keepdim=True)": "x"},
)
slip(LayerNorm, "weight not used", "`weight` is not used: multiply by it.", {" * self.weight": ""})
slip(LayerNorm, "bias not used", "`bias` is not used: add it at the end.", {" + self.bias": ""})
slip(
    LayerNorm,
    "bias before weight",
    "The bias is added before the multiplication by `weight`. Multiply first, then add.",
    {
        "centred / torch.sqrt(variance + self.eps) * self.weight + self.bias": "(centred / torch.sqrt(variance + self.eps) + self.bias) * self.weight"
    },
)
slip(
    LayerNorm,
    "weight starts at zero",
    "A new norm multiplies by 0: let `weight` start as ones, so that at first it changes nothing.",
    {"torch.ones": "torch.zeros"},
)
slip(
    LayerNorm,
    "bias starts at one",
    "A new norm adds 1: let `bias` start as zeros, so that at first it changes nothing.",
    {"torch.zeros": "torch.ones"},
)
slip(
    LayerNorm,
    "starts at random",
    "`weight` starts with random numbers. Let it start as ones, so that at first it changes nothing.",
    {"torch.ones(d_model)": "torch.linspace(-1, 1, d_model)"},
)
slip(
    LayerNorm,
    "mean of squares minus square of mean",
    "The variance is computed as the mean of the squares minus the square of the mean. Where the mean is large, both are "
    "huge and nearly equal, and their difference keeps hardly a digit. Subtract the mean first, then square.",
    {_VARIANCE: "(x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square())"},
    read="biased-variance",
)
slip(
    LayerNorm,
    "mean and variance without gradient",
    "Mean and variance are taken as constants (`detach` or `no_grad`), so the gradient with respect to `x` is wrong. They "
    "depend on `x`: let the gradient pass through them.",
    {"x - x.mean(-1, keepdim=True)": "x - x.mean(-1, keepdim=True).detach()", _VARIANCE: _VARIANCE + ".detach()"},
)


@exercise(
    "layers.RMSNorm",
    parts={"parameters": 1, "values": 1, "eps": 1},
    claims=("parameters",),
    difficulty=1,
    minutes=5,
    read="04_block#rms-norm",
    sections={"eps": "eps"},
    forbidden=("nn.RMSNorm",),
    instead="Build it from the mean of squares and a root.",
)
class RMSNorm(_NormCheck):
    """No mean, no bias."""

    start: ClassVar = {"weight": 1.0}
    equivalent: ClassVar = {
        "RMSNorm.forward: return x / torch.sqrt(mean_square + self.eps) * self.weight -> return self.weight * (x / torch.sqrt(mean_square + self.eps))": _COMMUTES,
        "RMSNorm.forward: return x / torch.sqrt(mean_square + self.eps) * self.weight -> return x / torch.sqrt(self.eps + mean_square) * self.weight": _COMMUTES,
    }


_SQUARE = "x.square().mean(-1, keepdim=True)"
slip(
    RMSNorm,
    "subtracts the mean",
    "The mean is subtracted first: that is LayerNorm. RMSNorm only divides.",
    {"mean_square = x": "x = x - x.mean(-1, keepdim=True)\n        mean_square = x"},
)
slip(
    RMSNorm,
    "sum of squares",
    "The vector is divided by its length, the root of the *sum* of squares. Take the mean of the squares.",
    {"mean(-1": "sum(-1"},
)
slip(
    RMSNorm,
    "divides by D - 1",
    "The sum of squares is divided by D - 1. Divide by D: no mean was subtracted, and none is estimated.",
    {_SQUARE: "x.square().sum(-1, keepdim=True) / (x.size(-1) - 1)"},
)
slip(
    RMSNorm,
    "no root",
    "The vector is divided by its mean square. Divide by the square root of it.",
    {"torch.sqrt(mean_square + self.eps)": "(mean_square + self.eps)"},
)
slip(
    RMSNorm,
    "eps outside the root",
    "eps is added to the root, outside it. Add it to the mean square, inside.",
    {"torch.sqrt(mean_square + self.eps)": "(torch.sqrt(mean_square) + self.eps)"},
    read="eps",
)
slip(
    RMSNorm,
    "no eps",
    "eps is not used, so a vector of zeros is divided by zero. Add it to the mean square.",
    {"mean_square + self.eps": "mean_square"},
    read="eps",
)
slip(
    RMSNorm,
    "a fixed eps",
    "`eps` is ignored: the norm always uses 1e-5. Keep the argument in `__init__` and use it in `forward`.",
    {"self.eps = eps": "self.eps = 1e-5"},
    read="eps",
)
slip(
    RMSNorm,
    "over the positions",
    "The mean square is taken over the positions (axis -2). Take it over the D components of each vector, the last axis.",
    {"mean(-1": "mean(-2 % x.dim()"},
)
slip(
    RMSNorm,
    "over everything",
    "One mean square is taken over the whole tensor. Take it over the D components of each vector, keeping that axis.",
    {_SQUARE: "x.square().mean()"},
)
slip(RMSNorm, "weight not used", "`weight` is not used: multiply by it.", {" * self.weight": ""})
slip(
    RMSNorm,
    "one plus weight",
    "The result is multiplied by 1 + weight. `weight` starts as ones here, so multiply by `weight` itself.",
    {"* self.weight": "* (1 + self.weight)"},
)
slip(
    RMSNorm,
    "has a bias",
    "RMSNorm has no bias: `weight` is its only parameter.",
    {
        "self.weight = ": "self.bias = nn.Parameter(torch.zeros(d_model))\n        self.weight = ",
        "* self.weight": "* self.weight + self.bias",
    },
)
slip(
    RMSNorm,
    "weight starts at zero",
    "A new norm multiplies by 0: let `weight` start as ones, so that at first it changes nothing.",
    {"torch.ones": "torch.zeros"},
)


@exercise(
    "layers.gelu",
    parts={"exact": 1, "tanh": 1, "error": 1},
    claims=("error",),
    difficulty=1,
    minutes=10,
    read="04_block#gelu",
    forbidden=("F.gelu",),
    builds_on=("torch.distributions",),
    instead="Build it from `torch.erf` and `torch.tanh`, as the two formulas do.",
)
class Gelu(Check):
    """Both forms over the range where they differ, and a form that there is not."""

    equivalent: ClassVar = {
        "gelu: return x / 2 * (1 + torch.erf(x / math.sqrt(2))) -> return (1 + torch.erf(x / math.sqrt(2))) * (x / 2)": _COMMUTES,
        "gelu: return x / 2 * (1 + torch.erf(x / math.sqrt(2))) -> return x / 2 * (torch.erf(x / math.sqrt(2)) + 1)": _COMMUTES,
        "gelu: return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) -> return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) * (x / 2)": _COMMUTES,
        "gelu: return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) -> return x / 2 * (torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)) + 1)": _COMMUTES,
        "gelu: return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) -> return x / 2 * (1 + torch.tanh((x + 0.044715 * x ** 3) * math.sqrt(2 / math.pi)))": _COMMUTES,
        "gelu: return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) -> return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (0.044715 * x ** 3 + x)))": _COMMUTES,
        "gelu: return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) -> return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + x ** 3 * 0.044715)))": _COMMUTES,
    }

    def prepare(self, rng):
        def inputs(x, *approximate):
            return {"x": x, "approximate": list(approximate), "refused": False}

        yield Case("numbers from -6 to 6, without `approximate`", inputs(torch.linspace(-6, 6, 49).double()), "exact")
        yield Case("random numbers, 'none'", inputs(2 * rng.normal(3, 4), "none"), "exact")
        yield Case("float32", inputs(rng.normal(2, 3, 4, dtype=torch.float32), "none"), "exact", hidden=True)
        yield Case("numbers from -6 to 6, 'tanh'", inputs(torch.linspace(-6, 6, 49).double(), "tanh"), "tanh")
        yield Case("random numbers, 'tanh'", inputs(2 * rng.normal(3, 4), "tanh"), "tanh")
        yield Case("'tanh' in float32", inputs(rng.normal(5, dtype=torch.float32), "tanh"), "tanh", hidden=True)
        for form in ("sigmoid", "exact", ""):
            yield Case(f"approximate={form!r}", inputs(rng.normal(4), form) | {"refused": True}, "error")

    @staticmethod
    def probe(gelu, case, /):
        def call(x):
            return gelu(x, approximate=case.approximate[0]) if case.approximate else gelu(x)

        if case.refused:
            try:
                call(case.x)
            except ValueError:
                return {"error": "ValueError"}
            return {"error": "none"}
        x = case.x.clone().requires_grad_()
        return {"y": call(case.x), "gradients": gradients(call(x), {"x": x})}

    def judge(self, case, got):
        if case.refused:
            yield holds(got.error == "ValueError", "There is no such form, and no ValueError was raised.")
            return
        y, right = _outcome_of(layers.gelu, case.x, *case.approximate)
        yield same(got.y, y)
        yield from same_gradients(got.gradients, right)


def _outcome_of(function, x, *args):
    x = x.clone().requires_grad_()
    y = function(x, *args)
    return y.detach(), gradients(y, {"x": x})


_EXACT = "x / 2 * (1 + torch.erf(x / math.sqrt(2)))"
_TANH = "x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))"
slip(
    Gelu,
    "always exact",
    "`approximate` is ignored: 'tanh' gives the exact form.",
    {_TANH: _EXACT},
)
slip(
    Gelu,
    "always tanh",
    "`approximate` is ignored: the exact form is wanted here, and this is the one with tanh.",
    {_EXACT: _TANH},
)
slip(
    Gelu,
    "forms exchanged",
    "The two forms are exchanged: 'none' is the exact one with erf, 'tanh' the other.",
    {'== "none"': '== "was tanh"', '== "tanh"': '== "none"', '== "was tanh"': '== "tanh"'},
)
slip(
    Gelu,
    "sigmoid form",
    "This is x * sigmoid(1.702 x), a third and coarser form. Use erf for 'none', and tanh for 'tanh'.",
    {_EXACT: "x * torch.sigmoid(1.702 * x)", _TANH: "x * torch.sigmoid(1.702 * x)"},
)
slip(
    Gelu,
    "relu",
    "This is relu: negative inputs give 0. gelu is smooth, and slightly negative there.",
    {_EXACT: "torch.relu(x)", _TANH: "torch.relu(x)"},
)
slip(
    Gelu,
    "erf without the root of 2",
    "erf is taken of x. For the normal distribution it must be taken of x / sqrt(2).",
    {"torch.erf(x / math.sqrt(2))": "torch.erf(x)"},
)
slip(
    Gelu,
    "without x in front",
    "These are probabilities, between 0 and 1. Multiply by x.",
    {"x / 2 *": "1 / 2 *"},
)
slip(
    Gelu,
    "not halved",
    "The result is twice too large: 1 + erf and 1 + tanh run from 0 to 2, so halve them.",
    {"x / 2 *": "x *"},
)
slip(
    Gelu,
    "square for cube",
    "In the form with tanh, 0.044715 is multiplied by the cube of x, not by its square.",
    {"x**3": "x**2"},
)
slip(
    Gelu,
    "2/pi without the root",
    "In the form with tanh the factor is sqrt(2/pi), and here it is 2/pi.",
    {"math.sqrt(2 / math.pi)": "(2 / math.pi)"},
)
slip(
    Gelu,
    "no error",
    "Any other `approximate` is accepted as if it were one of the two. Raise ValueError instead: a misspelt name must not pass in silence.",
    {'if approximate == "tanh":': "if True:"},
)


def _dropped(got, right, p, what):
    """Findings about a tensor after dropout: each number is 0 or the right one divided by 1 - p."""
    seen = right.abs() > 1e-3  # what is almost 0 anyway tells nothing
    got, expected = got[seen], right[seen] / (1 - p)
    kept = got.abs() > 1e-6
    yield holds(not kept.all(), f"In training, none of {what} was dropped.")
    yield holds(
        close(got * kept, expected * kept),
        f"In training, each of {what} should become 0 or be divided by 1 - p. Some are neither.",
    )
    share = 1 - kept.double().mean().item()
    yield holds(abs(share - p) < 0.05, f"With dropout={p}, {share:.0%} of {what} were dropped.")


class _FeedForwardCheck(Check):
    """What the two networks have in common: how they are called, and dropout between the layers."""

    def case_inputs(self, rng, *shape, d_ff, options=None, dtype=torch.float64, strict=False):
        """Inputs of one case with random weights."""
        options = options or {}
        made = {} if "activation" in options and options["activation"] not in _ACTIVATIONS else options
        weights = _draw(rng, _shapes(self.reference, shape[-1], d_ff, **made), dtype=dtype)
        return {
            "x": rng.normal(*shape, dtype=dtype), "d_model": shape[-1], "d_ff": d_ff, "options": options,
            "weights": weights, "strict": strict, "training": True, "refused": False,
        }  # fmt: skip

    def with_dropout(self, rng, **options):
        """Inputs for which `down` changes nothing but adds 1, so that the numbers between the layers can be seen."""
        made = self.case_inputs(rng, 60, 64, d_ff=64, options={"dropout": 0.25, "bias": True, **options})
        made["x"] /= 8
        made["weights"] |= {"down.weight": torch.eye(64).double(), "down.bias": torch.ones(64).double()}
        return made

    @staticmethod
    def probe(network_class, case, /):
        if case.refused:
            try:
                network_class(case.d_model, case.d_ff, **case.options)
            except ValueError:
                return {"error": "ValueError"}
            return {"error": "none"}
        network = network_class(case.d_model, case.d_ff, **case.options)
        load_weights(network, case.weights, strict=case.strict)
        network.train(case.training)
        torch.manual_seed(0)
        output = network(case.x)
        x = case.x.clone().requires_grad_()
        return {
            "output": output,
            "gradients": gradients(network(x), {"x": x, **dict(network.named_parameters())}),
        }

    def judge(self, case, got):
        if case.refused:
            message = "There is no such activation, and making the network raised no ValueError."
            yield holds(got.error == "ValueError", message)
            return
        if case.part == "layers":
            return  # that the weights could be loaded is what this part asks
        network = _load(self.reference, case.weights, case.d_model, case.d_ff, **case.options).eval()
        output, right = _outcome(network, case.x)
        if case.training and "dropout" in case.options:
            yield same_shape(got.output, output, "the output")
            yield from _dropped(
                got.output - 1.0, output - 1.0, case.options["dropout"], "the numbers between the layers"
            )
            return
        yield same(got.output, output, "the output")
        yield from same_gradients(got.gradients, right)


_ACTIVATIONS = ("relu", "gelu", "gelu_tanh")


@exercise(
    "layers.FeedForward",
    parts={"layers": 1, "relu": 1, "gelu": 1, "dropout": 1, "error": 1},
    claims=(
        "layers",
        "error",
    ),
    difficulty=1,
    minutes=15,
    read="04_block#feed-forward",
    sections={"gelu": "gelu", "dropout": "dropout"},
    builds_on=("F.gelu", "F.silu"),
    instead="Build it from two linear layers, an activation function and dropout.",
)
class FeedForward(_FeedForwardCheck):
    """Every activation, with and without bias, dropout in training, and an activation that there is not."""

    equivalent: ClassVar = {
        "FeedForward.__init__: if activation not in ('relu', 'gelu', 'gelu_tanh'): -> if activation not in ('gelu_tanh', 'gelu', 'relu'):": "the same names in another order",
    }

    def prepare(self, rng):
        def inputs(*shape, d_ff=10, **options):
            return self.case_inputs(rng, *shape, d_ff=d_ff, options=options)

        yield Case("d_model = 4, d_ff = 10", inputs(2, 4) | {"strict": True}, "layers")
        yield Case("bias=False", inputs(2, 4, bias=False) | {"strict": True}, "layers")
        yield Case("as it is unless told otherwise", inputs(2, 3, 4), "relu")
        yield Case("activation='relu', without bias", inputs(3, 4, activation="relu", bias=False), "relu")
        yield Case("d_ff smaller than d_model", inputs(3, 5, d_ff=2), "relu")
        float32 = self.case_inputs(rng, 2, 3, 4, d_ff=8, dtype=torch.float32)
        yield Case("float32", float32, "relu", hidden=True)
        yield Case("activation='gelu'", inputs(2, 3, 4, activation="gelu"), "gelu")
        yield Case("activation='gelu_tanh'", inputs(2, 3, 4, activation="gelu_tanh"), "gelu")
        for activation in ("gelu", "relu"):
            dropped = self.with_dropout(rng, activation=activation)
            yield Case(f"{activation}, dropout=0.25 in training", dropped, "dropout")
        yield Case("dropout=0.25 after eval()", dropped | {"training": False}, "dropout")
        for activation in ("tanh", "RELU"):
            yield Case(f"activation={activation!r}", inputs(2, 4, activation=activation) | {"refused": True}, "error")


_RETURN = "return self.down(self.dropout(hidden))"
_IF_RELU = 'if self.activation == "relu":'
_GELU = 'gelu(hidden, approximate="tanh" if self.activation == "gelu_tanh" else "none")'
slip(
    FeedForward,
    "no activation",
    "There is no activation between the layers, so the two together are one linear layer.",
    {"hidden = torch.relu(hidden)": "pass", f"hidden = {_GELU}": "pass"},
)
slip(
    FeedForward,
    "always relu",
    "`activation` is ignored: relu is used for 'gelu' too.",
    {_IF_RELU: "if True:"},
)
slip(
    FeedForward,
    "always gelu",
    "gelu is used where 'relu' is asked for; it is also what you get without naming an activation.",
    {_IF_RELU: "if False:"},
)
slip(
    FeedForward,
    "gelu_tanh is exact",
    "The activation 'gelu_tanh' uses the exact gelu. Pass approximate='tanh' to it.",
    {_GELU: "gelu(hidden)"},
    read="gelu",
)
slip(
    FeedForward,
    "gelu is the tanh form",
    "The activation 'gelu' uses the form with tanh. It means the exact form; 'gelu_tanh' means the other.",
    {_GELU: 'gelu(hidden, approximate="tanh")'},
    read="gelu",
)
slip(
    FeedForward,
    "gelu forms exchanged",
    "The activation 'gelu' uses the form with tanh and 'gelu_tanh' the exact one: they are exchanged.",
    {_GELU: 'gelu(hidden, approximate="none" if self.activation == "gelu_tanh" else "tanh")'},
    read="gelu",
)
slip(
    FeedForward,
    "activation after the second layer",
    "The activation comes after `down`. It belongs between the layers.",
    {"hidden = self.up(x)": "hidden = self.down(self.up(x))", _RETURN: "return self.dropout(hidden)"},
)
slip(
    FeedForward,
    "activation before the first layer",
    "The activation is applied to the input. It belongs between the layers.",
    {"hidden = self.up(x)": "hidden = x", _RETURN: "return self.down(self.dropout(self.up(hidden)))"},
)
slip(
    FeedForward,
    "activation twice",
    "The activation is applied to the output as well. It belongs between the layers only.",
    {
        _RETURN: "hidden = self.down(self.dropout(hidden))\n        "
        "return torch.relu(hidden) if self.activation == 'relu' else gelu(hidden)"
    },
)
slip(
    FeedForward,
    "adds its input",
    "The input is added to the result. The block does that; the network itself returns `down(...)` alone.",
    {_RETURN: "return x + self.down(self.dropout(hidden))"},
)
slip(
    FeedForward,
    "bias ignored",
    "`bias=False` is ignored: the layers still have one. Hand it on to nn.Linear.",
    {", bias=bias": ""},
)
slip(
    FeedForward,
    "never a bias",
    "The layers have no bias. They should have one unless `bias=False`.",
    {"bias=bias": "bias=False"},
)
slip(
    FeedForward,
    "no dropout",
    "Nothing is dropped in training: `dropout` is not used.",
    {"self.dropout(hidden)": "hidden"},
    read="dropout",
)
slip(
    FeedForward,
    "dropout on the output",
    "The dropout acts on the output of `down`. Here it acts between the layers; the block drops outputs itself.",
    {_RETURN: "return self.dropout(self.down(hidden))"},
    read="dropout",
)
slip(
    FeedForward,
    "dropout on the input",
    "The dropout acts on the input. It belongs between the layers, after the activation.",
    {"self.up(x)": "self.up(self.dropout(x))", "self.dropout(hidden)": "hidden"},
    read="dropout",
)
slip(
    FeedForward,
    "dropout in evaluation",
    "Numbers are dropped after `eval()` too. Use nn.Dropout, which knows the mode, or pass training=self.training.",
    {"self.dropout(hidden)": "nn.functional.dropout(hidden, self.dropout.p)"},
    read="dropout",
)
slip(
    FeedForward,
    "dropout without the division",
    "What is kept is not divided by 1 - p, so the numbers are smaller on average in training than in evaluation.",
    {"self.dropout(hidden)": "self.dropout(hidden) * (1 - self.dropout.p * self.training)"},
    read="dropout",
)
slip(
    FeedForward,
    "keeps with probability p",
    "`dropout` is taken as the probability of keeping a number. It is the probability of dropping it.",
    {"nn.Dropout(dropout)": "nn.Dropout(1 - dropout if dropout else 0.0)"},
    read="dropout",
)
slip(
    FeedForward,
    "no error",
    "An activation that does not exist is accepted. Raise ValueError in `__init__`: a misspelt name must not pass in "
    "silence.",
    {'if activation not in ("relu", "gelu", "gelu_tanh"):': "if False:"},
)


@exercise(
    "layers.SwiGLU",
    parts={"layers": 1, "output": 2, "dropout": 1},
    claims=("layers",),
    difficulty=1,
    minutes=10,
    read="04_block#swiglu",
    sections={"dropout": "dropout"},
    builds_on=("F.silu",),
    instead="Build it from three linear layers, `silu` and dropout.",
)
class SwiGLU(_FeedForwardCheck):
    """Which layer is the gate, and dropout in training."""

    equivalent: ClassVar = {
        "SwiGLU.forward: return self.down(self.dropout(gate * torch.sigmoid(gate) * self.up(x))) -> return self.down(self.dropout(self.up(x) * (gate * torch.sigmoid(gate))))": _COMMUTES,
        "SwiGLU.forward: return self.down(self.dropout(gate * torch.sigmoid(gate) * self.up(x))) -> return self.down(self.dropout(torch.sigmoid(gate) * gate * self.up(x)))": _COMMUTES,
    }

    def prepare(self, rng):
        def inputs(*shape, d_ff=10, **options):
            return self.case_inputs(rng, *shape, d_ff=d_ff, options=options)

        yield Case("d_model = 4, d_ff = 10", inputs(2, 4) | {"strict": True}, "layers")
        yield Case("bias=True", inputs(2, 4, bias=True) | {"strict": True}, "layers")
        yield Case("as it is unless told otherwise", inputs(2, 3, 4), "output")
        yield Case("with bias", inputs(3, 4, bias=True), "output")
        yield Case("d_ff = d_model", inputs(3, 5, d_ff=5), "output")
        float32 = self.case_inputs(rng, 2, 3, 4, d_ff=8, dtype=torch.float32)
        yield Case("float32", float32, "output", hidden=True)
        dropped = self.with_dropout(rng)
        yield Case("dropout=0.25 in training", dropped, "dropout")
        yield Case("dropout=0.25 after eval()", dropped | {"training": False}, "dropout")


_GATED = "gate * torch.sigmoid(gate) * self.up(x)"
slip(
    SwiGLU,
    "gate and up exchanged",
    "silu is applied to `up(x)`. It belongs to `gate(x)`, and `up(x)` stays as it is.",
    {_GATED: "torch.nn.functional.silu(self.up(x)) * gate"},
)
slip(
    SwiGLU,
    "sigmoid instead of silu",
    "The gate is a plain sigmoid. silu(z) is z * sigmoid(z).",
    {_GATED: "torch.sigmoid(gate) * self.up(x)"},
)
slip(
    SwiGLU,
    "gelu instead of silu",
    "The gate is a gelu. SwiGLU uses silu(z) = z * sigmoid(z).",
    {_GATED: "gelu(gate) * self.up(x)"},
)
slip(
    SwiGLU,
    "relu instead of silu",
    "The gate is a relu. SwiGLU uses silu(z) = z * sigmoid(z).",
    {_GATED: "torch.relu(gate) * self.up(x)"},
)
slip(
    SwiGLU,
    "no gate",
    "`up(x)` does not take part. Multiply silu(gate(x)) by it.",
    {_GATED: "gate * torch.sigmoid(gate) + 0 * self.up(x)"},
)
slip(
    SwiGLU,
    "adds the two",
    "The two layers' outputs are added. Multiply them, number by number.",
    {_GATED: "gate * torch.sigmoid(gate) + self.up(x)"},
)
slip(
    SwiGLU,
    "no silu",
    "`gate(x)` and `up(x)` are multiplied without silu.",
    {_GATED: "gate * self.up(x)"},
)
slip(
    SwiGLU,
    "silu of the product",
    "silu is applied to the product of the two. Apply it to `gate(x)` alone, then multiply.",
    {_GATED: "torch.nn.functional.silu(gate * self.up(x))"},
)
slip(
    SwiGLU,
    "adds its input",
    "The input is added to the result. The block does that; the network itself returns `down(...)` alone.",
    {"return self.down": "return x + self.down"},
)
slip(
    SwiGLU,
    "always a bias",
    "The layers have a bias. Here they have none unless `bias=True`.",
    {"bias=bias": "bias=True"},
)
slip(
    SwiGLU,
    "never a bias",
    "`bias=True` is ignored: hand it on to nn.Linear.",
    {"bias=bias": "bias=False"},
)
slip(
    SwiGLU,
    "no dropout",
    "Nothing is dropped in training: `dropout` is not used.",
    {f"self.dropout({_GATED})": _GATED},
    read="dropout",
)
slip(
    SwiGLU,
    "dropout on the output",
    "The dropout acts on the output of `down`. Here it acts on the product, before `down`.",
    {f"self.down(self.dropout({_GATED}))": f"self.dropout(self.down({_GATED}))"},
    read="dropout",
)
slip(
    SwiGLU,
    "dropout in evaluation",
    "Numbers are dropped after `eval()` too. Use nn.Dropout, which knows the mode, or pass training=self.training.",
    {f"self.dropout({_GATED})": f"nn.functional.dropout({_GATED}, self.dropout.p)"},
    read="dropout",
)


@exercise(
    "block.TransformerBlock",
    parts={
        "layers": 1,
        "post-norm": 1,
        "pre-norm": 1,
        "masks": 1,
        "cross-attention": 1,
        "attention function": 1,
        "dropout": 1,
        "errors": 1,
    },
    claims=(
        "layers",
        "errors",
    ),
    difficulty=3,
    minutes=40,
    read="04_block#transformer-block",
    sections={"dropout": "dropout", "post-norm": "pre-and-post-norm", "pre-norm": "pre-and-post-norm"},
    forbidden=("nn.TransformerEncoderLayer", "nn.TransformerDecoderLayer"),
    builds_on=PARTS,
    instead="Build it from `make_attention`, `make_feed_forward` and `make_norm`.",
)
class TransformerBlock(Check):
    """Both orders of the norm, every kind of config, masks, context, dropout by what it leaves of a constant."""

    equivalent: ClassVar = {
        "TransformerBlock._add: return x + self.dropout(sublayer(norm(x))) -> return self.dropout(sublayer(norm(x))) + x": _COMMUTES,
        "TransformerBlock._add: return norm(x + self.dropout(sublayer(x))) -> return norm(self.dropout(sublayer(x)) + x)": _COMMUTES,
        "TransformerBlock.forward: x = self._add(x, self.cross_attention_norm, lambda y: self.cross_attention(y, context, context_mask, attend=look)) -> x = self._add(x, self.cross_attention_norm, lambda y: self.cross_attention(y, context, context_mask))": "without positions the fused function and the plain one give the same",
    }

    def prepare(self, rng):
        def inputs(cross=False, batch=2, length=4, dtype=torch.float64, **choices):
            config = {"vocab_size": 5, "d_model": 8, "num_heads": 2, "d_ff": 12, **choices}
            shapes = _shapes(block.TransformerBlock, TransformerConfig(**config), cross)
            context = rng.normal(batch, 5, config["d_model"], dtype=dtype) if cross else None
            return {
                "config": config, "cross": cross, "weights": _draw(rng, shapes, 0.5, dtype), "strict": False,
                "x": rng.normal(batch, length, config["d_model"], dtype=dtype), "mask": None, "context": context,
                "context_mask": None, "own_attend": False, "training": True, "refused": False, "marks": None,
            }  # fmt: skip

        other = {"norm": "rms", "feed_forward": "swiglu", "bias": False, "num_kv_heads": 1}
        yield Case("a block without cross-attention", inputs() | {"strict": True}, "layers")
        yield Case("a block with cross-attention", inputs(cross=True) | {"strict": True}, "layers")
        yield Case("RMSNorm, SwiGLU, no bias, shared heads", inputs(**other) | {"strict": True}, "layers")
        for part, first in (("post-norm", False), ("pre-norm", True)):
            yield Case(f"{part}, LayerNorm and relu", inputs(norm_first=first), part)
            yield Case(f"{part}, RMSNorm and SwiGLU", inputs(norm_first=first, **other), part)
            yield Case(f"{part}, float32", inputs(norm_first=first, dtype=torch.float32), part, hidden=True)
        triangle = torch.ones(4, 4, dtype=torch.bool).tril()
        yield Case("a causal mask", inputs() | {"mask": triangle}, "masks")
        yield Case("a causal mask, post-norm", inputs(norm_first=False) | {"mask": triangle}, "masks")
        yield Case("a mask (B, 1, T)", inputs() | {"mask": rng.booleans(2, 1, 4)}, "masks")
        yield Case("a mask (B, T, T)", inputs() | {"mask": rng.booleans(2, 4, 4)}, "masks", hidden=True)
        part = "cross-attention"
        yield Case("a context of 5 vectors", inputs(cross=True), part)
        yield Case("a context, post-norm", inputs(cross=True, norm_first=False), part)
        yield Case("a mask for the context", inputs(cross=True) | {"context_mask": rng.booleans(2, 1, 5)}, part)
        both = {"mask": torch.ones(5, 5, dtype=torch.bool).tril(), "context_mask": rng.booleans(2, 5, 5)}
        yield Case("a mask for each", inputs(cross=True, length=5) | both, part)
        part = "attention function"
        yield Case("positions='rope'", inputs(positions="rope"), part)
        yield Case("positions='alibi'", inputs(positions="alibi"), part)
        yield Case("positions='rope', with a context", inputs(cross=True, positions="rope"), part)
        yield Case("attend handed over", inputs() | {"own_attend": True}, part)
        yield Case("attend handed over, with a context", inputs(cross=True) | {"own_attend": True}, part)
        yield from self._dropout(inputs)
        yield Case("cross-attention, and no context", inputs(cross=True) | {"context": None, "refused": True}, "errors")
        unwanted = inputs() | {"context": rng.normal(2, 5, 8), "refused": True}
        yield Case("a context, and no cross-attention", unwanted, "errors")

    def _dropout(self, inputs):
        yield Case("dropout=0.25 after eval()", inputs(cross=True, dropout=0.25) | {"training": False}, "dropout")
        evaluated = inputs(cross=True, dropout=0.25, fused=True) | {"training": False}
        yield Case("dropout=0.25 after eval(), fused", evaluated, "dropout")
        # Sublayers that give one constant each, and a norm that changes nothing: the output shows what was dropped.
        for first in (True, False):
            shape = {"length": 60, "d_model": 32, "num_heads": 1, "norm": "rms", "norm_eps": 1e18, "norm_first": first}
            made = inputs(cross=True, batch=1, dropout=0.25, **shape)
            marks = {"attention.output": 1.0, "cross_attention.output": 10.0, "feed_forward.down": 100.0}
            for name, mark in marks.items():
                made["weights"][f"{name}.weight"].zero_()
                made["weights"][f"{name}.bias"].fill_(mark)
            for name in ("attention_norm", "cross_attention_norm", "feed_forward_norm"):
                made["weights"][f"{name}.weight"].fill_(1e9)
            title = f"{'pre' if first else 'post'}-norm, dropout=0.25 in training"
            yield Case(title, made | {"x": torch.zeros_like(made["x"]), "marks": list(marks.values())}, "dropout")
        # Every value is 1, so attention gives 1 unless some of its weights are dropped.
        made = inputs(cross=True, batch=1, length=60, d_model=32, num_heads=1, dropout=0.25, fused=True)
        for name, weight in made["weights"].items():
            if "attention" in name and "norm" not in name:
                weight.zero_()
        half = torch.eye(32, dtype=torch.float64)
        half[16:] = 0.0
        for name, weight in (("attention", half), ("cross_attention", half.flip(0, 1))):
            made["weights"] |= {f"{name}.output.weight": weight, f"{name}.value.bias": torch.ones_like(weight[0])}
        for name in ("weight", "bias"):
            made["weights"][f"feed_forward.down.{name}"].zero_()
        yield Case("fused, dropout=0.25 in training", made | {"x": torch.zeros_like(made["x"]), "marks": []}, "dropout")

    @staticmethod
    def probe(block_class, case, /):
        def attend(query, key, value, mask=None):
            return query - key + 2 * value, None

        config = make_config(**case.config)
        block = block_class(config, cross_attention=True) if case.cross else block_class(config)
        load_weights(block, case.weights, strict=case.strict)
        block.train(case.training)
        options = {"mask": case.mask, "context": case.context, "context_mask": case.context_mask}
        options = {name: value for name, value in options.items() if value is not None}
        if case.own_attend:
            options["attend"] = attend
        if case.refused:
            try:
                block(case.x, **options)
            except ValueError:
                return {"error": "ValueError"}
            return {"error": "none"}
        torch.manual_seed(0)
        output = block(case.x, **options)
        if case.marks is not None:
            return {"output": output, "gradients": {}}
        x = case.x.clone().requires_grad_()
        wanted = {"x": x, **dict(block.named_parameters())}
        return {"output": output, "gradients": gradients(block(x, **options), wanted)}

    def judge(self, case, got):
        if case.refused:
            yield holds(got.error == "ValueError", "This cannot work, and no ValueError was raised.")
            return
        if case.part == "layers":
            return  # that the weights could be loaded is what this part asks
        reference = _load(block.TransformerBlock, case.weights, TransformerConfig(**case.config), case.cross)
        reference.train(case.training)
        if case.marks is not None:
            yield same_shape(got.output, case.x, "the output")
            yield from _dropped_marks(got.output, case) if case.marks else _dropped_weights(got.output)
            return
        options = {"mask": case.mask, "context": case.context, "context_mask": case.context_mask}
        if case.own_attend:
            options["attend"] = lambda query, key, value, mask=None: (query - key + 2 * value, None)
        output, right = _outcome(reference, case.x, **options)
        yield same_shape(got.output, output, "the output")
        yield same(got.output, output, "the output")
        yield from same_gradients(got.gradients, right)


def _dropped_marks(output, case):
    """Each number is a sum of marks, one a sublayer, each there (divided by 1 - p) or dropped."""
    p = case.config["dropout"]
    rest = output * (1 - p)
    names = ("the self-attention's outputs", "the cross-attention's outputs", "the feed-forward network's outputs")
    for mark, name in reversed(list(zip(case.marks, names, strict=True))):
        there = (rest > mark / 2).to(rest.dtype) * mark
        yield from _dropped(there / (1 - p), torch.full_like(rest, mark), p, name)
        rest = rest - there
    yield holds(
        rest.abs().max() < 1e-5,
        "In training, each number that a sublayer gives should become 0 or be divided by 1 - p. Some are neither.",
    )


def _dropped_weights(output):
    """Attention over ones gives one and the same number, unless weights are dropped."""
    for half, name in zip(output.chunk(2, dim=-1), ("self-attention", "cross-attention"), strict=True):
        kept = half[half != 0]
        yield holds(
            kept.numel() > 0 and kept.max() - kept.min() > 1e-3,
            f"With fused=True, no weight of the {name} is dropped in training. Tell `attention_function` that the block "
            "is training.",
        )


_ADD = "return x + self.dropout(sublayer(norm(x)))"
_ADD_POST = "return norm(x + self.dropout(sublayer(x)))"
slip(
    TransformerBlock,
    "norm of the sublayer's output",
    "For post-norm you compute x + norm(sublayer(x)). The norm goes round the sum: norm(x + sublayer(x)).",
    {_ADD_POST: "return x + norm(self.dropout(sublayer(x)))"},
    read="pre-and-post-norm",
)
slip(
    TransformerBlock,
    "always pre-norm",
    "`norm_first` is ignored: the norm always comes before the sublayer. With norm_first=False it comes after the sum.",
    {"if self.config.norm_first:": "if True:"},
    read="pre-and-post-norm",
)
slip(
    TransformerBlock,
    "always post-norm",
    "`norm_first` is ignored: the norm always comes after the sum. With norm_first=True it comes before the sublayer.",
    {"if self.config.norm_first:": "if False:"},
    read="pre-and-post-norm",
)
slip(
    TransformerBlock,
    "pre- and post-norm exchanged",
    "The two orders are exchanged: norm_first=True normalises what goes into a sublayer, False normalises the sum.",
    {"if self.config.norm_first:": "if not self.config.norm_first:"},
    read="pre-and-post-norm",
)
slip(
    TransformerBlock,
    "no residual",
    "The sublayer's output replaces the stream. Add it to x.",
    {"return x + self": "return self", "norm(x + self": "norm(self"},
    read="residual-stream",
)
slip(
    TransformerBlock,
    "no residual in pre-norm",
    "In pre-norm the sublayer's output replaces the stream. Add it to x.",
    {"return x + self": "return self"},
    read="residual-stream",
)
slip(
    TransformerBlock,
    "adds to the normalised stream",
    "In pre-norm the sublayer's output is added to norm(x). Add it to x itself: the stream is never normalised.",
    {_ADD: "x = norm(x)\n            return x + self.dropout(sublayer(x))"},
    read="pre-and-post-norm",
)
slip(
    TransformerBlock,
    "a norm before and after",
    "In pre-norm the sum is normalised too. Normalise only what goes into the sublayer.",
    {_ADD: "return norm(x + self.dropout(sublayer(norm(x))))"},
    read="pre-and-post-norm",
)
slip(
    TransformerBlock,
    "one norm for two sublayers",
    "The feed-forward network uses `attention_norm`. It has a norm of its own, `feed_forward_norm`.",
    {"self._add(x, self.feed_forward_norm,": "self._add(x, self.attention_norm,"},
)
slip(
    TransformerBlock,
    "feed-forward network first",
    "The feed-forward network comes before the attention. Attention comes first.",
    {
        "x = self._add(x, self.attention_norm,": "x = self._add(x, self.feed_forward_norm, self.feed_forward)\n        "
        "x = self._add(x, self.attention_norm,",
        "return self._add(x, self.feed_forward_norm, self.feed_forward)": "return x",
    },
)
slip(
    TransformerBlock,
    "no feed-forward network",
    "The feed-forward network is made and never used.",
    {"return self._add(x, self.feed_forward_norm, self.feed_forward)": "return x"},
)
slip(
    TransformerBlock,
    "sublayers side by side",
    "Both sublayers read the x that came in. The feed-forward network reads what the attention has added to.",
    {
        "attend = attention_function(self.config, self.training) if": "came = x\n        attend = attention_function("
        "self.config, self.training) if",
        "return self._add(x, self.feed_forward_norm, self.feed_forward)": "return x - came + self._add("
        "came, self.feed_forward_norm, self.feed_forward)",
    },
    read="residual-stream",
)
slip(
    TransformerBlock,
    "mask not handed on",
    "The mask is not handed on to the self-attention.",
    {"mask=mask, ": ""},
)
slip(
    TransformerBlock,
    "context mask not handed on",
    "`context_mask` is not handed on to the cross-attention.",
    {"context, context_mask, attend": "context, None, attend"},
)
slip(
    TransformerBlock,
    "the self-attention's mask for the context",
    "The cross-attention gets `mask`. It has a mask of its own, `context_mask`.",
    {"context, context_mask, attend": "context, mask, attend"},
)
slip(
    TransformerBlock,
    "context mask for the self-attention",
    "The self-attention gets `context_mask`. Its mask is `mask`.",
    {"mask=mask": "mask=context_mask"},
)
slip(
    TransformerBlock,
    "cross-attention to itself",
    "The cross-attention attends to x. Keys and values must come from the context.",
    {"self.cross_attention(y, context, context_mask, attend=look)": "self.cross_attention(y, attend=look)"},
)
slip(
    TransformerBlock,
    "cross-attention last",
    "The cross-attention comes after the feed-forward network. It stands between the two others.",
    {
        "        if self.has_cross_attention:\n            look": "        x = self._add(x, self.feed_forward_norm, "
        "self.feed_forward)\n        if self.has_cross_attention:\n            look",
        "return self._add(x, self.feed_forward_norm, self.feed_forward)": "return x",
    },
)
slip(
    TransformerBlock,
    "cross-attention with the self-attention's layers",
    "The cross-attention uses the layers of the self-attention. It has layers of its own, `cross_attention`.",
    {"self.cross_attention(y,": "self.attention(y,"},
)
slip(
    TransformerBlock,
    "cross-attention always made",
    "The layers of the cross-attention are made although nobody asked for them.",
    {"        if cross_attention:\n": "        if True:\n"},
)
slip(
    TransformerBlock,
    "normalises the context",
    "The context is normalised as well. It is used as it comes; only the stream goes through the norm.",
    {"self.cross_attention(y, context,": "self.cross_attention(y, self.cross_attention_norm(context),"},
)
slip(
    TransformerBlock,
    "positions ignored",
    "The config's positions are ignored. Without `attend`, use attention_function(config, self.training).",
    {"attention_function(self.config, self.training) if attend is None else attend": "scaled_dot_product_attention "
     "if attend is None else attend"},
)  # fmt: skip
slip(
    TransformerBlock,
    "attend ignored",
    "`attend` is ignored: where one is handed over, the self-attention must use it.",
    {" if attend is None else attend": ""},
)
slip(
    TransformerBlock,
    "positions compared across sequences",
    "The cross-attention uses the positions too. Queries and keys come from different sequences there: pass cross=True.",
    {", cross=True": ""},
)
slip(
    TransformerBlock,
    "attend for the cross-attention too",
    "The `attend` that was handed over is used for the cross-attention too. It is meant for the self-attention alone.",
    {"attend=look": "attend=attend"},
)
slip(
    TransformerBlock,
    "no dropout",
    "What the sublayers give is not dropped in training.",
    {"self.dropout(sublayer(norm(x)))": "sublayer(norm(x))", "self.dropout(sublayer(x))": "sublayer(x)"},
    read="dropout",
)
slip(
    TransformerBlock,
    "dropout on the stream",
    "The dropout acts on the sum, so it wipes out parts of the stream for good. Let it act on what the sublayer gives.",
    {_ADD: "return self.dropout(x + sublayer(norm(x)))", _ADD_POST: "return norm(self.dropout(x + sublayer(x)))"},
    read="dropout",
)
slip(
    TransformerBlock,
    "dropout in evaluation",
    "Numbers are dropped after `eval()` too. Use nn.Dropout, which knows the mode, or pass training=self.training.",
    {"self.dropout(sublayer": "nn.functional.dropout(input=sublayer", "(norm(x)))": "(norm(x)), p=self.dropout.p)",
     "=sublayer(x)))": "=sublayer(x), p=self.dropout.p))"},
    read="dropout",
)  # fmt: skip
slip(
    TransformerBlock,
    "fused attention never drops",
    "With fused=True no attention weight is dropped in training. Tell `attention_function` that the block is training.",
    {"attention_function(self.config, self.training": "attention_function(self.config, False"},
    read="dropout",
)
slip(
    TransformerBlock,
    "fused attention always drops",
    "With fused=True attention weights are dropped after `eval()` too. Pass self.training to `attention_function`.",
    {"attention_function(self.config, self.training": "attention_function(self.config, True"},
    read="dropout",
)
slip(
    TransformerBlock,
    "no error without a context",
    "A block with cross-attention that is given no context must raise ValueError; here it goes on without.",
    {"if self.has_cross_attention and context is None:": "if False:"},
)
slip(
    TransformerBlock,
    "no error for an unwanted context",
    "A block without cross-attention ignores the context that it is given. Raise ValueError: whoever passes one expects "
    "it to matter.",
    {"if context is not None and not self.has_cross_attention:": "if False:"},
)
slip(
    TransformerBlock,
    "changes the stream in place",
    "The stream is changed in place (`+=`), so the caller's tensor changes. Write `x = x + ...`, which makes a new one.",
    {_ADD: "x += self.dropout(sublayer(norm(x)))\n            return x"},
)

reflection(
    "block.norm_first",
    chapter="04_block",
    points=2,
    rubric="""
    1 point: says from the formulas why the two differ: in pre-norm the stream is a plain sum, so the gradient reaches
    every block unchanged beside what the sublayers add; in post-norm every sum goes through a norm, whose derivative
    multiplies the gradient once a sublayer.

    1 point: reads the measurement rightly: in post-norm the last blocks get the largest gradients, and the more so the
    deeper the stack, so the same learning rate is too large there (warm-up helps); in pre-norm they shrink with depth,
    and a norm must follow the last block.
    """,
)
reflection(
    "block.no_residual",
    chapter="04_block",
    points=2,
    rubric="""
    1 point: names what is lost without the residual: the vectors of different positions become alike (rank collapse), and
    the gradient that reaches the first layers shrinks with depth; refers to the measured numbers.

    1 point: says why a larger learning rate or a norm does not bring it back: once the vectors are equal, nothing after
    them can tell the positions apart; or gives an argument of the same weight.
    """,
)
