"""The judge and `check`: points for what is right, and one clear sentence for whatever a student may hand over."""

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autograder import check
from autograder.checks import Case, Check, Finding, Rng, find, register
from autograder.compare import close, same
from autograder.judge import Result, in_process, judge
from autograder.probe import run_probe
from autograder.wire import Foreign, decode, encode
from solutions import attention
from solutions.generation import KVCache

pytestmark = pytest.mark.by_exercise

CHECKS = list(register().checks.values())
NAMES = [check.name for check in CHECKS]
MISCONCEPTIONS = [(one, wrong) for one in CHECKS for wrong in one.misconceptions]


def with_result(reference: Any, change: Callable[[Any], Any]) -> Any:
    """The reference, its result changed: a function, or a class whose principal method returns something else."""
    return called_by(reference, lambda call, args, kwargs: change(call(*args, **kwargs)))


def called_by(reference: Any, caller: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> Any:
    """The reference, called by another function: itself, or the principal method where it is a class."""
    if not isinstance(reference, type):
        return lambda *args, **kwargs: caller(reference, args, kwargs)
    principal = {nn.Module: "forward", torch.optim.Optimizer: "step", KVCache: "attend", object: "encode"}
    method = next(name for kind, name in principal.items() if issubclass(reference, kind))
    original = getattr(reference, method)

    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = partial(original, self)
        if method == "attend":  # what it returns is a function, and that one is called with tensors
            return called_by(call(*args, **kwargs), caller)
        return caller(call, args, kwargs)

    return type(reference.__name__, (reference,), {method: replaced})


def each(change: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    """Change each tensor of a result."""
    return lambda result: tuple(map(change, result)) if isinstance(result, tuple) else change(result)


def endless(result: Any) -> Any:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def other_dtype(tensor: Tensor) -> Tensor:
    return tensor.to(torch.int32 if tensor.dtype == torch.bool else torch.float16)


BAD: dict[str, Callable[[Any], Any]] = {
    "None": lambda result: None,
    "a string": lambda result: "done",
    "the repr": repr,
    "a number": lambda result: 0.5,
    "NaN": lambda result: float("nan"),
    "a list": each(lambda tensor: tensor.tolist()),
    "a list of results": lambda result: list(result) if isinstance(result, tuple) else [result],
    "a tuple in wrong order": lambda result: result[::-1] if isinstance(result, tuple) else (result, result),
    "three results": lambda result: (*result, None) if isinstance(result, tuple) else (result, None, None),
    "an empty tuple": lambda result: (),
    "a dict": lambda result: {"output": result},
    "a dict with numbers for keys": lambda result: {1: result},
    "a numpy array": each(lambda tensor: tensor.detach().numpy()),
    "another axis": each(lambda tensor: tensor.unsqueeze(0)),
    "flat": each(lambda tensor: tensor.flatten()),
    "a vector": each(lambda tensor: torch.zeros(3)),
    "no axis": each(lambda tensor: tensor.sum()),
    "empty": each(lambda tensor: tensor.new_empty(0)),
    "zeros": each(torch.zeros_like),
    "NaN everywhere": each(lambda tensor: tensor.double() * torch.nan),
    "another dtype": each(other_dtype),
    "complex128": each(lambda tensor: tensor.to(torch.complex128)),
    "sparse": each(lambda tensor: tensor.detach().to_sparse()),
    "on the meta device": each(lambda tensor: tensor.to("meta")),
    "expanded beyond memory": each(lambda tensor: torch.zeros(1).expand(2**45)),
    "a huge number": lambda result: 10**5_000,
    "a list within itself": endless,
    "a function": lambda result: len,
    "an object": lambda result: object(),
    "a class": lambda result: int,
    "a generator": lambda result: (one for one in ()),
}


SILENT = ["training.save_checkpoint"]
"""Exercises that return nothing: whatever they do return is not looked at."""

MAKE_THEIR_OWN = ["training.save_checkpoint", "training.load_checkpoint"]
"""Exercises whose probes make a model of a case's tensors: the student's code does not see them."""

HARMLESS = {
    ("no axis", "training.cross_entropy"),
    ("no axis", "bert.masked_lm_loss"),
    ("no axis", "training.clip_gradients"),
    ("flat", "training.clip_gradients"),
    ("another axis", "training.clip_gradients"),
    ("flat", "finetuning.class_weights"),
}
"""Changes that leave what was asked for: a sum of one number, a tensor with one number, a row that is flat already."""


def sentence(message: str) -> bool:
    """Whether a message is one clear line, says nothing of the checker, and shows nothing of what is expected."""
    return (
        bool(re.fullmatch(r"[A-Za-z`].*[.?]", message))
        and len(message) < 600
        and not re.search(r"Traceback|autograder|<probe>|\.py\b|tensor\(|array\(|File \"|/\w+/\w+/", message)
    )


def numbers(message: str) -> set[str]:
    """Numbers with many digits, as an expected value would have; the size of an error is not one of them."""
    return set(re.findall(r"\d\.\d{3,}", re.sub(r"largest error [\d.e+-]+", "", message)))


@pytest.mark.parametrize("name", NAMES)
class TestWhateverComesBack:
    @pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
    def test_costs_points_and_is_told_in_one_sentence(self, name: str, change: Callable[[Any], Any]) -> None:
        result = check(name, with_result(find(name).reference, change)).result
        label = next(label for label, one in BAD.items() if one is change)
        raised = any(" raised " in message for message in result.messages)  # None has no method that could be called
        if (label, name) in HARMLESS or (name in SILENT and not raised):
            assert result.points == result.max_points
            return
        assert result.points < result.max_points
        assert result.messages
        assert all(map(sentence, result.messages)), result.messages
        assert not set().union(*map(numbers, result.messages)), result.messages

    def test_a_wrong_type_is_named(self, name: str) -> None:
        messages = {
            "str": check(name, with_result(find(name).reference, each(lambda tensor: "done"))).result.messages,
            "list": check(name, with_result(find(name).reference, each(lambda tensor: [1]))).result.messages,
            "numpy array": check(
                name, with_result(find(name).reference, each(lambda tensor: np.zeros(2)))
            ).result.messages,
            "None": check(name, with_result(find(name).reference, each(lambda tensor: None))).result.messages,
        }
        for kind, said in messages.items() if name not in SILENT else ():
            assert any(kind in message for message in said), said

    @pytest.mark.parametrize(
        "error",
        [ValueError("no"), KeyError(3), ZeroDivisionError(), SystemExit(1), GeneratorExit(), RecursionError("deep"),
         NotImplementedError("for you"), BaseException("bare")],
        ids=lambda error: type(error).__name__,
    )  # fmt: skip
    def test_an_exception_is_named_with_the_students_own_line(self, name: str, error: BaseException) -> None:
        def change(result: Any) -> Any:
            raise error

        result = check(name, with_result(find(name).reference, change), graded=True).result
        assert result.points < result.max_points
        (message,) = result.messages
        assert sentence(message), message
        # Where an exercise asks for errors in other cases, they are told from the student's own by their type alone.
        if f"{type(error).__name__} was raised for" in message:
            assert isinstance(error, ValueError) or find(name).claims
            return
        assert f"raised {type(error).__name__}" in message
        assert "`raise error`" in message

    def test_an_interrupt_by_hand_ends_the_check_alone(self, name: str) -> None:
        def change(result: Any) -> Any:
            raise KeyboardInterrupt

        result = check(name, with_result(find(name).reference, change)).result
        assert result.points == 0
        assert result.messages == ["The check was interrupted before it had an answer."]

    def test_an_input_changed_in_place_is_named(self, name: str) -> None:
        checked = find(name)
        inputs = {
            key for case in checked.prepare(Rng(0)) for key in case.inputs if isinstance(case.inputs[key], Tensor)
        }

        def meddle(arguments: tuple[Any, ...]) -> None:
            with torch.no_grad():
                for argument in arguments:
                    if isinstance(argument, Tensor):
                        argument.logical_not_() if argument.dtype == torch.bool else argument.add_(1)

        def meddling(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = call(*args, **kwargs)
            meddle((*args, *kwargs.values()))
            return result

        result = check(name, called_by(checked.reference, meddling)).result
        if not inputs or name in MAKE_THEIR_OWN:  # nothing goes in that could be changed
            assert result.points == result.max_points
            return
        assert result.points < result.max_points
        assert any(f"changed its input `{one}` in place" in message for one in inputs for message in result.messages)


@pytest.mark.parametrize("name", NAMES)
class TestPoints:
    @pytest.mark.parametrize("value", [{}, {"error": "ValueError"}, {"error": "NotImplementedError"}, {"y": None}])
    def test_the_same_claim_for_every_case_earns_nothing(self, name: str, value: dict[str, Any]) -> None:
        """What a forged client could say without a solution."""
        message = encode({"value": value, "changed": [], "printed": 0, "used": {}})
        run = lambda source, cases: [message] * len(cases)  # noqa: E731
        assert judge(find(name), run, graded=True, explain=False, trusted=False).points == 0

    def test_the_reference_earns_all(self, name: str) -> None:
        for graded in (False, True):
            result = check(name, find(name).reference, graded=graded).result
            assert (result.points, result.max_points) == (find(name).points, find(name).points)
            assert [result.messages, result.diagnoses, result.notes] == [[], [], []]
            assert {part.status for part in result.parts} == {"ok"}

    def test_the_untouched_stub_earns_nothing_and_is_told_so(self, name: str) -> None:
        def stub(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        target = type("Stub", (nn.Module,), {"__init__": stub}) if isinstance(find(name).reference, type) else stub
        result = check(name, target, graded=True).result
        assert result.points == 0
        assert {part.status for part in result.parts} == {"not tried"}
        (message,) = result.messages
        assert sentence(message)
        assert "not written yet" in message
        assert "Tried" not in message

    def test_grading_also_tries_the_hidden_cases_and_other_inputs(self, name: str) -> None:
        checked = find(name)
        cases = list(checked.prepare(Rng(0)))
        visible = judge(checked, in_process(checked.reference))
        graded = judge(checked, in_process(checked.reference), graded=True)
        assert visible.cases == sum(not case.hidden for case in cases)
        assert graded.cases == 2 * len(cases)

    def test_every_part_is_worth_something_and_is_tried_without_grading(self, name: str) -> None:
        checked = find(name)
        visible = {case.part for case in checked.prepare(Rng(0)) if not case.hidden}
        assert visible == set(checked.parts)
        assert all(points > 0 for points in checked.parts.values())

    def test_the_same_seed_gives_the_same_inputs(self, name: str) -> None:
        first, again, other = (list(find(name).prepare(Rng(seed))) for seed in (3, 3, 4))
        assert all(close(a.inputs, b.inputs) for a, b in zip(first, again, strict=True))
        if any(isinstance(value, Tensor) for case in first for value in case.inputs.values()):
            assert not all(close(a.inputs, b.inputs) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("checked", "wrong"), MISCONCEPTIONS, ids=[f"{one.symbol}-{wrong.name}" for one, wrong in MISCONCEPTIONS]
)
class TestMisconceptions:
    def test_cost_their_points_and_are_told_so(self, checked: Check, wrong: Any) -> None:
        """One judgement for all that is asked of it: a few of these take seconds."""
        result = judge(checked, in_process(wrong.target), graded=True)
        assert [(part.name, part.points) for part in result.parts] == list(checked.parts.items())
        assert result.points == sum(part.points for part in result.parts if part.status == "ok") < result.max_points
        assert result.to_json()["points"] == result.points
        assert result.messages[0] == wrong.message
        assert result.read.endswith(f"#{wrong.read}" if wrong.read else checked.read)
        assert result.messages[-1].startswith("Tried: ")
        assert all(map(sentence, result.messages)), result.messages
        written = {one.message for one in checked.misconceptions}  # by a tutor, who knows no input
        assert not set().union(*(numbers(said) for said in result.messages if said not in written)), result.messages
        # Documents, which are an input, are a list of lists; a result is not shown.
        assert not re.search(r"(?<!documents=)\[\[|tensor\(", " ".join(result.messages))


class TestPartialCredit:
    def test_a_solution_right_for_the_visible_cases_alone_fails_when_graded(self) -> None:
        seen = {case.inputs["length"] for case in find("attention.causal_mask").prepare(Rng(0)) if not case.hidden}

        def target(length: int) -> Tensor:
            return attention.causal_mask(length if length in seen else 1)

        assert check("attention.causal_mask", target).result.points == 1
        assert check("attention.causal_mask", target, graded=True).result.points == 0

    def test_each_part_is_lost_alone(self) -> None:
        def without_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Any:
            return attention.scaled_dot_product_attention(query, key, value)

        result = check("attention.scaled_dot_product_attention", without_mask, graded=True).result
        assert {part.name: part.status for part in result.parts} == {
            "weighted average": "ok",
            "scaled scores": "ok",
            "mask": "no",
            "empty rows": "no",
        }
        assert result.points == 2

    def test_what_follows_a_timeout_is_not_tried_and_earns_nothing(self) -> None:
        def target(x: Tensor, dim: int = -1) -> Tensor:
            while x.size(0) == 2:
                pass
            return attention.softmax(x, dim)

        checked = find("attention.softmax")
        result = judge(checked, lambda source, cases: run_probe(source, target, cases, seconds=0.1))
        assert {part.name: part.status for part in result.parts} == {"values": "no", "stable": "not tried"}
        assert result.points == 0
        assert "did not finish within 0.1 seconds" in result.messages[0]

    def test_printing_costs_nothing_and_is_noted(self) -> None:
        def target(length: int) -> Tensor:
            print("looking")
            return attention.causal_mask(length)

        result = check("attention.causal_mask", target).result
        assert result.points == result.max_points
        assert result.messages == []
        assert result.notes == [f"Your code printed {result.cases} lines while it was tried; that costs nothing."]

    def test_gradients_that_are_cut_off_cost_points_and_are_named(self) -> None:
        result = check("attention.softmax", lambda x, dim=-1: attention.softmax(x.detach(), dim)).result
        assert result.points == 0
        assert "No gradient reaches `x`" in result.messages[0]

    def test_it_works_in_a_thread_and_without_gradients(self) -> None:
        results: list[Result] = []
        with torch.no_grad():
            results.append(check("attention.SelfAttention", attention.SelfAttention).result)
        thread = threading.Thread(target=lambda: results.append(check("attention.softmax", attention.softmax).result))
        thread.start()
        thread.join()
        assert [result.points for result in results] == [4, 2]


class TestMisuse:
    @pytest.mark.parametrize("name", ["attention.sotfmax", "softmax", "", "attention.softmax ", "solutions.attention"])
    def test_an_unknown_exercise_is_answered_with_those_there_are(self, name: str) -> None:
        result = check(name, attention.softmax).result
        assert (result.points, result.max_points, result.parts) == (0, 0, [])
        (message,) = result.messages
        assert repr(name) in message
        assert all(known in message for known in NAMES)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        "target", [torch.ones(2), None, (1, 2), "softmax", 3], ids=["tensor", "None", "tuple", "str", "int"]
    )
    def test_a_result_in_place_of_the_function_is_explained(self, name: str, target: Any) -> None:
        result = check(name, target).result
        assert (result.points, result.max_points) == (0, find(name).points)
        assert {part.status for part in result.parts} == {"not tried"}
        (message,) = result.messages
        assert f'check("{name}", {find(name).symbol})' in message

    def test_an_object_in_place_of_the_class_is_explained(self) -> None:
        result = check("attention.SelfAttention", attention.SelfAttention(4, 4)).result
        assert result.points == 0
        assert "the class itself" in result.messages[0]

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        "target", [lambda: None, int, nn.Module, nn.Identity, print, partial(int, 3), type("Plain", (), {})],
        ids=["no arguments", "int", "nn.Module", "nn.Identity", "print", "partial", "a plain class"],
    )  # fmt: skip
    def test_another_function_or_class_is_told_what_is_wrong(self, name: str, target: Any) -> None:
        result = check(name, target, graded=True).result
        assert result.points == 0
        assert result.messages
        assert not re.search(r"Traceback|autograder|<probe>", " ".join(result.messages)), result.messages

    def test_the_grading_seed_comes_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COURSE_GRADING_SEED", "77")
        assert check("attention.softmax", attention.softmax, graded=True).result.seed == 77
        assert check("attention.softmax", attention.softmax).result.seed == 0


class TestDiagnosis:
    class Sum(Check):
        """A check of its own, to see how a judge is run."""

        name, parts, read = "attention.softmax", {"a": 1, "b": 2}, "01_attention#softmax"
        misconceptions, variants, sections = [], [], {}

        def prepare(self, rng: Rng) -> Iterator[Case]:
            yield Case("one", {"x": torch.ones(2)}, "a")
            yield Case("two", {"x": torch.zeros(2)}, "b")

        @staticmethod
        def probe(target, case, /):  # type: ignore[no-untyped-def]
            return {"y": target(case.x)}

        def judge(self, case: SimpleNamespace, got: SimpleNamespace) -> Iterator[Finding]:
            yield same(got.y, case.x + 1)
            assert torch.equal(got.y, case.x + 1), "a judge must not go on after a failed finding"

    def test_a_judge_stops_at_the_first_failed_finding(self) -> None:
        result = judge(self.Sum(), in_process(lambda x: x * 2))
        assert {part.name: part.status for part in result.parts} == {"a": "ok", "b": "no"}
        assert result.points == 1

    def test_without_explanation_the_points_are_the_same(self) -> None:
        for one in (lambda x: x + 1, lambda x: x * 2, lambda x: None):
            full, brief = (judge(self.Sum(), in_process(one), explain=explain) for explain in (True, False))
            assert [part.status for part in full.parts] == [part.status for part in brief.parts]
            assert brief.messages == []

    def test_a_reply_that_is_missing_earns_nothing(self) -> None:
        def run(source: str, cases: list[bytes]) -> list[bytes]:
            return run_probe(source, lambda x: x + 1, cases)[:1]

        assert {part.name: part.status for part in judge(self.Sum(), run).parts} == {"a": "ok", "b": "not tried"}

    def test_no_reply_at_all_earns_nothing(self) -> None:
        assert judge(self.Sum(), lambda source, cases: []).points == 0

    def test_only_messages_and_a_source_cross_the_seam(self) -> None:
        crossed: list[Any] = []

        def run(source: str, cases: list[bytes]) -> list[bytes]:
            crossed.extend([source, *cases])
            return run_probe(source, lambda x: x + 1, cases)

        judge(self.Sum(), run)
        assert type(crossed[0]) is str
        assert "x + 1" not in crossed[0]
        assert [decode(message).keys() for message in crossed[1:]] == [{"x"}, {"x"}]


class TestCompare:
    @given(st.integers(0, 1000), st.sampled_from([torch.float32, torch.float64]))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_rounding_passes_and_a_mistake_does_not(self, seed: int, dtype: torch.dtype) -> None:
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        assert same(x * (1 + 2 * torch.finfo(dtype).eps), x).ok
        assert not same(x + 1e-4, x).ok
        assert not same(x.T, x).ok

    @pytest.mark.parametrize(
        ("got", "words"),
        [
            (None, "None"),
            (Foreign("set"), "of type set"),
            (torch.zeros(3), "shape (3,); here it should be (2,)"),
            (torch.zeros(2), "dtype float32; for these inputs it should be float64"),
            (torch.tensor([1.0, 2.5]).double(), "1 of 2 entries differ, the first at index (1,); largest error 0.5"),
            (torch.tensor([torch.nan, 2.0]).double(), "contains NaN: 1 of 2 entries differ, the first at index (0,)"),
            (torch.tensor([1.0, torch.inf]).double(), "contains inf: 1 of 2 entries differ, the first at index (1,)"),
        ],
        ids=["None", "foreign", "shape", "dtype", "values", "NaN", "inf"],
    )
    def test_says_what_differs(self, got: Any, words: str) -> None:
        finding = same(got, torch.tensor([1.0, 2.0], dtype=torch.float64), "the mask")
        assert not finding.ok
        assert finding.message.startswith("The mask ") or finding.message.startswith("The mask:")
        assert words in finding.message

    @pytest.mark.parametrize(
        ("a", "b", "alike"),
        [
            ([torch.ones(2), 1], [torch.ones(2), 1], True),
            ([1], (1,), False),
            ({"a": 1}, {"a": 1, "b": 2}, False),
            (torch.tensor(torch.nan), torch.tensor(torch.nan), True),
            (torch.ones(2), torch.ones(2).double(), False),
            (1, True, False),
            (Foreign("set"), Foreign("set"), True),
            (Foreign("set"), Foreign("list"), False),
            ("a", "a", True),
        ],
    )
    def test_close_compares_whole_replies(self, a: Any, b: Any, alike: bool) -> None:
        assert close(a, b) is alike
        assert close(b, a) is alike
