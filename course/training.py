"""Trains a model for as long as it takes, and loses nothing when it is stopped."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from course.chapters import CourseError
from course.checkpoints import PAD, build
from course.files import write_whole
from course.recipes import Recipe
from course.tasks import Batch, Task
from course.together import Together
from solutions.config import TransformerConfig

STATE = "state.safetensors"
SAVE_SECONDS = 60.0
CLIP = 1.0


@dataclass
class Options:
    """What a run may be told.

    Args:
        seed: of the weights, the order of the data and dropout.
        minutes: stop after so many minutes of training and shape the learning rate by that; None trains all steps.
        bf16: multiply matrices in bfloat16; faster on processors that have it.
        compile: let torch.compile translate the model first.
        device: where to train.
        library: the package whose classes are trained.
    """

    seed: int = 0
    minutes: float | None = None
    bf16: bool = False
    compile: bool = False
    device: str = "cpu"
    library: str = "solutions"


@dataclass
class Progress:
    """How far a run has come.

    Args:
        step: batches done.
        seconds: spent training, over all sittings.
        tokens: targets learned from, each as often as it was.
        losses: the training loss at each step.
        validation: step -> loss on the validation split.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def held_out(self) -> float:
        """The last loss on the validation split; NaN before the first."""
        return next(reversed(self.validation.values()), float("nan"))


class Run:
    """One training: it can be saved at any step, and goes on from there bit for bit."""

    def __init__(
        self, recipe: Recipe, model: nn.Module, task: Task, options: Options, together: Together | None = None
    ) -> None:
        """Put a model to be trained together with what trains it.

        Args:
            recipe: its settings.
            model: an untrained one.
            task: its examples and its loss.
            options: of this run.
            together: the processes that share the work; None means this one alone.
        """
        self.recipe, self.task, self.options = recipe, task, options
        self.together = together or Together()
        self.model = model.to(options.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.progress = Progress()
        self._epochs: dict[int, list[list[int]]] = {}
        if options.compile:
            self.model.compile()
        self._learner = self.together.wrap(self.model)

    @property
    def share(self) -> float:
        """How much of the run is done, from 0 to 1."""
        steps = self.progress.step / self.recipe.steps
        minutes = self.options.minutes
        return min(1.0, steps if minutes is None else max(steps, self.progress.seconds / 60 / minutes))

    def train(self, tick: Callable[["Run"], None] = lambda run: None) -> None:
        """Train to the end.

        Args:
            tick: called after each step.

        Raises:
            CourseError: the loss is not a number; the last saved state is good.
        """
        while self.share < 1:
            start = time.monotonic()
            loss = self._step(self._batch(self.progress.step))
            if not math.isfinite(loss):
                raise CourseError(
                    f"The loss became {loss} at step {self.progress.step}. Nothing of this step was kept: the saved "
                    "state is older and good. A lower learning rate usually helps."
                )
            self.progress.losses.append(loss)
            self.progress.step += 1
            self.progress.seconds += self.together.longest(time.monotonic() - start)
            tick(self)

    def validate(self) -> float:
        """The mean loss per target on the validation split; kept under the present step."""
        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for number, places in enumerate(self._made("validation", seed=0)):
                part, targets = self._loss(self.model, self.task.batch("validation", places, number), smoothing=0.0)
                total += float(part)
                count += targets
        loss = total / count
        self.progress.validation[str(self.progress.step)] = loss
        return loss

    def _batch(self, step: int) -> Batch:
        """The batch of a step; it follows from seed and step alone, so a run that goes on sees what it would have."""
        per_epoch = self._epoch(0)
        epoch, index = divmod(step, len(per_epoch))
        return self.task.batch("train", self._epoch(epoch)[index], seed=(self.options.seed << 40) + step)

    def _epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._epochs:
            made = list(self._made("train", seed=1000 * self.options.seed + epoch))
            self._epochs = {0: self._epochs.get(0, made), epoch: made}
        return self._epochs[epoch]

    def _made(self, split: str, seed: int) -> Iterator[list[int]]:
        return batches(self.task.sizes(split), self.recipe.tokens_per_batch, seed)

    def _step(self, batch: Batch) -> float:
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        self.optimiser.zero_grad()
        part, targets = self._loss(self._learner, self.together.part(batch), self.recipe.label_smoothing)
        total, count = self.together.sum(float(part.detach()), targets)
        # The processes' gradients are averaged: so many times its part of the mean makes their sum the mean's.
        (part * (self.together.size / count)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        loss = total / count
        if math.isfinite(loss):
            self.optimiser.step()
            self.progress.tokens += count
        return loss

    def _schedule(self) -> float:
        """The share of the highest learning rate: a straight warm-up, then half a cosine down to a twentieth."""
        warm = (self.progress.step + 1) / self.recipe.warmup_steps
        return min(1.0, warm) * (0.05 + 0.95 * (1 + math.cos(math.pi * self.share)) / 2)

    def _loss(self, model: nn.Module, batch: Batch, smoothing: float) -> tuple[Tensor, int]:
        """The sum of the losses of a batch, and over how many targets it goes."""
        there = tuple(tensor.to(self.options.device) for tensor in batch)
        with torch.autocast(self.options.device.split(":")[0], torch.bfloat16, enabled=self.options.bf16):
            return self.task.loss(model, there, smoothing)

    def save(self, place: Path) -> None:
        """Write everything that is needed to go on; an older state stays until this one is complete."""
        tensors = {f"model.{name}": tensor.detach() for name, tensor in self.model.named_parameters()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors["rng"] = torch.get_rng_state()
        kept = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        about = {"progress": json.dumps(asdict(self.progress)), "identity": self._identity()}
        write_whole(place / STATE, lambda path: save_file(kept, path, metadata=about))

    def resume(self, place: Path) -> bool:
        """Go on from a saved state, if there is one.

        Returns:
            Whether there was one.

        Raises:
            CourseError: it is damaged, or belongs to a run with other settings.
        """
        path = place / STATE
        if not path.exists():
            return False
        again = f"Start anew with --restart, or choose another folder with --output. {path} was not changed."
        try:
            with safe_open(path, framework="pt") as file:
                about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            progress = Progress(**json.loads(about["progress"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CourseError(f"The saved state {path} is damaged: {error}. {again}") from error
        if about["identity"] != self._identity():
            raise CourseError(f"The saved state {path} belongs to a run with other settings. {again}")
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": _optimiser_state(tensors)})
        torch.set_rng_state(tensors["rng"])
        self.progress = progress
        return True

    def _identity(self) -> str:
        """What must be the same for a state to fit: settings, seed and the names of the weights."""
        settings = {name: value for name, value in vars(self.recipe).items() if not callable(value)}
        names = [name for name, _ in self.model.named_parameters()]
        return json.dumps([settings, self.options.seed, self.options.library, names], default=str)

    def card(self, command: str, data: str) -> dict[str, Any]:
        """How the model was made; `data` says what it learned from."""
        last, threads = self.progress.losses[-100:], torch.get_num_threads()
        return {
            "architecture": self.recipe.architecture,
            "learned": self.recipe.says,
            "command": command,
            "seed": self.options.seed,
            "data": data,
            "tokens": self.progress.tokens,
            "steps": self.progress.step,
            "minutes": round(self.progress.seconds / 60, 1),
            "training loss, mean of the last 100 steps": round(sum(last) / max(1, len(last)), 4),
            "validation loss": self.progress.validation,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "hardware": f"{threads} CPU thread{'s' if threads > 1 else ''}, {platform.machine()}"
            if self.options.device == "cpu"
            else self.options.device,
            "torch": torch.__version__,
        }


def _optimiser_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    return state


def new_run(
    recipe: Recipe, tokenizer: Tokenizer, task: Task, options: Options, together: Together | None = None
) -> Run:
    """A run of an untrained model whose weights follow from the seed."""
    config = TransformerConfig(
        vocab_size=tokenizer.get_vocab_size(), pad_id=tokenizer.token_to_id(PAD), **recipe.config
    )
    torch.manual_seed(options.seed)  # a command of its own, not a library: dropout knows no other generator
    return Run(recipe, build(recipe.architecture, config, options.library), task, options, together)


def batches(sizes: Sequence[int] | NDArray[np.int64], tokens: int, seed: int) -> Iterator[list[int]]:
    """The places of all examples once, in batches in a random order; those of a batch have similar sizes.

    Args:
        sizes: tokens of each example.
        tokens: the most that a batch has, counting each example as its largest; a larger example stands alone.
        seed: of the order.
    """
    generator = torch.Generator().manual_seed(seed)
    all_sizes = torch.as_tensor(sizes)
    shuffled = torch.randperm(len(all_sizes), generator=generator)
    by_size = shuffled[all_sizes[shuffled].sort(stable=True).indices]
    starts = [0]
    for place, size in enumerate(all_sizes[by_size].tolist()):
        if place > starts[-1] and (place - starts[-1] + 1) * size > tokens:
            starts.append(place)
    ends = [*starts[1:], len(by_size)]
    for number in torch.randperm(len(starts), generator=generator).tolist():
        yield by_size[starts[number] : ends[number]].tolist()
