"""The probe runs beside the student's code: it knows no answer, and leaves no trace of what that code did."""

import ast
import builtins
import contextlib
import gc
import logging
import random
import re
import signal
import symtable
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autograder.checks import Check, Rng, register
from autograder.probe import MisfitError, compile_probe, count_steps, gradients, load_weights, make_config, run_probe
from autograder.wire import MAX_BYTES, Foreign, decode, encode
from solutions.config import TransformerConfig

GIVEN = {"torch", "nn", "Tensor", "load_weights", "gradients", "make_config", "count_steps", "temporary_path"}
pytestmark = pytest.mark.by_exercise

CHECKS = list(register().checks.values())

CALL = "def probe(target, case):\n    return {'y': target(case.x)}"


def reply(target: Callable[..., Any], source: str = CALL, seconds: float = 10.0, **inputs: Any) -> dict[str, Any]:
    """What comes back for one case."""
    (message,) = run_probe(source, target, [encode(inputs or {"x": torch.ones(3)})], seconds)
    found: dict[str, Any] = decode(message)
    return found


def raising(error: BaseException) -> Callable[..., Any]:
    def target(x: Tensor) -> Tensor:
        raise error

    return target


def globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    """The names that a piece of code takes from outside itself."""
    yield from (symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced())
    for inner in table.get_children():
        yield from globals_of(inner)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
class TestEveryProbe:
    def test_names_nothing_but_what_it_is_given(self, check: Check) -> None:
        table = symtable.symtable(check.probe_source, "<probe>", "exec")
        names = {name for inner in table.get_children() for name in globals_of(inner)}
        assert names <= GIVEN | set(dir(builtins))

    def test_imports_nothing_and_looks_nothing_up(self, check: Check) -> None:
        tree = ast.parse(check.probe_source)
        assert [type(node) for node in tree.body] == [ast.FunctionDef]
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"eval", "exec", "__import__", "globals", "open", "compile", "input"}

    def test_compiles_where_nothing_else_of_its_check_is(self, check: Check) -> None:
        probe = compile_probe(check.probe_source)
        assert set(probe.__globals__) - {"__builtins__"} == GIVEN | {"probe"}

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_every_case_crosses_as_it_is(self, check: Check, seed: int) -> None:
        cases = list(check.prepare(Rng(seed)))
        assert cases
        for case in cases:
            assert decode(encode(case.inputs, strict=True)).keys() == case.inputs.keys()

    def test_what_comes_back_from_the_reference_is_data_alone(self, check: Check) -> None:
        cases = [encode(case.inputs, strict=True) for case in check.prepare(Rng(0))]
        replies = [decode(message) for message in run_probe(check.probe_source, check.reference, cases)]
        assert len(replies) == len(cases)
        for one in replies:
            assert "error" not in one
            assert one["changed"] == []
            assert one["printed"] == 0
            assert not list(foreign(one["value"]))


def foreign(value: Any) -> Iterator[Foreign]:
    if isinstance(value, Foreign):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from foreign(item)


class TestSeam:
    @pytest.mark.parametrize("name", ["attention", "solutions", "reference", "checks", "find", "autograder", "self"])
    def test_a_probe_cannot_name_an_answer(self, name: str) -> None:
        probe = compile_probe(f"def probe(target, case):\n    return {name}")
        with pytest.raises(NameError):
            probe(None, None)  # type: ignore[arg-type]

    def test_each_call_compiles_anew(self) -> None:
        compile_probe("leak = 1\ndef probe(target, case):\n    return leak")
        with pytest.raises(NameError):
            compile_probe("def probe(target, case):\n    return leak")(None, None)  # type: ignore[arg-type]

    def test_a_foreign_result_arrives_as_its_type(self) -> None:
        value = reply(lambda x: {1, 2})["value"]["y"]
        assert isinstance(value, Foreign)
        assert value.type_name == "set"

    def test_a_result_that_is_too_large_becomes_a_sentence(self) -> None:
        answer = reply(lambda x: torch.zeros(MAX_BYTES + 1, dtype=torch.uint8))
        assert answer["error"]["kind"] == "misfit"
        assert f"{MAX_BYTES >> 20} MB" in answer["error"]["message"]

    @pytest.mark.parametrize(
        "make",
        [
            lambda: torch.zeros(3, dtype=torch.complex128),
            lambda: torch.zeros(1).expand(2**45),
            lambda: 10**5_000,
            lambda: (lambda endless: (endless.append(endless), endless)[1])([]),
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        ],
        ids=["complex128", "expanded beyond memory", "a huge number", "a list within itself", "nested"],
    )
    def test_a_result_that_cannot_cross_stops_nothing(self, make: Callable[[], Any]) -> None:
        assert reply(lambda x: make()).keys() >= {"changed", "printed"}


class TestTime:
    @staticmethod
    def forever(x: Tensor) -> Tensor:
        end = time.monotonic() + 20  # long enough to count as forever here, and no trap where the limit is broken
        while time.monotonic() < end:
            pass
        return x

    @staticmethod
    def forever_swallowing_exceptions(x: Tensor) -> Tensor:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                time.sleep(1e-3)
            except Exception:
                continue
        return x

    @staticmethod
    def forever_after_swallowing_everything_once(x: Tensor) -> Tensor:
        try:
            TestTime.forever(x)
        except BaseException:
            TestTime.forever(x)
        return x

    @staticmethod
    def forever_turning_it_into_another(x: Tensor) -> Tensor:
        try:
            return TestTime.forever(x)
        except BaseException as error:
            raise ValueError("mine") from error

    @pytest.mark.parametrize(
        "target",
        [
            forever,
            forever_swallowing_exceptions,
            forever_after_swallowing_everything_once,
            forever_turning_it_into_another,
        ],
        ids=lambda target: target.__name__,
    )
    def test_a_loop_without_end_ends(self, target: Callable[..., Any]) -> None:
        assert reply(target, seconds=0.1)["error"] == {"kind": "time", "seconds": 0.1}

    def test_the_cases_after_it_are_not_tried(self) -> None:
        cases = [encode({"x": torch.ones(1)})] * 3
        assert len(run_probe(CALL, self.forever, cases, seconds=0.1)) == 1

    @pytest.mark.parametrize("target", [forever, lambda x: x, raising(ValueError())], ids=["late", "right", "raising"])
    def test_no_alarm_is_left_behind(self, target: Callable[..., Any]) -> None:
        before = signal.getsignal(signal.SIGALRM)
        reply(target, seconds=0.1)
        assert signal.getsignal(signal.SIGALRM) is before
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def test_it_works_in_a_thread_that_has_no_alarm(self) -> None:
        answers: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(reply(lambda x: x + 1)))
        thread.start()
        thread.join()
        assert answers[0]["value"]["y"].tolist() == [2.0, 2.0, 2.0]


class TestNoise:
    @staticmethod
    def noisy(x: Tensor) -> Tensor:
        print("looking at", x)
        print("\r 50%", end="", flush=True)
        print("\r100% |##########| 3/3", file=sys.stderr, flush=True)
        sys.stdout.write("no end of line")
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        warnings.warn("careful", stacklevel=1)
        logging.getLogger("student").warning("logged")
        return x

    def test_is_swallowed_and_costs_nothing(self, capfd: pytest.CaptureFixture[str]) -> None:
        answer = reply(self.noisy)
        assert answer["value"]["y"].tolist() == [1.0, 1.0, 1.0]
        assert answer["printed"] == 1
        assert tuple(capfd.readouterr()) == ("", "")

    def test_is_swallowed_before_an_exception_too(self, capfd: pytest.CaptureFixture[str]) -> None:
        def target(x: Tensor) -> Tensor:
            self.noisy(x)
            raise ValueError("after the noise")

        assert reply(target)["error"]["message"] == "after the noise"
        assert tuple(capfd.readouterr()) == ("", "")

    def test_warnings_that_were_made_errors_stay_so_outside(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "error" not in reply(self.noisy)
            with pytest.raises(UserWarning):
                warnings.warn("outside", UserWarning, stacklevel=1)

    def test_a_million_lines_do_not_fill_the_memory(self) -> None:
        def target(x: Tensor) -> Tensor:
            for _ in range(1_000_000):
                sys.stdout.write("x\n")
            return x

        assert 0 < reply(target)["printed"] <= 10_000

    def test_streams_are_given_back(self) -> None:
        before = sys.stdout, sys.stderr
        reply(raising(SystemExit(3)))
        assert (sys.stdout, sys.stderr) == before


class TestTraces:
    @staticmethod
    def careless(x: Tensor) -> Tensor:
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return x + torch.rand(3)

    def careless_then_raising(self, x: Tensor) -> Tensor:
        self.careless(x)
        raise ValueError

    @pytest.mark.parametrize("name", ["careless", "careless_then_raising"])
    @pytest.mark.parametrize("grad", [True, False])
    def test_generators_dtype_and_gradient_mode_are_as_before(self, name: str, grad: bool) -> None:
        with torch.set_grad_enabled(grad):
            torch.manual_seed(1)
            random.seed(1)
            np.random.seed(1)
            reply(getattr(self, name))
            found = torch.rand(1).item(), random.random(), np.random.rand()
            assert torch.is_grad_enabled() is grad
            assert torch.get_default_dtype() == torch.float32
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        assert found == (torch.rand(1).item(), random.random(), np.random.rand())

    def test_gradients_are_on_inside_whatever_they_are_outside(self) -> None:
        with torch.no_grad():
            assert reply(lambda x: torch.tensor(torch.is_grad_enabled()))["value"]["y"].item() is True

    def test_what_one_case_set_the_next_does_not_see(self) -> None:
        cases = [encode({"x": torch.ones(1)})] * 2
        seen: list[torch.dtype] = []

        def target(x: Tensor) -> Tensor:
            seen.append(torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
            return x

        run_probe(CALL, target, cases)
        assert seen == [torch.float32, torch.float32]


class TestInputs:
    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x.add_(1),
            lambda x: x.zero_(),
            lambda x: x.t_(),
            lambda x: x.resize_(1),
            lambda x: x[0].fill_(torch.nan),
        ],
        ids=["add_", "zero_", "t_", "resize_", "one row"],
    )
    def test_the_one_that_was_changed_is_named(self, change: Callable[[Tensor], Tensor]) -> None:
        source = "def probe(target, case):\n    target(case.second)\n    return {}"
        inputs = {"first": torch.ones(2, 3), "second": torch.ones(2, 3), "n": 3}
        assert reply(change, source, **inputs)["changed"] == ["second"]

    def test_those_that_were_not_are_not(self) -> None:
        assert reply(lambda x: x + 1, x=torch.tensor([torch.nan, torch.inf, -0.0]))["changed"] == []

    def test_a_change_before_an_exception_is_named(self) -> None:
        def target(x: Tensor) -> Tensor:
            x.zero_()
            raise ValueError

        assert reply(target)["changed"] == ["x"]


class OwnError(Exception):
    pass


class BareError(BaseException):
    pass


class TestExceptions:
    @pytest.mark.parametrize(
        "error",
        [ValueError("no"), KeyError("k"), OwnError("mine"), SystemExit("bye"), MemoryError("full"), BareError("bare"),
         GeneratorExit("closed"), AssertionError("wrong"), StopIteration("over")],
        ids=lambda error: type(error).__name__,
    )  # fmt: skip
    def test_type_message_and_the_students_own_line_come_back(self, error: BaseException) -> None:
        answer = reply(raising(error))
        assert answer["error"] == {
            "kind": "raised",
            "type": type(error).__name__,
            "message": str(error),
            "line": "raise error",
        }

    def test_the_line_is_the_students_where_a_library_raised(self) -> None:
        def target(x: Tensor) -> Tensor:
            y = x.unsqueeze(0)
            return y @ torch.ones(5, 5)

        assert reply(target)["error"]["line"] == "return y @ torch.ones(5, 5)"

    def test_the_line_is_the_students_where_the_standard_library_raised(self) -> None:
        assert reply(lambda x: random.choice([]))["error"]["line"].startswith(
            "assert reply(lambda x: random.choice([]))"
        )

    def test_there_is_no_line_where_the_call_itself_failed(self) -> None:
        error = reply(lambda: None)["error"]
        assert error["type"] == "TypeError"
        assert error["line"] is None

    def test_a_long_message_is_cut_and_put_on_one_line(self) -> None:
        message = reply(raising(ValueError("two\nlines " + "x" * 10_000)))["error"]["message"]
        assert message.startswith("two lines x")
        assert len(message) < 400

    def test_endless_recursion_is_an_exception_like_others(self) -> None:
        def target(x: Tensor) -> Tensor:
            return target(x)

        assert reply(target)["error"]["type"] == "RecursionError"

    def test_the_untouched_stub_is_known_and_ends_the_probe(self) -> None:
        messages = run_probe(CALL, raising(NotImplementedError()), [encode({"x": torch.ones(1)})] * 3)
        (error,) = [decode(message)["error"] for message in messages]
        assert error["kind"] == "stub"
        assert error["function"].endswith("target")

    def test_a_not_implemented_error_with_words_is_not_the_stub(self) -> None:
        assert reply(raising(NotImplementedError("for ints")))["error"]["kind"] == "raised"

    def test_an_interrupt_by_hand_is_passed_on(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            reply(raising(KeyboardInterrupt()))


class TestLoadWeights:
    weights: ClassVar = {"weight": torch.arange(6.0, dtype=torch.float64).view(2, 3)}

    def test_copies_them_in_the_dtype_that_they_have(self) -> None:
        module = nn.Linear(3, 2, bias=False)
        load_weights(module, self.weights)
        assert module.weight.dtype == torch.float64
        assert torch.equal(module.weight, self.weights["weight"])
        assert module.weight.requires_grad

    @pytest.mark.parametrize(
        ("module", "words"),
        [
            (nn.Linear(3, 2), ["`bias`", "bias=False"]),
            (nn.Linear(2, 3, bias=False), ["`weight`", "(3, 2)", "(2, 3)"]),
            (nn.Embedding(2, 3).requires_grad_(False), None),
            (nn.Sequential(nn.Linear(3, 2, bias=False)), ["`weight`", "`0.weight`"]),
            (nn.ModuleDict({"a": nn.Sequential(*(nn.Linear(1, 1) for _ in "1234"))}), ["`weight`", "it has `a`."]),
            (nn.ReLU(), ["`weight`", "no parameters"]),
            (lambda: None, ["nn.Module"]),
        ],
        ids=["left over", "other shape", "fits", "other name", "many names", "none at all", "no module"],
    )
    def test_says_which_parameter_does_not_fit(self, module: Any, words: list[str] | None) -> None:
        if words is None:
            load_weights(module, self.weights)
            assert torch.equal(module.weight, self.weights["weight"])
            return
        with pytest.raises(MisfitError) as raised:
            load_weights(module, self.weights)
        assert all(word in str(raised.value) for word in words)

    def test_takes_tied_layers_for_one_only_where_both_get_the_same_numbers(self) -> None:
        one, other = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
        other.weight = one.weight
        module, weight = nn.ModuleList([one, other]), self.weights["weight"]
        load_weights(module, {"0.weight": weight, "1.weight": weight.clone()})
        assert torch.equal(one.weight, weight)
        assert other.weight is one.weight
        with pytest.raises(MisfitError, match="one and the same"):
            load_weights(module, {"0.weight": weight, "1.weight": weight + 1})


class TestMakeConfig:
    def test_a_probe_builds_a_config_from_the_plain_values_of_a_case(self) -> None:
        source = "def probe(target, case):\n    return {'y': target(make_config(**case.config))}"
        config = {"vocab_size": 7, "d_model": 6, "num_heads": 3, "norm": "rms"}
        answer = reply(lambda made: [made.d_head, made.d_hidden, made.norm, made.bias], source, config=config)
        assert answer["value"]["y"] == [2, 24, "rms", True]

    def test_the_config_is_the_course_s_own(self) -> None:
        assert make_config(vocab_size=7) == TransformerConfig(vocab_size=7)


class TestGradients:
    def test_are_those_of_an_uneven_sum(self) -> None:
        x = torch.ones(3, requires_grad=True)
        found = gradients(x * torch.tensor([1.0, 2.0, 3.0]), {"x": x})["x"]
        assert found is not None
        assert found.tolist() == [-1.0, 0.0, 3.0]

    @pytest.mark.parametrize("output", [torch.ones(2), None, "text", 3.0, torch.ones(2, dtype=torch.int64)], ids=repr)
    def test_are_none_where_there_are_none(self, output: Any) -> None:
        assert gradients(output, {"x": torch.ones(2, requires_grad=True)}) == {"x": None}

    def test_are_none_for_what_was_not_used(self) -> None:
        x, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        found = gradients(x * 2, {"x": x, "unused": unused})
        assert found["unused"] is None
        assert found["x"] is not None


class TestLists:
    @pytest.mark.parametrize(
        "change", [list.clear, list.reverse, lambda ids: ids.append(4), lambda ids: ids.insert(0, 9)]
    )
    def test_one_that_was_changed_is_named(self, change: Callable[[list[int]], None]) -> None:
        assert reply(lambda x: change(x), x=[1, 2, 3])["changed"] == ["x"]

    def test_one_that_was_not_is_not(self) -> None:
        assert reply(lambda x: x[::-1], x=[1, 2, 3])["changed"] == []


class TestSteps:
    def test_are_counted_where_they_are_made(self) -> None:
        def loop(times: int) -> None:
            for _ in range(times):
                pass

        assert count_steps(loop, 1000) > 10 * count_steps(loop, 50)
        assert count_steps(loop, 1000) == count_steps(loop, 1000)

    def test_count_comprehensions_and_generators(self) -> None:
        assert count_steps(lambda: [2 * n for n in range(500)]) >= 500
        assert count_steps(lambda: sum(n for n in range(500))) >= 500

    def test_what_is_left_out_does_not_count_nor_what_it_calls(self) -> None:
        def inner() -> int:
            return sum(n for n in range(100))

        def helper() -> int:
            return max(inner() for _ in range(5))

        def fails() -> None:
            inner()
            raise KeyError

        def outer(times: int) -> None:
            for _ in range(times):
                helper()
                with contextlib.suppress(KeyError):
                    fails()

        def empty(times: int) -> None:
            for _ in range(times):
                helper()

        assert count_steps(empty, 10, without="helper") < 50 < count_steps(empty, 10)
        with_errors = count_steps(outer, 10, without="fails")
        assert with_errors > count_steps(outer, 10, without="helper") > 0
        assert count_steps(outer, 20, without="fails") - with_errors == pytest.approx(with_errors, rel=0.1)

    def test_are_the_same_whatever_ran_before(self) -> None:
        class Left:
            def __del__(self) -> None:
                sum(n for n in range(100))

        def work() -> None:
            for number in range(500):
                re.compile(f"a{number % 5}")
                Left.held = [Left]  # type: ignore[attr-defined]

        re.purge()
        first = count_steps(work)
        for _ in range(500):
            left = Left()
            left.itself = left  # type: ignore[attr-defined]
        del left
        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            assert count_steps(work) == first
        finally:
            gc.set_threshold(*before)
        assert gc.isenabled()

    def test_leave_no_trace_behind(self) -> None:
        before = sys.gettrace()
        with pytest.raises(ZeroDivisionError):
            count_steps(lambda: 1 / 0)
        assert sys.gettrace() is before
