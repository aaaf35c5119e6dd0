"""The `course` command. Commands that need the checks join through the entry points `course.commands`."""

import errno
import http.server
import io
import sys
from functools import partial
from importlib.metadata import entry_points
from typing import Any, NoReturn

import click

from course.chapters import CourseError, root


class _Course(click.Group):
    """Turns the user's mistakes and the machine's troubles into one sentence and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        joined = [entry.name for entry in entry_points(group="course.commands")]
        return sorted({*super().list_commands(ctx), *joined})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for entry in entry_points(group="course.commands", name=name):
            command: click.Command = entry.load()
            return command
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name that it cannot show must not end what we say
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except CourseError as error:
            _stop(str(error))
        except BrokenPipeError:  # whoever reads what we say has read enough; click ends quietly
            raise
        except OSError as error:
            place = error.filename or root()
            _stop(f"cannot use {place}: {error.strerror or error}. What was complete before is kept.")
        except ModuleNotFoundError as error:
            _stop(
                f"the Python package {error.name!r} is missing from {sys.prefix}. Install the course's packages, "
                "torch==2.13.0 among them, with `make environment`. Nothing was changed."
            )


class _Mistake(click.ClickException):
    exit_code = 2  # the user's mistake, or the machine's state; 1 is a failed check


def _stop(sentence: str) -> NoReturn:
    raise _Mistake(sentence)


@click.group(cls=_Course)
def main() -> None:
    """Build, release, check and grade the course."""


@main.command()
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def serve(port: int) -> None:
    """Show the built book at a local address until Ctrl-C."""
    book = root() / "_build" / "html"
    if not (book / "index.html").exists():
        raise CourseError(f"There is no built book in {book}. Build it with `make book`. Nothing was changed.")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(book))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise CourseError(
            f"Port {port} is in use. Choose another with --port, or --port 0 for any free one."
        ) from error
    with server:
        click.echo(f"The book is at http://127.0.0.1:{server.server_address[1]}/  (Ctrl-C ends this)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("Closed.")
