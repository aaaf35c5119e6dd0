"""The commands that need the checks; `course` finds them by entry point."""

import os
import sys

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from course import chapters

_CHAPTERS = click.argument("chapter", nargs=-1, metavar="[CHAPTER]...")


def _chosen(names: tuple[str, ...]) -> list[str]:
    for name in names:
        chapters.source(name)  # complains of a chapter that does not exist before anything is done
    return list(names) or chapters.names()


def _progress() -> Progress:
    # To stderr: a table piped into a file stays a table.
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("about"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),  # in a log it would leave nothing but empty lines
    )


@click.command()
@_CHAPTERS
@click.option(
    "--check", "check_only", is_flag=True, help="Change nothing; fail if a notebook is not what its sources give."
)
def release(chapter: tuple[str, ...], check_only: bool) -> None:
    """Derive the notebooks of chapters (all of them by default) from the book, the references and the checks."""
    from autograder.release import drifted
    from autograder.release import release as write

    stale = []
    for name in _chosen(chapter):
        if check_only:
            stale += drifted(name)
            continue
        changed = write(name)
        click.echo(f"{name}: {f'{len(changed)} files written' if changed else 'nothing has changed'}.")
    if stale:
        listed = ", ".join(str(path) for path in stale)
        raise click.ClickException(f"not what the sources give: {listed}. Run `course release`. Nothing was changed.")
    if check_only:
        click.echo("Every released notebook is what its sources give.")


@click.command()
@_CHAPTERS
@click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count, help="How many checks are tested at once; one a core."
)
@click.option("--record", is_flag=True, help="Keep the table for the book's page; only when every chapter is verified.")
def verify(chapter: tuple[str, ...], jobs: int, record: bool) -> None:
    """Test the checks: references, variants, the stub, misconceptions, and every mutant of the references."""
    from autograder.checks import find, of_chapter
    from autograder.verify import record as keep
    from autograder.verify import size, verify_all

    if record and chapter:
        raise click.UsageError("--record keeps the table of the whole course: name no chapter. Nothing was changed.")
    names = [check.name for name in _chosen(chapter) for check in of_chapter(name)]
    with _progress() as progress:
        task = progress.add_task("verifying", total=sum(size(find(name)) for name in names))
        reports = verify_all(names, jobs, done=lambda tried: progress.advance(task, tried))
    Console(width=max(150, Console().width)).print(_verify_table(reports))
    faults = [fault for report in reports for fault in report.faults]
    for fault in faults:
        click.echo(fault, err=True)
    if record and not faults:
        keep(reports)
    sys.exit(1 if faults else 0)


def _verify_table(reports: list["Report"]) -> Table:  # type: ignore[name-defined]  # noqa: F821
    from autograder.verify import COLUMNS, rows

    table = Table(title="What the checks accept and reject")
    for column in COLUMNS:
        exercise = column == "exercise"
        table.add_column(
            column, justify="left" if exercise else "right", no_wrap=exercise, min_width=7, overflow="fold"
        )
    for row in rows(reports):
        table.add_row(*row)
    return table


@click.command()
@click.argument("chapter")
@click.option("--students", type=click.IntRange(1), help="How many students; the whole class by default.")
def sample(chapter: str, students: int | None) -> None:
    """Write a sample class's submissions: the reference, variants, misconceptions and the untouched stub."""
    from autograder.sample import write_class

    chapters.source(chapter)
    written = write_class(chapter, students)
    click.echo(
        f"{chapter}: {len(written)} sample submissions in {written[0].parents[2] if written else 'no new place'}."
    )


@click.command()
@click.argument("chapter")
@click.option("--student", default="*", help="Grade this student alone.")
def grade(chapter: str, student: str) -> None:
    """Grade the submissions of a chapter with nbgrader, and write feedback for each student."""
    from autograder.grading import grade as run
    from autograder.grading import submissions

    paths = submissions(chapter, student)
    with _progress() as progress:
        task = progress.add_task(f"grading {chapter}", total=len(paths))
        grades = list(run(chapter, paths, done=lambda: progress.advance(task)))
    cells = list(dict.fromkeys(cell for one in grades for cell in one.cells))
    table = Table(title=f"{chapter}: {len(grades)} submissions")
    table.add_column("student", no_wrap=True)
    for cell in cells:
        words = cell.removesuffix("-check").partition("-")[2].replace("_", " ").replace("-", " ")
        table.add_column(words, justify="right", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for one in grades:
        points = ["–" if one.cells.get(cell) is None else f"{one.cells[cell]:g}" for cell in cells]
        score = "not graded" if one.fault else f"{one.score:g} of {one.max_score:g}{' *' * one.waiting}"
        table.add_row(one.student, *points, score)
    Console(width=max(150, Console().width)).print(table)
    if any(one.waiting for one in grades):
        click.echo("* An answer awaits grading by hand: open formgrader in JupyterLab (Nbgrader menu).")
    faults = [one for one in grades if one.fault]
    for one in faults:
        click.echo(f"{one.student}: not graded: {one.fault}", err=True)
    sys.exit(1 if faults else 0)
