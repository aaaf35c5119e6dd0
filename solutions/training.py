"""Training a language model: the loss, the optimiser, the learning rate, batches of text, and checkpoints."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int = -100, label_smoothing: float = 0.0) -> Tensor:
    """Measure how badly the logits predict the targets: the mean of -ln p(target).

    With smoothing s, the target distribution gives 1 - s to the target and s / V to each of the V classes, the target
    among them (Szegedy et al. 2016, section 7): loss = -(1 - s) ln p(target) - s / V * sum_v ln p(v).

    Args:
        logits: (..., V)
        targets: whole numbers (...), below V or equal to ignore_index.
        ignore_index: a target with this value does not count.
        label_smoothing: s, from 0 to 1.

    Returns:
        A single number: the mean over the targets that count; 0 where none does.

    Raises:
        ValueError: the targets do not have the shape of the logits without their last axis.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits of shape {tuple(logits.shape)} do not fit targets of shape {tuple(targets.shape)}")
    counts = targets != ignore_index
    logits, targets = logits[counts], targets[counts]
    log_probabilities = logits - logits.logsumexp(-1, keepdim=True)
    of_target = log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    losses = -(1 - label_smoothing) * of_target - label_smoothing * log_probabilities.mean(-1)
    return losses.sum() / max(len(losses), 1)


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Kingma and Ba 2015, Loshchilov and Hutter 2019).

    For a parameter w with gradient g at its step t:
        w <- w - lr * weight_decay * w
        m <- beta1 * m + (1 - beta1) * g,          v <- beta2 * v + (1 - beta2) * g^2
        w <- w - lr * m_hat / (sqrt(v_hat) + eps)  with m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t)
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """Take charge of parameters.

        Args:
            params: parameters, or groups of them with settings of their own.
            lr: learning rate; may be changed between steps, in `param_groups`.
            betas: how much of the running means of g and of g^2 is kept at each step.
            eps: keeps the quotient finite where all gradients were zero.
            weight_decay: how fast parameters shrink towards zero, beside the gradient.

        Raises:
            ValueError: a setting is outside its range.
        """
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"lr={lr}, eps={eps} and weight_decay={weight_decay} must not be negative")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas} must be at least 0 and below 1")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Change each parameter that has a gradient.

        Args:
            closure: computes the loss anew and its gradients, if given.

        Returns:
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, **group)
        return loss

    def _update(
        self,
        parameter: Tensor,
        gradient: Tensor,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        **rest: Any,
    ) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        beta1, beta2 = betas
        mean, square = state["mean"], state["square"]
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        mean_hat = mean / (1 - beta1 ** state["step"])
        square_hat = square / (1 - beta2 ** state["step"])
        parameter.mul_(1 - lr * weight_decay)
        parameter.sub_(lr * mean_hat / (square_hat.sqrt() + eps))


def warmup_cosine(step: int, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> float:
    """Choose the learning rate of a step: up in a straight line, down along half a cosine, then constant.

    Args:
        step: counted from 0.
        max_lr: reached at step `warmup_steps`.
        min_lr: reached at step `total_steps`, and kept.
        warmup_steps: the line goes from 0 at step 0 to max_lr.
        total_steps: more than warmup_steps.

    Raises:
        ValueError: total_steps is not more than warmup_steps.
    """
    if total_steps <= warmup_steps:
        raise ValueError(f"total_steps={total_steps} must be more than warmup_steps={warmup_steps}")
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    share = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * share)) / 2


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Shorten the gradient, all parameters together, to a length of at most max_norm (Pascanu et al. 2013).

    Every gradient is multiplied in place by min(1, max_norm / (total_norm + 1e-6)).

    Args:
        parameters: those without a gradient are passed over.
        max_norm: the greatest length allowed.

    Returns:
        The length before, as a tensor with one number; 0 where there are no gradients.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.tensor(0.0)
    total_norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return total_norm


def sample_batch(
    tokens: Tensor, batch_size: int, context_length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cut pieces out of a long text at random places, each with the same piece one token further on as its target.

    Args:
        tokens: ids (N), N > T.
        batch_size: B, the number of pieces.
        context_length: T, the length of a piece.
        generator: chooses the places; every place at which a piece and its target fit is equally likely.

    Returns:
        inputs (B, T) and targets (B, T), with targets[b, t] the token behind inputs[b, t] in the text.

    Raises:
        ValueError: the text is too short for a piece and its target.
    """
    places = len(tokens) - context_length
    if places <= 0:
        raise ValueError(f"context_length={context_length} needs more tokens than that; the text has {len(tokens)}")
    starts = torch.randint(places, (batch_size, 1), generator=generator)
    where = (starts + torch.arange(context_length)).to(tokens.device)
    return tokens[where], tokens[where + 1]


def save_checkpoint(path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write all that is needed to go on with a training.

    An older file at this place stays whole until the new one is complete.

    Args:
        path: the file to write.
        model: its parameters and buffers are kept.
        optimizer: its state and settings are kept.
        step: the number of steps done.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".unfinished")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, unfinished)
    unfinished.replace(path)


def load_checkpoint(path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put model and optimiser back to where they were when the checkpoint was written.

    Args:
        path: the file to read. It is read as data, so that it can run no code.
        model: one of the same kind; its weights are replaced.
        optimizer: one for this model; its state is replaced.

    Returns:
        The number of steps done.

    Raises:
        OSError: the file is not there, or may not be opened.
        ValueError: it is damaged, or belongs to another model or optimiser; nothing is changed.
    """
    with Path(path).open("rb") as file:
        try:
            saved = torch.load(file, weights_only=True, map_location="cpu")
            weights, state, step = saved["model"], saved["optimizer"], int(saved["step"])
            shapes = {name: tensor.shape for name, tensor in weights.items()}
        except Exception as error:
            raise ValueError(f"{path} is no checkpoint, or it is damaged: {error}") from error
    if shapes != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise ValueError(f"{path} belongs to another model: the names or shapes of its weights differ")
    try:
        optimizer.load_state_dict(state)  # looks at all of it before it changes anything
    except Exception as error:
        raise ValueError(f"{path} belongs to another optimizer, or it is damaged: {error}") from error
    model.load_state_dict(weights)
    return step
