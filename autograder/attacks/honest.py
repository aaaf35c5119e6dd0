"""Submissions that are right in unusual ways. Each deserves every point, and no flag."""

import ast
import textwrap
from collections.abc import Callable

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from autograder.attacks.handed import CHAPTER, TOTAL, Handed, beside, first, inside, marked, replace, solution, solve
from autograder.checks import find, of_chapter

SYMBOLS = [check.symbol for check in of_chapter(CHAPTER)]
WHY = "Everything is right."


def _right(name: str, what: str, edit: Callable[[NotebookNode], None]) -> Handed:
    return Handed(name, what, TOTAL, WHY, edit, solved=True)


def _variant(index: int) -> Handed:
    def edit(notebook: NotebookNode) -> None:
        for symbol in SYMBOLS:
            solution(notebook, symbol).source = find(f"attention.{symbol}").variants[index].source

    name = find("attention.softmax").variants[index].name
    return _right(f"another-way-{index + 1}", f"Other algorithms and styles throughout; softmax: {name}.", edit)


def _each(change: Callable[[str], str]) -> Callable[[NotebookNode], None]:
    def edit(notebook: NotebookNode) -> None:
        for symbol in SYMBOLS:
            cell = solution(notebook, symbol)
            cell.source = change(cell.source)

    return edit


class _Bare(ast.NodeTransformer):
    """Without type hints and docstrings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        for argument in (*node.args.args, *node.args.kwonlyargs):
            argument.annotation = None
        if ast.get_docstring(node) and len(node.body) > 1:
            del node.body[0]
        return node


def _bare(source: str) -> str:
    return ast.unparse(_Bare().visit(ast.parse(source)))


def _merged(notebook: NotebookNode) -> None:
    """All solutions in the first cell; the others are cleared."""
    together = "\n\n\n".join(solution(notebook, symbol).source for symbol in SYMBOLS)
    for symbol in SYMBOLS:
        solution(notebook, symbol).source = ""
    solution(notebook, SYMBOLS[0]).source = together


def _split(notebook: NotebookNode) -> None:
    """A helper in a cell of its own, used by the solution."""
    cell = solution(notebook, "softmax")
    helper = "def shifted(x, dim):\n    return x - x.amax(dim=dim, keepdim=True)"
    cell.source = (
        "def softmax(x, dim=-1):\n    e = torch.exp(shifted(x, dim))\n    return e / e.sum(dim=dim, keepdim=True)"
    )
    notebook.cells.insert(notebook.cells.index(cell), new_code_cell(helper))


def _below(notebook: NotebookNode) -> None:
    """The solution in a new cell below the stub, which stays as it was handed out."""
    cell = solution(notebook, "softmax")
    source, cell.source = cell.source, cell.source.partition('    """\n')[0] + '    """\n    raise NotImplementedError'
    notebook.cells.insert(notebook.cells.index(cell) + 1, new_code_cell(source))


def _unmarked(notebook: NotebookNode) -> None:
    """Cut and pasted: the cells have lost nbgrader's marks and their ids."""
    for index, symbol in enumerate(SYMBOLS):
        cell = solution(notebook, symbol)
        del cell.metadata["nbgrader"]
        cell["id"] = f"pasted-{index}"


def _reordered(notebook: NotebookNode) -> None:
    """A check has slipped before its exercise."""
    cell = marked(notebook, "attention-softmax-check")
    notebook.cells.remove(cell)
    notebook.cells.insert(3, cell)


def _as_text(notebook: NotebookNode) -> None:
    """One solution's cell has become a text cell by a slip of the keyboard."""
    cell = solution(notebook, "causal_mask")
    cell.cell_type = "markdown"
    del cell["outputs"], cell["execution_count"]


def _timed(notebook: NotebookNode) -> None:
    cell = solution(notebook, "causal_mask")
    cell.source = f"%%time\n{cell.source}"


def _without_prose(notebook: NotebookNode) -> None:
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]


def _updated_later(notebook: NotebookNode) -> None:
    """Something is shown in one cell, and updated in the next."""
    first("for n in range(3):\n    _shown.update(n)")(notebook)
    shown = "from IPython.display import display\n_shown = display('wait', display_id=True)\nprint('below')"
    notebook.cells.insert(notebook.cells.index(solution(notebook, "softmax")) - 1, new_code_cell(shown))


def _anew(notebook: NotebookNode) -> None:
    for question, cell in (("why_scale", new_code_cell("Because the variance grows.")),
                           ("choose_mask", new_markdown_cell("The causal one, as in a story."))):  # fmt: skip
        answer = marked(notebook, f"attention-{question}-answer")
        notebook.cells[notebook.cells.index(answer)] = cell


HONEST: list[Handed] = [
    _right("reference", "The reference itself.", solve),
    *(_variant(index) for index in range(3)),
    _right(
        "warnings",
        "Warns, in the cell and in every call.",
        beside("softmax", "import warnings\nwarnings.warn('in the cell')", "warnings.warn('after it')"),
    ),
    _right(
        "warns-inside",
        "Warns and logs in every call.",
        inside("softmax", "import logging, warnings; warnings.warn('inside'); logging.warning('inside')"),
    ),
    _right(
        "progress-bar",
        "Shows a progress bar on stderr in every call.",
        inside("softmax", "from tqdm import tqdm; list(tqdm(range(3)))"),
    ),
    _right("prints", "Prints shapes in every call.", inside("softmax", "print(x.shape, dim)")),
    _right("no-hints", "All type hints and docstrings are gone.", _each(_bare)),
    _right("carriage-returns", "Written with Windows line ends.", _each(lambda source: source.replace("\n", "\r\n"))),
    _right("split-cells", "A helper stands in a cell of its own.", _split),
    _right("merged-cells", "All solutions stand in one cell.", _merged),
    _right("own-cell-below", "The solution stands below the stub, in a new cell.", _below),
    _right("pasted-cells", "Cut and pasted into a new notebook, without nbgrader's marks.", _unmarked),
    _right("reordered", "A check stands before its exercise.", _reordered),
    _right("text-cell", "A solution's cell has become a text cell.", _as_text),
    _right("no-prose", "Every text cell is deleted.", _without_prose),
    _right("slow", "Takes a tenth of a second for each call.", inside("softmax", "import time; time.sleep(0.1)")),
    _right("timed", "A magic times the cell.", _timed),
    _right(
        "shell-commands",
        "Looks around by shell commands, and tries to install a package.",
        beside("softmax", "!ls -la\n%pip install nosuchthing", "!python --version\n%time softmax(torch.ones(2))"),
    ),
    _right(
        "derivatives",
        "Looks at the derivative of softmax, by what PyTorch loads late.",
        beside(
            "softmax",
            after="jacobian = torch.func.jacrev(softmax)(torch.ones(3))\n"
            "torch.testing.assert_close(jacobian, jacobian.T)\nprint(torch.compile(softmax)(torch.ones(3)))",
        ),
    ),
    _right("answers-typed-anew", "Answers in a code cell and in a new cell; the released ones are deleted.", _anew),
    _right(
        "lambda",
        "softmax is a lambda.",
        replace("softmax", "softmax = lambda x, dim=-1: (x - x.logsumexp(dim, keepdim=True)).exp()"),
    ),
    _right(
        "decorated",
        "A decorator of the student's own counts the calls.",
        beside(
            "causal_mask",
            after=textwrap.dedent(
                """
               import functools
               def counted(function):
                   @functools.wraps(function)
                   def wrapper(*args, **kwargs):
                       wrapper.calls += 1
                       return function(*args, **kwargs)
                   wrapper.calls = 0
                   return wrapper
               causal_mask = counted(causal_mask)
               """
            ).strip(),
        ),
    ),
    _right(
        "own-tests",
        "Compares with `torch.softmax` below the definition.",
        beside("softmax", after="_x = torch.randn(3, 4)\nassert torch.allclose(softmax(_x), torch.softmax(_x, -1))"),
    ),
    _right(
        "plots",
        "Draws in the solution's cell.",
        beside("softmax", after="import matplotlib.pyplot as plt\nplt.plot(softmax(torch.arange(3.0)))\nplt.show()"),
    ),
    _right(
        "own-modules",
        "Imports everything again, under other names.",
        first("import torch as t\nimport numpy as np\nfrom torch import nn as layers"),
    ),
    _right(
        "seeds",
        "Sets seeds and switches gradients off and on again.",
        first("import random\nrandom.seed(0)\ntorch.manual_seed(0)\nwith torch.no_grad():\n    torch.ones(1)"),
    ),
    _right(
        "updated-later",
        "Shows something in one cell and updates it in another.",
        _updated_later,
    ),
    _right(
        "long-demonstration",
        "Shows for 35 seconds, below the definition, what softmax does.",
        beside("softmax", after="import time\nfor _ in range(350):\n    softmax(torch.ones(2))\n    time.sleep(0.1)"),
    ),
    _right("asks", "Asks for a name, with nobody there to answer.", first("name = input('Your name: ')")),
    _right("other-languages", "Comments and names in other scripts.", beside("softmax", "größe = 3  # 尺寸\nµ = 'π'")),
]
