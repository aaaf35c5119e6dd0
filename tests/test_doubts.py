"""Code whose use of the library cannot be read gives a reason for a second look; honest chapters give none."""

import jupytext
import pytest

from autograder.checks import find, of_chapter
from autograder.doubts import may_need_more, needs_second_look, plain_definitions, tampering
from course import chapters

SOFTMAX = find("attention.softmax")
HONEST = """
def softmax(x, dim=-1):
    e = torch.exp(x - x.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)
"""
WATCHED_OFF = {
    "assigns the watch": "import autograder.probe\nautograder.probe.watching = lambda seen: open('/dev/null')",
    "from import": "from autograder import probe\nprobe.watching = None",
    "a code object": "softmax = type(f)(f.__code__.replace(co_filename='torch'), globals())",
    "a thread": "import threading\ndef softmax(x, dim=-1):\n    return run_in(threading.Thread, x)",
    "a pool": "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)",
    "a fork": "import os\ndef softmax(x, dim=-1):\n    if os.fork() == 0:\n        pass\n    return x",
    "torch functions off": "def softmax(x, dim=-1):\n    with torch._C.DisableTorchFunction():\n        return f(x)",
    "dispatch off": "from torch.utils._python_dispatch import _disable_current_modes as off",
    "exec": "exec(compile(text, '<x>', 'exec'))",
    "eval": "def softmax(x, dim=-1):\n    return eval('torch.soft' + 'max')(x, dim)",
    "a computed name": "def softmax(x, dim=-1):\n    return getattr(torch, 'soft' + 'max')(x, dim)",
    "vars": "def softmax(x, dim=-1):\n    return vars(torch)['soft' + 'max'](x, dim)",
    "__dict__": "def softmax(x, dim=-1):\n    return torch.__dict__[name](x, dim)",
    "globals": "def softmax(x, dim=-1):\n    return globals()[name](x, dim)",
    "a module handed on": "def softmax(x, dim=-1):\n    return pick(torch)(x, dim)",
    "__import__": "def softmax(x, dim=-1):\n    return __import__('to' + 'rch').softmax(x, dim)",
    "import_module": "import importlib\nS = importlib.import_module('tor' + 'ch')",
    "sys.modules": "import sys\nS = sys.modules['torch']",
    "a frame": "import sys\ndef softmax(x, dim=-1):\n    return sys._getframe(1).f_locals['y']",
    "inspect": "import inspect\nframe = inspect.currentframe()",
    "gc": "import gc\nfound = [one for one in gc.get_objects()]",
    "ctypes": "import ctypes",
    "tracing": "import sys\nsys.settrace(lambda *a: None)",
    "torch.library": "lib = torch.library.Library('aten', 'IMPL')",
    "a tensor of an own kind": "class T(torch.Tensor):\n    @classmethod\n"
    "    def __torch_function__(cls, f, t, a=(), k=None):\n        return f",
    "attrgetter": "from operator import attrgetter\nS = attrgetter('soft' + 'max')(torch)",
    "a magic": "%run other.py",
    "a magic with code": "%time exec(text)",
    "a shell": "get_ipython().run_cell('x')",
    "patches": "torch.exp = lambda x: x",
    "patches F": "import torch.nn.functional as G\nG.relu = G.softmax",
    "patches a tensor": "torch.Tensor.exp = torch.Tensor.softmax",
    "setattr": "setattr(torch, 'exp', torch.softmax)",
    "a subscript": "vars(torch)['exp'] = torch.softmax",
    "builtins": "import builtins\nbuiltins.sum = max",
    "pickle": "import pickle\nS = pickle.loads(text)",
    "workers": "def softmax(x, dim=-1):\n    return next(iter(torch.utils.data.DataLoader(x, collate_fn=f)))",
    "a file of one's own": "open('mine_too.py', 'w').write(text)\nimport mine_too",
    "a patch by name": "from unittest import mock\nmock.patch('torch.exp', f).start()",
    "sys by another name": "import warnings\nS = warnings.sys.modules['autograder.watch']",
    "from sys": "from sys import modules",
    "an alias": "t = torch\nt.exp = f",
    "unpickled": "S = torch.load('x', weights_only=False)",
    "globals at the top": "globals()['softmax'] = f",
    "a method of an own name": "class Own:\n    def softmax(self):\n        pass\ndef softmax(x, dim=-1):\n"
    "    return x.softmax(dim)",
}
TAMPERS = (
    "assigns the watch",
    "from import",
    "patches",
    "patches F",
    "patches a tensor",
    "setattr",
    "a subscript",
    "builtins",
)


@pytest.mark.parametrize("name", WATCHED_OFF)
def test_what_hides_a_call_gives_a_reason(name: str) -> None:
    own = "def softmax" in WATCHED_OFF[name]
    cells = [HONEST, WATCHED_OFF[name]] if own else [WATCHED_OFF[name], HONEST]
    assert needs_second_look(SOFTMAX, cells)


@pytest.mark.parametrize("name", WATCHED_OFF)
def test_what_changes_the_courses_or_pytorchs_code_is_told(name: str) -> None:
    assert bool(tampering([WATCHED_OFF[name]])) == (name in TAMPERS)


@pytest.mark.parametrize(
    "cell",
    [
        HONEST,
        "import torch\nfrom torch import nn\nfrom autograder import check, earlier\n"
        "softmax = earlier('attention.softmax')",
        "check('attention.softmax', softmax)",
        "%matplotlib inline\n%pip install tqdm\nimport matplotlib.pyplot as plt\nplt.plot([1])",
        "%%time\nsoftmax(x)",
        "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n        for i in range(3):\n"
        "            setattr(self, f'layer{i}', nn.Linear(2, 2))\n    def forward(self, x):\n"
        "        return getattr(self, f'layer{0}')(x)",
        "model.weight.data = torch.ones(2)\nmodel.layer.bias = None\nx.grad = None\nconfig.torch = 3",
        "torch.manual_seed(0)\ntorch.set_printoptions(precision=3)",
        "for name, module in model.named_modules():\n    print(name, module)",
        "print('%s of %d' % ('a', 2), 7 % 3)",
    ],
)
def test_ordinary_cells_give_none(cell: str) -> None:
    cells = [HONEST.replace("softmax", "other"), cell] if "softmax" not in cell else [cell]
    assert needs_second_look(SOFTMAX, [*cells, HONEST]) == ""
    assert tampering(cells) == []


@pytest.mark.parametrize("chapter", chapters.names())
def test_no_chapter_with_its_references_gives_one(chapter: str) -> None:
    book = jupytext.reads(chapters.source(chapter).read_text(encoding="utf-8"), fmt="md:myst")
    cells = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert tampering(cells) == []
    for check in of_chapter(chapter):
        for solution in check.variants:
            assert needs_second_look(check, [*cells, solution.source]) == "", solution.name


def test_an_exercise_that_allows_every_call_is_no_exception() -> None:
    """What runs beside it may answer in its place, whatever the exercise allows."""
    check = find("attention.padding_mask")
    assert needs_second_look(check, ["import ctypes"])
    assert needs_second_look(check, ["x = torch.nn.functional.softmax(y, -1)"]) == ""


@pytest.mark.parametrize(
    "cell",
    [
        "def check(name, target, graded=False):\n    pass",
        "check = print",
        "class check:\n    pass",
        "import socket",
        "from socket import socket as s",
        "place = environ['COURSE_JUDGE']",
        "autograder.run_probe = None",
        "def f(x):\n    import autograder\n    autograder.run_probe = None\n    return x",
        "torch.is_grad_enabled = lambda: False",
        "sys.settrace = print",
    ],
)
def test_what_answers_in_a_solutions_place_is_told_and_left_out(cell: str) -> None:
    assert tampering([cell])
    assert plain_definitions(f"{HONEST}\n{cell}", "softmax").strip() == HONEST.strip()
    assert not may_need_more([HONEST, cell])


@pytest.mark.parametrize(
    "cell",
    ["torch.backends.mkldnn.enabled = False", "sys.stdout = open('x')", "sys.path[0:0] = ['y']", "model.check = 3"],
)
def test_what_an_honest_notebook_may_change(cell: str) -> None:
    assert tampering([cell]) == []


def test_the_definitions_keep_what_they_need_and_lose_what_runs() -> None:
    cell = "import math\nROOT = math.sqrt(2)\nprint(ROOT)\nfor _ in range(3):\n    exec('1')\n\n"
    kept = plain_definitions(cell + "def f(x):\n    return ROOT * x", "f")
    assert "ROOT = math.sqrt(2)" in kept
    assert "print" not in kept
    assert "exec" not in kept


def test_a_module_that_a_cell_writes_is_read_like_the_cells() -> None:
    cells = ["%%writefile helper.py\nX = 1", f"from helper import X\n{HONEST}"]
    assert needs_second_look(SOFTMAX, cells)
    assert may_need_more(cells)
    assert not may_need_more([cells[0].replace("X = 1", "exec('1')"), cells[1]])
    assert tampering([cells[0].replace("X = 1", "import autograder.probe")])
    assert not may_need_more(cells[1:])


def test_only_what_hides_nothing_may_need_more() -> None:
    assert may_need_more(["%%writefile helper.py\nX = 1", HONEST])
    assert not may_need_more(["exec('1')", HONEST])
