"""What an honest notebook may set for the whole process neither costs points nor is lost."""

import contextlib
import decimal
import gc
import importlib
import io
import locale
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

from autograder import check
from autograder.checks import find, register
from autograder.judge import in_process, judge
from autograder.probe import run_probe
from autograder.settings import fresh_settings
from autograder.wire import decode, encode

pytestmark = pytest.mark.by_exercise

importlib.import_module("torch._dynamo")  # to import it sets variables of the environment, and filters of warnings

Setting = Callable[[], Any]


class Doubles(nn.Module):
    """A hook's owner: what a notebook hangs on every module changes what they give."""

    @staticmethod
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        return output * 2 if isinstance(output, Tensor) else output


def refuse(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("a hook of the notebook's was called in a check")


def open_and_leave(context: contextlib.AbstractContextManager[Any]) -> None:
    _LEFT_OPEN.append(context)
    context.__enter__()


_LEFT_OPEN: list[contextlib.AbstractContextManager[Any]] = []


def nested_devices() -> None:
    torch.set_default_device("cpu")
    open_and_leave(torch.device("meta"))


def two_digits() -> None:
    torch.set_printoptions(precision=2)  # type: ignore[no-untyped-call]
    np.set_printoptions(precision=2)


def close_stdout() -> None:
    sys.stdout = io.StringIO()
    sys.stdout.close()


def gone() -> None:
    folder = Path.cwd() / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


SETTINGS: dict[str, Setting] = {
    "default dtype float64": lambda: torch.set_default_dtype(torch.float64),
    "default dtype float16": lambda: torch.set_default_dtype(torch.float16),
    "default dtype bfloat16": lambda: torch.set_default_dtype(torch.bfloat16),
    "default device meta": lambda: torch.set_default_device("meta"),
    "default device cpu": lambda: torch.set_default_device("cpu"),
    "a device left open": lambda: open_and_leave(torch.device("meta")),
    "a device left open in another": nested_devices,
    "gradients off": lambda: torch.set_grad_enabled(False),
    "no_grad left open": lambda: open_and_leave(torch.no_grad()),
    "inference mode left open": lambda: open_and_leave(torch.inference_mode()),
    "autocast left open": lambda: open_and_leave(torch.autocast("cpu", dtype=torch.bfloat16)),
    "autocast switched on": lambda: torch.set_autocast_enabled("cpu", True),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "deterministic algorithms, warnings": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "NumPy raises": lambda: np.seterr(all="raise"),
    "warnings are errors": lambda: warnings.simplefilter("error"),
    "every warning, always": lambda: torch.set_warn_always(True),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "two digits printed": two_digits,
    "a high recursion limit": lambda: sys.setrecursionlimit(20_000),
    "a low recursion limit": lambda: sys.setrecursionlimit(depth() + 90),
    "one thread": lambda: torch.set_num_threads(1),
    "seeds": lambda: (torch.manual_seed(0), random.seed(0), np.random.seed(0)),
    "denormal numbers flushed": lambda: torch.set_flush_denormal(True),
    "coarse products": lambda: torch.set_float32_matmul_precision("medium"),
    "no plain attention": lambda: torch.backends.cuda.enable_math_sdp(False),
    "no fused attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "environment": lambda: os.environ.update(TMPDIR="/nowhere", OMP_NUM_THREADS="x", PYTHONHASHSEED="0", HOME=""),
    "a locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "two decimal digits": lambda: setattr(decimal.getcontext(), "prec", 2),
    "another folder": lambda: os.chdir("/"),
    "a folder that is gone": gone,
    "stdout replaced": lambda: setattr(sys, "stdout", io.StringIO()),
    "stdout closed": close_stdout,
    "no stdout": lambda: setattr(sys, "stdout", None),
    "no collector": gc.disable,
    "a hook on every module": lambda: modules.register_module_forward_hook(Doubles.hook),
    "a hook before every module": lambda: modules.register_module_forward_pre_hook(refuse),
    "a hook on every gradient": lambda: modules.register_module_full_backward_hook(refuse),
    "a hook on every parameter": lambda: modules.register_module_parameter_registration_hook(refuse),
    "a hook on every optimiser": lambda: optimizers.register_optimizer_step_pre_hook(refuse),
    "a vital": lambda: torch.set_vital("course", "exercise", "done"),  # type: ignore[attr-defined]
}


def depth() -> int:
    frame, deep = sys._getframe(), 0
    while frame.f_back is not None:
        frame, deep = frame.f_back, deep + 1
    return deep


def now() -> dict[str, Any]:
    """The settings of this process."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.get_deterministic_debug_mode(),
        "numpy": np.geterr(),
        "filters": list(warnings.filters),
        "always": torch.is_warn_always_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "digits": (torch._tensor_str.PRINT_OPTS.precision, np.get_printoptions()["precision"]),
        "recursion": sys.getrecursionlimit(),
        "threads": torch.get_num_threads(),
        "generators": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "flushes": sys.float_info.min / 2 == 0.0,
        "products": torch.get_float32_matmul_precision(),
        "attention": (torch._C._get_math_sdp_enabled(), torch._C._get_flash_sdp_enabled()),
        "environment": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL),
        "decimal": decimal.getcontext().prec,
        "stdout": sys.stdout,
        "collector": gc.isenabled(),
        "hooks": [list(hooks.values()) for hooks in global_hooks().values()],
        "folder": folder(),
    }


def global_hooks() -> dict[str, dict[Any, Any]]:
    return {name: one for name, one in vars(modules).items() if name.startswith("_global_") and isinstance(one, dict)}


def folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return None


@pytest.fixture
def left_as_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings of the tests' own process, whatever the test sets."""
    monkeypatch.chdir(tmp_path)
    environment, stdout, digits = dict(os.environ), sys.stdout, np.get_printoptions()["precision"]
    limit, prec, place = sys.getrecursionlimit(), decimal.getcontext().prec, locale.setlocale(locale.LC_ALL)
    hooks = {name: dict(one) for name, one in global_hooks().items()}
    full = modules._global_is_full_backward_hook
    optimizer_hooks = optimizers._global_optimizer_pre_hooks
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads, errors = torch.get_num_threads(), np.geterr()
    with warnings.catch_warnings(), torch.enable_grad():
        try:
            yield
        finally:
            sys.stdout = stdout
            while _LEFT_OPEN:
                with contextlib.suppress(RuntimeError):  # it was opened within a case, and is closed already
                    _LEFT_OPEN.pop().__exit__(None, None, None)
            torch.set_default_device(None)
            torch.set_autocast_enabled("cpu", False)
            torch.use_deterministic_algorithms(False)
            torch.set_warn_always(False)
            torch.autograd.set_detect_anomaly(False)
            torch.set_printoptions(profile="default")  # type: ignore[no-untyped-call]
            np.set_printoptions(precision=digits)
            sys.setrecursionlimit(limit)
            torch.set_num_threads(threads)
            torch.set_flush_denormal(False)
            torch.set_float32_matmul_precision("highest")
            torch.backends.cuda.enable_math_sdp(True)
            torch.backends.cuda.enable_flash_sdp(True)
            os.environ.clear()
            os.environ.update(environment)
            locale.setlocale(locale.LC_ALL, place)
            decimal.getcontext().prec = prec
            gc.enable()
            np.seterr(**errors)
            for name, found in hooks.items():
                getattr(modules, name).clear()
                getattr(modules, name).update(found)
            modules._global_is_full_backward_hook = full
            optimizer_hooks.clear()
            random.setstate(generators[0])
            np.random.set_state(generators[1])
            torch.set_rng_state(generators[2])
            torch.set_default_dtype(torch.float32)


TRIED = (
    "attention.softmax",
    "positions.sinusoidal_positions",
    "layers.RMSNorm",
    "attention.SelfAttention",
    "tokenization.wordpiece",
    "training.AdamW",
    "training.save_checkpoint",
    "finetuning.class_weights",
    "generation.top_p_filter",
    "gpt.perplexity",
)
"""A function, what makes its own tensors, modules, an optimiser, files, and a loop without gradients."""


@pytest.mark.usefixtures("left_as_found")
class TestWhatANotebookSets:
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_costs_nothing_and_is_as_it_was_afterwards(self, setting: str) -> None:
        runs = {name: (find(name), in_process(find(name).reference)) for name in TRIED}
        SETTINGS[setting]()
        before = now()
        for name, (found, run) in runs.items():
            result = judge(found, run, explain=False)
            assert result.points == result.max_points, (name, result.parts)
        after = now()
        assert {name for name in before if before[name] != after[name]} == set()

    @pytest.mark.parametrize("name", register().checks)
    def test_float64_costs_no_exercise_anything(self, name: str) -> None:
        torch.set_default_dtype(torch.float64)
        result = judge(find(name), in_process(find(name).reference, watch=False), explain=False)
        assert result.points == result.max_points, result.parts

    @pytest.mark.parametrize("setting", SETTINGS)
    def test_within_a_solution_costs_the_next_case_nothing(self, setting: str) -> None:
        inside: list[dict[str, Any]] = []

        def target(x: Tensor) -> Tensor:
            inside.append(now())
            SETTINGS[setting]()
            return torch.ones(3)

        not_ours = {"environment", "locale", "decimal", "digits", "collector", "stdout"}
        probe = "def probe(target, case):\n    return {'y': target(case.x)}"
        run_probe(probe, target, [encode({"x": torch.ones(3)})] * 2, watch=False)
        first, second = inside
        assert {name for name in first if first[name] != second[name]} <= not_ours

    def test_is_not_seen_by_the_check_in_the_notebook(self) -> None:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = check("positions.sinusoidal_positions", find("positions.sinusoidal_positions").reference)
        assert found.result.points == found.result.max_points

    def test_constants_made_under_another_default_dtype_are_used(self) -> None:
        torch.set_default_dtype(torch.float64)

        class RMSNorm(nn.Module):
            HALF = torch.tensor(0.5)

            def __init__(self, d_model: int, eps: float = 1e-5) -> None:
                super().__init__()
                self.eps = torch.tensor(eps)
                self.weight = nn.Parameter(torch.ones(d_model))

            def forward(self, x: Tensor) -> Tensor:
                return x / (x.square().mean(-1, keepdim=True) + self.eps) ** self.HALF * self.weight

        result = judge(find("layers.RMSNorm"), in_process(RMSNorm), graded=True)
        assert result.points == result.max_points


class TestFreshSettings:
    def test_are_those_of_a_new_process(self) -> None:
        with fresh_settings():
            found = now()
        assert found["dtype"] == torch.float32
        assert found["device"] == torch.device("cpu")
        assert found["gradients"]
        assert not found["inference"]
        assert found["numpy"] == {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}

    def test_come_back_after_an_error(self) -> None:
        before = now()
        with pytest.raises(ZeroDivisionError), fresh_settings():
            torch.set_default_dtype(torch.float64)
            torch.set_default_device("meta")
            raise ZeroDivisionError
        assert now() == before

    @pytest.mark.usefixtures("left_as_found")
    def test_a_message_is_read_and_written_under_them(self) -> None:
        cases = [encode({"x": torch.ones(2)})]
        torch.set_default_device("meta")
        (message,) = run_probe("def probe(target, case):\n    return {'y': case.x + 1}", None, cases)
        assert decode(message)["value"]["y"].tolist() == [2.0, 2.0]
