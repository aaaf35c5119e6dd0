"""The trusted side of a check: prepares the cases, reads the replies, and reaches a verdict."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, Literal

import torch

from autograder.checks import Case, Check, Named, Rng
from autograder.compare import Finding, close
from autograder.probe import run_probe
from autograder.wire import decode, encode

Run = Callable[[str, list[bytes]], list[bytes]]
"""The seam: takes a probe's source and the cases as messages, returns the replies as messages."""

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


def in_process(target: Any) -> Run:
    """Run probes in this very process, on this function or class."""
    return partial(_run_here, target)


def judge(check: Check, run: Run, *, graded: bool = False, seed: int = GRADING_SEED, explain: bool = True) -> Result:
    """Try a student's solution of one exercise.

    Args:
        check: the exercise's check.
        run: reaches the student's solution.
        graded: also try the hidden cases, and every case once more with inputs from `seed`.
        seed: where the inputs of a graded check come from; recorded in the result.
        explain: look for the misconception behind a failure; without it only the points are worked out.
    """
    cases = [case for case in _prepare(check, VISIBLE_SEED) if graded or not case.hidden]
    if graded:
        cases += _prepare(check, seed)
    trials = list(_try(check, run, cases))
    result = Result(
        exercise=check.name,
        parts=[Part(name, points, _status(name, cases, trials)) for name, points in check.parts.items()],
        read=check.read,
        seed=seed if graded else VISIBLE_SEED,
        cases=len(trials),
    )
    failed = [trial for trial in trials if not trial.finding.ok]
    if failed and explain:
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


def _run_here(target: Any, source: str, cases: list[bytes]) -> list[bytes]:
    return run_probe(source, target, cases)


def _prepare(check: Check, seed: int) -> list[Case]:
    return list(check.prepare(Rng(seed)))


def _try(check: Check, run: Run, cases: list[Case]) -> Iterator[Trial]:
    replies = run(check.probe_source, [encode(case.inputs, strict=True) for case in cases])
    # Fewer replies than cases: the probe stopped where going on would only have made the student wait.
    for case, message in zip(cases, replies, strict=False):
        reply = decode(message)
        yield Trial(case, reply, _first_fault(check, case, reply))


def _first_fault(check: Check, case: Case, reply: dict[str, Any]) -> Finding:
    if reply["changed"]:
        return Finding(
            False,
            f"`{check.symbol}` changed its input `{reply['changed'][0]}` in place. Make a new tensor instead: "
            "the caller still needs the old one.",
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
    trial = rest[0] if rest else failed[0]
    label = explained[0][0].read if explained else check.sections.get(trial.case.part, "")
    if label:
        result.read = f"{check.chapter}#{label}"
    fault = trial.finding.message
    if trial.reply.get("error", {}).get("kind") != "stub":
        fault = f"Tried: {trial.case.title}, with {describe(trial.case.inputs)}. {fault}"
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
    reply: dict[str, Any] = decode(in_process(solution.target)(check.probe_source, [case])[0])
    return reply


def _alike(reply: dict[str, Any], other: dict[str, Any]) -> bool:
    if reply["changed"] != other["changed"] or ("error" in reply) != ("error" in other):
        return False
    if "error" in reply:
        keys = ("kind", "type", "message")
        return all(reply["error"].get(key) == other["error"].get(key) for key in keys)
    return close(reply["value"], other["value"])


def describe(inputs: dict[str, Any]) -> str:
    """Say what was handed to the student's code: the shapes of tensors, and whole numbers."""
    words = []
    for name, value in inputs.items():
        if hasattr(value, "shape"):
            words.append(f"{name} {tuple(value.shape)}")
        elif isinstance(value, int) and not isinstance(value, bool):
            words.append(f"{name}={value}")
    return ", ".join(words)
