"""What stands for the answer is seen in the source and at run time, and honest code never loses a point to it."""

import ast
import importlib.util
import inspect
import linecache
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as modules
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from autograder import comparing, forbidden, vocabulary, watch
from autograder.checks import Check, Named, build, exercise, find, register
from autograder.client import check
from autograder.forbidden import TABLE, paths_of, resolve
from autograder.judge import in_process, judge
from autograder.library_calls import CALLS, library_calls
from autograder.probe import run_probe
from autograder.source import given_to, in_source
from autograder.vocabulary import refused_path as named
from autograder.watch import watching
from autograder.wire import decode, encode
from course.chapters import source as chapter_source
from solutions import attention

pytestmark = pytest.mark.by_exercise

CHECKS = list(register().checks.values())
CLOSED = [check for check in CHECKS if check.instead]
FORBIDDING = [check for check in CLOSED if check.forbidden]
LIBRARY_CALLS = [(check, call) for check in CLOSED for call in library_calls(check)]
SOFTMAX = find("attention.softmax")
HONEST = """
def softmax(x, dim=-1):
    e = torch.exp(x - x.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)
"""


def names(source: str, *earlier: str, symbol: str = "softmax", allowed: tuple[str, ...] = ()) -> set[str]:
    """The names that the source's definition uses beyond the primitives."""
    return {use.name for use in in_source([*earlier, source], symbol, allowed)}


def seen(target: Any, *inputs: Any) -> dict[str, str]:
    """What is seen while this runs."""
    found: dict[str, str] = {}
    with watching(found):
        target(*inputs)
    return found


_cells = count()


@pytest.fixture
def cell() -> Iterator[Any]:
    """Run code as a notebook's cell does, so that its lines can be found again."""
    names = []

    def run(source: str) -> dict[str, Any]:
        names.append(f"<cell {next(_cells)}>")
        linecache.cache[names[-1]] = (len(source), None, source.splitlines(keepends=True), names[-1])
        namespace: dict[str, Any] = {"torch": torch, "nn": nn, "F": F}
        exec(compile(source, names[-1], "exec"), namespace)
        return namespace

    yield run
    for name in names:
        linecache.cache.pop(name)


class TestTable:
    @pytest.mark.parametrize("name", TABLE)
    def test_every_entry_resolves(self, name: str) -> None:
        """Modules that PyTorch loads late, or deletes from their package, are no excuse."""
        for path in paths_of(name):
            assert resolve(path, late=True) is not None, path
            assert named(path) == name, path
        for operator in TABLE[name].operators:
            packet = getattr(torch.ops.aten, operator)
            assert named(f"torch.ops.aten.{operator}") == name
            assert all(named(f"torch.ops.aten.{operator}.{overload}") == name for overload in packet.overloads())

    @pytest.mark.parametrize("name", sorted(vocabulary.NAMES))
    def test_every_name_of_the_vocabulary_resolves(self, name: str) -> None:
        path = {"F": "torch.nn.functional", "nn": "torch.nn", "Tensor": "torch.Tensor"}.get(
            name.partition(".")[0], "torch"
        )
        assert resolve(".".join(filter(None, [path, name.partition(".")[2]])), late=True) is not None

    @pytest.mark.parametrize("name", sorted(vocabulary.OPERATORS))
    def test_every_operator_of_the_vocabulary_exists(self, name: str) -> None:
        names = (name, f"{name}_", f"_{name}", f"special_{name}", f"linalg_{name}")
        owners = (torch, Tensor, F, torch.special, torch.linalg, torch.ops.aten, nn.utils.rnn)
        assert any(hasattr(owner, one) for owner in owners for one in names)

    @pytest.mark.parametrize("name", vocabulary.MODULES)
    def test_every_module_of_the_vocabulary_exists(self, name: str) -> None:
        assert importlib.util.find_spec(name) is not None

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("torch.nn.modules.normalization.LayerNorm", "nn.LayerNorm"),
            ("torch.nn.modules.activation.GELU", "F.gelu"),
            ("torch._C._nn.scaled_dot_product_attention", "F.scaled_dot_product_attention"),
            ("torch._C._VariableFunctions.softmax", "torch.softmax"),
            ("torch.Tensor.softmax", "torch.softmax"),
        ],
    )
    def test_another_path_to_the_same_thing_is_known(self, path: str, name: str) -> None:
        assert named(path) == name

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "torch.exp",
            "torch.Tensor.exp_",
            "torch.nn",
            "torch.float64",
            "os",
            "math.exp",
            "numpy.exp",
            "regex.compile",
        ],
    )
    def test_nothing_else_is(self, path: str) -> None:
        assert named(path) == ""

    def test_an_exercise_must_name_what_the_table_has_and_say_what_to_do_instead(self) -> None:
        options: dict[str, Any] = {"parts": {"a": 1}, "difficulty": 1, "minutes": 1, "read": "01_attention#softmax"}
        for uses, instead in ((("torch.nothing",), "Build it."), (("torch.softmax",), "")):
            with pytest.raises(ValueError, match="needs an entry in the table and `instead`"):
                exercise("attention.nothing", **options, forbidden=uses, instead=instead)

    def test_every_exercise_that_forbids_has_library_calls_for_each_name(self) -> None:
        assert {check.name for check in CLOSED} == CALLS.keys()
        for one in FORBIDDING:
            assert {used for used, _, _ in CALLS[one.name]} >= set(one.forbidden)

    @pytest.mark.parametrize("one", CLOSED, ids=lambda one: one.name)
    def test_the_chapter_says_what_is_not_allowed(self, one: Check) -> None:
        page = chapter_source(one.chapter).read_text("utf-8")
        text = page.partition(f":::{{exercise}} {one.name}\n")[2].partition("\n:::")[0]
        assert "not allowed" in text or "the answer" in text
        assert all(name in text for name in one.forbidden[:1])


class TestLibraryCalls:
    """The answer made of the library, in every spelling: no points, and the reason."""

    @pytest.mark.parametrize(("one", "call"), LIBRARY_CALLS, ids=lambda value: value.name)
    def test_is_seen_in_its_source(self, one: Check, call: Named) -> None:
        assert call.message in {
            f"uses {use.name}" for use in in_source([call.source], one.symbol, one.builds_on, given_to(one))
        }

    @pytest.mark.parametrize(("one", "call"), LIBRARY_CALLS, ids=lambda value: value.name)
    def test_loses_all_points(self, one: Check, call: Named) -> None:
        result = judge(one, in_process(call.target), sources=[call.source])
        assert result.points == 0
        assert {part.status for part in result.parts} == {"no"}
        assert result.diagnoses == [call.message]
        (message,) = result.messages
        assert message.startswith(f"Your `{one.symbol}` uses `{call.message.removeprefix('uses ')}`, which ")
        assert message.endswith(one.instead)

    def test_the_message_names_the_line(self, cell: Any) -> None:
        target = cell("def softmax(x, dim=-1):\n    return x.softmax(dim)\n")["softmax"]
        verdict = check("attention.softmax", target)
        assert verdict.result.messages == [
            "Your `softmax` uses `torch.softmax`, which is what this exercise asks you to write, at your line "
            "`return x.softmax(dim)`. Build it from an exponential, a maximum and a sum."
        ]
        assert verdict.result.points == 0

    def test_the_notebooks_check_reads_the_cell(self, cell: Any) -> None:
        hidden = "def softmax(x, dim=-1):\n    return pool.submit(torch.softmax, x, dim).result()\n"
        with ThreadPoolExecutor(1) as pool:  # where no run-time watch reaches
            namespace = cell(hidden)
            namespace["pool"] = pool
            assert judge(SOFTMAX, in_process(namespace["softmax"])).points == 2
            assert check("attention.softmax", namespace["softmax"]).result.diagnoses == ["uses torch.softmax"]

    def test_whatever_the_function_is_called(self, cell: Any) -> None:
        target = cell("def mine(x, dim=-1):\n    return getattr(torch, 'softmax')(x, dim)\n")["mine"]
        assert check("attention.softmax", target).result.diagnoses == ["uses torch.softmax"]

    @pytest.mark.parametrize("target", [torch.softmax, F.softmax, nn.LayerNorm, Tensor.softmax])
    def test_the_librarys_own_handed_over(self, target: Any) -> None:
        name = "layers.LayerNorm" if target is nn.LayerNorm else "attention.softmax"
        assert check(name, target).result.points == 0
        assert check(name, target).result.diagnoses == [f"uses {find(name).forbidden[0]}"]


@pytest.mark.slow
@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.name)
class TestWhatIsRight:
    def test_no_reference_or_variant_uses_what_is_forbidden(self, one: Check) -> None:
        source = inspect.getsource(one.reference)
        # Built anew, the reference does not count as a helper of the course.
        reference = Named("the reference", build(source, one.reference), source)
        for solution in [reference, *one.variants]:
            assert in_source([solution.source], one.symbol, one.builds_on, given_to(one)) == [] or not one.instead, (
                solution.name
            )
            result = judge(one, in_process(solution.target), sources=[solution.source])
            assert result.points == result.max_points, (solution.name, result.messages)


class TestSource:
    @pytest.mark.parametrize(
        "source",
        [
            "import torch as t\ndef softmax(x):\n    return t.softmax(x, -1)",
            "from torch.nn.functional import softmax as s\ndef softmax(x):\n    return s(x, -1)",
            "from torch.nn import functional as G\ndef softmax(x):\n    return G.softmax(x, -1)",
            "import torch.nn.functional as G\ndef softmax(x):\n    return G.softmax(x, -1)",
            "import torch.nn.functional\ndef softmax(x):\n    return torch.nn.functional.softmax(x, -1)",
            "from torch import *\n_s = softmax\ndef softmax(x):\n    return _s(x, -1)",
            "from torch import softmax\n_s = softmax\ndef softmax(x):\n    return _s(x, -1)",
            "from torch import softmax",
            "softmax = torch.softmax",
            "softmax = lambda x, dim=-1: F.softmax(x, dim)",
            "from functools import partial\nsoftmax = partial(torch.softmax, dim=-1)",
            "def softmax(x):\n    f = torch.softmax\n    return f(x, -1)",
            "def softmax(x):\n    from torch import softmax as s\n    return s(x, -1)",
            "def softmax(x):\n    t = torch\n    return t.special.softmax(x, -1)",
            "lib = torch\ndef softmax(x):\n    return lib.special.softmax(x, -1)",
            "def softmax(x):\n    return (2 * x).softmax(-1)",
            "def softmax(x):\n    return getattr(x, 'softmax')(-1)",
            "def softmax(x):\n    return getattr(torch.nn, 'Softmax')(-1)(x)",
            "def softmax(x, f=torch.softmax):\n    return f(x, -1)",
            "def help_me(x):\n    return torch.softmax(x, -1)\ndef softmax(x):\n    return help_me(x)",
            "class Helper:\n    def run(self, x):\n        return x.softmax(-1)\n"
            "def softmax(x):\n    return Helper().run(x)",
            "if True:\n    def softmax(x):\n        return torch.softmax(x, -1)",
            "@torch.no_grad()\ndef softmax(x):\n    return [F.softmax(row, -1) for row in x]",
            "def softmax(x):\n    match x.dim():\n        case 1:\n            return torch.softmax(x, 0)",
            "%matplotlib inline\n!pip list\ndef softmax(x):\n    return torch.softmax(x, -1)",
            HONEST + "softmax = torch.softmax",
        ],
    )
    def test_sees(self, source: str) -> None:
        assert names(source) == {"torch.softmax"}

    @pytest.mark.parametrize(
        "source",
        [
            HONEST,
            HONEST + "assert torch.allclose(softmax(x), torch.softmax(x, -1))",
            HONEST + "def test():\n    return softmax(x) - F.softmax(x, -1)\ntest()",
            'def softmax(x):\n    """As torch.softmax(x) does."""\n    # not x.softmax(-1)\n    return x.exp()',
            "def softmax(x):\n    note = 'nn.Softmax'\n    return x.exp() / x.exp().sum()",
            HONEST + "def other(x):\n    return softmax(softmax(x))",
            "def softmax(x, dim=-1):\n    return x if x.dim() == 0 else softmax(x[0])",
            "from torch import softmax\n" + HONEST,
            "def softmax(x):\n    if False:\n        return torch.softmax(x, -1)\n    return x.exp() / x.exp().sum()",
            "def softmax(x):\n    return x.exp() / x.exp().sum()\n    return torch.softmax(x, -1)",
            "class Mine:\n    def softmax(self, x):\n        return x.exp()\n"
            "mine = Mine()\ndef softmax(x):\n    return mine.softmax(x)",
            "def softmax(x):\n    def log_softmax(y):\n        return y - y.logsumexp(-1)\n"
            "    return log_softmax(x).exp()",
            "def softmax(scores, softmax=None):\n    return softmax(scores)",
            "def softmax(x: 'torch.softmax', norm: nn.LayerNorm = None):\n    y: nn.GELU = x.exp()\n    return y",
            "def softmax(x):\n    return x if isinstance(x, nn.LayerNorm) else x.exp()",
            "import solutions.attention as mine\ndef softmax(x):\n    return mine.softmax(x)",
            "def another(x):\n    return torch.softmax(x, -1)",
            "def softmax(x:\n    return torch.softmax(x)",
            "",
        ],
    )
    def test_passes_over_what_is_honest(self, source: str) -> None:
        assert names(source) == set()

    def test_the_last_definition_counts(self) -> None:
        library = "def softmax(x):\n    return torch.softmax(x, -1)"
        assert names(HONEST, library) == set()
        assert names(library, HONEST) == {"torch.softmax"}

    def test_imports_and_helpers_may_stand_in_other_cells(self) -> None:
        cells = ["import torch as t", "def helper(x):\n    return t.special.softmax(x, -1)", "1 +"]
        assert names("def softmax(x):\n    return helper(x)", *cells) == {"torch.softmax"}

    def test_says_where(self) -> None:
        (use,) = in_source(["import torch\n\ndef softmax(x):\n    return torch.softmax(x, -1)  # !"], "softmax")
        assert (use.name, use.line, use.text) == ("torch.softmax", 4, "return torch.softmax(x, -1)  # !")

    def test_a_class_is_used_by_inheriting_from_it(self) -> None:
        assert names("class LayerNorm(nn.LayerNorm):\n    pass", symbol="LayerNorm") == {"nn.LayerNorm"}

    def test_only_what_the_exercise_forbids_is_reported(self) -> None:
        source = "def attend(q, k, v):\n    return torch.softmax(q @ k.mT, -1) @ v"
        assert names(source, symbol="attend", allowed=("torch.softmax",)) == set()

    def test_code_without_end_is_passed_over(self) -> None:
        assert names("def softmax(x):\n    return x" + " + x" * 20_000) == set()


def plain(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


@cache
def scripted() -> Any:
    return torch.jit.script(plain)


class Backward(torch.autograd.Function):
    """Uses a softmax in its backward pass alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.softmax(gradient, -1)


X = torch.randn(2, 3, 4, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:enable_nested_tensor is True")
class TestRunTime:
    @pytest.mark.parametrize(
        ("target", "name"),
        [
            (lambda: torch.softmax(X, -1), "torch.softmax"),
            (lambda: X.softmax(-1), "torch.softmax"),
            (lambda: vars(torch)["soft" + "max"](X, -1), "torch.softmax"),
            (lambda: scripted()(X), "torch.softmax"),
            (lambda: torch.func.vmap(lambda row: torch.softmax(row, -1))(X), "torch.softmax"),
            (lambda: torch.func.grad(lambda x: torch.softmax(x, -1).sum())(X), "torch.softmax"),
            (lambda: torch.inference_mode()(torch.softmax)(X, -1), "torch.softmax"),
            (lambda: nn.Sequential(nn.Softmax(-1))(X), "torch.softmax"),
            (lambda: torch.distributions.Categorical(logits=X).probs, "torch.distributions"),
            (lambda: torch.nn.functional.cross_entropy(X[0], X[0].abs()), "F.cross_entropy"),
            (lambda: Backward.apply(X.clone().requires_grad_()).sum().backward(), "torch.softmax"),
            (lambda: F.scaled_dot_product_attention(X, X, X), "F.scaled_dot_product_attention"),
            (lambda: F.scaled_dot_product_attention(X[None], X[None], X[None]), "F.scaled_dot_product_attention"),
            (lambda: F.layer_norm(X, (4,)), "nn.LayerNorm"),
            (lambda: nn.LayerNorm(4).double()(X), "nn.LayerNorm"),
            (lambda: F.rms_norm(X, (4,)), "nn.RMSNorm"),
            (lambda: F.gelu(X, approximate="tanh"), "F.gelu"),
            (lambda: nn.MultiheadAttention(4, 2).double()(X, X, X), "nn.MultiheadAttention"),
            (lambda: nn.TransformerEncoderLayer(4, 2, 8).double()(X), "nn.TransformerEncoderLayer"),
            (lambda: nn.TransformerDecoderLayer(4, 2, 8).double()(X, X), "nn.TransformerDecoderLayer"),
            (lambda: nn.Transformer(4, 2, 1, 1, 8).double()(X, X), "nn.Transformer"),
        ],
    )
    def test_sees(self, target: Any, name: str) -> None:
        assert name in seen(target)

    def test_the_fast_path_without_gradients(self) -> None:
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).double().eval()
        attend = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()
        with torch.no_grad():
            assert "nn.TransformerEncoderLayer" in seen(layer, X)
            assert "nn.MultiheadAttention" in seen(attend, X, X, X)

    def test_a_compiled_function(self) -> None:
        compiled = torch.compile(lambda x: torch.softmax(x, -1), backend="eager")
        compiled(X)
        assert seen(compiled, X).keys() == {"torch.softmax"}

    def test_the_line(self) -> None:
        assert seen(plain, X) == {"torch.softmax": "return torch.softmax(x, -1)"}

    def test_nothing_in_code_that_uses_nothing(self) -> None:
        assert seen(lambda: torch.exp(X - torch.logsumexp(X, -1, keepdim=True))) == {}

    def test_a_helper_of_the_courses_is_not_held_against_the_student(self) -> None:
        assert seen(lambda: attention.fused_attention(X, X, X)) == {}
        fused = seen(lambda: F.scaled_dot_product_attention(X, X, X))
        assert fused.keys() >= {"F.scaled_dot_product_attention"}

    def test_the_answer_changes_nothing_but_the_report(self) -> None:
        (message,) = run_probe(
            "def probe(target, case):\n    return {'y': target(case.x)}",
            lambda x: torch.softmax(x, -1),
            [encode({"x": X})],
        )
        reply = decode(message)
        assert reply["used"].keys() == {"torch.softmax"}
        assert torch.equal(reply["value"]["y"], torch.softmax(X, -1))

    def test_an_error_is_reported_with_what_was_used_before_it(self) -> None:
        def target(x: Tensor) -> Tensor:
            torch.softmax(x, -1)
            raise ValueError("no")

        (message,) = run_probe("def probe(target, case):\n    return {'y': target(case.x)}", target, [encode({"x": X})])
        reply = decode(message)
        assert reply["error"]["type"] == "ValueError"
        assert reply["used"].keys() == {"torch.softmax"}

    def test_unwatched_it_sees_nothing(self) -> None:
        assert judge(SOFTMAX, in_process(library_calls(SOFTMAX)[0].target, watch=False)).points == 2


class TestPart:
    """What is the answer of one exercise is a part of the next."""

    def test_softmax_within_attention(self) -> None:
        def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Any:
            scores = q @ k.mT / q.size(-1) ** 0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            weights = F.softmax(scores, dim=-1).nan_to_num()
            return weights @ v, weights

        result = check("attention.scaled_dot_product_attention", scaled_dot_product_attention).result
        assert result.points == result.max_points, result.messages

    def test_a_comparison_in_the_cell(self, cell: Any) -> None:
        source = HONEST + "x = torch.ones(3)\nassert torch.allclose(softmax(x), torch.softmax(x, -1))\n"
        result = check("attention.softmax", cell(source)["softmax"]).result
        assert result.points == 2

    def test_a_reply_that_does_not_say_what_was_used_is_none(self) -> None:
        def run(source: str, cases: list[bytes]) -> list[bytes]:
            replies = [decode(message) for message in run_probe(source, SOFTMAX.reference, cases)]
            return [
                encode(reply | {"used": used}) for reply, used in zip(replies, [None, 3, "x", ["y"]] * 9, strict=False)
            ]

        result = judge(SOFTMAX, run)
        assert result.points == 0
        assert "could not be read" in " ".join(result.messages)


class TestTraces:
    def stacks(self) -> tuple[Any, ...]:
        hooks = dict(modules._global_forward_pre_hooks)
        return _get_current_function_mode_stack(), _get_current_dispatch_mode_stack(), hooks

    @pytest.mark.parametrize("error", [None, ValueError("x"), KeyError("y"), SystemExit(1)])
    def test_none_are_left(self, error: BaseException | None) -> None:
        def target(x: Tensor) -> Tensor:
            if error is not None:
                raise error
            return x

        before = self.stacks()
        run_probe("def probe(target, case):\n    return {'y': target(case.x)}", target, [encode({"x": X})])
        assert self.stacks() == before

    def test_none_are_left_by_code_that_never_ends(self) -> None:
        def target(x: Tensor) -> Tensor:
            while True:
                x = torch.softmax(x, -1)

        before = self.stacks()
        (message,) = run_probe(
            "def probe(target, case):\n    return {'y': target(case.x)}", target, [encode({"x": X})], seconds=0.3
        )
        assert decode(message)["error"]["kind"] == "time"
        assert self.stacks() == before

    def test_a_mode_of_the_students_own_goes_on_working(self) -> None:
        class Count(TorchFunctionMode):
            calls = 0

            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                self.calls += 1
                return func(*args, **(kwargs or {}))

        mode = Count()

        def target(x: Tensor) -> Tensor:
            with mode:
                return torch.softmax(x, -1)

        assert seen(target, X).keys() == {"torch.softmax"}
        assert mode.calls >= 1

    def test_pytorchs_compiler_is_not_loaded_for_it(self) -> None:
        code = (
            "import sys, torch\nfrom autograder.watch import watching\n"
            "with watching({}):\n    torch.ones(2) + 1\nprint('torch._dynamo' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"

    @pytest.mark.parametrize("module", [comparing, forbidden, vocabulary, watch])
    def test_the_modules_import_nothing_of_the_courses_but_each_other(self, module: Any) -> None:
        tree = ast.parse(inspect.getsource(module))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        sent = {"autograder.comparing", "autograder.forbidden", "autograder.origins", "autograder.vocabulary"}
        assert {name.partition(".")[0] for name in imported - sent} <= {"torch"} | set(sys.stdlib_module_names)
