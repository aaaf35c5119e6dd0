"""Writes the report of a class: a page to look at, and a table for a spreadsheet."""

import base64
import csv
import hmac
import io
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from autograder.render import template
from autograder.report import ClassReport, Row
from course.chapters import root
from course.files import write_whole

Cell = str | int | float


def write(report: ClassReport, folder: Path) -> tuple[Path, Path]:
    """Write the page and the table, each whole or not at all; an anonymous report stands beside the other.

    Returns:
        The page and the table.

    Raises:
        OSError: one cannot be written.
    """
    name = report.chapter + "-anonymous" * report.anonymous
    html, text = page(report), table(report)
    page_path, table_path = folder / f"{name}.html", folder / f"{name}.csv"
    write_whole(page_path, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    # With a byte order mark, by which Excel knows UTF-8.
    write_whole(table_path, lambda temporary: temporary.write_bytes(text.encode("utf-8-sig")))
    return page_path, table_path


def folder() -> Path:
    """Where reports go unless the user names another place."""
    return root() / "grading" / "reports"


def page(report: ClassReport) -> str:
    """The report as HTML, complete in itself."""
    return template("report.html.j2").render(report=report, most=max((n for _, n in report.distribution), default=0))


def table(report: ClassReport) -> str:
    """The report as CSV: one line a student."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
    lines = [_line(report, row) for row in report.rows]
    writer.writerow([_harmless(column) for column in lines[0]] if lines else [])
    writer.writerows([_harmless(cell) for cell in line.values()] for line in lines)
    return stream.getvalue()


def _line(report: ClassReport, row: Row) -> dict[str, Cell]:
    standing, record = row.standing, row.record
    line: dict[str, Cell] = {"student": row.student}
    line |= {"points": standing.points, "max points": standing.max_points, "awaits grading": standing.waiting}
    line |= {item.name: "" if item.points is None else item.points for item in standing.items}
    for success in report.success:
        answer = record.answers.get(success.exercise)
        earned = {part.name: part.earned for part in answer.result.parts} if answer else {}
        line |= {f"{success.exercise}: {name}": earned.get(name, 0) for name, _, _ in success.parts}
    line |= {"misconceptions": "; ".join(row.mistakes)}
    line |= {"stopped": "; ".join(f"{exercise}: {how}" for exercise, how in row.stopped)}
    line |= {"refused": record.refused}
    if not report.anonymous:
        line |= {"repairs": len(record.repairs), "flags": "; ".join(flag.message for flag in record.flags)}
        line |= {"nearly the same as": "; ".join(_alike(report, row.student))}
    return line


def _alike(report: ClassReport, student: str) -> list[str]:
    pairs = [pair for pair in report.pairs or () if student in pair.students]
    others = [(pair.students[pair.students[0] == student], pair.share) for pair in pairs]
    return [f"{other} ({share:.0%})" for other, share in others]


def _harmless(cell: Cell) -> Cell:
    """The cell, a mark before whatever a spreadsheet would take for a formula.

    Also after a separator or a line's end: a spreadsheet set to another separator would begin a cell there.
    """
    return re.sub(r"(^|[;,\t\r\n|])(\s*)(?=[=+\-@＝＋－＠﹦﹢﹣﹫])", r"\1\2'", cell) if isinstance(cell, str) else cell


def pseudonyms() -> Callable[[str], str]:
    """A function that gives a student the same pseudonym each time; only who has the course's key can undo it."""
    path = root() / "grading" / "pseudonyms.key"
    if not path.exists():
        write_whole(path, lambda temporary: temporary.write_text(secrets.token_hex(32), encoding="ascii"))
        path.chmod(0o600)
    key = path.read_bytes()

    def pseudonym(student: str) -> str:
        letters = base64.b32encode(hmac.digest(key, student.encode("utf-8", "surrogatepass"), "sha256")).decode()
        return f"Student {letters[:3]}-{letters[3:6]}"

    return pseudonym
