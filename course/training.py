"""Trains a model for as long as it takes, and loses nothing when it is stopped."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from course.chapters import CourseError
from course.checkpoints import PAD, START, build, padded, rows_of, token_id
from course.files import write_whole
from course.recipes import Recipe
from solutions.config import TransformerConfig
from solutions.transformer import shift_right

STATE = "state.safetensors"
SAVE_SECONDS = 60.0
CLIP = 1.0

Pair = tuple[list[int], list[int]]


@dataclass
class Options:
    """What a run may be told.

    Args:
        seed: of the weights, the order of the data and dropout.
        minutes: stop after so many minutes of training and shape the learning rate by that; None trains all steps.
        bf16: multiply matrices in bfloat16; faster on processors that have it.
        device: where to train.
        library: the package whose classes are trained.
    """

    seed: int = 0
    minutes: float | None = None
    bf16: bool = False
    device: str = "cpu"
    library: str = "solutions"


@dataclass
class Progress:
    """How far a run has come.

    Args:
        step: batches done.
        seconds: spent training, over all sittings.
        losses: the training loss at each step.
        validation: step -> loss on the validation split.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def held_out(self) -> float:
        """The last loss on the validation split; NaN before the first."""
        return next(reversed(self.validation.values()), float("nan"))


class Run:
    """One training: it can be saved at any step, and goes on from there bit for bit."""

    def __init__(self, recipe: Recipe, model: nn.Module, data: dict[str, list[Pair]], pad_id: int, start_id: int,
                 options: Options) -> None:  # fmt: skip
        """Put a model to be trained together with what trains it.

        Args:
            recipe: its settings.
            model: an untrained one.
            data: source and target ids of the splits train and validation.
            pad_id: fills up short sequences and is not learned.
            start_id: stands before every target.
            options: of this run.
        """
        self.recipe, self.data, self.options = recipe, data, options
        self.pad_id, self.start_id = pad_id, start_id
        self.model = model.to(options.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=0.01
        )
        self.progress = Progress()
        self._epochs: dict[int, list[list[Pair]]] = {}

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
            self.progress.seconds += time.monotonic() - start
            tick(self)

    def validate(self) -> float:
        """The mean loss per token on the validation split; kept under the present step."""
        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in batches(self.data["validation"], self.recipe.tokens_per_batch, seed=0):
                ids = self._tensors(batch)
                tokens = int((ids[1] != self.pad_id).sum())
                total += float(self._loss(*ids, smoothing=0.0)) * tokens
                count += tokens
        loss = total / count
        self.progress.validation[str(self.progress.step)] = loss
        return loss

    def _batch(self, step: int) -> list[Pair]:
        """The batch of a step; it follows from seed and step alone, so a run that goes on sees what it would have."""
        per_epoch = self._epoch(0)
        epoch, index = divmod(step, len(per_epoch))
        return self._epoch(epoch)[index]

    def _epoch(self, epoch: int) -> list[list[Pair]]:
        if epoch not in self._epochs:
            made = list(
                batches(self.data["train"], self.recipe.tokens_per_batch, seed=1000 * self.options.seed + epoch)
            )
            self._epochs = {0: self._epochs.get(0, made), epoch: made}
        return self._epochs[epoch]

    def _step(self, batch: list[Pair]) -> float:
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        self.optimiser.zero_grad()
        loss = self._loss(*self._tensors(batch), smoothing=self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if math.isfinite(loss.item()):
            self.optimiser.step()
        return loss.item()

    def _schedule(self) -> float:
        """The share of the highest learning rate: a straight warm-up, then half a cosine down to a twentieth."""
        warm = (self.progress.step + 1) / self.recipe.warmup_steps
        return min(1.0, warm) * (0.05 + 0.95 * (1 + math.cos(math.pi * self.share)) / 2)

    def _tensors(self, batch: list[Pair]) -> tuple[Tensor, Tensor]:
        sides = zip(*batch, strict=True)
        source, target = (padded(list(side), self.pad_id).to(self.options.device) for side in sides)
        return source, target

    def _loss(self, source: Tensor, target: Tensor, smoothing: float) -> Tensor:
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.options.bf16):
            logits = self.model(source, shift_right(target, self.start_id))
        return functional.cross_entropy(
            logits.flatten(0, 1).float(), target.flatten(), ignore_index=self.pad_id, label_smoothing=smoothing
        )

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

    def card(self, command: str) -> dict[str, Any]:
        """How the model was made."""
        last = self.progress.losses[-100:]
        return {
            "architecture": self.recipe.architecture,
            "learned": self.recipe.says,
            "command": command,
            "seed": self.options.seed,
            "steps": self.progress.step,
            "minutes": round(self.progress.seconds / 60, 1),
            "training loss, mean of the last 100 steps": round(sum(last) / max(1, len(last)), 4),
            "validation loss": self.progress.validation,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "hardware": f"{torch.get_num_threads()} CPU threads, {platform.machine()}"
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


def prepare(recipe: Recipe, data: dict[str, Any], tokenizer: Tokenizer) -> dict[str, list[Pair]]:
    """The ids of the splits train and validation, targets ended by [END]."""
    prepared = {}
    for split in ("train", "validation"):
        source, target = (rows_of(tokenizer, list(data[split][column])) for column in ("source", "target"))
        prepared[split] = list(zip(source, target, strict=True))
    return prepared


def new_run(recipe: Recipe, tokenizer: Tokenizer, data: dict[str, list[Pair]], options: Options) -> Run:
    """A run of an untrained model whose weights follow from the seed."""
    pad_id, start_id = token_id(tokenizer, PAD), token_id(tokenizer, START)
    config = TransformerConfig(vocab_size=tokenizer.get_vocab_size(), pad_id=pad_id, **recipe.config)
    torch.manual_seed(options.seed)  # a command of its own, not a library: dropout knows no other generator
    return Run(recipe, build(recipe.architecture, config, options.library), data, pad_id, start_id, options)


def batches(pairs: list[Pair], tokens: int, seed: int) -> Iterator[list[Pair]]:
    """Every pair once, in a random order of batches; a batch holds pairs of similar length, to need little padding."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(pairs), generator=generator).tolist()
    by_length = sorted(shuffled, key=lambda index: len(pairs[index][0]) + len(pairs[index][1]))
    made: list[list[Pair]] = []
    current: list[Pair] = []
    for index in by_length:
        size = (len(current) + 1) * (len(pairs[index][0]) + len(pairs[index][1]))
        if current and size > tokens:
            made.append(current)
            current = []
        current.append(pairs[index])
    if current:
        made.append(current)
    for place in torch.randperm(len(made), generator=generator).tolist():
        yield made[place]
