"""`course train` and `course generate`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from course.chapters import CourseError, root

if TYPE_CHECKING:  # torch takes seconds to import
    from datasets import IterableDatasetDict

    from course.recipes import Recipe
    from course.training import Run


@click.command()
@click.argument("name")
@click.option("--text", "texts", multiple=True, type=click.Path(path_type=Path), help="A text file of yours.")
@click.option("--output", type=click.Path(path_type=Path), help="The checkpoint's folder; artifacts/NAME by default.")
@click.option("--minutes", type=click.FloatRange(min=0.01), help="Stop after so many minutes instead of all steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights, the data's order and dropout.")
@click.option("--bf16", is_flag=True, help="Multiply matrices in bfloat16: faster where the processor has it.")
@click.option("--compile", "compiled", is_flag=True, help="Translate the model by torch.compile first.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or mps.")
@click.option("--mine", is_flag=True, help="Train your own classes from workspace/ instead of the course's.")
@click.option("--restart", is_flag=True, help="Forget what was saved of an earlier run.")
def train(
    name: str, texts: tuple[Path, ...], output: Path | None, minutes: float | None, seed: int, bf16: bool,
    compiled: bool, device: str, mine: bool, restart: bool,
) -> None:  # fmt: skip
    """Train a model of the course, such as dates or stories-gpt. Ctrl-C saves; the same command goes on.

    `tensorboard --logdir FOLDER/logs` shows its loss while it runs, FOLDER being the checkpoint's.
        Under `torchrun --nproc-per-node 2 -m course train NAME` two processes share the work.
    """
    from course import checkpoints
    from course.logs import Curves
    from course.recipes import RECIPES
    from course.together import Together
    from course.training import STATE, Options, Run, new_run

    if name not in RECIPES:
        raise CourseError(f"There is no model {name!r}. The models are: {', '.join(RECIPES)}. Nothing was changed.")
    recipe, place = RECIPES[name], output or root() / "artifacts" / name
    together = Together.started(device)
    say = click.echo if together.first else _nothing
    if restart and together.first:
        (place / STATE).unlink(missing_ok=True)
    say(f"Reading the data of {name}, which learns {recipe.says}.")
    data = _own(name, recipe, texts) if texts else recipe.splits()
    tokenizer = recipe.tokenizer(data["train"])
    options = Options(seed, minutes, bf16, compiled, together.device, "workspace" if mine else "solutions")
    run = new_run(recipe, tokenizer, recipe.task(data, tokenizer), options, together)
    together.wait()
    if run.resume(place):
        say(f"Going on from step {run.progress.step} of {place / STATE}.")
    elif together.first:
        run.save(place)  # a folder that cannot be written is found now, not after an hour
    saver = _Saver(run, place)
    try:
        with _bar(together.first) as bar, Curves(place, together.first) as curves:
            task = bar.add_task(name, total=recipe.steps, loss=float("nan"), held=run.progress.held_out)

            def tick(run: Run) -> None:
                curves.step(run)
                if saver.tick(say):
                    curves.held_out(run)
                recent = run.progress.losses[-50:]
                total = recipe.steps if minutes is None else max(1, round(run.progress.step / max(run.share, 1e-9)))
                loss = sum(recent) / len(recent)
                bar.update(task, total=total, completed=run.progress.step, loss=loss, held=run.progress.held_out)

            run.train(tick)
    except KeyboardInterrupt:
        if together.first:
            run.save(place)
        say(f"Stopped at step {run.progress.step}; nothing is lost. The same command goes on from there.")
        sys.exit(130)
    run.validate()
    if together.first:
        run.save(place)
        learned_from = ", ".join(path.name for path in texts) or (recipe.data if isinstance(recipe.data, str) else name)
        checkpoints.save(place, run.model, tokenizer, run.card(_command(), learned_from))
    say(
        f"{name}: {run.progress.step} steps in {run.progress.seconds / 60:.1f} minutes, loss on held-out text "
        f"{run.progress.held_out:.3f}. The checkpoint is in {place}."
    )
    together.leave()


@click.command()
@click.option("--prompt", default="", help="How the texts begin; without it the model begins.")
@click.option("--num", type=int, help="How many texts.  [default: 5]")
@click.option("--model", default="docstrings-gpt", show_default=True, help="One of the course's, or a folder.")
@click.option("--tokens", type=int, default=40, show_default=True, help="The most that are written.")
@click.option("--temperature", type=float, help="0 takes the likeliest token.  [default: 0.8]")
@click.option("--top-k", type=int, help="Draw from so many of the likeliest tokens only.")
@click.option("--top-p", type=float, help="Draw from tokens that together have this probability.  [default: 0.95]")
@click.option("--penalty", type=float, help="Above 1, tokens that stand in the text already become less likely.")
@click.option("--beams", type=int, help="Draw nothing: look for the likeliest texts with so many beams.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of what is drawn.")
def generate(
    prompt: str, num: int | None, model: str, tokens: int, temperature: float | None, top_k: int | None,
    top_p: float | None, penalty: float | None, beams: int | None, seed: int,
) -> None:  # fmt: skip
    """Let a language model go on with a text, such as --prompt "Return the"."""
    from course.writing import Choices, write

    texts = write(model, prompt, Choices(num, tokens, temperature, top_k, top_p, penalty, beams, seed))
    for number, text in enumerate(texts, 1):
        click.echo(f"--- {number} of {len(texts)}\n{text}")


def _command() -> str:
    """What was called, without the output's place: that says nothing of how the model was made."""
    words = iter(sys.argv[1:])
    kept = ["course"]
    for word in words:
        if word == "--output":
            next(words)
        elif not word.startswith("--output="):
            kept.append(word)
    return " ".join(kept)


def _own(name: str, recipe: "Recipe", texts: tuple[Path, ...]) -> "IterableDatasetDict":
    from course.corpora import own

    if not recipe.from_text:
        raise CourseError(
            f"{name} learns {recipe.says}, from pairs: --text is for language models. Nothing was changed."
        )
    return own.load(texts)


def _nothing(said: str) -> None:
    """What a process says that is not the first of several."""


class _Saver:
    """Saves every minute and validates ten times a run."""

    def __init__(self, run: "Run", place: Path) -> None:
        self.run, self.place, self.saved, self.tenth = run, place, time.monotonic(), int(run.share * 10)

    def tick(self, say: Callable[[str], None]) -> bool:
        """Do what is due after a step; say whether the held-out loss was measured."""
        from course.training import SAVE_SECONDS

        due = int(self.run.share * 10) > self.tenth
        if due:
            self.tenth = int(self.run.share * 10)
            say(f"step {self.run.progress.step}: held-out loss {self.run.validate():.3f}")
        if self.run.together.first and time.monotonic() - self.saved > SAVE_SECONDS:
            self.run.save(self.place)
            self.saved = time.monotonic()
        return due


def _bar(shown: bool) -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f} · held-out {task.fields[held]:.3f} · about"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (shown and sys.stderr.isatty()),
    )
