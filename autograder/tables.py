"""Tables for spreadsheets, in which no cell can be taken for a formula."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

Cell = str | int | float


def text(rows: Iterable[Sequence[Cell]], *, quoted: bool = True) -> str:
    """Rows as CSV.

    Args:
        rows: the rows, their heads first.
        quoted: put every text between quotes, not only those that need it.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL)
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return stream.getvalue()


def harmless(cell: Cell) -> Cell:
    """The cell, a mark before whatever a spreadsheet would take for a formula.

    Also after a separator or a line's end: a spreadsheet set to another separator would begin a cell there.
    """
    return re.sub(r"(^|[;,\t\r\n|])(\s*)(?=[=+\-@＝＋－＠﹦﹢﹣﹫])", r"\1\2'", cell) if isinstance(cell, str) else cell
