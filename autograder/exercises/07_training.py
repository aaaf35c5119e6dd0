"""Checks of chapter 07: the loss, the optimiser, the learning rate, clipping, batches of text, and checkpoints."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from autograder.checks import Case, Check, exercise, reflection, slip
from autograder.compare import close, holds, identical, is_kind, same, same_gradients, same_shape
from autograder.forbidden import SOFTMAXES
from autograder.probe import gradients, temporary_path
from solutions import training

SUM = "a sum or a product in another order"
_STEP_LINE = "parameter.sub_(lr * mean_hat / (square_hat.sqrt() + eps))"
_COSINE_LINE = "return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * share)) / 2"
_NAME_LINE = "unfinished = path.with_name(path.name + '.unfinished')"
_LOAD_LINE = "saved = torch.load(file, weights_only=True, map_location='cpu')"
ROWS = "only rows are left after the selection, so axis 1 is the last"
_LOG_P_LINE = "log_probabilities = logits - logits.logsumexp(-1, keepdim=True)"
_OF_TARGET = "of_target = log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)"
_LOSS_LINE = "losses = -(1 - label_smoothing) * of_target - label_smoothing * log_probabilities.mean(-1)"
_MEAN_LINE = "return losses.sum() / max(len(losses), 1)"
NO_ERROR = "No ValueError was raised, though {}."


@exercise(
    "training.cross_entropy",
    parts={"values": 1, "ignored": 1, "smoothing": 1, "large logits": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=20,
    read="07_training#cross-entropy",
    sections={"ignored": "ignored-targets", "smoothing": "label-smoothing"},
    forbidden=("F.cross_entropy", "F.nll_loss"),
    builds_on=SOFTMAXES,
    instead="Build it from `logsumexp` and `gather`.",
)
class CrossEntropy(Check):
    """Shapes with none to three axes in front, ignored targets, smoothing, logits in the thousands, gradients."""

    equivalent: ClassVar = {
        f"cross_entropy: {old} -> {new}": why
        for old, new, why in [
            (
                _OF_TARGET,
                _OF_TARGET.replace("squeeze(-1)", "squeeze(1)").replace("unsqueeze(1)", "unsqueeze(-1)"),
                ROWS,
            ),
            (_OF_TARGET, _OF_TARGET.replace("gather(-1", "gather(1"), ROWS),
            (_OF_TARGET, _OF_TARGET.replace("unsqueeze(-1)", "unsqueeze(1)"), ROWS),
            (_LOG_P_LINE, _LOG_P_LINE.replace("logsumexp(-1", "logsumexp(1"), ROWS),
            (_LOSS_LINE, _LOSS_LINE.replace("mean(-1)", "mean(1)"), ROWS),
            (
                _LOSS_LINE,
                _LOSS_LINE.replace("-(1 - label_smoothing) * of_target", "of_target * -(1 - label_smoothing)"),
                SUM,
            ),
            (
                _LOSS_LINE,
                _LOSS_LINE.replace(
                    "label_smoothing * log_probabilities.mean(-1)", "log_probabilities.mean(-1) * label_smoothing"
                ),
                SUM,
            ),
            (_MEAN_LINE, _MEAN_LINE.replace("max(len(losses), 1)", "max(1, len(losses))"), SUM),
        ]
    }

    def prepare(self, rng):
        def inputs(*shape, scale=1.0, ignored=(), dtype=torch.float64, **options):
            logits = (scale * rng.normal(*shape)).to(dtype)
            targets = rng.integers(0, shape[-1], *shape[:-1])
            for place in ignored:
                targets.view(-1)[place] = options.get("ignore_index", -100)
            return {"logits": logits, "targets": targets, "options": options}

        values, ignored, smoothing, large, error = self.parts
        yield Case("5 targets of 7 classes", inputs(5, 7), values)
        yield Case("a batch of sequences", inputs(2, 3, 6), values)
        yield Case("one target", inputs(1, 4), values)
        yield Case("no axis in front", inputs(6), values)
        yield Case("three axes in front", inputs(2, 1, 3, 4), values)
        yield Case("two classes, float32", inputs(6, 2, dtype=torch.float32), values)
        yield Case("one of 4 ignored", inputs(4, 5, ignored=[1]), ignored)
        yield Case("most are ignored", inputs(2, 4, 5, ignored=[0, 1, 2, 5, 7]), ignored)
        yield Case("ignore_index=0", inputs(6, 5, ignored=[0, 3], ignore_index=0), ignored)
        yield Case("ignore_index=255, above V", inputs(4, 5, ignored=[2], ignore_index=255), ignored)
        yield Case("all are ignored", inputs(3, 5, ignored=[0, 1, 2]), ignored)
        yield Case("smoothing of 0.1", inputs(5, 7, label_smoothing=0.1), smoothing)
        yield Case("smoothing of 0.3, some ignored", inputs(2, 4, 5, ignored=[2, 6], label_smoothing=0.3), smoothing)
        yield Case("smoothing of 1", inputs(4, 3, label_smoothing=1.0), smoothing, hidden=True)
        yield Case("logits in the thousands", inputs(4, 5, scale=3000.0), large)
        yield Case("a target that seems impossible", inputs(3, 4, scale=800.0, label_smoothing=0.2), large)
        wrong = inputs(2, 3, 5)
        yield Case("logits (2, 3, 5), targets (6)", wrong | {"targets": wrong["targets"].view(-1)}, error)
        yield Case("logits (6, 5), targets (5)", inputs(6, 5) | {"targets": rng.integers(0, 5, 5)}, error)

    @staticmethod
    def probe(cross_entropy, case, /):
        logits = case.logits.clone().requires_grad_()
        try:
            loss = cross_entropy(logits, case.targets, **case.options)
        except ValueError:
            return {"error": "ValueError"}
        if not isinstance(loss, Tensor):
            return {"loss": loss, "gradients": {}}
        return {"loss": loss, "gradients": gradients(loss, {"logits": logits})}

    def judge(self, case, got):
        if case.part == "error":
            yield holds(hasattr(got, "error"), NO_ERROR.format("the targets do not fit the logits"))
            return
        yield holds(not hasattr(got, "error"), "A ValueError was raised for logits and targets that fit.")
        logits = case.logits.clone().requires_grad_()
        right = training.cross_entropy(logits, case.targets, **case.options)
        yield same(got.loss, right.detach(), "the loss")
        yield from same_gradients(got.gradients, gradients(right, {"logits": logits}))


_LOG_P = "logits - logits.logsumexp(-1, keepdim=True)"
_LOSSES = "-(1 - label_smoothing) * of_target - label_smoothing * log_probabilities.mean(-1)"
slip(
    CrossEntropy,
    "log of exp",
    "The logarithm of the softmax overflows, or is the logarithm of zero, where logits are large. Subtract "
    "`logits.logsumexp(-1, keepdim=True)` from the logits instead.",
    {_LOG_P: "(logits.exp() / logits.exp().sum(-1, keepdim=True)).log()"},
)
slip(
    CrossEntropy,
    "log of a sum of exp",
    "The exponential of a large logit is infinite, and that of a very small one is zero. `logits.logsumexp(-1, "
    "keepdim=True)` gives the logarithm of the sum without forming them.",
    {_LOG_P: "logits - logits.exp().sum(-1, keepdim=True).log()"},
)
slip(
    CrossEntropy,
    "log of softmax",
    "The softmax of a very small logit is zero, and its logarithm minus infinity. Subtract "
    "`logits.logsumexp(-1, keepdim=True)` from the logits instead: no probability is ever formed.",
    {_LOG_P: "torch.log(torch.softmax(logits, -1))"},
)
slip(
    CrossEntropy,
    "a small number inside the logarithm",
    "A small number is added before the logarithm. That hides the infinity and changes every loss. Subtract "
    "`logits.logsumexp(-1, keepdim=True)` from the logits instead.",
    {_LOG_P: "torch.log(torch.softmax(logits, -1) + 1e-8)"},
)
slip(
    CrossEntropy,
    "logits not normalised",
    "The logits are taken for log-probabilities. Subtract `logits.logsumexp(-1, keepdim=True)` first.",
    {_LOG_P: "logits"},
)
slip(
    CrossEntropy,
    "sign",
    "The loss has the wrong sign: it falls as the predictions get worse.",
    {"return losses": "return -losses"},
)
slip(
    CrossEntropy,
    "sum instead of mean",
    "The losses are added up. Divide by the number of targets that count.",
    {" / max(len(losses), 1)": ""},
)
slip(
    CrossEntropy,
    "ignored targets in the mean",
    "The sum is divided by the number of all targets. Ignored ones do not count: divide by the number of the others.",
    {"max(len(losses), 1)": "max(counts.numel(), 1)"},
    read="ignored-targets",
)
slip(
    CrossEntropy,
    "nothing ignored",
    "Targets with the value ignore_index are not left out.",
    {"targets != ignore_index": "targets >= 0", "logits, targets = logits[counts], targets[counts]": "targets = "
     "targets.clamp(min=0)\n    logits, targets = logits.flatten(0, -2), targets.flatten()"},
    read="ignored-targets",
)  # fmt: skip
slip(
    CrossEntropy,
    "ignored targets looked up",
    "The log-probability is looked up for the ignored targets too, and their value is no class. Take their places out of "
    "logits and targets first.",
    {
        "    logits, targets = logits[counts], targets[counts]\n": "",
        "    return losses": "    losses = losses[counts]\n    return losses",
    },
    read="ignored-targets",
)
slip(
    CrossEntropy,
    "always -100",
    "Only -100 is left out, whatever ignore_index says.",
    {"targets != ignore_index": "targets != -100"},
    read="ignored-targets",
)
slip(
    CrossEntropy,
    "NaN where nothing counts",
    "Where every target is ignored, zero is divided by zero. Divide by at least 1: the loss is then 0, and so is its "
    "gradient.",
    {"losses.sum() / max(len(losses), 1)": "losses.mean()"},
    read="ignored-targets",
)
slip(
    CrossEntropy,
    "smoothing ignored",
    "`label_smoothing` is not used.",
    {_LOSSES: "-of_target"},
    read="label-smoothing",
)
slip(
    CrossEntropy,
    "smoothing summed over the classes",
    "The smoothing is spread over the classes: each gets label_smoothing / V. Take the mean over the classes, not the sum.",
    {"log_probabilities.mean(-1)": "log_probabilities.sum(-1)"},
    read="label-smoothing",
)
slip(
    CrossEntropy,
    "smoothing over the other classes only",
    "The smoothing is spread over the other classes only. The target gets its share of it too.",
    {
        "log_probabilities.mean(-1)": "(log_probabilities.sum(-1) - of_target) / max(log_probabilities.size(-1) - 1, 1)",
    },
    read="label-smoothing",
)
slip(
    CrossEntropy,
    "smoothing added on top",
    "The target's own share is not reduced: multiply it by 1 - label_smoothing.",
    {"-(1 - label_smoothing) * of_target": "-of_target"},
    read="label-smoothing",
)
slip(
    CrossEntropy,
    "any shapes",
    "Targets that do not fit the logits are not refused with a ValueError.",
    {"logits.shape[:-1] != targets.shape": "False"},
)
slip(
    CrossEntropy,
    "only the number of targets compared",
    "Targets of another shape pass if there are as many of them. Compare the shapes.",
    {
        "logits.shape[:-1] != targets.shape": "logits.shape[:-1].numel() != targets.numel()",
        "    counts =": "    logits, targets = logits.flatten(0, -2), targets.flatten()\n    counts =",
    },
)
slip(
    CrossEntropy,
    "a Python number",
    "The loss is a Python number, so no gradient can flow. Leave it a tensor.",
    {"return losses.sum() / max(len(losses), 1)": "return (losses.sum() / max(len(losses), 1)).item()"},
)


@exercise(
    "training.AdamW",
    parts={"first step": 1, "many steps": 2, "weight decay": 1, "groups": 1, "state": 1, "closure": 1, "errors": 1},
    claims=("errors",),
    difficulty=3,
    minutes=30,
    read="07_training#adamw",
    sections={
        "weight decay": "weight-decay",
        "state": "optimiser-state",
        "groups": "optimiser-state",
        "closure": "optimiser-state",
    },
    forbidden=("torch.optim.AdamW",),
    instead="Write the three lines of the update yourself, on top of `torch.optim.Optimizer`.",
)
class AdamWCheck(Check):
    """Parameters after each of many steps, with decay, groups, missing gradients, and a state that is loaded back."""

    equivalent: ClassVar = {
        "AdamW._update: mean, square = (state['mean'], state['square']) -> mean, square = (state['square'], "
        "state['mean'])": "what the two are called does not matter",
        "AdamW._update: parameter.mul_(1 - lr * weight_decay) -> parameter.mul_(1 - weight_decay * lr)": SUM,
    } | {
        f"AdamW._update: {_STEP_LINE} -> {_STEP_LINE.replace(old, new)}": SUM
        for old, new in (("lr * mean_hat", "mean_hat * lr"), ("square_hat.sqrt() + eps", "eps + square_hat.sqrt()"))
    }

    def prepare(self, rng):
        def inputs(steps, *shapes, scale=1.0, dtype=torch.float64, **rest):
            return {
                "start": [rng.normal(*shape, dtype=dtype) for shape in shapes],
                "gradients": [[scale * rng.normal(*shape, dtype=dtype) for shape in shapes] for _ in range(steps)],
                "settings": rest.pop("settings", {}),
                "changes": rest.pop("changes", []),
                "groups": rest.pop("groups", []),
                "missing": rest.pop("missing", []),
                "joins": rest.pop("joins", steps),
                "reload": rest.pop("reload", 0),
                "closure": rest.pop("closure", False),
            }

        first, many, decay, groups, state, closure, errors = self.parts
        # A tenth a step: of a step by the usual thousandth, rounding in float32 would hide the hundredth part.
        still = {"weight_decay": 0.0}
        tenth = {"lr": 0.1} | still
        yield Case("one step", inputs(1, (3, 2), settings=tenth), first)
        yield Case("one step with tiny gradients", inputs(1, (4,), scale=1e-9, settings=tenth), first)
        yield Case("one step with the usual lr", inputs(1, (3,), settings=still), first)
        yield Case("30 steps", inputs(30, (2, 3), (4,), settings={"lr": 0.05, "weight_decay": 0.0}), many)
        betas = {"lr": 0.02, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.0}
        yield Case("other betas and eps", inputs(12, (5,), settings=betas), many)
        yield Case("float32", inputs(5, (3,), dtype=torch.float32, settings=still), many)
        yield Case("lr of 0", inputs(2, (3,), settings={"lr": 0.0}), many)
        none = {"lr": 0.1, "betas": (0.0, 0.0), "eps": 0.0, "weight_decay": 0.0}
        yield Case("betas, eps and decay of 0", inputs(3, (4,), settings=none), many)
        rates = [{"lr": rate} for rate in (0.1, 0.05, 0.0, 0.2, 0.01)]
        yield Case("a learning rate that changes", inputs(5, (4,), changes=rates, settings=still), many)
        changes = [{}, {"weight_decay": 0.4}, {"lr": 0.3}, {"eps": 1e-2}]
        yield Case("all settings change", inputs(4, (4,), settings={"lr": 0.1}, changes=changes), groups)
        yield Case("80 steps", inputs(80, (3,), settings={"lr": 0.01} | still), many, hidden=True)
        yield Case("the usual decay", inputs(5, (3, 2), settings={"lr": 0.1}), decay)
        yield Case("decay of 0.3", inputs(6, (3, 3), settings={"lr": 0.1, "weight_decay": 0.3}), decay)
        zeros = inputs(4, (3,), scale=0.0, settings={"lr": 0.1, "weight_decay": 0.5})
        yield Case("gradients of zero", zeros, decay)
        own = [{"lr": 0.1, "weight_decay": 0.0}, {"weight_decay": 0.5}]
        yield Case("two groups with settings of their own", inputs(5, (3,), (2, 2), groups=own), groups)
        yield Case("one parameter has no gradient", inputs(4, (3,), (2,), missing=[1]), groups)
        late = inputs(5, (3,), (2,), missing=[1], joins=2, settings={"lr": 0.1})
        yield Case("one parameter gets its first gradient late", late, groups)
        yield Case("step with a closure", inputs(3, (4,), closure=True, settings={"lr": 0.1} | still), closure)
        yield Case("state saved and loaded", inputs(8, (3,), (2, 2), reload=4, settings={"lr": 0.05} | still), state)
        yield Case("state loaded after one step", inputs(3, (4,), reload=1, settings=tenth), state, hidden=True)
        for title, wrong in {
            "a negative lr": {"lr": -0.1},
            "a beta of 1": {"betas": (0.9, 1.0)},
            "a negative beta": {"betas": (-0.1, 0.9)},
            "a negative eps": {"eps": -1e-8},
            "a negative decay": {"weight_decay": -0.1},
        }.items():
            yield Case(title, inputs(1, (2,), settings=wrong), errors)

    @staticmethod
    def probe(AdamW, case, /):  # noqa: N803  # the student's name for it
        def make(values):
            made = [nn.Parameter(value.clone()) for value in values]
            groups = [{"params": [one], **own} for one, own in zip(made, case.groups)] if case.groups else made  # noqa: B905
            return made, AdamW(groups, **case.settings)

        try:
            parameters, optimizer = make(case.start)
        except ValueError:
            return {"error": "ValueError"}
        after, kept, calls, losses = [], True, [], []
        for step, found in enumerate(case.gradients):
            if case.reload and step == case.reload:
                kept = optimizer.state_dict()
                parameters, optimizer = make([parameter.detach() for parameter in parameters])
                optimizer.load_state_dict(kept)
            for place, (parameter, gradient) in enumerate(zip(parameters, found)):  # noqa: B905
                parameter.grad = None if place in case.missing and step < case.joins else gradient.clone()
            for group in optimizer.param_groups:
                group.update(case.changes[step] if case.changes else {})

            def closure(found=found, parameters=parameters, optimizer=optimizer):
                calls.append(torch.is_grad_enabled())
                optimizer.zero_grad()
                loss = sum((parameter * gradient).sum() for parameter, gradient in zip(parameters, found))  # noqa: B905
                loss.backward()
                return loss.detach()

            losses.append(optimizer.step(closure) if case.closure else optimizer.step())
            after.append([parameter.detach().clone() for parameter in parameters])
            given = [(parameter.grad, gradient) for parameter, gradient in zip(parameters, found)]  # noqa: B905
            kept = kept and all(own is None or torch.equal(own, gradient) for own, gradient in given)
        return {"after": after, "kept": kept, "calls": calls, "losses": losses if case.closure else []}

    def judge(self, case, got):
        if case.part == "errors":
            yield holds(hasattr(got, "error"), NO_ERROR.format("a setting is outside its range"))
            return
        yield holds(not hasattr(got, "error"), "A ValueError was raised for settings that are fine.")
        expected_all = type(self).probe(training.AdamW, case)
        right = expected_all["after"]
        for step, (mine, theirs) in enumerate(zip(right, got.after, strict=True)):
            for place, (expected, found) in enumerate(zip(mine, theirs, strict=True)):
                yield same(found, expected, f"parameter {place} after step {step + 1}")
        yield holds(got.kept, "A gradient was changed. Leave it as it is: others may still look at it.")
        once = "The closure must be called once a step, with gradients switched on."
        yield holds(close(got.calls, expected_all["calls"]), once)
        for found in got.losses:
            yield is_kind(found, Tensor, "the loss that the closure returned", "the result of `step`")
        yield holds(close(got.losses, expected_all["losses"]), "`step` must return the loss that the closure returned.")


_DECAY = "parameter.mul_(1 - lr * weight_decay)"
_MEAN_HAT = 'mean_hat = mean / (1 - beta1 ** state["step"])'
_SQUARE_HAT = 'square_hat = square / (1 - beta2 ** state["step"])'
_FOUND = "if parameter.grad is not None:"
slip(
    AdamWCheck,
    "decay through the gradient",
    "The decay is added to the gradient, so the division by sqrt(v) weakens it where gradients are large. That is Adam "
    "with L2 regularisation. In AdamW the parameter shrinks by itself: multiply it by 1 - lr * weight_decay.",
    {
        "        beta1, beta2 = betas\n": "        gradient = gradient + weight_decay * parameter\n        beta1, beta2 = betas\n",
        _DECAY: "pass",
    },
    read="weight-decay",
)
slip(
    AdamWCheck,
    "decay without the learning rate",
    "The parameter is multiplied by 1 - weight_decay. Multiply it by 1 - lr * weight_decay.",
    {"1 - lr * weight_decay": "1 - weight_decay"},
    read="weight-decay",
)
slip(
    AdamWCheck,
    "decay after the step",
    "The decay acts after the step, and so on the step too. It comes first.",
    {
        "        " + _DECAY + "\n": "",
        "parameter.sub_(lr * mean_hat / (square_hat.sqrt() + eps))": "parameter.sub_(lr * mean_hat / (square_hat.sqrt() + "
        "eps))\n        " + _DECAY,
    },
    read="weight-decay",
)
slip(AdamWCheck, "no decay", "`weight_decay` is not used.", {_DECAY: "pass"}, read="weight-decay")
slip(
    AdamWCheck,
    "means not corrected",
    "The running means start at zero and are not corrected for it, so the first steps are wrong. Divide them by "
    "1 - beta ** t.",
    {_MEAN_HAT: "mean_hat = mean", _SQUARE_HAT: "square_hat = square"},
    read="bias-correction",
)
slip(
    AdamWCheck,
    "only the first mean corrected",
    "The mean of the gradients is corrected for its start at zero, and that of their squares is not.",
    {_SQUARE_HAT: "square_hat = square"},
    read="bias-correction",
)
slip(
    AdamWCheck,
    "steps counted from 0",
    "At the first step t is 0, and 1 - beta ** 0 is zero. Count the steps from 1: add one before the correction.",
    {'state["step"] += 1\n': "pass\n", "parameter.mul_(1 - lr": 'state["step"] += 1\n        parameter.mul_(1 - lr'},
    read="bias-correction",
)
slip(
    AdamWCheck,
    "eps under the root",
    "`eps` stands under the root, as in sqrt(v + eps). It stands beside it: sqrt(v) + eps.",
    {"(square_hat.sqrt() + eps)": "(square_hat + eps).sqrt()"},
)
slip(
    AdamWCheck,
    "no root",
    "The mean is divided by the mean of the squares, not by its root.",
    {"square_hat.sqrt()": "square_hat"},
)
slip(
    AdamWCheck,
    "means of the gradient alone",
    "The gradient itself is averaged twice; the second mean is of its square.",
    {"addcmul_(gradient, gradient, value=1 - beta2)": "add_(gradient.abs(), alpha=1 - beta2)"},
)
slip(
    AdamWCheck,
    "betas exchanged",
    "The betas are exchanged: the first belongs to the mean of the gradients, the second to that of their squares.",
    {"beta1, beta2 = betas": "beta2, beta1 = betas"},
)
slip(
    AdamWCheck,
    "gradient not weighted",
    "The new gradient goes into the mean with its full weight. Multiply it by 1 - beta1.",
    {"add_(gradient, alpha=1 - beta1)": "add_(gradient)"},
)
slip(
    AdamWCheck,
    "up the slope",
    "The parameters move along the gradient, where the loss grows. Subtract the step.",
    {"parameter.sub_(lr * mean_hat": "parameter.add_(lr * mean_hat"},
)
slip(
    AdamWCheck,
    "one state for all",
    "All parameters share one state. Keep it in `self.state[parameter]`.",
    {"state = self.state[parameter]": 'state = self.state["all"]'},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "state beside the optimiser's",
    "The running means are not in `self.state`, so `state_dict` does not have them, and a training that is resumed starts "
    "without them.",
    {"state = self.state[parameter]": "state = self.__dict__.setdefault('own', {}).setdefault(id(parameter), {})"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "settings of the first group for all",
    "Every group gets the settings of the first. Each has its own.",
    {
        "self._update(parameter, parameter.grad, **group)": "self._update(parameter, parameter.grad, **self.param_groups[0])"
    },
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "the settings of the beginning",
    "The settings are those that the optimiser was made with. Take them from the group: it may have its own, and they may "
    "have changed since.",
    {"parameter.grad, **group)": "parameter.grad, **self.defaults)"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "only the first group",
    "Only the first group of parameters is changed. Go through all of `self.param_groups`.",
    {"for group in self.param_groups:": "for group in self.param_groups[:1]:"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "parameters replaced",
    "A new tensor is made, and the model's parameter stays as it was. Change it in place, with `sub_` and `mul_`.",
    {"parameter.sub_(lr * mean_hat": "parameter = parameter - (lr * mean_hat"},
)
slip(
    AdamWCheck,
    "gradients that are not there",
    "A parameter that took no part in the loss has None as its gradient. Pass it over.",
    {_FOUND: "if True:"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "gradients of zero passed over",
    "A parameter whose gradient is zero everywhere is passed over. Only None means that there is none: the means still "
    "move, and the decay still acts.",
    {_FOUND: "if parameter.grad is not None and parameter.grad.any():"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "one count for all",
    "All parameters share one count of steps. A parameter that gets its first gradient late is at its first step then: "
    "keep the count in its own state.",
    {
        'state["step"] += 1\n': "pass\n",
        "        for group in self.param_groups:\n": "        self.defaults['count'] = self.defaults.get('count', 0) + 1\n"
        "        for group in self.param_groups:\n",
        '** state["step"]': "** self.defaults['count']",
    },
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "closure without gradients",
    "The closure is called with gradients switched off, so its backward fails. Call it under `torch.enable_grad()`.",
    {"            with torch.enable_grad():\n                loss = closure()": "            loss = closure()"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "closure not called",
    "The closure is not called.",
    {"            with torch.enable_grad():\n                loss = closure()": "            pass"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "closure after the update",
    "The closure is called after the update. Call it first: the gradients that it works out are the ones to use, and its "
    "loss is that of the parameters before the step.",
    {
        "        if closure is not None:\n            with torch.enable_grad():\n                loss = closure()\n": "",
        "        return loss": "        if closure is not None:\n            with torch.enable_grad():\n"
        "                loss = closure()\n        return loss",
    },
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "loss not returned",
    "The loss that the closure gives is not returned.",
    {"        return loss": "        return None"},
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "decay without a gradient",
    "A parameter without a gradient is shrunk all the same. Pass it over.",
    {
        "                if parameter.grad is not None:\n": "                if parameter.grad is None:\n"
        '                    parameter.mul_(1 - group["lr"] * group["weight_decay"])\n'
        "                else:\n",
    },
    read="optimiser-state",
)
slip(
    AdamWCheck,
    "any settings",
    "Settings outside their range are not refused with a ValueError.",
    {
        "if lr < 0 or eps < 0 or weight_decay < 0:": "if False:",
        "if not all(0 <= beta < 1 for beta in betas):": "if False:",
    },
)
slip(
    AdamWCheck,
    "betas not looked at",
    "Betas outside 0 to 1 are not refused with a ValueError.",
    {"if not all(0 <= beta < 1 for beta in betas):": "if False:"},
)
slip(
    AdamWCheck,
    "a beta of 1 allowed",
    "A beta of 1 is let pass. The mean would never see a gradient, and 1 - beta ** t would be zero.",
    {"0 <= beta < 1": "0 <= beta <= 1"},
)


@exercise(
    "training.warmup_cosine",
    parts={"warm-up": 1, "cosine": 1, "after": 1, "error": 1},
    claims=("after", "error"),
    difficulty=1,
    minutes=10,
    read="07_training#schedule",
    instead="Build it from the formula, with `math.cos`.",
)
class WarmupCosine(Check):
    """Every step of a few schedules, the corners among them."""

    equivalent: ClassVar = {
        "warmup_cosine: share = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps)) -> share = "
        "min((step - warmup_steps) / (total_steps - warmup_steps), 1.0)": SUM,
        "warmup_cosine: return max_lr * step / warmup_steps -> return step * max_lr / warmup_steps": SUM,
    } | {
        f"warmup_cosine: {_COSINE_LINE} -> return {new}": SUM
        for new in (
            "(max_lr - min_lr) * (1 + math.cos(math.pi * share)) / 2 + min_lr",
            "min_lr + (1 + math.cos(math.pi * share)) * (max_lr - min_lr) / 2",
            "min_lr + (max_lr - min_lr) * (math.cos(math.pi * share) + 1) / 2",
            "min_lr + (max_lr - min_lr) * (1 + math.cos(share * math.pi)) / 2",
        )
    }

    def prepare(self, rng):
        # Rates of this size, so that a hundredth of one is no rounding.
        sizes = {"max_lr": 0.8, "min_lr": 0.1, "warmup_steps": 10, "total_steps": 50}
        warm, cosine, after, error = self.parts
        yield Case("up to the top", {"steps": [0, 1, 5, 9]} | sizes, warm)
        yield Case("the top and the way down", {"steps": [10, 11, 20, 30, 40, 49]} | sizes, cosine)
        yield Case("the end and later", {"steps": [50, 51, 1000]} | sizes, after)
        none = {"max_lr": 0.5, "min_lr": 0.0, "warmup_steps": 0, "total_steps": 8}
        yield Case("no warm-up", {"steps": list(range(8))} | none, cosine)
        yield Case("down to zero", {"steps": [8, 9]} | none, after)
        top = float(rng.normal(1).abs()) + 0.1
        low, warmup = top * 0.3, int(rng.integers(3, 9, 1))
        drawn = {"max_lr": top, "min_lr": low, "warmup_steps": warmup, "total_steps": warmup + 17}
        yield Case("other numbers, warm-up", {"steps": list(range(warmup))} | drawn, warm, hidden=True)
        yield Case("other numbers, cosine", {"steps": list(range(warmup, warmup + 17))} | drawn, cosine, hidden=True)
        yield Case("total_steps=10, warmup_steps=10", {"steps": [3]} | sizes | {"total_steps": 10}, error)
        yield Case("total_steps=5, warmup_steps=10", {"steps": [3]} | sizes | {"total_steps": 5}, error)

    @staticmethod
    def probe(warmup_cosine, case, /):
        sizes = {"max_lr": case.max_lr, "min_lr": case.min_lr}
        sizes |= {"warmup_steps": case.warmup_steps, "total_steps": case.total_steps}
        try:
            rates = [warmup_cosine(step, **sizes) for step in case.steps]
        except ValueError:
            return {"error": "ValueError"}
        plain = all(isinstance(rate, int | float) for rate in rates)
        return {"rates": torch.tensor(rates, dtype=torch.float64) if plain else rates[0]}

    def judge(self, case, got):
        if case.part == "error":
            yield holds(hasattr(got, "error"), NO_ERROR.format("total_steps is not more than warmup_steps"))
            return
        yield holds(not hasattr(got, "error"), "A ValueError was raised for a schedule that is fine.")
        rates = [
            training.warmup_cosine(step, case.max_lr, case.min_lr, case.warmup_steps, case.total_steps)
            for step in case.steps
        ]
        yield is_kind(got.rates, Tensor, "a float; use the module `math`", "a learning rate")
        yield holds(got.rates.dim() == 1, "A learning rate is a tensor. Return a float; use the module `math`.")
        yield same(got.rates, torch.tensor(rates, dtype=torch.float64), "the learning rate at these steps")


_WARM = "return max_lr * step / warmup_steps"
_SHARE = "share = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))"
_DOWN = "min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * share)) / 2"
slip(
    WarmupCosine,
    "warm-up from the first step on",
    "The warm-up is one step ahead: at step 0 the rate is 0, and max_lr is reached at step `warmup_steps`.",
    {_WARM: "return max_lr * (step + 1) / warmup_steps"},
)
slip(
    WarmupCosine,
    "warm-up from min_lr",
    "The warm-up starts at min_lr. It starts at 0.",
    {_WARM: "return min_lr + (max_lr - min_lr) * step / warmup_steps"},
)
slip(WarmupCosine, "no warm-up", "There is no warm-up.", {_WARM: "return max_lr"})
slip(
    WarmupCosine,
    "cosine counted from step 0",
    "The way down is measured from step 0, so the rate jumps when the warm-up ends. Measure it from `warmup_steps`.",
    {_SHARE: "share = min(1.0, step / total_steps)"},
)
slip(
    WarmupCosine,
    "cosine over all steps",
    "The way down takes total_steps steps. It begins after the warm-up and ends at total_steps: that is fewer.",
    {"/ (total_steps - warmup_steps))": "/ total_steps)"},
)
slip(
    WarmupCosine,
    "a straight line down",
    "The rate falls in a straight line. It falls along half a cosine.",
    {_DOWN: "max_lr + (min_lr - max_lr) * share"},
)
slip(
    WarmupCosine,
    "a whole cosine",
    "The rate falls and rises again. Half a turn of the cosine is pi.",
    {"math.pi * share": "2 * math.pi * share"},
)
slip(
    WarmupCosine,
    "down to zero",
    "The rate falls to zero. It falls to min_lr.",
    {_DOWN: "max_lr * (1 + math.cos(math.pi * share)) / 2"},
)
slip(
    WarmupCosine,
    "min_lr on top",
    "min_lr is added to the whole curve, so the top is max_lr + min_lr.",
    {"(max_lr - min_lr) *": "max_lr *"},
)
slip(
    WarmupCosine,
    "up again after the end",
    "After total_steps the cosine goes on, and the rate rises. Keep min_lr.",
    {_SHARE: "share = (step - warmup_steps) / (total_steps - warmup_steps)"},
)
slip(
    WarmupCosine,
    "any sizes",
    "A total_steps that is not more than warmup_steps is not refused with a ValueError.",
    {"if total_steps <= warmup_steps:": "if False:"},
)


@exercise(
    "training.clip_gradients",
    parts={"norm": 1, "clipped": 1, "untouched": 1},
    difficulty=1,
    minutes=10,
    read="07_training#clipping",
    forbidden=("nn.utils.clip_grad_norm_",),
    instead="Add up the squares of all gradients, take the root, and multiply the gradients in place.",
)
class ClipGradients(Check):
    """Long and short gradients, several parameters, some without a gradient."""

    equivalent: ClassVar = {
        "clip_gradients: factor = (max_norm / (total_norm + 1e-06)).clamp(max=1.0) -> factor = (max_norm / (1e-06 + "
        "total_norm)).clamp(max=1.0)": SUM,
    }

    def prepare(self, rng):
        def inputs(max_norm, *shapes, scale=1.0, missing=(), dtype=torch.float64):
            found = [scale * rng.normal(*shape, dtype=dtype) for shape in shapes]
            return {"gradients": found, "max_norm": max_norm, "missing": list(missing), "as_list": False}

        norm, clipped, untouched = self.parts
        yield Case("one parameter", inputs(100.0, (3, 4)), norm)
        yield Case("three parameters", inputs(100.0, (3,), (2, 2), (1, 5)), norm)
        yield Case("one without a gradient", inputs(100.0, (3,), (2, 2), (4,), missing=[1]), norm)
        yield Case("no gradients at all", inputs(1.0, (3,), missing=[0]), norm)
        yield Case("too long by far", inputs(1.0, (3, 4), scale=50.0), clipped)
        yield Case("two parameters, too long", inputs(0.5, (3,), (2, 2), scale=3.0), clipped)
        yield Case(
            "a little too long", inputs(1.9, (4,)) | {"gradients": [torch.ones(4, dtype=torch.float64)]}, clipped
        )
        yield Case("float32, one without", inputs(0.1, (3,), (5,), missing=[0], dtype=torch.float32), clipped)
        yield Case("a list of two", inputs(0.5, (3,), (2, 2), scale=3.0) | {"as_list": True}, clipped)
        tiny = torch.tensor([3e-4, -4e-4], dtype=torch.float64)  # 5e-4 long: a millionth more is not nothing
        yield Case("tiny ones, and still too long", inputs(2e-4, (2,)) | {"gradients": [tiny]}, clipped)
        yield Case("short ones", inputs(1.0, (3,), (2, 2), scale=0.01), untouched)
        yield Case("zeros", inputs(1.0, (3,), scale=0.0), untouched)
        yield Case("longer than 1, and allowed", inputs(30.0, (5, 5)), untouched, hidden=True)

    @staticmethod
    def probe(clip_gradients, case, /):
        parameters = []
        for place, gradient in enumerate(case.gradients):
            parameter = nn.Parameter(torch.zeros_like(gradient))
            parameter.grad = None if place in case.missing else gradient.clone()
            parameters.append(parameter)
        before = [parameter.grad for parameter in parameters]
        total = clip_gradients(parameters if case.as_list else iter(parameters), case.max_norm)
        kept = all(old is parameter.grad for old, parameter in zip(before, parameters))  # noqa: B905
        return {"total": total, "gradients": [parameter.grad for parameter in parameters], "kept": kept}

    def judge(self, case, got):
        right = type(self).probe(training.clip_gradients, case)
        yield is_kind(got.total, torch.Tensor, "the length before the clipping, a tensor with one number")
        number = got.total
        yield holds(number.numel() == 1, "The result is not one number.")
        total = right["total"]
        # Beside what they should be, so that rounding is told from mistakes in short gradients as in long ones.
        long = total if total > 0 else torch.ones_like(total)
        yield holds(
            close(number.reshape(()).to(total) / long, total / long),
            f"The length of the gradient is not {float(number):.3g}.",
        )
        for place, (found, expected) in enumerate(zip(got.gradients, right["gradients"], strict=True)):
            if expected is not None:
                name = f"the gradient of parameter {place}"
                yield same_shape(found, expected, name)
                unit = long.clamp(max=case.max_norm)
                yield same(found / unit, expected / unit, f"{name}, in parts of its right length")
        yield holds(got.kept, "A gradient was replaced by another tensor. Change it in place.")


_LENGTH = "torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()"
slip(
    ClipGradients,
    "each parameter by itself",
    "Each gradient is clipped by itself, which changes the direction of the whole. There is one length for all together.",
    {
        "        gradient.mul_(factor)": "        gradient.mul_((max_norm / (gradient.norm() + 1e-6)).clamp(max=1.0))",
    },
)
slip(
    ClipGradients,
    "number by number",
    "Each number is cut off at max_norm. Multiply the whole gradient by one factor, so that it keeps its direction.",
    {"gradient.mul_(factor)": "gradient.clamp_(-max_norm, max_norm)"},
)
slip(
    ClipGradients,
    "lengths added",
    "The lengths of the parameters' gradients are added up. Add up their squares, and take the root of the sum.",
    {_LENGTH: "torch.stack([gradient.norm() for gradient in gradients]).sum()"},
)
slip(ClipGradients, "no root", "The sum of the squares is not the length. Take its root.", {".sum().sqrt()": ".sum()"})
slip(
    ClipGradients,
    "always scaled to max_norm",
    "Short gradients are made longer. Only ones that are too long may change: the factor is at most 1.",
    {".clamp(max=1.0)": ""},
)
slip(
    ClipGradients,
    "returns the length after",
    "The length after the clipping is returned. The one before tells how the training is doing.",
    {"return total_norm": "return total_norm * factor"},
)
slip(
    ClipGradients,
    "parameters clipped",
    "The parameters are measured, not their gradients.",
    {"[parameter.grad for parameter": "[parameter.data for parameter"},
)
slip(
    ClipGradients,
    "no small number",
    "The factor is max_norm / length. PyTorch adds a millionth to the length, so that zero is never divided by.",
    {"(total_norm + 1e-6)": "total_norm"},
)
slip(
    ClipGradients,
    "gradients replaced",
    "The gradients are not changed: the new ones exist in your function only. Multiply in place, with `mul_`.",
    {"gradient.mul_(factor)": "gradient = gradient * factor"},
)
slip(
    ClipGradients,
    "goes through them twice",
    "The parameters are gone through twice. They may come from an iterator, such as `model.parameters()`, which is empty "
    "the second time: make a list of the gradients first.",
    {
        "    for gradient in gradients:\n        gradient.mul_(factor)\n": "    for parameter in parameters:\n"
        "        if parameter.grad is not None:\n            parameter.grad.mul_(factor)\n",
    },
)
slip(
    ClipGradients,
    "None not passed over",
    "A parameter without a gradient has None there. Pass it over.",
    {" if parameter.grad is not None]": "]"},
)
slip(
    ClipGradients,
    "nothing to stack",
    "Where no parameter has a gradient, your function fails. Its length is 0 then.",
    {"if not gradients:": "if False:"},
)


@exercise(
    "training.sample_batch",
    parts={"pieces": 2, "places": 1, "generator": 1, "error": 1},
    claims=("error",),
    difficulty=2,
    minutes=15,
    read="07_training#sample-batch",
)
class SampleBatch(Check):
    """The text is made of its own places, so each batch shows where it was cut out."""

    equivalent: ClassVar = {
        "sample_batch: where = (starts + torch.arange(context_length)).to(tokens.device) -> where = starts + "
        "torch.arange(context_length)": "the check runs on the CPU, where indices are already",
        "sample_batch: where = (starts + torch.arange(context_length)).to(tokens.device) -> where = "
        "(torch.arange(context_length) + starts).to(tokens.device)": SUM,
        "sample_batch: return (tokens[where], tokens[where + 1]) -> return (tokens[where], tokens[1 + where])": SUM,
    }

    def prepare(self, rng):
        def inputs(length, batch_size, context_length, first=0, step=1):
            tokens = first + step * torch.arange(length)
            sizes = {"batch_size": batch_size, "context_length": context_length, "seed": int(rng.integers(0, 999, 1))}
            valid = length > context_length
            return {"tokens": tokens, "first": first, "step": step, "mixed": False, "valid": valid} | sizes

        pieces, places, generator, error = self.parts
        yield Case("3 pieces of 5", inputs(100, 3, 5), pieces)
        yield Case("1 piece of 1", inputs(9, 1, 1), pieces)
        yield Case("ids that count by 7", inputs(60, 4, 6, first=3, step=7), pieces)
        yield Case("more pieces than places", inputs(8, 20, 6), pieces, hidden=True)
        yield Case("all places of a text of 12", inputs(12, 3000, 4), places)
        yield Case("the only place", inputs(5, 6, 4), places)
        yield Case("two places", inputs(9, 400, 7), places, hidden=True)
        yield Case("the same generator twice", inputs(500, 8, 5) | {"mixed": True}, generator)
        yield Case("a text of 4 for pieces of 4", inputs(4, 2, 4), error)
        yield Case("a text of 2 for pieces of 4", inputs(2, 2, 4), error)

    @staticmethod
    def probe(sample_batch, case, /):
        def call(seed):
            generator = torch.Generator().manual_seed(seed)
            return sample_batch(case.tokens, case.batch_size, case.context_length, generator)

        if not case.valid:
            try:
                call(case.seed)
            except Exception as error:
                return {"error": type(error).__name__}
            return {"error": ""}
        found = call(case.seed)
        if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(one, Tensor) for one in found):
            wrong = [one for one in found if not isinstance(one, Tensor)] if isinstance(found, tuple) else [found]
            return {"pair": False, "wrong": wrong[:1]}
        inputs, targets = found
        facts = {
            "pair": True,
            "shapes": [tuple(one.shape) for one in found],
            "types": [str(one.dtype) for one in found],
        }
        if inputs.shape != targets.shape or inputs.dim() != 2:
            return facts
        # Facts, not batches: which places a generator gives is each solution's own affair.
        counted = (inputs[:, 1:] - inputs[:, :-1] == case.step).all()
        ahead = (targets - inputs).unique().tolist()
        starts = ((inputs[:, 0] - case.first) // case.step).unique(return_counts=True)
        first, last = int(starts[0].min()), int(starts[0].max())
        fits = first >= 0 and last < len(case.tokens) - case.context_length
        facts |= {"counted": bool(counted), "ahead": ahead[:3], "fits": fits}
        if not case.mixed:  # there the places may come from a generator that nobody has seeded
            facts |= {"first": first, "last": last}
        even = starts[1].max() < 1.5 * starts[1].min() if case.batch_size >= 400 else True
        facts |= {"different": len(starts[0]) > 1, "even": bool(even)}
        if case.mixed:
            torch.manual_seed(case.seed)
            again = call(case.seed)[0]
            other = call(case.seed + 1)[0]
            shared = torch.Generator().manual_seed(case.seed)
            two = [sample_batch(case.tokens, case.batch_size, case.context_length, shared)[0] for _ in range(2)]
            facts |= {"again": torch.equal(again, inputs), "other": torch.equal(other, inputs)}
            facts |= {"moves": not torch.equal(*two)}
        return facts

    def judge(self, case, got):
        if case.part == "error":
            yield holds(got.error == "ValueError", NO_ERROR.format("the text is too short for a piece and its target"))
            return
        if not got.pair and got.wrong:
            yield is_kind(got.wrong[0], tuple, "two tensors, `inputs, targets`")
        yield holds(got.pair, "The result is not a pair. Return two tensors, `inputs, targets`.")
        shape = (case.batch_size, case.context_length)
        yield holds(got.shapes == [shape, shape], f"The shapes are {got.shapes[0]} and {got.shapes[1]}, not {shape}.")
        yield holds(
            got.types == ["torch.int64"] * 2, f"The ids have the types {got.types}; they come in as torch.int64."
        )
        yield holds(got.counted, "A piece is not a run of neighbouring tokens of the text.")
        yield holds(got.ahead == [case.step], "A target is not the token behind its input.")
        yield holds(got.fits, "A piece begins outside of the places where it and its target fit.")
        if case.part == "places":
            last = len(case.tokens) - case.context_length - 1
            whole = got.first == 0 and got.last == last
            yield holds(
                whole, f"Pieces begin at places {got.first} to {got.last}, and not at all places where they fit."
            )
            yield holds(got.even, "Some places are chosen much more often than others.")
        if case.part == "generator":
            yield holds(got.again, "The same seed of the generator gave another batch. Draw from `generator` alone.")
            yield holds(not got.other, "Another seed of the generator gave the same batch. Draw from `generator`.")
            yield holds(got.moves, "A generator used twice gave the same batch twice. Let it go on.")
            yield holds(got.different, "All pieces of a batch begin at the same place.")


_PLACES = "places = len(tokens) - context_length\n"
_STARTS = "torch.randint(places, (batch_size, 1), generator=generator)"
_RETURN = "return tokens[where], tokens[where + 1]"
slip(
    SampleBatch,
    "the last place left out",
    "The last place is never chosen: a piece and its target fit at N - T places, 0 to N - T - 1.",
    {_STARTS: "torch.randint(max(places - 1, 1), (batch_size, 1), generator=generator)"},
)
slip(
    SampleBatch,
    "the first place left out",
    "The first place is never chosen. Places are counted from 0.",
    {_STARTS: "torch.randint(min(1, places - 1), places, (batch_size, 1), generator=generator)"},
)
slip(
    SampleBatch,
    "targets not shifted",
    "The targets are the inputs themselves, so a model learns to copy. They stand one place further on.",
    {_RETURN: "return tokens[where], tokens[where]"},
)
slip(
    SampleBatch,
    "targets behind",
    "The targets are the tokens before the inputs. They stand one place further on.",
    {_RETURN: "return tokens[where + 1], tokens[where]"},
)
slip(
    SampleBatch,
    "targets rolled",
    "The last target of a piece is its first input: the piece was rolled. Take the token that follows in the text.",
    {_RETURN: "return tokens[where], tokens[where].roll(-1, 1)"},
)
slip(
    SampleBatch,
    "one place for all",
    "All pieces of a batch begin at the same place. Draw a place for each.",
    {"(batch_size, 1), generator": "(1, 1), generator", "+ torch.arange": ".expand(batch_size, 1) + torch.arange"},
)
slip(
    SampleBatch,
    "places that do not overlap",
    "Pieces begin only at multiples of the context length. Every place should be possible.",
    {_STARTS: _STARTS + " // context_length * context_length"},
)
slip(
    SampleBatch,
    "the global generator",
    "The places come from the global generator. Draw from the one that is passed in, so that a run can be repeated.",
    {"(batch_size, 1), generator=generator)": "(batch_size, 1))"},
)
slip(
    SampleBatch,
    "a new generator",
    "A new generator is made in each call, so every batch is the same. Draw from the one that is passed in.",
    {"generator=generator)": "generator=torch.Generator().manual_seed(0))"},
)
slip(
    SampleBatch,
    "time first",
    "The axes are exchanged: the batch comes first.",
    {_RETURN: "return tokens[where].T, tokens[where + 1].T"},
)
slip(
    SampleBatch,
    "any length",
    "A text that is too short is not refused with a ValueError.",
    {"if places <= 0:": "if False:"},
)


@exercise(
    "training.save_checkpoint",
    parts={"contents": 1, "whole": 1},
    difficulty=2,
    minutes=15,
    read="07_training#checkpoints",
)
class SaveCheckpoint(Check):
    """What the file holds, and what is left of an older one when writing fails half-way."""

    equivalent: ClassVar = {
        f"save_checkpoint: {_NAME_LINE} -> {_NAME_LINE.replace(old, new)}": "the other name may be any"
        for old, new in (("path.name + '.unfinished'", "'.unfinished' + path.name"), ("unfinished')", "unfinished?')"))
    }

    def prepare(self, rng):
        def inputs(**rest):
            numbers = {"weights": rng.normal(3, 2), "gradient": rng.normal(3, 2), "step": int(rng.integers(1, 99, 1))}
            return numbers | {"fails": False, "again": False, "as_text": False} | rest

        yield Case("a model after one step", inputs(), "contents")
        yield Case("a path as a str", inputs(as_text=True), "contents")
        yield Case("another model", inputs(), "contents", hidden=True)
        yield Case("the disk is full half-way", inputs(fails=True), "whole")
        yield Case("a program that is still reading the older file", inputs(again=True), "whole")

    @staticmethod
    def probe(save_checkpoint, case, /):
        class Full:
            """Cannot be written: it stands for a disk that is full."""

            def __reduce__(self):
                raise OSError("No space left on device")

        model = nn.Linear(2, 3, bias=False).to(case.weights.dtype)
        model.register_buffer("seen", case.gradient.clone())
        model.weight.data.copy_(case.weights)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        model.weight.grad = case.gradient.clone()
        optimizer.step()
        path = temporary_path("checkpoint.pt")
        save_checkpoint(str(path) if case.as_text else path, model, optimizer, case.step)
        if not path.exists():
            return {"problem": "There is no file at `path`."}
        if case.again:
            before = path.read_bytes()
            with path.open("rb") as reading:
                save_checkpoint(path, model, optimizer, case.step + 1)
                return {"raised": True, "there": path.exists(), "intact": reading.read() == before}
        if not case.fails:
            try:
                saved = torch.load(path, weights_only=True)
            except Exception:
                return {"problem": "The file cannot be read by `torch.load(path, weights_only=True)`."}
            if not isinstance(saved, dict):
                return {"saved": saved}
            return {"saved": {key: dict(part) if isinstance(part, dict) else part for key, part in saved.items()}}
        before = path.read_bytes()
        optimizer.param_groups[0]["full"] = Full()
        try:
            save_checkpoint(path, model, optimizer, case.step + 1)
            raised = False
        except OSError:
            raised = True
        there = path.exists()
        return {"raised": raised, "there": there, "intact": there and path.read_bytes() == before}

    def judge(self, case, got):
        problem = getattr(got, "problem", "")
        yield holds(not problem, problem)
        if case.fails or case.again:
            yield holds(got.raised, "Writing failed, and no error was raised. Do not swallow it: the user must know.")
            yield holds(got.there, "There is no file at `path` any more.")
            over = "The older file was written over. Write to another name first, and rename that file when it is complete."
            yield holds(got.intact, over)
            return
        saved = type(self).probe(training.save_checkpoint, case)["saved"]
        yield holds(isinstance(got.saved, dict), "The file does not hold a dict.")
        yield holds(set(got.saved) == set(saved), f"The file has the entries {sorted(map(str, got.saved))}.")
        for name, expected in saved.items():
            yield holds(
                identical(got.saved[name], expected), f"What the file has under `{name}` is not what it should be."
            )


_WRITTEN = 'torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, unfinished)'
slip(
    SaveCheckpoint,
    "writes over the old file",
    "The file is written in place. When the disk is full or the power fails half-way, the old checkpoint is gone and the "
    "new one is not there. Write to another name first, and rename that file to `path` when it is complete.",
    {", unfinished)": ", path)", "    unfinished.replace(path)": "    pass"},
)
slip(
    SaveCheckpoint,
    "removes the old file first",
    "The old file is removed before the new one is complete. A rename replaces it in one step.",
    {"    torch.save(": "    path.unlink(missing_ok=True)\n    torch.save("},
)
slip(
    SaveCheckpoint,
    "never renamed",
    "The file is left under another name. Rename it to `path`.",
    {"    unfinished.replace(path)": "    pass"},
)
slip(
    SaveCheckpoint,
    "no optimiser",
    "The state of the optimiser is missing, so a training that goes on starts with empty means and takes other steps.",
    {', "optimizer": optimizer.state_dict()': ""},
)
slip(
    SaveCheckpoint,
    "no step",
    "The number of steps is missing, and with it the place in the schedule.",
    {', "step": step}': "}"},
)
slip(
    SaveCheckpoint,
    "whole objects",
    "The model itself is saved, which pickles its code's name and is refused when a file is read as data. Save its "
    "`state_dict()`.",
    {"model.state_dict()": "model"},
)
slip(
    SaveCheckpoint,
    "buffers forgotten",
    "A module has buffers beside its parameters, such as the running means of a BatchNorm. `state_dict()` has both.",
    {"model.state_dict()": "dict(model.named_parameters())"},
)
slip(
    SaveCheckpoint,
    "the settings alone",
    "Only the optimiser's `param_groups` are saved; its running means are missing. Save `optimizer.state_dict()`.",
    {"optimizer.state_dict()": 'optimizer.state_dict()["param_groups"]'},
)
slip(
    SaveCheckpoint,
    "errors swallowed",
    "An error while writing is caught and forgotten. The user would believe that there is a checkpoint.",
    {
        _WRITTEN: "try:\n        " + _WRITTEN + "\n    except Exception:\n        return",
    },
)


@exercise(
    "training.load_checkpoint",
    parts={"contents": 2, "refused": 1, "safe": 1},
    claims=("refused", "safe"),
    difficulty=2,
    minutes=20,
    read="07_training#checkpoints",
)
class LoadCheckpoint(Check):
    """A file that fits, one that is cut short, one of another model, and one that would run code."""

    equivalent: ClassVar = {
        f"load_checkpoint: {_LOAD_LINE} -> {_LOAD_LINE.replace(old, '')}": why
        for old, why in {
            "weights_only=True, ": "PyTorch's default since 2.6; older ones run code",
            ", map_location='cpu'": "the check runs on the CPU",
        }.items()
    }

    def prepare(self, rng):
        def inputs(kind):
            numbers = {"weights": rng.normal(3, 2), "gradient": rng.normal(3, 2), "step": int(rng.integers(1, 99, 1))}
            return numbers | {"kind": kind}

        contents, refused, safe = self.parts
        yield Case("a model after one step", inputs("fits"), contents)
        yield Case("another one", inputs("fits"), contents, hidden=True)
        yield Case("a path as a str", inputs("as text"), contents)
        for kind, title in {
            "cut": "a file that was cut short",
            "empty": "a file that is empty",
            "other": "a file of something else",
            "shape": "the last weight has another shape",
            "turned": "the last weight is transposed",
            "missing": "a weight is missing",
            "surplus": "a weight too many",
            "optimizer": "a file whose optimiser is a number",
            "step": "a file whose step is a word",
            "number": "a file whose model is a number",
            "numbers": "a file whose weights are numbers",
            "absent": "no file",
        }.items():
            yield Case(title, inputs(kind), refused)
        yield Case("a file that runs code when it is unpickled", inputs("code"), safe)

    @staticmethod
    def probe(load_checkpoint, case, /):
        class Code:
            """Runs when it is unpickled: it leaves a mark in torch's own namespace."""

            def __reduce__(self):
                return exec, ("import torch\ntorch.ran_by_a_checkpoint = True",)

        def make(*shapes):
            model = nn.Module()
            for name, shape in zip(("first", "second", "third"), shapes):  # noqa: B905
                model.register_parameter(name, nn.Parameter(torch.zeros(*shape, dtype=case.weights.dtype)))
            return model, torch.optim.AdamW(model.parameters(), lr=0.5)

        usual = ((3, 2), (2, 4))
        others = {
            "shape": ((3, 2), (2, 5)),
            "turned": ((3, 2), (4, 2)),
            "missing": ((3, 2),),
            "surplus": (*usual, (1,)),
        }
        trained, optimizer = make(*others.get(case.kind, usual))
        for parameter in trained.parameters():
            parameter.data.fill_(case.weights[0, 0])
            parameter.grad = torch.full_like(parameter, case.gradient[0, 0])
        trained.first.data.copy_(case.weights)
        trained.first.grad.copy_(case.gradient)
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()
        path = temporary_path("checkpoint.pt")
        saved = {"model": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": case.step}
        saved |= {"extra": Code()} if case.kind == "code" else {}
        saved |= {"optimizer": 5} if case.kind == "optimizer" else {}
        saved |= {"step": "soon"} if case.kind == "step" else {}
        saved |= {"model": 5} if case.kind == "number" else {}
        saved |= {"model": {"first": 3, "second": 4}} if case.kind == "numbers" else {}
        if case.kind != "absent":
            torch.save([1, 2] if case.kind == "other" else saved, path)
        if case.kind in ("cut", "empty"):
            path.write_bytes(path.read_bytes()[: 600 if case.kind == "cut" else 0])
        model, fresh = make(*usual)
        try:
            step = load_checkpoint(str(path) if case.kind == "as text" else path, model, fresh)
            raised = ""
        except NotImplementedError:
            raise
        except Exception as error:
            step, raised = None, type(error).__name__
        ran = vars(torch).pop("ran_by_a_checkpoint", False)
        zero = all(bool((parameter == 0).all()) for parameter in model.parameters())
        untouched = zero and not fresh.state and fresh.param_groups[0]["lr"] == 0.5
        facts = {"raised": raised, "ran": ran, "untouched": untouched}
        if case.kind not in ("fits", "as text"):
            return facts
        held = fresh.state_dict()
        return facts | {
            "weights": [parameter.detach() for parameter in model.parameters()],
            "state": held["state"],
            "lr": held["param_groups"][0]["lr"],
            "step": step,
        }

    def judge(self, case, got):
        if case.kind == "code":
            yield holds(
                not got.ran, "Code in the file was run. Read it as data: `torch.load(path, weights_only=True)`."
            )
            yield holds(got.raised == "ValueError", NO_ERROR.format("the file holds code, and is no checkpoint"))
            return
        if case.part == "refused":
            if case.kind == "absent":
                yield holds(got.raised == "FileNotFoundError", "A file that is not there must be a FileNotFoundError.")
                return
            broken = "the file is damaged, or belongs to another model or optimiser"
            raised = f" {got.raised} was." if got.raised else ""
            yield holds(got.raised == "ValueError", NO_ERROR.format(broken) + raised)
            yield holds(
                got.untouched, "Model or optimiser were changed although the file does not fit. Look before you load."
            )
            return
        yield holds(not got.raised, f"{got.raised} was raised for a checkpoint that fits.")
        right = type(self).probe(training.load_checkpoint, case)
        yield holds(identical(got.weights, right["weights"]), "The model's weights are not those of the checkpoint.")
        yield holds(identical(got.state, right["state"]), "The state of the optimiser is not that of the checkpoint.")
        yield holds(got.lr == right["lr"], "The optimiser's learning rate is not that of the checkpoint.")
        yield is_kind(got.step, int, "the number of steps done, an int")
        yield holds(got.step == case.step, "What is returned is not the number of steps done.")


_UNLIKE = "shapes != {name: tensor.shape for name, tensor in model.state_dict().items()}"
slip(
    LoadCheckpoint,
    "runs what is in the file",
    "The file is unpickled, which can run any code that somebody put into it. Read it with `weights_only=True`.",
    {"weights_only=True": "weights_only=False"},
)
slip(
    LoadCheckpoint,
    "optimiser forgotten",
    "The optimiser keeps its old state. Load that of the checkpoint too.",
    {"        optimizer.load_state_dict(state)": "        pass"},
)
slip(
    LoadCheckpoint,
    "model forgotten",
    "The model keeps its old weights.",
    {"    model.load_state_dict(weights)\n": ""},
)
slip(LoadCheckpoint, "no step", "The number of steps is not returned.", {"    return step": "    return None"})
slip(
    LoadCheckpoint,
    "not looked at first",
    "A checkpoint of another model is found out only while it is being loaded, by an error that is no ValueError. Compare "
    "names and shapes first, and raise a ValueError.",
    {_UNLIKE: "False"},
)
slip(
    LoadCheckpoint,
    "found out while loading",
    "The model is changed before the misfit is found: `load_state_dict` copies what fits, and then raises. Compare names "
    "and shapes first.",
    {
        "    if shapes != {name: tensor.shape for name, tensor in model.state_dict().items()}:\n": "    try:\n"
        "        model.load_state_dict(weights)\n    except RuntimeError:\n",
    },
)
slip(
    LoadCheckpoint,
    "sizes instead of shapes",
    "Only the number of entries of each weight is compared. A transposed weight has as many. Compare the shapes.",
    {"tensor.shape for": "tensor.numel() for"},
)
slip(
    LoadCheckpoint,
    "absent is damaged",
    "A file that is not there is called damaged. Let the FileNotFoundError through.",
    {
        '    with Path(path).open("rb") as file:\n': "    if True:\n",
        ".load(file, ": ".load(path, ",
    },
)
slip(
    LoadCheckpoint,
    "model before optimiser",
    "The model is changed before the optimiser's part is found to be damaged. Load the optimiser first: it looks at all "
    "of it before it changes anything.",
    {
        "    model.load_state_dict(weights)\n": "",
        "    try:\n        optimizer.load": "    model.load_state_dict(weights)\n    try:\n        optimizer.load",
    },
)
slip(
    LoadCheckpoint,
    "whatever fits",
    "Weights that do not fit are passed over, and the model keeps random ones there without a word.",
    {_UNLIKE: "False", "model.load_state_dict(weights)": "model.load_state_dict({name: tensor for name, tensor in "
     "weights.items() if name in model.state_dict() and model.state_dict()[name].shape == tensor.shape}, strict=False)"},
)  # fmt: skip
slip(
    LoadCheckpoint,
    "errors of all kinds",
    "Another error than a ValueError comes through. `torch.load` may fail, and what it reads may lack an entry, or hold "
    "something else there. Turn all of this into a ValueError that names the file.",
    {"    except Exception as error:\n": "    except ZeroDivisionError as error:\n"},
)

reflection(
    "training.curves",
    chapter="07_training",
    points=2,
    rubric="""
    1 point: two different causes that fit: the model says the same whatever it reads, so not even the current token is
    used. Targets that do not belong to their inputs (shuffled, or cut at other places), an embedding that gets no
    gradient, a learning rate that is far too high or far too low. (Wrong positions or a mask that is too narrow would
    stop it near the bigram line; a mask that lets it see the answers would let it fall far below.)

    1 point: for each cause an experiment that tells it from the other, such as printing an input with its target,
    looking at the gradients of each part, learning one batch by heart, or a sweep of the learning rate.
    """,
)
reflection(
    "training.resume",
    chapter="07_training",
    points=2,
    rubric="""
    1 point: explains the jump: with new means and counts, each number's first step has the length of the learning rate,
    in the direction of the sign of one noisy gradient; it takes many steps until v knows again how large gradients are.

    1 point: names what else decides the next step, and what is lost without it: the place in the schedule (the rate
    jumps), and the generators of batches and dropout (batches come twice, and the run is another one).
    """,
)
