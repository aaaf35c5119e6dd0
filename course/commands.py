"""`course train`."""

import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from course.chapters import CourseError, root


@click.command()
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="The checkpoint's folder; artifacts/NAME by default.")
@click.option("--minutes", type=click.FloatRange(min=0.01), help="Stop after so many minutes instead of all steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights, the data's order and dropout.")
@click.option("--bf16", is_flag=True, help="Multiply matrices in bfloat16: faster where the processor has it.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or mps.")
@click.option("--mine", is_flag=True, help="Train your own classes from workspace/ instead of the course's.")
@click.option("--restart", is_flag=True, help="Forget what was saved of an earlier run.")
def train(
    name: str, output: Path | None, minutes: float | None, seed: int, bf16: bool, device: str, mine: bool, restart: bool
) -> None:
    """Train a model of the course: reversal, dates or translation. Ctrl-C saves; the same command goes on."""
    from course import checkpoints
    from course.recipes import RECIPES
    from course.training import STATE, Options, Run, new_run, prepare

    if name not in RECIPES:
        raise CourseError(f"There is no model {name!r}. The models are: {', '.join(RECIPES)}. Nothing was changed.")
    recipe, place = RECIPES[name], output or root() / "artifacts" / name
    if restart:
        (place / STATE).unlink(missing_ok=True)
    click.echo(f"Reading the data of {name}, which learns {recipe.says}.")
    data = recipe.data()
    tokenizer = recipe.tokenizer(data["train"])
    options = Options(seed, minutes, bf16, device, "workspace" if mine else "solutions")
    run = new_run(recipe, tokenizer, prepare(recipe, data, tokenizer), options)
    if run.resume(place):
        click.echo(f"Going on from step {run.progress.step} of {place / STATE}.")
    else:
        run.save(place)  # a folder that cannot be written is found now, not after an hour
    saver = _Saver(run, place)
    try:
        with _bar() as bar:
            task = bar.add_task(name, total=recipe.steps, loss=float("nan"), held=run.progress.held_out)

            def tick(run: Run) -> None:
                saver.tick()
                recent = run.progress.losses[-50:]
                total = recipe.steps if minutes is None else max(1, round(run.progress.step / max(run.share, 1e-9)))
                loss = sum(recent) / len(recent)
                bar.update(task, total=total, completed=run.progress.step, loss=loss, held=run.progress.held_out)

            run.train(tick)
    except KeyboardInterrupt:
        run.save(place)
        click.echo(f"Stopped at step {run.progress.step}; nothing is lost. The same command goes on from there.")
        sys.exit(130)
    run.validate()
    run.save(place)
    command = "course " + " ".join(sys.argv[1:])
    checkpoints.save(place, run.model, tokenizer, run.card(command))
    click.echo(
        f"{name}: {run.progress.step} steps in {run.progress.seconds / 60:.1f} minutes, loss on held-out text "
        f"{run.progress.held_out:.3f}. The checkpoint is in {place}."
    )


class _Saver:
    """Saves every minute and validates ten times a run."""

    def __init__(self, run: "Run", place: Path) -> None:  # type: ignore[name-defined]  # noqa: F821
        self.run, self.place, self.saved, self.tenth = run, place, time.monotonic(), int(run.share * 10)

    def tick(self) -> None:
        from course.training import SAVE_SECONDS

        if int(self.run.share * 10) > self.tenth:
            self.tenth = int(self.run.share * 10)
            click.echo(f"step {self.run.progress.step}: held-out loss {self.run.validate():.3f}")
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.run.save(self.place)
            self.saved = time.monotonic()


def _bar() -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f} · held-out {task.fields[held]:.3f} · about"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
