"""The trusted side of a check: prepares the cases, reads the replies, and reaches a verdict."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, Literal

import torch

from autograder.checks import Case, Check, Named, Rng
from autograder.compare import Finding, close
from autograder.probe import ENDING, MAX_MESSAGE, run_probe
from autograder.replies import read_reply
from autograder.settings import fresh_settings
from autograder.source import given_to, in_source
from autograder.wire import encode

Run = Callable[[str, list[bytes]], Iterable[bytes]]
"""The seam: takes a probe's source and the cases as messages, gives the replies as messages, in the same order."""

MAX_SHOWN = 60
"""A longer text or list is described by its length."""

VISIBLE_SEED = 0
GRADING_SEED = 1

Status = Literal["ok", "no", "not tried"]


@dataclass
class Part:
    """What became of one part of an exercise."""

    name: str
    points: int
    status: Status = "ok"

    @property
    def earned(self) -> int:
        """All of its points or none."""
        return self.points if self.status == "ok" else 0


@dataclass
class Result:
    """The verdict on one exercise, with what a tutor would say."""

    exercise: str
    parts: list[Part]
    messages: list[str] = field(default_factory=list)
    diagnoses: list[str] = field(default_factory=list)
    read: str = ""
    notes: list[str] = field(default_factory=list)
    seed: int = VISIBLE_SEED
    cases: int = 0

    @property
    def points(self) -> int:
        """The points earned."""
        return sum(part.earned for part in self.parts)

    @property
    def max_points(self) -> int:
        """The points that can be earned."""
        return sum(part.points for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return asdict(self) | {"points": self.points, "max_points": self.max_points}


@dataclass(frozen=True, eq=False)
class Trial:
    """One case with the student's reply to it and the first thing found wrong."""

    case: Case
    reply: dict[str, Any]
    finding: Finding


def in_process(target: Any, *, watch: bool = True) -> Run:
    """Run probes in this very process, on this function or class.

    Args:
        target: the function or class.
        watch: see what it calls; our own solutions need no watching, and go faster without.
    """
    return partial(_run_here, target, watch)


@fresh_settings()  # in a notebook the judge runs where the notebook has set what it likes
def judge(
    check: Check,
    run: Run,
    *,
    graded: bool = False,
    seed: int = GRADING_SEED,
    explain: bool = True,
    trusted: bool = True,
    sources: Sequence[str] = (),
) -> Result:
    """Try a student's solution of one exercise.

    Args:
        check: the exercise's check.
        run: reaches the student's solution.
        graded: also try the hidden cases, and every case once more with inputs from `seed`.
        seed: where the inputs of a graded check come from; recorded in the result.
        explain: look for the misconception behind a failure; without it only the points are worked out.
        trusted: whether the replies come from our own probe. Of others, one on which the check itself fails is wrong.
        sources: the student's code, cell by cell, up to this check; read for what stands for the answer.
    """
    cases = [case for case in _prepare(check, VISIBLE_SEED) if graded or not case.hidden]
    if graded:
        cases += _prepare(check, seed)
    trials = list(_try(check, run, cases, trusted))
    result = Result(
        exercise=check.name,
        parts=[Part(name, points, _status(name, cases, trials)) for name, points in check.parts.items()],
        read=check.read,
        seed=seed if graded else VISIBLE_SEED,
        cases=len(trials),
    )
    _require_a_result(check, result)
    failed = [trial for trial in trials if not trial.finding.ok]
    if use := _forbidden_use(check, trials, sources):
        _refuse(check, use, result)
    elif failed and explain:
        _explain(check, trials, failed, result)
    printed = sum(trial.reply["printed"] for trial in trials)
    if printed:
        result.notes.append(
            f"Your code printed {printed} line{'s' * (printed > 1)} while it was tried; that costs nothing."
        )
    return result


def passes(check: Check, run: Run, *, seed: int = GRADING_SEED) -> bool:
    """Whether a solution earns every point of a graded check; stops at the first case that it fails.

    Args:
        check: the exercise's check.
        run: reaches the solution.
        seed: as for `judge`.
    """
    visible_first = sorted(_prepare(check, VISIBLE_SEED), key=lambda case: case.hidden)
    for case in [*visible_first, *_prepare(check, seed)]:
        trials = list(_try(check, run, [case]))
        if not trials or not trials[0].finding.ok:
            return False
    return True


def _run_here(target: Any, watch: bool, source: str, cases: list[bytes]) -> list[bytes]:
    return run_probe(source, target, cases, watch=watch)


def _forbidden_use(check: Check, trials: list[Trial], sources: Sequence[str]) -> tuple[str, str] | None:
    """What was used beyond what the exercise allows, and the line that did; None if nothing was."""
    if not check.instead:
        return None
    seen: dict[str, str] = {}
    for trial in trials:
        used = trial.reply.get("used")
        seen |= used if isinstance(used, dict) else {}
    uses = [(name, str(line)) for name, line in seen.items() if name not in check.builds_on]
    uses += [(use.name, use.text) for use in in_source(sources, check.symbol, check.builds_on, given_to(check))]
    # What is known as the answer comes first: it is named in the chapter.
    order = {name: place for place, name in enumerate(check.forbidden)}
    first = min(uses, key=lambda use: order.get(use[0], len(order)), default=None)
    return (first[0][:MAX_MESSAGE], first[1][:MAX_MESSAGE]) if first else None


def _require_a_result(check: Check, result: Result) -> None:
    """Let parts that anybody can claim count only where something is right that only a solution gives."""
    if any(part.status == "ok" and part.name not in check.claims for part in result.parts):
        return
    for part in result.parts:
        if part.status == "ok":
            part.status = "no"
            result.notes.append(f"The part “{part.name}” counts only together with another part.")


def _refuse(check: Check, use: tuple[str, str], result: Result) -> None:
    """Take all points: the parts are right only because somebody else wrote them."""
    name, line = use
    for part in result.parts:
        part.status = "no"
    result.diagnoses = [f"uses {name}"]
    where = f", at your line `{line}`" if line else ""
    why = (
        "which is what this exercise asks you to write"
        if name in check.forbidden
        else "which this exercise does not allow"
    )
    result.messages = [f"Your `{check.symbol}` uses `{name}`, {why}{where}. {check.instead}"]


def _prepare(check: Check, seed: int) -> list[Case]:
    return list(check.prepare(Rng(seed)))


def _try(check: Check, run: Run, cases: list[Case], trusted: bool = True) -> Iterator[Trial]:
    replies = run(check.probe_source, [encode(case.inputs, strict=True) for case in cases])
    # Fewer replies than cases: the probe stopped where going on would only have made the student wait.
    for case, message in zip(cases, replies, strict=False):
        reply = read_reply(message)
        try:
            finding = _first_fault(check, case, reply)
        except Exception:
            if trusted:
                raise  # a fault of the check
            finding = Finding(False, f"What `{check.symbol}` gave back could not be read as a result.")
        yield Trial(case, reply, finding)
        if reply.get("error", {}).get("kind") in ENDING:
            break  # the other cases would only end the same way


def _first_fault(check: Check, case: Case, reply: dict[str, Any]) -> Finding:
    if reply["changed"]:
        name = reply["changed"][0]
        kind = "list" if isinstance(case.inputs.get(name), list) else "tensor"
        return Finding(
            False,
            f"`{check.symbol}` changed its input `{name}` in place. Make a new {kind} instead: the caller still needs "
            "the old one.",
        )
    if "error" in reply:
        return Finding(False, _error_message(check.symbol, reply["error"]))
    # A judge is a generator: what follows a failed finding may rely on it, so it must not run.
    with torch.enable_grad():  # whatever the notebook has set
        findings = check.judge(SimpleNamespace(part=case.part, **case.inputs), SimpleNamespace(**reply["value"]))
        return next((finding for finding in findings if not finding.ok), Finding(True))


def _error_message(symbol: str, error: dict[str, Any]) -> str:
    match error["kind"]:
        case "stub":
            inner = error["function"]
            name = symbol if "<locals>" in inner else inner
            return (
                f"`{name}` is not written yet: it still raises NotImplementedError. Write its body, run its cell, "
                "then run this check again."
            )
        case "time":
            return f"`{symbol}` did not finish within {error['seconds']:g} seconds. Look for a loop that never ends."
        case "misfit":
            return str(error["message"])
        case _:
            line = f", at your line `{error['line']}`" if error["line"] else ""
            said = f": {error['message']}" if error["message"] else ""
            return f"`{symbol}` raised {error['type']}{said.rstrip('.')}{line}."


def _status(part: str, cases: list[Case], trials: list[Trial]) -> Status:
    tried = [trial for trial in trials if trial.case.part == part]
    if any(not trial.finding.ok and trial.reply.get("error", {}).get("kind") != "stub" for trial in tried):
        return "no"
    if any(not trial.finding.ok for trial in tried) or len(tried) < sum(case.part == part for case in cases):
        return "not tried"
    return "ok"


def _explain(check: Check, trials: list[Trial], failed: list[Trial], result: Result) -> None:
    explained = _diagnose(check, trials, failed)
    result.diagnoses = [misconception.name for misconception, _ in explained]
    said = [misconception.message for misconception, _ in explained]
    accounted = [trial for _, matches in explained for trial in matches]
    rest = [trial for trial in failed if trial not in accounted]
    # One that the notebook's own check tries, if there is one: the student can look at it again.
    trial = min(rest or failed, key=lambda trial: trial.case.hidden)
    label = explained[0][0].read if explained else check.sections.get(trial.case.part, "")
    if label:
        result.read = f"{check.chapter}#{label}"
    fault = trial.finding.message
    if trial.reply.get("error", {}).get("kind") != "stub":
        title = "a case that only grading tries" if trial.case.hidden else trial.case.title
        known = _arguments(check)
        given = describe({name: value for name, value in trial.case.inputs.items() if name in known})
        fault = f"Tried: {title}{f', with {given}' if given else ''}. {fault}"
    result.messages = [*said, fault]


def _diagnose(check: Check, trials: list[Trial], failed: list[Trial]) -> list[tuple[Named, list[Trial]]]:
    """Find the misconceptions whose outcome is the student's on the failed cases: the one that explains most first."""
    matches = {m.name: _matches(check, m, failed) for m in check.misconceptions}
    explained: list[tuple[Named, list[Trial]]] = []
    unexplained = failed
    while unexplained and len(explained) < 2:
        most = max((len(_both(matches[m.name], unexplained)) for m in check.misconceptions), default=0)
        if not most:
            break
        equals = [m for m in check.misconceptions if len(_both(matches[m.name], unexplained)) == most]
        # Of misconceptions that explain the same failures, the student's is the one that is also right where they are.
        best = equals[0] if len(equals) == 1 else max(equals, key=lambda m: len(_matches(check, m, trials)))
        explained.append((best, _both(matches[best.name], unexplained)))
        unexplained = [trial for trial in unexplained if trial not in matches[best.name]]
    return explained


def _both(some: list[Trial], others: list[Trial]) -> list[Trial]:
    return [trial for trial in some if trial in others]


def _matches(check: Check, solution: Named, trials: list[Trial]) -> list[Trial]:
    """The trials in which this solution does what the student's did."""
    return [trial for trial in trials if _alike(trial.reply, _outcome(check, solution, encode(trial.case.inputs)))]


@lru_cache(maxsize=16384)
def _outcome(check: Check, solution: Named, case: bytes) -> dict[str, Any]:
    """What a solution of ours does with a case; remembered, because a check is run again and again."""
    (message,) = in_process(solution.target, watch=False)(check.probe_source, [case])
    return read_reply(message)


def _alike(reply: dict[str, Any], other: dict[str, Any]) -> bool:
    if reply["changed"] != other["changed"] or ("error" in reply) != ("error" in other):
        return False
    if "error" in reply:
        keys = ("kind", "type", "message")
        return all(reply["error"].get(key) == other["error"].get(key) for key in keys)
    return close(reply["value"], other["value"])


@lru_cache
def _arguments(check: Check) -> frozenset[str]:
    """The names of what an exercise's function or class takes: other inputs are the check's own affair."""
    target = check.reference
    functions = vars(target).values() if isinstance(target, type) else [target]
    return frozenset(
        name
        for function in filter(inspect.isfunction, map(inspect.unwrap, filter(callable, functions)))
        for name in inspect.signature(function).parameters
    )


def describe(inputs: dict[str, Any]) -> str:
    """Say what was handed to the student's code: shapes of tensors, whole numbers, short texts and lists."""
    return ", ".join(filter(None, (_described(name, value) for name, value in inputs.items())))


def _described(name: str, value: Any) -> str:
    match value:
        case torch.Tensor():
            return f"{name} {tuple(value.shape)}"
        case bool():
            return ""
        case int():
            return f"{name}={value}"
        case str() | list() | tuple() | dict():
            if not value and not isinstance(value, str):
                return ""
            unit = ("character" if isinstance(value, str) else "item") + ("s" if len(value) != 1 else "")
            shown = repr(value) if _is_plain(value) else ""
            return f"{name}={shown}" if 0 < len(shown) <= MAX_SHOWN else f"{name} of {len(value)} {unit}"
    return ""


def _is_plain(value: Any) -> bool:
    """Whether a value is made of numbers and texts alone."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, int | str | bytes)
