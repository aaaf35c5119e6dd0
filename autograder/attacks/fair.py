"""Honest mistakes: each costs its own exercise and no other, although others build on it."""

import textwrap

from nbformat.notebooknode import NotebookNode

from autograder.attacks.handed import TOTAL, Handed, replace, solution
from autograder.checks import find

ONE = "One exercise is wrong; what is built on it is right, and is judged on the reference."


def _mistake(name: str, what: str, symbol: str, source: str, why: str = ONE) -> Handed:
    """A solved notebook but for one exercise."""
    points = TOTAL - find(f"attention.{symbol}").points
    return Handed(name, what, points, why, replace(symbol, textwrap.dedent(source).strip()), solved=True)


def _own_signature(notebook: NotebookNode) -> None:
    """softmax calls its argument `axis`, and attention calls it so."""
    solution(notebook, "softmax").source = textwrap.dedent(
        """
        def softmax(x, axis):
            e = torch.exp(x - x.amax(axis, keepdim=True))
            return e / e.sum(axis, keepdim=True)
        """
    ).strip()
    cell = solution(notebook, "scaled_dot_product_attention")
    cell.source = cell.source.replace("weights = softmax(scores", "weights = softmax(axis=-1, x=scores")
    assert "axis=-1" in cell.source


def _deleted(notebook: NotebookNode) -> None:
    notebook.cells.remove(solution(notebook, "softmax"))


FAIR: list[Handed] = [
    _mistake("wrong-softmax", "Divides by one total instead of the sum along the axis.", "softmax",
             "def softmax(x, dim=-1):\n    e = torch.exp(x - x.amax(dim, keepdim=True))\n    return e / e.sum()"),
    _mistake("no-softmax", "Has not written softmax.", "softmax",
             "def softmax(x, dim=-1):\n    raise NotImplementedError"),
    _mistake("syntax-error", "Has a slip in the line that defines softmax.", "softmax",
             "def softmax(x, dim=-1)\n    return x"),
    _mistake("error-in-cell", "Has a line after the definition that fails.", "softmax",
             "def softmax(x, dim=-1):\n    return nothing\n\n\nsoftmax(torch.ones(2))"),
    _mistake("inverted-mask", "Has the causal mask the wrong way round.", "causal_mask",
             "def causal_mask(length):\n    return torch.ones(length, length, dtype=torch.bool).triu(1)"),
    _mistake("one-class-too-few", "Gives the function's result in place of the function.", "padding_mask",
             "padding_mask = torch.ones(2, 1, 3, dtype=torch.bool)"),
    Handed("own-signature", "Gives softmax another argument's name, and uses it so.", TOTAL - 2,
           "softmax is not what was asked; attention is right with the student's own, and that counts.",
           _own_signature, solved=True),
    Handed("deleted-cell", "Has deleted the cell of softmax.", TOTAL - 2, ONE, _deleted, solved=True),
]  # fmt: skip
