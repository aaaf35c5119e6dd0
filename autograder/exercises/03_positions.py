"""Checks of chapter 03: four ways to tell a model where a token stands."""

from typing import ClassVar

import torch

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, same, same_gradients, same_shape
from autograder.probe import gradients, load_weights
from solutions import positions


def _value_error(got, asked):
    """What to say of the error that came, or did not come, where a ValueError is asked for."""
    yield holds(got.error != "none", f"No error was raised: {asked}")
    yield holds(got.error == "ValueError", f"{got.error} was raised. Raise a ValueError: {asked}")


@exercise(
    "positions.sinusoidal_positions",
    parts={"one pair": 1, "frequencies": 1, "odd width": 1},
    claims=("odd width",),
    difficulty=1,
    minutes=15,
    read="03_positions#sinusoidal",
    instead="Build it from sines and cosines of products.",
)
class SinusoidalPositions(Check):
    """One pair of columns, several pairs, and widths that cannot be split into pairs."""

    equivalent: ClassVar = {
        "sinusoidal_positions: if d_model % 2 != 0: -> if d_model % 2 > 0:": "a remainder by 2 is 0 or 1",
        "sinusoidal_positions: angles = torch.arange(length).unsqueeze(1) * frequencies"
        " -> angles = frequencies * torch.arange(length).unsqueeze(1)": "a product has no order",
    }

    def prepare(self, rng):
        yield Case("5 positions, width 2", {"length": 5, "d_model": 2, "odd": False}, "one pair")
        yield Case("1 position, width 2", {"length": 1, "d_model": 2, "odd": False}, "one pair")
        yield Case("4 positions, width 6", {"length": 4, "d_model": 6, "odd": False}, "frequencies")
        yield Case("50 positions, width 32", {"length": 50, "d_model": 32, "odd": False}, "frequencies")
        yield Case("12 positions, width 10", {"length": 12, "d_model": 10, "odd": False}, "frequencies", hidden=True)
        yield Case("width 5", {"length": 4, "d_model": 5, "odd": True}, "odd width")
        yield Case("width 1", {"length": 4, "d_model": 1, "odd": True}, "odd width")
        yield Case("width 7", {"length": 4, "d_model": 7, "odd": True}, "odd width", hidden=True)

    @staticmethod
    def probe(sinusoidal_positions, case, /):
        if not case.odd:
            return {"table": sinusoidal_positions(case.length, case.d_model)}
        try:
            sinusoidal_positions(case.length, case.d_model)
        except NotImplementedError:
            raise
        except Exception as error:
            return {"error": type(error).__name__}
        return {"error": "none"}

    def judge(self, case, got):
        if case.odd:
            yield from _value_error(got, "with an odd `d_model` one column would be left without its pair.")
            return
        right = positions.sinusoidal_positions(case.length, case.d_model)
        yield same_shape(got.table, right, "the table")
        first = torch.tensor([0.0, 1.0]).repeat(case.d_model // 2)
        yield holds(close(got.table[0], first), "Row 0 is not 0, 1, 0, 1, ...: sin 0 = 0 and cos 0 = 1, in turn.")
        yield same(got.table, right, "the table")


slip(
    SinusoidalPositions,
    "sines first, then cosines",
    "All sines stand in the left half and all cosines in the right half. They must take turns: column 2i is the sine and "
    "column 2i + 1 the cosine of the same angle.",
    {"torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)": "torch.cat([angles.sin(), angles.cos()], dim=-1)"},
)
slip(
    SinusoidalPositions,
    "sine and cosine exchanged",
    "Sine and cosine are exchanged: the sine belongs into the even columns, the cosine into the odd ones.",
    {"[angles.sin(), angles.cos()]": "[angles.cos(), angles.sin()]"},
)
slip(
    SinusoidalPositions,
    "sine in both columns",
    "Both columns of a pair hold the sine. The second is the cosine.",
    {"[angles.sin(), angles.cos()]": "[angles.sin(), angles.sin()]"},
)
slip(
    SinusoidalPositions,
    "positions from 1",
    "Positions are counted from 1. Count from 0, so that row 0 is 0, 1, 0, 1, ...",
    {"torch.arange(length)": "torch.arange(1, length + 1)"},
)
slip(
    SinusoidalPositions,
    "another frequency for the cosine",
    "The sine and the cosine of a pair have different frequencies: the exponent counts columns. It is -2i/D for both columns "
    "of pair i, that is for 2i and for 2i + 1.",
    {
        "torch.arange(0, d_model, 2)": "torch.arange(d_model)",
        "[angles.sin(), angles.cos()]": "[angles[:, 0::2].sin(), angles[:, 1::2].cos()]",
    },
)
slip(
    SinusoidalPositions,
    "exponent without the 2",
    "The exponent is -i/D where it should be -2i/D, so the slowest pair turns a hundred times too fast.",
    {"torch.arange(0, d_model, 2)": "torch.arange(d_model // 2)"},
)
slip(
    SinusoidalPositions,
    "all pairs alike",
    "All pairs of columns have the same frequency. Pair i turns by 10000^(-2i/D) a position.",
    {"(-torch.arange(0, d_model, 2) / d_model)": "(-0.0 * torch.arange(0, d_model, 2))"},
)
slip(
    SinusoidalPositions,
    "frequencies grow",
    "The frequencies grow from pair to pair. The exponent is negative: each pair turns more slowly than the one before.",
    {"-torch.arange(0, d_model, 2)": "torch.arange(0, d_model, 2)"},
)
slip(
    SinusoidalPositions,
    "whole-number division",
    "The exponent is divided with `//`, which leaves whole numbers. Use `/`.",
    {"2) / d_model)": "2) // d_model)"},
)
slip(
    SinusoidalPositions,
    "divides by the number of pairs",
    "The exponent is divided by D/2. It is -2i/D, divided by the whole width.",
    {"2) / d_model)": "2) / (d_model // 2))"},
)
slip(
    SinusoidalPositions,
    "a batch axis in front",
    "The table has an axis of length 1 in front. Return (T, D); it broadcasts over the batch as it is.",
    {".flatten(1)": ".flatten(1).unsqueeze(0)"},
)
slip(
    SinusoidalPositions,
    "transposed",
    "The table is transposed: one row a position, one column a component, (T, D).",
    {".flatten(1)": ".flatten(1).T"},
)
slip(
    SinusoidalPositions,
    "takes an odd width",
    "An odd `d_model` gives a table of another width than was asked for. Raise a ValueError instead.",
    {"if d_model % 2 != 0": "if False"},
)
slip(
    SinusoidalPositions,
    "another error for an odd width",
    "An odd `d_model` is refused by an assertion, which disappears when Python runs with -O. Raise a ValueError.",
    {"raise ValueError": "raise AssertionError"},
)


@exercise(
    "positions.LearnedPositions",
    parts={"the table": 1, "the first rows": 1, "too long": 1},
    claims=("the table", "too long"),
    difficulty=1,
    minutes=10,
    read="03_positions#learned",
)
class LearnedPositions(Check):
    """The parameter and how it starts, the rows and their gradient with a known table, and lengths at and past the end."""

    equivalent: ClassVar = {
        "LearnedPositions.__init__: self.weight = nn.Parameter(0.02 * torch.randn(max_length, d_model))"
        " -> self.weight = nn.Parameter(torch.randn(max_length, d_model) * 0.02)": "a product has no order",
    }

    def prepare(self, rng):
        def inputs(max_length, d_model, length, dtype=torch.float64, **more):
            weights = {"weight": rng.normal(max_length, d_model, dtype=dtype)}
            sizes = {"max_length": max_length, "d_model": d_model, "length": length, "start": False, "beyond": False}
            return sizes | {"weights": weights} | more

        table, rows, beyond = self.parts
        yield Case("a new table", inputs(200, 50, 3, start=True), table)
        yield Case("4 of 7 positions", inputs(7, 3, 4), rows)
        yield Case("all 6 positions", inputs(6, 4, 6), rows)
        yield Case("float32", inputs(5, 2, 3, dtype=torch.float32), rows)
        yield Case("1 position", inputs(5, 4, 1), rows, hidden=True)
        yield Case("one too many", inputs(6, 4, 7, beyond=True), beyond)
        yield Case("far too many", inputs(3, 2, 50, beyond=True), beyond)

    @staticmethod
    def probe(module_class, case, /):
        if case.start:
            torch.manual_seed(0)  # the state before it comes back when the probe ends
            module = module_class(case.max_length, case.d_model)
            load_weights(module_class(case.max_length, case.d_model), case.weights)
            table = module.weight.detach()
            return {"table": table, "learned": module.weight.requires_grad}
        module = module_class(case.max_length, case.d_model)
        load_weights(module, case.weights, strict=False)
        if not case.beyond:
            rows = module(case.length)
            return {"rows": rows, "gradients": gradients(rows, {"weight": module.weight})}
        try:
            rows = module(case.length)
        except NotImplementedError:
            raise
        except Exception as error:
            return {"error": type(error).__name__}
        return {"error": "none", "rows": rows}

    def judge(self, case, got):
        if case.beyond:
            yield from _value_error(got, "there are no vectors past `max_length`.")
            return
        module = positions.LearnedPositions(case.max_length, case.d_model).to(case.weights["weight"].dtype)
        if case.start:
            yield holds(got.learned, "`weight` does not ask for a gradient, so it would never be learned.")
            table = got.table.double()
            yield holds(table.std() > 0, "All numbers of the new table are equal. Start with random ones.")
            yield holds(
                0.018 < table.std() < 0.022,
                f"The standard deviation of the new table is {table.std() / 0.02:.2g} times the 0.02 that the exercise asks for.",
            )
            yield holds(table.mean().abs() < 0.002, f"The mean of the new table is {table.mean():.2g}; it should be 0.")
            beyond_two = (table.abs() > 0.04).double().mean()
            yield holds(
                0.02 < beyond_two < 0.08, "The numbers of the new table are not normally distributed: use torch.randn."
            )
            return
        module.load_state_dict(case.weights)
        right = module(case.length)
        yield same(got.rows, right.detach(), "the vectors")
        yield from same_gradients(got.gradients, gradients(right, {"weight": module.weight}))


slip(
    LearnedPositions,
    "not a parameter",
    "`weight` is a plain tensor or a buffer, so no optimiser finds it and it is never learned. Wrap it in nn.Parameter.",
    {"nn.Parameter(0.02 * torch.randn(max_length, d_model))": "0.02 * torch.randn(max_length, d_model)"},
)
slip(
    LearnedPositions,
    "a parameter that is frozen",
    "`weight` has requires_grad=False, so it is never learned. Leave it at its default, True.",
    {"torch.randn(max_length, d_model))": "torch.randn(max_length, d_model), requires_grad=False)"},
)
slip(
    LearnedPositions,
    "a layer named weight",
    "`weight` is an nn.Embedding, whose own parameter is then called `weight.weight`. Make `weight` itself an nn.Parameter.",
    {
        "nn.Parameter(0.02 * torch.randn(max_length, d_model))": "nn.Embedding(max_length, d_model)",
        "len(self.weight)": "self.weight.num_embeddings",
        "self.weight[:length]": "self.weight(torch.arange(length))",
    },
)
slip(
    LearnedPositions,
    "starts at zero",
    "The table starts at zero. Start with random numbers of standard deviation 0.02, so that positions differ from the "
    "first step.",
    {"0.02 * torch.randn(max_length, d_model)": "torch.zeros(max_length, d_model)"},
)
slip(
    LearnedPositions,
    "starts too large",
    "The table starts with standard deviation 1, and would drown the tokens. Multiply by 0.02.",
    {"0.02 * torch.randn": "torch.randn"},
)
slip(
    LearnedPositions,
    "starts uniform",
    "The table starts with numbers between 0 and 0.02, all positive. Use normally distributed ones: torch.randn times 0.02.",
    {"torch.randn": "torch.rand"},
)
slip(
    LearnedPositions,
    "axes exchanged",
    "The table has a column for each position. Its shape is (max_length, d_model): a row for each.",
    {"(max_length, d_model))\n": "(d_model, max_length))\n"},
)
slip(
    LearnedPositions,
    "the last rows",
    "The last rows of the table come back. Position 0 is row 0: return the first `length` rows.",
    {"self.weight[:length]": "self.weight[-length:]"},
)
slip(
    LearnedPositions,
    "the whole table",
    "The whole table comes back, whatever `length` is. Return its first `length` rows.",
    {"self.weight[:length]": "self.weight"},
)
slip(
    LearnedPositions,
    "one row",
    "A single row comes back. `weight[length - 1]` is one vector; `weight[:length]` is all of the first.",
    {"self.weight[:length]": "self.weight[length - 1]"},
)
slip(
    LearnedPositions,
    "one row too few",
    "One row is missing: `weight[:length - 1]` stops too early. Return `length` rows.",
    {"self.weight[:length]": "self.weight[: length - 1]"},
)
slip(
    LearnedPositions,
    "a batch axis in front",
    "The vectors have an axis of length 1 in front. Return (T, D); it broadcasts over the batch as it is.",
    {"self.weight[:length]": "self.weight[:length].unsqueeze(0)"},
)
slip(
    LearnedPositions,
    "gradient cut off",
    "The vectors are detached from the table, so it is never learned. Return the rows themselves.",
    {"self.weight[:length]": "self.weight[:length].detach()"},
)
slip(
    LearnedPositions,
    "no error past the end",
    "A slice past the end of the table silently gives fewer rows. Compare `length` with `max_length` and raise a ValueError.",
    {"if length > len(self.weight)": "if False"},
)
slip(
    LearnedPositions,
    "refuses the full length",
    "A sequence of exactly `max_length` is refused. The table has a row for each of its positions: use `>`, not `>=`.",
    {"length > len": "length >= len"},
)
slip(
    LearnedPositions,
    "repeats the last row",
    "Past the end the last row is repeated, so all further positions look alike. Raise a ValueError instead.",
    {
        "if length > len(self.weight)": "if False",
        "self.weight[:length]": "self.weight[torch.arange(length).clamp(max=len(self.weight) - 1)]",
    },
)
slip(
    LearnedPositions,
    "an index error past the end",
    "Past the end an IndexError is raised. Raise a ValueError that names both lengths.",
    {"raise ValueError": "raise IndexError"},
)
slip(
    LearnedPositions,
    "another error past the end",
    "Past the end an assertion fails, which disappears when Python runs with -O. Raise a ValueError.",
    {"raise ValueError": "raise AssertionError"},
)
slip(
    LearnedPositions,
    "super().__init__() missing",
    "`super().__init__()` is missing, so nn.Module cannot register the parameter. Call it first in `__init__`.",
    {"super().__init__()": "pass"},
)


@exercise(
    "positions.apply_rope",
    parts={"rotation": 2, "relative offset": 1, "any positions": 1, "odd width": 1},
    claims=("odd width",),
    difficulty=2,
    minutes=25,
    read="03_positions#rope",
    instead="Build it from sines and cosines, products and sums.",
)
class ApplyRope(Check):
    """The rotation and its gradient, the property it was made for, positions of every shape, and odd widths."""

    equivalent: ClassVar = {
        "apply_rope: if width % 2 != 0: -> if width % 2 > 0:": "a remainder by 2 is 0 or 1",
        "apply_rope: angles = positions.unsqueeze(-1) * theta ** (-pairs / width)"
        " -> angles = theta ** (-pairs / width) * positions.unsqueeze(-1)": "a product has no order",
    }
    equivalent |= {
        "apply_rope: pairs = torch.arange(0, width, 2, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)"
        f" -> pairs = torch.arange(0, width, 2, dtype=torch.promote_types({changed}": reason
        for changed, reason in {
            "x.dtype, torch.float32))": "without a device it is the CPU, where checks run",
            "torch.float32, x.dtype), device=x.device)": "the wider of two dtypes has no order",
            "x.dtype, torch.float64), device=x.device)": "more exact angles, the same up to rounding",
        }.items()
    }
    equivalent |= {
        "apply_rope: pairs = torch.arange(0, width, 2, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)"
        " -> pairs = torch.arange(0, width, 2, device=x.device)": "angles in float32, which is as exact as is asked",
    }
    equivalent |= {
        "apply_rope: rotated = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)"
        f" -> rotated = torch.stack([{changed}], dim=-1)": "products and sums have no order"
        for changed in (
            "cos * first - second * sin, first * sin + second * cos",
            "first * cos - sin * second, first * sin + second * cos",
            "first * cos - second * sin, sin * first + second * cos",
            "first * cos - second * sin, first * sin + cos * second",
            "first * cos - second * sin, second * cos + first * sin",
        )
    }

    def prepare(self, rng):
        def inputs(*shape, at=None, theta=None, kind="turn", dtype=torch.float64):
            at = torch.arange(shape[-2]) if at is None else at
            return {"x": rng.normal(*shape, dtype=dtype), "positions": at, "theta": theta, "kind": kind}

        rotation, relative, any_positions, odd = self.parts
        yield Case("one vector of width 2 at position 1", inputs(1, 2, at=torch.tensor([1])), rotation)
        yield Case("5 positions, width 6", inputs(5, 6), rotation)
        yield Case("batch and heads", inputs(2, 3, 4, 8), rotation)
        yield Case("theta = 500", inputs(2, 5, 8, theta=500.0), rotation)
        yield Case("float32", inputs(2, 5, 4, dtype=torch.float32), rotation)
        far = torch.tensor([0, 1, 5, 12, 3001])  # float16 has no 3001
        yield Case("half precision", inputs(5, 4, at=far, dtype=torch.float16), rotation)
        yield Case("as many positions as components", inputs(2, 6, 6), rotation, hidden=True)
        for offset in (0, 3, -5):
            at = torch.tensor([[7 + offset, 7], [207 + offset, 207]])
            yield Case(f"offset {offset}, at 7 and at 207", inputs(2, 8, at=at, kind="relative"), relative)
        yield Case("positions from 9", inputs(2, 4, 6, at=torch.arange(9, 13)), any_positions)
        yield Case("positions out of order", inputs(4, 6, at=torch.tensor([3, 0, 8, 3])), any_positions)
        of_each = rng.integers(0, 20, 2, 1, 4)
        yield Case("positions (B, 1, T)", inputs(2, 3, 4, 6, at=of_each), any_positions)
        yield Case("positions (B, T)", inputs(2, 4, 6, at=rng.integers(0, 20, 2, 4)), any_positions, hidden=True)
        yield Case("width 5", inputs(3, 5, kind="odd"), odd)
        yield Case("width 1", inputs(2, 1, kind="odd"), odd)

    @staticmethod
    def probe(apply_rope, case, /):
        def call(x, positions):
            return apply_rope(x, positions) if case.theta is None else apply_rope(x, positions, theta=case.theta)

        if case.kind == "turn":
            x = case.x.clone().requires_grad_()
            return {"y": call(case.x, case.positions), "gradients": gradients(call(x, case.positions), {"x": x})}
        if case.kind == "relative":  # the score of one query and one key, near the start and far from it
            pairs = [call(case.x, at) for at in case.positions]
            unturned = (case.x[0] * case.x[1]).sum()
            return {"pairs": torch.stack(pairs), "unturned": unturned}
        try:
            call(case.x, case.positions)
        except NotImplementedError:
            raise
        except Exception as error:
            return {"error": type(error).__name__}
        return {"error": "none"}

    def judge(self, case, got):
        if case.kind == "odd":
            yield from _value_error(got, "components are turned in pairs, and an odd width leaves one over.")
            return
        if case.kind == "relative":
            yield same_shape(got.pairs, torch.stack([case.x, case.x]), "the two results")
            near, far = (got.pairs[:, 0] * got.pairs[:, 1]).sum(-1)
            yield holds(
                close(near, far),
                "Query and key were both moved by 200 positions, and their dot product changed. It must depend on the "
                "offset alone.",
            )
            lengths = got.pairs.norm(dim=-1)
            yield holds(close(lengths, case.x.norm(dim=-1).expand(2, 2)), "The length of a vector changed.")
            unmoved = close(near, got.unturned)
            at_once = bool(case.positions[0, 0] == case.positions[0, 1])
            yield holds(unmoved or not at_once, "At offset 0 the dot product must be that of the unturned vectors.")
            yield holds(at_once or not unmoved, "The dot product does not depend on the offset at all.")
            return
        x = case.x.clone().requires_grad_()
        right = positions.apply_rope(x, case.positions, 10000.0 if case.theta is None else case.theta)
        yield same_shape(got.y, right)
        if case.x.dtype == torch.float16:
            # With exact angles three roundings are left, of cosine or sine, product and sum: each at most eps/2 of the pair.
            x = case.x.double()
            sizes = x.unflatten(-1, (-1, 2)).norm(dim=-1).repeat_interleave(2, dim=-1)
            error = (got.y.double() - positions.apply_rope(x, case.positions)).abs()
            exact = (error <= 2 * torch.finfo(torch.float16).eps * sizes).all()
            yield holds(
                exact, "In half precision the result is further off than rounding explains: compute angles in float32."
            )
            return
        # Coarsely, so that angles of too few digits are not taken for something else than a rotation.
        kept = torch.allclose(got.y.norm(dim=-1), case.x.norm(dim=-1), rtol=1e-4, atol=1e-4)
        yield holds(kept, "The length of a vector changed: this is no rotation.")
        yield same(got.y, right.detach())
        yield from same_gradients(got.gradients, gradients(right, {"x": x}))


slip(
    ApplyRope,
    "half-split pairs",
    "Component i is paired with component i + d/2. Here the pairs are consecutive, (2i, 2i + 1): x[..., 0::2] with "
    "x[..., 1::2], and back in the same places.",
    {
        "x[..., 0::2], x[..., 1::2]": "x.chunk(2, dim=-1)",
        "torch.stack([first": "torch.cat([first",
        "rotated.flatten(-2)": "rotated",
    },
)
slip(
    ApplyRope,
    "not put back in place",
    "The pairs are turned correctly, but the result holds all first components and then all second ones. Put them back "
    "side by side: stack on a new last axis, then flatten.",
    {"torch.stack([first": "torch.cat([first", "rotated.flatten(-2)": "rotated"},
)
slip(
    ApplyRope,
    "turns the other way",
    "The pairs turn the other way round: the minus sign belongs to the sine in the first component.",
    {
        "first * cos - second * sin, first * sin + second * cos": "first * cos + second * sin, second * cos - first * sin"
    },
)
slip(
    ApplyRope,
    "plus in both components",
    "Both components are sums, which is no rotation. The first is first * cos - second * sin.",
    {"first * cos - second * sin": "first * cos + second * sin"},
)
slip(
    ApplyRope,
    "sine and cosine exchanged",
    "Sine and cosine are exchanged: at position 0 nothing may change, and cos 0 = 1.",
    {"cos, sin = angles.cos(), angles.sin()": "sin, cos = angles.cos(), angles.sin()"},
)
slip(
    ApplyRope,
    "all pairs alike",
    "All pairs turn at the same rate. Pair i turns by theta^(-2i/d) a position.",
    {"theta ** (-pairs / width)": "theta ** (-0.0 * pairs)"},
)
slip(
    ApplyRope,
    "exponent without the 2",
    "The exponent is -i/d where it should be -2i/d.",
    {"torch.arange(0, width, 2, dtype": "torch.arange(0, width // 2, dtype"},
)
slip(
    ApplyRope,
    "divides by the number of pairs",
    "The exponent is divided by d/2. It is -2i/d, divided by the whole width.",
    {"-pairs / width": "-pairs / (width // 2)"},
)
slip(
    ApplyRope,
    "frequencies grow",
    "Each pair turns faster than the one before. The exponent is negative: theta^(-2i/d).",
    {"-pairs / width": "pairs / width"},
)
slip(
    ApplyRope,
    "ignores theta",
    "`theta` is not used: the frequencies are those of 10000, whatever it is.",
    {"* theta **": "* 10000.0 **"},
)
slip(
    ApplyRope,
    "ignores the positions",
    "`positions` is not used: the vectors are turned as if they stood at 0, 1, 2, ...",
    {"positions.unsqueeze(-1)": "torch.arange(x.size(-2)).unsqueeze(-1)"},
)
slip(
    ApplyRope,
    "positions from 1",
    "Every vector is turned one position too far. At position 0 nothing changes.",
    {"positions.unsqueeze(-1)": "(positions + 1).unsqueeze(-1)"},
)
slip(
    ApplyRope,
    "positions from the first one",
    "The first position is subtracted from all, so a query far along the sequence is turned as if it stood at 0.",
    {"positions.unsqueeze(-1)": "(positions - positions[..., :1]).unsqueeze(-1)"},
)
slip(
    ApplyRope,
    "adds instead of turning",
    "Sines and cosines are added to x. RoPE adds nothing: it turns each pair.",
    {"[first * cos - second * sin, first * sin + second * cos]": "[first + sin, second + cos]"},
)
slip(
    ApplyRope,
    "angles in half precision",
    "With x in half precision the angles are computed in half precision too, which cannot tell position 3001 from 3000. "
    "Use float32 for the angles there.",
    {"torch.promote_types(x.dtype, torch.float32)": "x.dtype"},
)
slip(
    ApplyRope,
    "half precision comes back as float32",
    "The result has another dtype than x: half precision became float32. Convert it back at the end.",
    {".to(x.dtype)": ""},
)
slip(
    ApplyRope,
    "changes x",
    "The result is written into x itself, which the caller still needs. Make a new tensor.",
    {"return rotated.flatten(-2).to(x.dtype)": "return x.copy_(rotated.flatten(-2))"},
)
slip(
    ApplyRope,
    "takes an odd width",
    "An odd width is not refused in words. Test it first, and raise a ValueError.",
    {"if width % 2 != 0": "if False"},
)
slip(
    ApplyRope,
    "another error for an odd width",
    "An odd width is refused by an assertion, which disappears when Python runs with -O. Raise a ValueError.",
    {"raise ValueError": "raise AssertionError"},
)


@exercise(
    "positions.alibi_bias",
    parts={"slopes": 1, "distances": 1, "fewer queries than keys": 1},
    difficulty=2,
    minutes=15,
    read="03_positions#alibi",
    instead="Build it from powers of two and a difference of positions.",
)
class AlibiBias(Check):
    """The slope of each head, the distance of each query and key, and queries that stand at the end of the keys."""

    equivalent: ClassVar = {
        "alibi_bias: return -slopes.view(-1, 1, 1) * distance"
        " -> return distance * -slopes.view(-1, 1, 1)": "a product has no order",
        "alibi_bias: slopes = 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)"
        " -> slopes = 2.0 ** (torch.arange(1, num_heads + 1) * -8 / num_heads)": "a product has no order",
        "alibi_bias: slopes = 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)"
        " -> slopes = 2.0 ** (-8 * torch.arange(1, 1 + num_heads) / num_heads)": "a sum has no order",
        "alibi_bias: distance = (queries.unsqueeze(1) - torch.arange(key_length)).abs()"
        " -> distance = (torch.arange(key_length) - queries.unsqueeze(1)).abs()": "a distance has no direction",
    }

    def prepare(self, rng):
        slopes, distances, fewer = self.parts
        for heads in (8, 2, 12):
            yield Case(f"{heads} heads", {"num_heads": heads, "query_length": 3, "key_length": 3}, slopes)
        yield Case("16 heads", {"num_heads": 16, "query_length": 2, "key_length": 2}, slopes, hidden=True)
        yield Case("5 positions", {"num_heads": 2, "query_length": 5, "key_length": 5}, distances)
        yield Case("1 position", {"num_heads": 4, "query_length": 1, "key_length": 1}, distances)
        yield Case("40 positions", {"num_heads": 1, "query_length": 40, "key_length": 40}, distances, hidden=True)
        yield Case("1 query, 6 keys", {"num_heads": 2, "query_length": 1, "key_length": 6}, fewer)
        yield Case("3 queries, 7 keys", {"num_heads": 3, "query_length": 3, "key_length": 7}, fewer)
        yield Case("4 queries, 5 keys", {"num_heads": 5, "query_length": 4, "key_length": 5}, fewer, hidden=True)

    @staticmethod
    def probe(alibi_bias, case, /):
        return {"bias": alibi_bias(case.num_heads, case.query_length, case.key_length)}

    def judge(self, case, got):
        right = positions.alibi_bias(case.num_heads, case.query_length, case.key_length)
        yield same_shape(got.bias, right, "the bias")
        yield holds(torch.isfinite(got.bias).all(), "The bias is not finite. It is no mask: it only lowers scores.")
        if case.key_length == 1:
            yield same(got.bias, right, "the bias")
            return
        if case.part == "slopes":
            # By size only, and where distances count in one step: signs and distances are other parts' matter.
            step = got.bias[:, -1, -2] - got.bias[:, -1, -1]
            expected = -right[:, -1, -2]
            yield same(step.abs(), expected, "how much each head's bias changes from one key to the next")
            return
        # By the student's own slopes: what these are is the first part's matter.
        own = -got.bias[:, -1, -2].view(-1, 1, 1)
        yield holds(
            (own > 0).all(),
            "The bias of a key one position away is not negative: it must lower the score, in each head.",
        )
        yield same(got.bias, own * (right / -right[:, -1, -2].view(-1, 1, 1)), "the bias")


slip(
    AlibiBias,
    "raises the score",
    "The bias is positive, so far keys get more weight instead of less. Put a minus sign before it.",
    {"return -slopes": "return slopes"},
)
slip(
    AlibiBias,
    "reward for the future",
    "Keys after the query get a positive bias: the difference has a sign. Use the distance, its absolute value.",
    {".abs()": ""},
)
slip(
    AlibiBias,
    "nothing for the future",
    "Keys after the query have the bias 0, as if they stood beside it. Use the distance, in both directions.",
    {".abs()": ".clamp(min=0)"},
)
slip(
    AlibiBias,
    "masks the future",
    "Keys after the query have the bias -inf. The bias is no mask: where the future must not be seen, the causal mask says so.",
    {
        "return -slopes.view(-1, 1, 1) * distance": "future = torch.arange(key_length) > queries.unsqueeze(1)\n"
        "    return (-slopes.view(-1, 1, 1) * distance).masked_fill(future, -math.inf)"
    },
)
slip(
    AlibiBias,
    "slopes in reverse order",
    "The slopes are in reverse order: head 0 has the largest.",
    {"slopes.view(": "slopes.flip(0).view("},
)
slip(
    AlibiBias,
    "slopes start at 1",
    "The first head has slope 1. The exponent counts heads from 1: -8 (h + 1) / H for head h.",
    {"torch.arange(1, num_heads + 1)": "torch.arange(num_heads)"},
)
slip(
    AlibiBias,
    "slopes of eight heads",
    "The slopes are 1/2, 1/4, 1/8, ... whatever the number of heads, which is right for eight only. Divide the exponent by H.",
    {"-8 * torch.arange(1, num_heads + 1) / num_heads": "-torch.arange(1, num_heads + 1)"},
)
slip(
    AlibiBias,
    "one slope for all heads",
    "All heads have the same slope, so they all see equally far. Each head has its own.",
    {"slopes.view(-1, 1, 1)": "slopes[0] * torch.ones(num_heads, 1, 1)"},
)
slip(
    AlibiBias,
    "equally spaced slopes",
    "The slopes are equally spaced. They are powers of two: each is the one before, divided by the same number.",
    {"2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)": "torch.arange(num_heads, 0, -1) / num_heads"},
)
slip(
    AlibiBias,
    "powers of e",
    "The slopes are powers of e. They are powers of 2.",
    {
        "2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)": "torch.exp(-8 * torch.arange(1, num_heads + 1) / num_heads)"
    },
)
slip(
    AlibiBias,
    "whole-number division",
    "The exponent is divided with `//`, so several heads share a slope. Use `/`.",
    {"+ 1) / num_heads": "+ 1) // num_heads"},
)
slip(
    AlibiBias,
    "squared distance",
    "The distance is squared. The bias is linear: it grows in proportion to the distance.",
    {"* distance": "* distance**2"},
)
slip(
    AlibiBias,
    "position of the key",
    "The bias is counted from the end of the keys, so all queries have the same row. Count from each query's own position.",
    {
        "queries.unsqueeze(1) - torch.arange(key_length)": "(key_length - 1) - torch.arange(key_length)",
        "* distance": "* distance.expand(query_length, -1)",
    },
)
slip(
    AlibiBias,
    "queries at the start",
    "The queries are placed at the start of the keys. They stand at the end: the last query has the position of the last key.",
    {"torch.arange(key_length - query_length, key_length)": "torch.arange(query_length)"},
)
slip(
    AlibiBias,
    "heads last",
    "The axis of the heads comes last. The shape is (H, Tq, Tk).",
    {"return -slopes.view(-1, 1, 1) * distance": "return -slopes * distance.unsqueeze(-1)"},
)
slip(
    AlibiBias,
    "queries and keys exchanged",
    "The axes of queries and keys are exchanged. The shape is (H, Tq, Tk).",
    {"* distance": "* distance.T"},
)

reflection(
    "positions.choose_encoding",
    chapter="03_positions",
    points=3,
    rubric="""
    1 point: says for each encoding what happens past position 512, with the reason. Learned: no vector, an error.
    Sinusoidal: vectors exist, but the layers never saw them. RoPE: scores depend on the offset only, but offsets above 511
    and the angles of the slow pairs there are new. ALiBi: far keys are lowered further, so little changes, and little is
    gained from far keys.

    1 point: measures before promising: the loss by position (or in stretches) on texts longer than 512, against the loss at
    trained positions, over several seeds; not only the mean over a whole text.

    1 point: makes a choice and names what speaks against it (for example ALiBi: far keys get little weight; RoPE: needs
    changed frequencies and some further training; learned: train longer or cut the text).
    """,
)
