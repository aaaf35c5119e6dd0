"""What a chapter's code cells call to speak and to draw."""

import matplotlib as mpl
import matplotlib_inline.backend_inline as inline
from IPython.display import Markdown, display

PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
"""Okabe and Ito's colours: told apart by colour-blind readers, and 3:1 or better on white for the first three."""


def say(sentence: str) -> None:
    """Show a sentence of prose whose numbers this page has just computed.

    Args:
        sentence: Markdown, with the computed values already formatted into it.
    """
    display(Markdown(sentence))


def use_house_style() -> None:
    """Draw every figure of the page in the book's style, as sharp, small, reproducible SVG."""
    inline.set_matplotlib_formats("svg")
    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.prop_cycle": mpl.cycler(color=PALETTE),
            "grid.alpha": 0.3,
            "font.size": 11,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "svg.hashsalt": "build-a-transformer",
        }
    )
