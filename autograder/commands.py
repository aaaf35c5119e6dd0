"""The commands that need the checks; `course` finds them by entry point."""

import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from autograder.student_text import terminal
from course import chapters

if TYPE_CHECKING:  # torch takes seconds to import
    from autograder.verify import Report

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


def plain_console(width: int, file: IO[str] | None = None) -> Console:
    """A console to which text is text: a name such as `[red]` or `:cat:` is neither a colour nor a picture.

    Args:
        width: at least so many characters wide.
        file: where it prints; standard output by default.
    """
    return Console(width=max(width, Console().width), file=file, markup=False, emoji=False, highlight=False)


def _show(table: Table, width: int = 150) -> None:
    plain_console(width).print(table)


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
    _show(_verify_table(reports))
    faults = [fault for report in reports for fault in report.faults]
    for fault in faults:
        click.echo(fault, err=True)
    if record and not faults:
        keep(reports)
    sys.exit(1 if faults else 0)


def _verify_table(reports: list["Report"]) -> Table:
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
@click.option("--student", help="Grade this student alone: the folder's name as it is, or the id in the gradebook.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count, help="How many are examined at once; one a core.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The seed of the hidden inputs.")
@click.option("--again", is_flag=True, help="Examine again what has been examined; points given by hand are kept.")
@click.option("--unsafe", is_flag=True, help="Without a jail: only for code that you would run yourself.")
def grade(chapter: str, student: str | None, jobs: int, seed: int, again: bool, unsafe: bool) -> None:
    """Grade the submissions of a chapter in a jail, enter them into the gradebook, and write feedback."""
    from autograder.grade_table import notes, table
    from autograder.grading import Options, submissions
    from autograder.grading import grade as run

    folders = submissions(chapter, student)
    options = Options(seed=seed, jobs=jobs, again=again, unsafe=unsafe)
    with _progress() as progress:
        task = progress.add_task(f"grading {chapter}", total=len(folders))
        grades = list(run(chapter, folders, options, done=lambda: progress.advance(task)))
    grades.sort(key=lambda one: one.student)
    _show(table(chapter, grades))
    said, faults = notes(chapter, grades)
    for note in said:
        click.echo(note)
    for fault in faults:
        click.echo(fault, err=True)
    sys.exit(1 if any(one.fault for one in grades) else 0)


@click.command()
def doctor() -> None:
    """Try each layer that keeps submissions from the rest of this machine, and say what is missing."""
    from autograder.jail import probe

    found = probe()
    table = Table(title="What keeps a submission in its place")
    for column in ("layer", "a submission", "here"):
        table.add_column(column, no_wrap=column == "layer")
    for status in found:
        needed = "MISSING" if status.layer.mandatory else "not here (optional)"
        table.add_row(status.layer.name, status.layer.keeps, "yes" if status.present else f"{needed}: {status.why}")
    _show(table)
    missing = [status.layer.name for status in found if status.layer.mandatory and not status.present]
    if missing:
        click.echo(f"Submissions cannot be isolated here: {', '.join(missing)} missing. Nothing was changed.", err=True)
    sys.exit(1 if missing else 0)


@click.command()
@click.argument("chapter")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="The folder to write to; grading/reports if not."
)
@click.option(
    "--sort", type=click.Choice(["name", "points"]), default="name", show_default=True, help="Sort students so."
)
@click.option(
    "--anonymous", is_flag=True, help="Pseudonyms for names, and nothing that is for you alone: to show in class."
)
def report(chapter: str, output: Path | None, sort: str, anonymous: bool) -> None:
    """Say how a class did in a chapter: a page with plots, and a table for a spreadsheet."""
    from autograder import manual, report_files
    from autograder.report import gather, records, similar_pairs

    found, unreadable = records(chapter)
    outcome = gather(
        found,
        manual.of_class(chapter),
        pairs=None if anonymous else similar_pairs(found),
        unreadable=unreadable,
        pseudonym=report_files.pseudonyms() if anonymous else None,
        by_points=sort == "points",
    )
    page, table = report_files.write(outcome, output or report_files.folder())
    shown = Table(
        title=f"{chapter}: {len(outcome.rows)} submissions, median {outcome.median:g} of {outcome.max_points:g}"
    )
    shown.add_column("exercise", no_wrap=True)
    for column in ("all points", "some", "none"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("commonest mistake")
    common = {mistake.exercise: mistake for mistake in reversed(outcome.mistakes)}
    for one in outcome.success:
        mistake = common.get(one.exercise)
        words = f"{mistake.name} ({len(mistake.students)})" if mistake else ""
        shown.add_row(one.exercise, str(one.full), str(one.some), str(one.none), words)
    _show(shown, width=100)
    click.echo(f"The report: {page}\nThe table:  {table}")
    if unreadable:
        click.echo(
            f"Left out, because they cannot be read: {', '.join(map(terminal, unreadable))}. Grade them again.",
            err=True,
        )
