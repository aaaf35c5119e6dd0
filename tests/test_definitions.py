"""Of a cell that does not end, what it defines is left: every definition, and nothing that was only tried."""

import pytest

from autograder.definitions import definitions_only

FUNCTION = """
def softmax(x, dim=-1):
    e = (x - x.amax(dim, keepdim=True)).exp()  # stable
    return e / e.sum(dim, keepdim=True)
""".strip()

KEPT = [
    "import torch",
    "from torch import nn, Tensor as T",
    "from __future__ import annotations",
    FUNCTION,
    "async def f():\n    pass",
    "@torch.no_grad()\ndef f(x):\n    while True:\n        pass",
    "class A(nn.Module):\n    size = 3\n\n    def forward(self, x):\n        print(x)",
    "EPS = 1e-5",
    "EPS: float = -1e-5",
    "a, b = 1, 2",
    "a = b = {'x': [1, 2], **{}}",
    "f = lambda x: x.softmax(-1)",
    "F = nn.functional",
    "F = nn.functional if nn else None",
    "LIMIT = float('-inf')",
    "SCALE = math.sqrt(2 / math.pi)",
    "SCALE = torch.sqrt(torch.tensor(2 / torch.pi))",
    "softmax = functools.partial(other, dim=-1)",
    "try:\n    import einops\nexcept ImportError:\n    einops = None",
    "if torch.cuda.is_available():\n    device = 'cuda'\nelse:\n    device = 'cpu'",
    "if x:\n    def f(): pass",
    f"{FUNCTION}\nsoftmax = torch.compile(softmax)",
    f"{FUNCTION}\nsoftmax = counted(3)(softmax)",
    f"{FUNCTION}\nsoftmax.calls = count(0)",
    "class A: pass\nA.forward = make(3)",
    "TABLE = build(1000)\ndef f(i):\n    return TABLE[i]",
    "base = load()\nTABLE = build(base)\ndef f(i):\n    return [TABLE[j] for j in i]",
    "size = measure()\ndef f(x, n=size):\n    return n",
    "PIECE = compile_pattern()\nclass A:\n    piece = PIECE",
]
DROPPED = [
    "softmax(torch.randn(3))",
    "'a string'",
    "print('x' * 10**9)",
    "for i in range(10**9):\n    y = softmax(x)",
    "while True: pass",
    "assert softmax(x).sum() == 1",
    "plt.plot(x); plt.show()",
    "with torch.no_grad():\n    y = train()",
    "if __name__ == '__main__':\n    main()",
    "if __name__ == '__main__':\n    x = 1",
    "if ready():\n    def f(): pass",
    "try:\n    main()\nexcept Exception:\n    pass",
    "y = softmax(torch.randn(9999, 9999))",
    "losses = [train(step) for step in range(10**9)]",
    "x: Tensor = torch.randn(3)",
    "%timeit softmax(x)",
    "!ls",
    "files = !ls",
    "x = %timeit -o f()",
    "%matplotlib inline",
    "torch.set_default_dtype(torch.float64)",
    "del x",
    "x = train()\ny = x * 2\nz = [y, y]",
    "for x in range(3):\n    pass\ny = x + 1",
    "raise SystemExit",
]


@pytest.mark.parametrize("source", KEPT)
def test_what_defines_is_kept_as_it_stands(source: str) -> None:
    assert definitions_only(source) == source


@pytest.mark.parametrize("source", DROPPED)
def test_what_only_runs_is_left_out(source: str) -> None:
    assert definitions_only(source) == ""
    both = definitions_only(f"{source}\n{FUNCTION}\n{source}")
    assert both.strip() == FUNCTION
    assert both.split("\n").index(FUNCTION.split("\n")[0]) == len(source.split("\n"))  # on its own lines


def test_a_name_that_is_needed_is_kept_however_it_is_made() -> None:
    source = "softmax = make_softmax(stable=True)\nx = make_softmax(3)"
    assert definitions_only(source) == ""
    assert definitions_only(source, "softmax") == "softmax = make_softmax(stable=True)"


def test_a_local_name_is_not_a_need() -> None:
    source = "x = torch.randn(9, 9)\ndef f(x):\n    y = x\n    return [y for y in x]\ny = train(x)"
    assert definitions_only(source) == "\ndef f(x):\n    y = x\n    return [y for y in x]"


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("x = 1; while_ = train(); y = 2", "x = 1; y = 2"),
        ("print('ä'); s = 'ö'; print(s)", "s = 'ö'"),
        ("import torch; torch.manual_seed(0)", "import torch"),
        ("show(1); s = '''a\nb'''; show(2)", "s = '''a\nb'''"),
        ("x = 1  # one\nprint(x)", "x = 1  # one"),
    ],
)
def test_statements_on_one_line_are_told_apart(source: str, kept: str) -> None:
    assert definitions_only(source) == kept


@pytest.mark.parametrize("head", ["%%time", "%%capture out", "!pip list"])
def test_magics_go_and_the_rest_stays(head: str) -> None:
    assert definitions_only(f"{head}\n{FUNCTION}") == f"\n{FUNCTION}"


@pytest.mark.parametrize("source", ["", "def f(:", "%%bash\nls", "x = (" * 30_000, "-" * 40_000 + "1", "\x0c"])
def test_what_is_no_python_defines_nothing(source: str) -> None:
    assert definitions_only(source) == ""
