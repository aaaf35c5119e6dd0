"""Correct solutions of chapter 07 in other styles and by other algorithms."""

import contextlib
import math
import os
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from autograder.checks import variant


@variant("training.cross_entropy", "log_softmax and a mask")
def cross_entropy_by_mask(logits, targets, ignore_index=-100, label_smoothing=0.0):
    if tuple(logits.shape[:-1]) != tuple(targets.shape):
        raise ValueError("one target for each row of logits is needed")
    kept = targets.ne(ignore_index)
    safe = targets.masked_fill(~kept, 0)
    log_p = F.log_softmax(logits, dim=-1)
    hard = -log_p.gather(-1, safe[..., None])[..., 0]
    soft = -log_p.sum(-1) / logits.size(-1)
    loss = (1 - label_smoothing) * hard + label_smoothing * soft
    return torch.where(kept, loss, torch.zeros_like(loss)).sum() / kept.sum().clamp(min=1)


@variant("training.cross_entropy", "one-hot targets, smoothed")
def cross_entropy_by_one_hot(logits, targets, ignore_index=-100, label_smoothing=0.0):
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets {targets.shape} and logits {logits.shape}")
    classes = logits.shape[-1]
    rows = logits.reshape(-1, classes)[targets.reshape(-1) != ignore_index]
    ids = targets.reshape(-1)[targets.reshape(-1) != ignore_index]
    wanted = F.one_hot(ids, classes).to(rows.dtype) * (1 - label_smoothing) + label_smoothing / classes
    largest = rows.amax(-1, keepdim=True).detach()
    log_p = rows - largest - (rows - largest).exp().sum(-1, keepdim=True).log()
    if len(ids) == 0:
        return logits.sum() * 0
    return -(wanted * log_p).sum(-1).mean()


@variant("training.cross_entropy", "row by row")
def cross_entropy_by_rows(logits, targets, ignore_index=-100, label_smoothing=0.0):
    if logits.dim() != targets.dim() + 1 or logits.shape[:-1] != targets.shape:
        raise ValueError("the shapes do not fit")
    total, count = logits.sum() * 0.0, 0
    for row, target in zip(logits.reshape(-1, logits.size(-1)), targets.flatten().tolist(), strict=True):
        if target == ignore_index:
            continue
        log_p = row - torch.logsumexp(row, 0)
        total = total - (1 - label_smoothing) * log_p[target] - label_smoothing * log_p.mean()
        count += 1
    return total / count if count else total


@variant("training.AdamW", "step sizes worked out first, as PyTorch does")
class AdamWByStepSize(torch.optim.Optimizer):
    def __init__(self, params, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01):
        for value in (lr, eps, weight_decay):
            if not value >= 0.0:
                raise ValueError(f"{value} is negative")
        if not (0.0 <= betas[0] < 1.0 and 0.0 <= betas[1] < 1.0):
            raise ValueError(f"betas {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def step(self, closure=None):
        loss = closure() if closure else None
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"] = 0
                        state["exp_avg"] = torch.zeros_like(p)
                        state["exp_avg_sq"] = torch.zeros_like(p)
                    state["step"] += 1
                    b1, b2 = group["betas"]
                    p.data.mul_(1 - group["lr"] * group["weight_decay"])
                    state["exp_avg"].lerp_(p.grad, 1 - b1)
                    state["exp_avg_sq"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                    root = math.sqrt(1 - b2 ** state["step"])
                    denominator = (state["exp_avg_sq"].sqrt() / root).add_(group["eps"])
                    size = group["lr"] / (1 - b1 ** state["step"])
                    p.data.addcdiv_(state["exp_avg"], denominator, value=-size)
        return loss


@variant("training.AdamW", "new tensors instead of changes in place")
class AdamWByNewTensors(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        if min(lr, eps, weight_decay, *betas) < 0 or max(betas) >= 1:
            raise ValueError("a setting is out of range")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for w in filter(lambda w: w.grad is not None, group["params"]):
                old = self.state[w]
                t = old.get("t", 0) + 1
                m = beta1 * old.get("m", 0) + (1 - beta1) * w.grad
                v = beta2 * old.get("v", 0) + (1 - beta2) * w.grad**2
                self.state[w] = {"t": t, "m": m, "v": v}
                shrunk = w - lr * group["weight_decay"] * w
                w.copy_(shrunk - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)) ** 0.5 + group["eps"]))
        return loss


@variant("training.AdamW", "products of betas kept instead of a step count")
class AdamWByProducts(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        if lr < 0:
            raise ValueError("lr")
        if eps < 0:
            raise ValueError("eps")
        if weight_decay < 0:
            raise ValueError("weight_decay")
        for beta in betas:
            if beta < 0 or beta >= 1:
                raise ValueError("betas")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def step(self, closure=None):
        loss = None
        if closure is not None:
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.one(p, group)
        return loss

    @torch.no_grad()
    def one(self, p, group):
        if p not in self.state:
            self.state[p] = {"m": p.grad * 0, "v": p.grad * 0, "first": 1.0, "second": 1.0}
        s = self.state[p]
        beta1, beta2 = group["betas"]
        s["m"] += (1 - beta1) * (p.grad - s["m"])
        s["v"] += (1 - beta2) * (p.grad.square() - s["v"])
        s["first"] *= beta1
        s["second"] *= beta2
        p -= group["lr"] * group["weight_decay"] * p
        p -= group["lr"] * s["m"] / (1 - s["first"]) / ((s["v"] / (1 - s["second"])).sqrt() + group["eps"])


@variant("training.warmup_cosine", "three cases")
def warmup_cosine_by_cases(step, max_lr, min_lr, warmup_steps, total_steps):
    if not total_steps > warmup_steps:
        raise ValueError("there must be steps after the warm-up")
    if step < warmup_steps:
        return step / warmup_steps * max_lr
    if step >= total_steps:
        return min_lr
    angle = (step - warmup_steps) / (total_steps - warmup_steps) * math.pi
    return min_lr + 0.5 * (1 + math.cos(angle)) * (max_lr - min_lr)


@variant("training.warmup_cosine", "a squared cosine of half the angle")
def warmup_cosine_by_half_angle(step, max_lr, min_lr, warmup_steps, total_steps):
    left = total_steps - warmup_steps
    if left < 1:
        raise ValueError(f"{left} steps are left after the warm-up")
    if warmup_steps and step < warmup_steps:
        return max_lr * (step / warmup_steps)
    done = min(step - warmup_steps, left)
    weight = math.cos(0.5 * math.pi * done / left) ** 2
    return weight * max_lr + (1 - weight) * min_lr


@variant("training.warmup_cosine", "the last step first")
def warmup_cosine_from_the_end(step, max_lr, min_lr, warmup_steps, total_steps):
    if warmup_steps >= total_steps:
        raise ValueError("warmup_steps must be below total_steps")
    if step > total_steps:
        return warmup_cosine_from_the_end(total_steps, max_lr, min_lr, warmup_steps, total_steps)
    if step < warmup_steps:
        return max_lr - max_lr * (warmup_steps - step) / warmup_steps
    middle, half = (max_lr + min_lr) / 2, (max_lr - min_lr) / 2
    return middle + half * math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps))


@variant("training.clip_gradients", "one long vector")
def clip_by_vector(parameters, max_norm):
    found = [p.grad for p in parameters if p.grad is not None]
    norm = torch.cat([g.reshape(-1) for g in found]).norm() if found else torch.tensor(0.0)
    if norm + 1e-6 > max_norm:
        for g in found:
            g *= max_norm / (norm + 1e-6)
    return norm


@variant("training.clip_gradients", "a loop that adds up squares")
def clip_by_loop(parameters, max_norm):
    parameters = list(parameters)
    total = 0.0
    for p in parameters:
        if p.grad is not None:
            total = total + (p.grad.detach() ** 2).sum()
    norm = torch.as_tensor(total).sqrt()
    scale = max_norm / (norm + 1e-6)
    if scale < 1:
        for p in parameters:
            if p.grad is not None:
                p.grad.mul_(scale.to(p.grad.dtype))
    return norm


@variant("training.clip_gradients", "the norm of the norms, by Python's floats")
def clip_by_norms(parameters, max_norm):
    gradients = [p.grad for p in parameters]
    gradients = [g for g in gradients if g is not None]
    norm = math.sqrt(sum(float(torch.linalg.vector_norm(g.double())) ** 2 for g in gradients))
    factor = min(1.0, max_norm / (norm + 1e-6))
    with torch.no_grad():
        for g in gradients:
            g.copy_(g * factor)
    return torch.tensor(norm, dtype=gradients[0].dtype if gradients else torch.float32)


@variant("training.sample_batch", "slices, stacked")
def sample_by_slices(tokens, batch_size, context_length, generator):
    last = len(tokens) - context_length - 1
    if last < 0:
        raise ValueError("the text is too short")
    starts = torch.randint(0, last + 1, (batch_size,), generator=generator).tolist()
    inputs = torch.stack([tokens[s : s + context_length] for s in starts])
    targets = torch.stack([tokens[s + 1 : s + 1 + context_length] for s in starts])
    return inputs, targets


@variant("training.sample_batch", "windows of T + 1 by unfold")
def sample_by_windows(tokens, batch_size, context_length, generator):
    if tokens.numel() < context_length + 1:
        raise ValueError(f"{tokens.numel()} tokens are fewer than {context_length + 1}")
    windows = tokens.unfold(0, context_length + 1, 1)
    chosen = windows[torch.randint(windows.size(0), (batch_size,), generator=generator)]
    return chosen[:, :-1], chosen[:, 1:]


@variant("training.sample_batch", "uniform numbers, rounded down")
def sample_by_uniform_numbers(tokens, batch_size, context_length, generator):
    size = tokens.shape[0] - context_length
    if size < 1:
        raise ValueError("no piece fits")
    starts = (torch.rand(batch_size, generator=generator, dtype=torch.float64) * size).long()
    index = starts[:, None] + torch.arange(context_length + 1)[None]
    block = tokens.gather(0, index.reshape(-1)).view(batch_size, -1)
    return block[:, :context_length].contiguous(), block[:, 1:].contiguous()


@variant("training.save_checkpoint", "a named temporary file")
def save_by_temporary_file(path, model, optimizer, step):
    target = Path(path)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        try:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, file)
        except BaseException:
            os.unlink(file.name)  # noqa: PTH108
            raise
    os.rename(file.name, target)  # noqa: PTH104


@variant("training.save_checkpoint", "os.replace")
def save_by_replace(path, model, optimizer, step):
    state = {"step": step}
    state["model"] = model.state_dict()
    state["optimizer"] = optimizer.state_dict()
    torch.save(state, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)  # noqa: PTH105


@variant("training.save_checkpoint", "bytes first")
def save_by_bytes(path, model, optimizer, step):
    import io

    buffer = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "model": model.state_dict(), "step": int(step)}, buffer)
    new = Path(str(path) + ".new")
    new.write_bytes(buffer.getvalue())
    new.rename(path)


@variant("training.load_checkpoint", "a look at every weight")
def load_by_looking(path, model, optimizer):
    with open(path, "rb") as file:  # noqa: PTH123
        try:
            saved = torch.load(file, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} cannot be read") from error
    if not isinstance(saved, dict) or {"model", "optimizer", "step"} - saved.keys():
        raise ValueError(f"{path} is no checkpoint")
    mine, step = model.state_dict(), int(saved["step"])
    if not isinstance(saved["model"], dict) or not isinstance(saved["optimizer"], dict):
        raise ValueError("no weights, or no optimiser")
    if mine.keys() != saved["model"].keys() or not all(map(torch.is_tensor, saved["model"].values())):
        raise ValueError("other weights")
    for name, tensor in mine.items():
        if tensor.shape != saved["model"][name].shape:
            raise ValueError(f"{name} has another shape")
    optimizer.load_state_dict(saved["optimizer"])
    model.load_state_dict(saved["model"])
    return step


@variant("training.load_checkpoint", "tried on copies")
def load_by_trying(path, model, optimizer):
    import copy

    try:
        saved = torch.load(path, weights_only=True)
        copy.deepcopy(model).load_state_dict(saved["model"])
        copy.deepcopy(optimizer).load_state_dict(saved["optimizer"])
        step = int(saved["step"])
    except FileNotFoundError:
        raise
    except Exception as problem:
        raise ValueError(f"cannot load {path}: {problem}") from None
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return step


@variant("training.load_checkpoint", "put back if it fails")
def load_by_putting_back(path, model, optimizer):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if not os.path.exists(path):  # noqa: PTH110
        raise FileNotFoundError(path)
    found = None
    with contextlib.suppress(Exception):
        found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not {"model", "optimizer", "step"} <= set(found):
        raise ValueError("damaged, or something else")
    if not isinstance(found["step"], int):
        raise ValueError("the step is no number")
    try:
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
    except Exception as error:
        model.load_state_dict(before)
        raise ValueError("another model or optimiser") from error
    return found["step"]


@variant("training.cross_entropy", "one-hot targets in float32, smoothing as a tensor")
def cross_entropy_by_float_targets(logits, targets, ignore_index=-100, label_smoothing=0.0):
    if logits.shape[:-1] != targets.shape:
        raise ValueError("logits and targets do not fit")
    counts = targets != ignore_index
    rows, ids = logits[counts], targets[counts]
    smoothing = torch.tensor(label_smoothing)
    wanted = F.one_hot(ids, num_classes=logits.size(-1)).float()
    wanted = wanted * (1 - smoothing) + smoothing / logits.size(-1)
    losses = -(wanted * torch.log_softmax(rows, dim=-1)).sum(dim=-1)
    return losses.sum() / max(1, losses.numel())


@variant("training.AdamW", "a step that is a tensor, as PyTorch's")
class AdamWByTensorStep(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        if lr < 0 or eps < 0 or weight_decay < 0 or not 0 <= betas[0] < 1 or not 0 <= betas[1] < 1:
            raise ValueError("a setting is out of range")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["exp_avg"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                first = state["exp_avg"] / (1 - beta1 ** state["step"])
                second = state["exp_avg_sq"] / (1 - beta2 ** state["step"])
                p.sub_(group["lr"] * first / (second.sqrt() + group["eps"]))
        return loss


@variant("training.AdamW", "means and betas in float32")
class AdamWInFloat32(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        if min(lr, eps, weight_decay, *betas) < 0 or max(betas) >= 1:
            raise ValueError("a setting is out of range")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = torch.enable_grad()(closure)() if closure is not None else None
        for group in self.param_groups:
            beta1, beta2 = torch.tensor(group["betas"], dtype=torch.float32)
            for p in (p for p in group["params"] if p.grad is not None):
                state, gradient = self.state[p], p.grad.float()
                if not state:
                    state |= {"t": torch.zeros(()), "m": torch.zeros(p.shape), "v": torch.zeros(p.shape)}
                state["t"] = state["t"] + 1
                state["m"] = beta1 * state["m"] + (1 - beta1) * gradient
                state["v"] = beta2 * state["v"] + (1 - beta2) * gradient**2
                m, v = state["m"] / (1 - beta1 ** state["t"]), state["v"] / (1 - beta2 ** state["t"])
                p.copy_(p - group["lr"] * group["weight_decay"] * p - group["lr"] * m / (v.sqrt() + group["eps"]))
        return loss


@variant("training.warmup_cosine", "by tensors in float32")
def warmup_cosine_by_tensors(step, max_lr, min_lr, warmup_steps, total_steps):
    if total_steps <= warmup_steps:
        raise ValueError("total_steps must be more than warmup_steps")
    if step < warmup_steps:
        return (torch.tensor(max_lr) * step / warmup_steps).item()
    share = torch.tensor((step - warmup_steps) / (total_steps - warmup_steps)).clamp(max=1.0)
    return float(min_lr + (max_lr - min_lr) * 0.5 * (1 + torch.cos(torch.pi * share)))


@variant("training.clip_gradients", "sums and factor in float32")
def clip_in_float32(parameters, max_norm):
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = torch.tensor(0.0)
    for gradient in gradients:
        total += gradient.float().pow(2).sum()
    total = total.sqrt()
    factor = torch.minimum(torch.tensor(1.0), torch.tensor(max_norm) / (total + torch.tensor(1e-6)))
    for gradient in gradients:
        gradient.mul_(factor)
    return total
