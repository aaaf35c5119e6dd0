"""What an exercise's check is made of: cases, findings, misconceptions, variants, and the register of them all."""

import ast
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from autograder.compare import Finding
from autograder.forbidden import TABLE


class UnknownExerciseError(KeyError):
    """No exercise has this name; the message lists the names that exist."""

    def __str__(self) -> str:
        """Show the message without the quotes that KeyError puts around it."""
        return str(self.args[0])


@dataclass(frozen=True, eq=False)  # tensors have no single truth value, so cases are compared by identity
class Case:
    """One thing that a check tries.

    Args:
        title: what is tried, in the student's words, for example "scores in the thousands".
        inputs: data handed to the probe.
        part: the part of the exercise that a failure costs.
        hidden: tried only when a notebook is graded.
    """

    title: str
    inputs: dict[str, Any]
    part: str
    hidden: bool = False


@dataclass(frozen=True, eq=False)
class Named:
    """A student's solution as we imagine it: a correct variant, or a misconception with what to say to it.

    Args:
        name: what is special about it.
        target: the function or class.
        source: its source, under the name that the exercise asks for.
        message: what a tutor would say; empty for a correct variant.
        read: the section to read again, where it is another than the exercise's.
    """

    name: str
    target: Any
    source: str
    message: str = ""
    read: str = ""


class Rng:
    """The seeded source of a check's inputs."""

    def __init__(self, seed: int) -> None:
        """Start from a seed; the same seed gives the same inputs on every machine."""
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standard normal numbers of this shape."""
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64).to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from `low` to `high - 1`."""
        return torch.randint(low, high, shape, generator=self._generator)

    def booleans(self, *shape: int) -> Tensor:
        """A random mask that allows about two places in three, and at least the first place of each row."""
        mask = torch.rand(*shape, generator=self._generator) < 2 / 3
        mask[..., 0] = True
        return mask


class Check:
    """The check of one exercise: prepare (trusted), probe (beside the student's code), judge (trusted)."""

    name: ClassVar[str]
    parts: ClassVar[dict[str, int]]
    difficulty: ClassVar[int]
    minutes: ClassVar[int]
    read: ClassVar[str]
    sections: ClassVar[dict[str, str]]
    misconceptions: ClassVar[list[Named]]
    variants: ClassVar[list[Named]]
    claims: ClassVar[tuple[str, ...]] = ()
    """Parts for which the kernel's word is all there is, such as that an error was raised, or for which code is enough
    that does nothing, such as one that returns its input."""
    forbidden: ClassVar[tuple[str, ...]] = ()
    """What stands for the answer: names in `autograder.forbidden.TABLE`, the one that the chapter names first."""
    builds_on: ClassVar[tuple[str, ...]] = ()
    """What the exercise allows beside the primitives (`autograder.vocabulary`), by the names that are refused else."""
    instead: ClassVar[str] = ""
    """What to build the answer from. Where it is not empty, using anything else costs all points."""
    equivalent: ClassVar[dict[str, str]] = {}
    """Mutants of the reference that no test can tell from it: label -> reason."""

    def prepare(self, rng: Rng) -> Iterator[Case]:
        """Yield what is tried: data only."""
        raise NotImplementedError

    @staticmethod
    def probe(target: Any, case: SimpleNamespace, /) -> dict[str, Any]:
        """Call the student's code on one case and return data; its source runs where nothing else of the check does."""
        raise NotImplementedError

    def judge(self, case: SimpleNamespace, got: SimpleNamespace) -> Iterable[Finding]:
        """Compare what the probe returned with the reference and with the properties that must hold."""
        raise NotImplementedError

    @property
    def points(self) -> int:
        """The sum over the parts."""
        return sum(self.parts.values())

    @property
    def chapter(self) -> str:
        """The chapter that this exercise belongs to, for example `01_attention`."""
        return self.read.partition("#")[0]

    @property
    def symbol(self) -> str:
        """The name of the function or class, for example `softmax`."""
        return self.name.rpartition(".")[2]

    @property
    def reference(self) -> Any:
        """The function or class in `solutions` that is right."""
        module, _, symbol = self.name.rpartition(".")
        return getattr(importlib.import_module(f"solutions.{module}"), symbol)

    @property
    def probe_source(self) -> str:
        """The source of the probe as a plain function."""
        source = textwrap.dedent(inspect.getsource(type(self).probe))
        return source.removeprefix("@staticmethod\n")


@dataclass(frozen=True)
class Reflection:
    """A question answered in words and graded by hand."""

    name: str
    chapter: str
    points: int
    rubric: str


@dataclass
class Register:
    """All exercises and questions of the course, in the order of the chapters."""

    checks: dict[str, Check] = field(default_factory=dict)
    reflections: dict[str, Reflection] = field(default_factory=dict)


_register = Register()


def exercise(
    name: str,
    *,
    parts: dict[str, int],
    difficulty: int,
    minutes: int,
    read: str,
    sections: dict[str, str] | None = None,
    claims: tuple[str, ...] = (),
    forbidden: tuple[str, ...] = (),
    builds_on: tuple[str, ...] = (),
    instead: str = "",
) -> Callable[[type[Check]], type[Check]]:
    """Enter a Check under its exercise's name.

    Args:
        name: the reference's name, `module.symbol`.
        parts: points of each part, in the order in which they are shown.
        difficulty: 1 (a line or two) to 3 (needs thought).
        minutes: what a student should expect to need.
        read: the section that explains it, `chapter#label`.
        sections: part -> label of the section that explains that part, where it is another.
        claims: parts that show nothing of a result, so that they count only together with another part.
        forbidden: what stands for the answer, as names in `autograder.forbidden.TABLE`.
        builds_on: what is allowed beside the primitives of `autograder.vocabulary`.
        instead: what to build the answer from; a sentence. With it the exercise must be built from the primitives and
            `builds_on`: whatever else is used costs all points.

    Raises:
        ValueError: a forbidden name is not in the table or is allowed as well, or nothing says what to use instead.
    """
    unknown = [use for use in forbidden if use not in TABLE or use in builds_on]
    if unknown or (bool(forbidden or builds_on) and not instead):
        raise ValueError(f"{name}: forbidden {unknown or forbidden} needs an entry in the table and `instead`")

    def enter(check: type[Check]) -> type[Check]:
        check.name, check.parts, check.read, check.sections = name, parts, read, sections or {}
        check.difficulty, check.minutes = difficulty, minutes
        check.claims, check.forbidden, check.builds_on, check.instead = claims, forbidden, builds_on, instead
        check.misconceptions, check.variants = [], []
        _register.checks[name] = check()
        return check

    return enter


def slip(check: type[Check], name: str, message: str, edits: dict[str, str], read: str = "") -> None:
    """Enter a misconception: the reference with a few words of its source changed.

    Args:
        check: the exercise's check.
        name: what is wrong.
        message: what to tell a student whose results are the same as this version's.
        edits: old text -> new text; every occurrence of each is replaced.
        read: label of the section that explains it, where it is not the exercise's own.

    Raises:
        ValueError: an old text does not occur, so the reference has changed and the slip must follow.
    """
    reference = _register.checks[check.name].reference
    source = inspect.getsource(reference).rstrip()
    for old, new in edits.items():
        if old not in source:
            raise ValueError(f"{check.name}, slip {name!r}: the reference does not contain {old!r}")
        source = source.replace(old, new)
    check.misconceptions.append(Named(name, build(source, reference), source, message, read))


def variant(exercise_name: str, name: str) -> Callable[[Any], Any]:
    """Enter an independently written correct solution.

    Its source is kept as a student would hand it in: under the exercise's name, behind what it imports. The decorators
    below this one are part of it.
    """

    def enter(target: Any) -> Any:
        check = _register.checks[exercise_name]
        tree = ast.parse(inspect.getsource(target))
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
        definition.decorator_list = definition.decorator_list[1:]
        imports = _imports_of(definition, inspect.getsource(sys.modules[target.__module__]), check.chapter)
        for node in ast.walk(definition):
            if isinstance(node, ast.Name) and node.id == target.__name__:
                node.id = check.symbol  # it calls itself
        definition.name = check.symbol
        source = "\n".join([*map(ast.unparse, imports), "", "", ast.unparse(definition)]).strip()
        check.variants.append(Named(name, target, source))
        return target

    return enter


def _imports_of(definition: ast.stmt, module: str, chapter: str) -> Iterator[ast.stmt]:
    """What a definition needs of the imports of its module; what its notebook defines itself is not imported."""
    used = {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
    used -= {check.symbol for check in _register.checks.values() if check.chapter == chapter}
    for statement in ast.parse(module).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names = [alias for alias in statement.names if (alias.asname or alias.name.partition(".")[0]) in used]
            if names:
                statement.names = names
                yield statement


def build(source: str, reference: Any) -> Any:
    """Run the source of a changed reference where the rest of its module stands unchanged."""
    namespace = dict(vars(importlib.import_module(reference.__module__)))
    exec(compile(source, f"<changed {reference.__name__}>", "exec"), namespace)
    return namespace[reference.__name__]


def reflection(name: str, *, chapter: str, points: int, rubric: str) -> None:
    """Enter a question that is graded by hand, with what a full answer says."""
    _register.reflections[name] = Reflection(name, chapter, points, textwrap.dedent(rubric).strip())


def register() -> Register:
    """All exercises and questions, loaded on first use."""
    if not _register.checks:
        for package in ("autograder.exercises", "autograder.variants"):
            path = importlib.import_module(package).__path__
            for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
                importlib.import_module(f"{package}.{module.name}")
    return _register


def find(name: str) -> Check:
    """The check of this exercise.

    Raises:
        UnknownExerciseError: there is none; the message lists those that exist.
    """
    checks = register().checks
    if name not in checks:
        raise UnknownExerciseError(f"There is no exercise {name!r}. The exercises are: {', '.join(checks)}.")
    return checks[name]


def of_chapter(chapter: str) -> list[Check]:
    """The checks of one chapter, in order."""
    return [check for check in register().checks.values() if check.chapter == chapter]
