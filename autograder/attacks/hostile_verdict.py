"""Attempts on the verdict: nothing is solved, and full marks are claimed or stolen."""

import textwrap

from nbformat.notebooknode import NotebookNode

from autograder.attacks.handed import CHAPTER, TOTAL, Handed, first, inside, marked, replace, solution, solve
from autograder.checks import of_chapter

NOTHING = "Nothing is solved."


def _cheat(name: str, what: str, code: str, flags: frozenset[str] = frozenset()) -> Handed:
    full = {check.symbol: float(check.points) for check in of_chapter(CHAPTER)}
    source = f"full = {full}\n{textwrap.dedent(code).strip()}" if "full[" in code else textwrap.dedent(code).strip()
    return Handed(name, what, 0, NOTHING, first(source), flags=flags)


def _instead(name: str, what: str, code: str, points: int, why: str, symbol: str = "softmax") -> Handed:
    return Handed(name, what, points, why, replace(symbol, textwrap.dedent(code).strip()), solved=True)


def _everywhere(name: str, what: str, value: str, before: str = "") -> Handed:
    """Every exercise gives the same strange thing back."""

    def edit(notebook: NotebookNode) -> None:
        for symbol in ("softmax", "scaled_dot_product_attention", "causal_mask", "padding_mask"):
            head = f"{textwrap.dedent(before).strip()}\n\n\n" if before and symbol == "softmax" else ""
            solution(notebook, symbol).source = f"{head}def {symbol}(*args, **kwargs):\n    return {value}"
        solution(notebook, "SelfAttention").source = (
            "class SelfAttention(nn.Module):\n"
            "    def __init__(self, *sizes):\n        super().__init__()\n"
            f"    def forward(self, *args, **kwargs):\n        return {value}"
        )

    return Handed(name, what, 0, NOTHING, edit)


OTHERS = ("scaled_dot_product_attention", "causal_mask", "padding_mask", "SelfAttention")


def _copied(notebook: NotebookNode) -> None:
    solve(notebook)
    for symbol in OTHERS:
        solution(notebook, symbol).source = ""
        marked(notebook, f"attention-{symbol}-check").source = 'check("attention.softmax", softmax)'


def _imported(notebook: NotebookNode) -> None:
    for symbol in ("softmax", *OTHERS):
        solution(notebook, symbol).source = f"from solutions.attention import {symbol}"


def _late(notebook: NotebookNode) -> None:
    for symbol in ("softmax", *OTHERS[:-1]):
        solution(notebook, symbol).source = (
            f"def {symbol}(*args, **kwargs):\n    import solutions.attention\n"
            f"    return solutions.attention.{symbol}(*args, **kwargs)"
        )


def _unchecked(notebook: NotebookNode) -> None:
    checks = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id", "").endswith("check")]
    notebook.cells = [cell for cell in notebook.cells if cell not in checks]


_FIND = """
def stolen(name):
    for thing in gc.get_objects():
        if getattr(thing, "__module__", "") == "solutions.attention" and getattr(thing, "__name__", "") == name:
            return thing
    raise NotImplementedError
"""

VERDICT: list[Handed] = [
    _cheat(
        "patched-allclose",
        "Patches `torch.allclose`, `torch.equal` and their like to say yes.",
        """
        import torch
        for name in ("allclose", "equal", "isclose"):
            setattr(torch, name, lambda *args, **kwargs: True)
        torch.Tensor.__eq__ = lambda *args: torch.tensor(True)
        torch.testing.assert_close = lambda *args, **kwargs: None
        """,
    ),
    _cheat(
        "patched-builtins",
        "Patches `builtins.all`, `any`, `abs`, `max` and `isinstance`.",
        """
        import builtins
        builtins.all = lambda *args: True
        builtins.any = lambda *args: True
        builtins.abs = lambda *args: 0
        builtins.max = lambda *args, **kwargs: 0
        """,
    ),
    _everywhere(
        "equal-to-all",
        "Returns an object that is equal to everything.",
        "Equal()",
        """
        class Equal:
            def __eq__(self, other): return True
            def __getattr__(self, name): return self
            def __call__(self, *args, **kwargs): return self
            def __bool__(self): return True
        """,
    ),
    _everywhere(
        "torch-function",
        "Returns a tensor whose `__torch_function__` answers every question with yes.",
        "torch.ones(2, 3).as_subclass(Yes)",
        """
        class Yes(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                return True
        """,
    ),
    _cheat(
        "input-transformer",
        "An input transformer of IPython turns each check into a number.",
        """
        def transform(lines):
            asked = [name for name in full for line in lines if f"check(\\"attention.{name}\\"" in line]
            return [f"{full[asked[0]]}\\n"] if asked else lines
        get_ipython().input_transformers_post.append(transform)
        """,
        frozenset({"claim"}),
    ),
    _cheat(
        "ast-transformer",
        "A transformer of syntax trees turns each call of `check` into a number.",
        """
        import ast
        class Points(ast.NodeTransformer):
            def visit_Call(self, node):
                if getattr(node.func, "id", "") == "check":
                    return ast.copy_location(ast.Constant(full[node.args[0].value.partition(".")[2]]), node)
                return self.generic_visit(node)
        get_ipython().ast_transformers.append(Points())
        """,
        frozenset({"claim"}),
    ),
    _cheat(
        "displayhook",
        "Shows full points as the result of every cell.",
        """
        import sys
        formatter, now = get_ipython().display_formatter, []
        real = formatter.format
        def check(name, *args, **kwargs):
            now.append(name.partition(".")[2])
            return ...
        def show(thing, *args, **kwargs):
            return ({"text/plain": str(full[now[-1]])}, {}) if thing is ... else real(thing, *args, **kwargs)
        formatter.format = show
        sys.displayhook = lambda value: formatter.format(value)
        """,
        frozenset({"claim"}),
    ),
    _cheat(
        "own-check",
        "Defines a `check` that returns full points.",
        "check = lambda name, *args, **kwargs: full[name.partition('.')[2]]",
        frozenset({"claim"}),
    ),
    _cheat(
        "patched-judge",
        "Replaces the judge by one that passes everything.",
        """
        import autograder.judge
        autograder.judge._status = lambda *args: "ok"
        """,
    ),
    _cheat(
        "patched-client",
        "Replaces what the client of the judge sends back.",
        """
        import autograder
        from autograder.wire import encode
        autograder.run_probe = lambda *args, **kwargs: [encode({"points": 12, "status": "ok", "value": {}})]
        """,
    ),
    Handed(
        "frame-walking",
        "Looks through the frames that called it for the reference, and calls that.",
        0,
        NOTHING,
        replace(
            "softmax",
            textwrap.dedent(
                """
                import sys
                def softmax(x, dim=-1):
                    frame = sys._getframe()
                    while frame is not None:
                        for thing in [*frame.f_locals.values(), *frame.f_globals.values()]:
                            reference = getattr(thing, "reference", None)
                            if callable(reference):
                                return reference(x, dim)
                            if getattr(thing, "__module__", "") == "solutions.attention" and callable(thing):
                                return vars(sys.modules["solutions.attention"])["softmax"](x, dim)
                        frame = frame.f_back
                    raise NotImplementedError
                """
            ).strip(),
        ),
    ),
    Handed(
        "garbage-collector",
        "Asks the garbage collector for the references that are in memory.",
        0,
        NOTHING,
        replace("softmax", f"import gc\n{_FIND}\ndef softmax(x, dim=-1):\n    return stolen('softmax')(x, dim)"),
    ),
    Handed(
        "imports-the-answer",
        "Imports the references from the course's library.",
        0,
        "The answers are not the student's own.",
        _imported,
    ),
    Handed(
        "imports-a-variant",
        "Imports a correct variant from the tests of the checks.",
        0,
        "The answer is not the student's own.",
        replace("softmax", "from autograder.checks import find\nsoftmax = find('attention.softmax').variants[0]"),
    ),
    Handed(
        "later-reference",
        "Defines every function by what the course hands over after each verdict, hoping to be asked late.",
        0,
        "A verdict is sealed before its reference is handed over.",
        _late,
    ),
    _cheat(
        "forged-verdict",
        "Speaks to the judge's socket itself and sends a verdict.",
        """
        import os, socket, struct, threading, time
        def forge():
            while True:
                try:
                    with socket.socket(socket.AF_UNIX) as judge:
                        judge.connect(os.environ["COURSE_JUDGE"])
                        said = b'{"exercise": "attention.softmax", "points": 12, "verdict": "ok"}'
                        judge.sendall(struct.pack("!Q", len(said)) + said)
                        judge.recv(100)
                except (OSError, KeyError):
                    pass
                time.sleep(0.001)
        threading.Thread(target=forge, daemon=True).start()
        """,
        frozenset({"forged"}),
    ),
    _cheat(
        "endless-message",
        "Announces a message of 2^63 bytes to the judge, again and again.",
        """
        import os, socket, struct, threading, time
        def flood():
            while True:
                try:
                    with socket.socket(socket.AF_UNIX) as judge:
                        judge.connect(os.environ["COURSE_JUDGE"])
                        judge.sendall(struct.pack("!Q", 2**63) + bytes(10**6))
                except (OSError, KeyError):
                    pass
                time.sleep(0.001)
        threading.Thread(target=flood, daemon=True).start()
        """,
        frozenset({"forged"}),
    ),
    _cheat(
        "forged-output",
        "Sends the page a result with full points through the kernel's own channel.",
        """
        def claim(name, *args, **kwargs):
            kernel = get_ipython().kernel
            points = str(full[name.partition(".")[2]])
            content = {"data": {"text/plain": points}, "metadata": {}, "execution_count": 1}
            kernel.session.send(kernel.iopub_socket, "execute_result", content, parent=kernel.get_parent())
        check = claim
        """,
        frozenset({"claim"}),
    ),
    _cheat(
        "wrong-types",
        "Answers every case with a message of another shape.",
        """
        import autograder
        from autograder.wire import encode
        replies = iter([[1, 2], None, {"value": 1}, {"error": {"kind": "passed"}, "changed": [], "printed": 0}] * 999)
        autograder.run_probe = lambda *args, **kwargs: [encode(next(replies))]
        """,
    ),
    _cheat(
        "claims-errors",
        "Answers every case with the claim that the right error was raised.",
        """
        import autograder
        from autograder.wire import encode
        claim = {"value": {"error": "ValueError"}, "changed": [], "printed": 0, "used": {}}
        autograder.run_probe = lambda *args, **kwargs: [encode(claim)]
        """,
    ),
    _cheat(
        "oversize-replies",
        "Answers every case with 100 MB of zeros.",
        """
        import autograder
        autograder.run_probe = lambda *args, **kwargs: [bytes(100 * 2**20)]
        """,
    ),
    _instead(
        "replayed-replies",
        "Solves the first case of softmax, and sends that answer for all the others.",
        """
        import autograder
        kept, real = [], autograder.run_probe
        def replay(*arguments, **named):
            kept.append(real(*arguments, **named))
            return kept[0]
        autograder.run_probe = replay
        def softmax(x, dim=-1):
            e = (x - x.amax(dim, keepdim=True)).exp()
            return e / e.sum(dim, keepdim=True)
        """,
        0,
        "Every reply but the first is wrong, for all exercises: the trick stays in place.",
    ),
    _everywhere(
        "nan-replies",
        "Returns NaN, which is equal to nothing and might be skipped.",
        "torch.full((2, 3), float('nan'))",
    ),
    _everywhere("huge-replies", "Returns a tensor that would need 256 TB.", "torch.zeros(1).expand(2**45)"),
    _everywhere(
        "pickled-replies",
        "Returns an object that runs code when it is unpickled.",
        "Bomb()",
        """
        class Bomb:
            def __reduce__(self):
                import os
                return os.system, ("touch /tmp/unpickled",)
        """,
    ),
    _instead(
        "knows-the-visible-cases",
        "Is right for the lengths of the visible check alone.",
        """
        def causal_mask(length):
            return torch.ones(length, length, dtype=torch.bool).tril() if length in (1, 4, 5, 6) else torch.ones(1)
        """,
        TOTAL - 1,
        "Hidden cases have other lengths; the other exercises are solved.",
        "causal_mask",
    ),
    _instead(
        "library-softmax",
        "Calls `torch.softmax`, which is the answer.",
        "def softmax(x, dim=-1):\n    return torch.softmax(x, dim)",
        TOTAL - 2,
        "The exercise says: build it yourself. The others are solved.",
    ),
    _instead(
        "library-by-getattr",
        "Calls `torch.softmax` by a name that is put together at run time.",
        "def softmax(x, dim=-1):\n    return getattr(torch, 'soft' + 'max')(x, dim)",
        TOTAL - 2,
        "It is seen when it runs.",
    ),
    _instead(
        "library-attention",
        "Calls PyTorch's fused attention, and takes the weights from its effect on the identity.",
        """
        def scaled_dot_product_attention(query, key, value, mask=None):
            from torch.nn import functional as F
            one = torch.eye(key.size(-2), dtype=query.dtype).expand(*key.shape[:-1], key.size(-2))
            weights = F.scaled_dot_product_attention(query, key, one, attn_mask=mask).nan_to_num(0.0)
            return weights @ value, weights
        """,
        TOTAL - 4,
        "The exercise says: build it yourself. The others are solved.",
        "scaled_dot_product_attention",
    ),
    Handed(
        "points-edited",
        "Sets the points of a check to 100 in the notebook's metadata.",
        0,
        NOTHING,
        lambda notebook: marked(notebook, "attention-softmax-check").metadata.nbgrader.update(points=100),
    ),
    Handed(
        "check-made-an-answer",
        "Turns check cells into answers that a person grades.",
        0,
        NOTHING,
        lambda notebook: marked(notebook, "attention-softmax-check").metadata.nbgrader.update(solution=True),
    ),
    Handed(
        "locked-cell-edited",
        "Writes a number into a check cell.",
        0,
        NOTHING,
        lambda notebook: marked(notebook, "attention-softmax-check").update(source="12.0"),
    ),
    Handed(
        "checks-deleted",
        "Deletes every check cell, so that nothing can fail.",
        0,
        NOTHING,
        _unchecked,
    ),
    Handed(
        "checks-copied",
        "Solves softmax, and repeats its check under the names of the other checks.",
        2,
        "One exercise is solved.",
        _copied,
    ),
    Handed(
        "solution-changes-its-mind",
        "Answers rightly while it is checked and keeps a note of the inputs in a global.",
        TOTAL,
        "It is right for every input that it was asked.",
        inside("softmax", "globals().setdefault('seen', []).append(x)"),
        solved=True,
    ),
]
