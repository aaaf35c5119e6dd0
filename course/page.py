"""What a chapter's code cells call to speak and to draw."""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from string import punctuation
from textwrap import dedent
from typing import Any

import matplotlib as mpl
import matplotlib_inline.backend_inline as inline
from cycler import cycler
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from torch import Tensor

PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
"""Okabe and Ito's colours: told apart by colour-blind readers; the first three are 3:1 or better on white."""


def say(sentence: str) -> None:
    """Show a sentence of prose whose numbers this page has just computed.

    Args:
        sentence: Markdown, with the computed values already formatted into it.
    """
    display(Markdown(sentence))  # type: ignore[no-untyped-call]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a Markdown table; floats get three significant digits.

    Args:
        columns: the heads.
        rows: one sequence a row, as long as `columns`.
    """
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def literal(text: str) -> str:
    """Write Markdown that shows a text letter for letter: one that a library or a model wrote may look like Markdown.

    Args:
        text: shown as prose.
    """
    # All that can mean something, but for the bar, which does so in tables alone, and there `table` sees to it.
    return re.sub(f"([{re.escape(punctuation.replace('|', ''))}])", r"\\\1", text)


def code(text: str) -> str:
    """Like `literal`, for a text of which every space counts.

    Args:
        text: shown on one line, as code.
    """
    # The fence must be longer than any row of backticks in the text.
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}"


def show_source(thing: Callable[..., Any]) -> None:
    """Show the code of a function or class that the course gives, without its docstrings, which the text replaces.

    Args:
        thing: a function or class written in a file.
    """
    tree = ast.parse(dedent(inspect.getsource(thing)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    display(Markdown(f"```python\n{ast.unparse(tree)}\n```"))  # type: ignore[no-untyped-call]


def heat_map(axes: Axes, weights: Tensor, queries: Sequence[str], keys: Sequence[str], numbers: bool = True) -> None:
    """Draw attention weights: one row a query, one column a key, darker where the weight is larger.

    Args:
        axes: where to draw.
        weights: (Tq, Tk), between 0 and 1; booleans draw a mask.
        queries: the Tq labels of the rows.
        keys: the Tk labels of the columns.
        numbers: write each weight into its square.
    """
    grid = weights.detach().cpu().double()
    axes.imshow(grid.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(keys)), keys)
    axes.set_yticks(range(len(queries)), queries)
    axes.set_xlabel("key")
    axes.set_ylabel("query")
    axes.grid(False)
    axes.set_xticks([column + 0.5 for column in range(len(keys) - 1)], minor=True)
    axes.set_yticks([row + 0.5 for row in range(len(queries) - 1)], minor=True)
    axes.grid(which="minor", color="white", linewidth=2, alpha=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if numbers:
        for row, line in enumerate(grid.tolist()):
            for column, weight in enumerate(line):
                colour = "white" if weight > 0.55 else "black"
                axes.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=9, color=colour)


def use_house_style() -> None:
    """Draw every figure of the page in the book's style, as sharp, small, reproducible SVG."""
    inline.set_matplotlib_formats("svg", metadata={"Date": None})  # type: ignore[no-untyped-call]
    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.prop_cycle": cycler(color=PALETTE),
            "grid.alpha": 0.3,
            "font.size": 11,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "svg.hashsalt": "build-a-transformer",
        }
    )
