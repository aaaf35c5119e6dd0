"""The project as a whole: which room imports which, style and types, versions, and what may be committed."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
from packaging.requirements import Requirement

from autograder.exercises import __path__ as exercise_path
from autograder.variants import __path__ as variant_path
from course import environment
from tests.course_fixtures import ROOT

LIMIT = 1_500_000
VENDOR = "book/_static/vendor/"
PLACES = re.compile(
    "|".join(["(?<![\\w.-])/" + "work/", "/tmp/" + "w\\b", "/home/" + "(?!runner)\\w+/", "/root/" + "[\\w.]"])
)


def modules(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere in it, with what it takes from packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def tracked() -> list[Path]:
    """The files that are committed, or would be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    assert len(paths) > 20
    return [path for path in paths if path.is_file()]


class TestImportsPointOneWay:
    @pytest.mark.parametrize("path", modules("solutions"), ids=lambda path: path.name)
    def test_solutions_need_torch_and_the_standard_library_alone(self, path: Path) -> None:
        allowed = {"regex"} if path.name == "tokenization.py" else set()  # classes of Unicode's characters
        assert packages(path) <= {"torch", "solutions"} | allowed | set(sys.stdlib_module_names)

    @pytest.mark.parametrize("path", modules("course"), ids=lambda path: path.name)
    def test_course_does_not_know_the_autograder(self, path: Path) -> None:
        assert not packages(path) & {"autograder", "tests", "benchmarks"}

    @pytest.mark.parametrize("path", modules("autograder"), ids=lambda path: path.name)
    def test_autograder_does_not_know_its_tests(self, path: Path) -> None:
        assert not packages(path) & {"tests", "benchmarks"}

    @pytest.mark.parametrize(
        "name",
        [
            "comparing",
            "forbidden",
            "jailed",
            "origins",
            "pending",
            "probe",
            "settings",
            "take_out",
            "vocabulary",
            "watch",
            "wire",
        ],
    )
    def test_what_runs_beside_the_student_knows_no_answer(self, name: str) -> None:
        own = {
            one
            for one in imported(ROOT / "autograder" / f"{name}.py")
            if one.startswith(("autograder", "solutions", "course"))
        }
        # A config is a list of choices; how they are carried out stands elsewhere.
        allowed = {
            "autograder.wire",
            "autograder.comparing",
            "autograder.forbidden",
            "autograder.vocabulary",
            "autograder.watch",
            "autograder.pending",
            "autograder.probe",
            "autograder.origins",
            "autograder.settings",
            "solutions.config",
        }
        assert {".".join(one.split(".")[:2]) for one in own} <= allowed
        assert packages(ROOT / "solutions" / "config.py") <= set(sys.stdlib_module_names)

    def test_to_import_the_probe_is_to_import_no_answer(self) -> None:
        # In a process of its own, and past the package's own `check`, as a jail would have it.
        code = """
            import sys, types
            package = types.ModuleType("autograder")
            package.__path__ = [sys.argv[1]]
            sys.modules["autograder"] = package
            import autograder.probe
            print([name for name in sys.modules if name.partition(".")[0] in ("solutions", "course", "autograder")])
        """
        lines = "\n".join(line.strip() for line in code.splitlines())
        done = subprocess.run(
            [sys.executable, "-c", lines, str(ROOT / "autograder")], capture_output=True, text=True, check=True
        )
        assert set(ast.literal_eval(done.stdout)) == {
            "autograder", "autograder.comparing", "autograder.forbidden", "autograder.origins", "autograder.probe",
            "autograder.settings", "autograder.vocabulary", "autograder.watch", "autograder.wire",
            "solutions", "solutions.config",
        }  # fmt: skip

    def test_every_chapter_of_exercises_has_its_variants(self) -> None:
        exercises, variants = (
            {path.name for path in Path(folder[0]).glob("[0-9]*.py")} for folder in (exercise_path, variant_path)
        )
        assert exercises == variants != set()

    def test_nothing_is_unpickled(self) -> None:
        for path in (path for room in ("solutions", "course", "autograder") for path in modules(room)):
            assert not packages(path) & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
            for call in re.findall(r"torch\.load\([^)]*\)", path.read_text(encoding="utf-8")):
                assert "weights_only=True" in call, (path, call)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=["ruff", "format", "mypy"]
)
def test_style_and_types_are_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", ["autograder", "course", "solutions"])
def test_no_mismatch_is_hidden_from_the_type_checker(room: str) -> None:
    """A protocol beside the real class, a cast, a name that is not imported: the checker then compares nothing."""
    hidden = re.compile(r"\bcast\(|ignore\[[^\]]*(name-defined|attr-defined|call-arg)|import_module\([^)]*\)\.[a-z]")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in modules(room)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if hidden.search(line) and "autocast" not in line and not line.lstrip().startswith(('"', "'"))
    ]
    assert found == []


class TestVersions:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins: ClassVar = dict(line.split("==") for line in lines)

    def direct(self) -> list[Requirement]:
        return [
            Requirement(line) for line in self.project["dependencies"] + self.project["optional-dependencies"]["test"]
        ]

    def test_environment_is_what_the_lock_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COURSE_ROOT", raising=False)
        assert (ROOT / "environment.yml").read_text(encoding="utf-8") == environment.render()

    def test_the_lock_pins_each_package_once_and_in_order(self) -> None:
        names = [line.partition("==")[0] for line in self.lines]
        assert names == sorted(set(names))
        assert all(re.fullmatch(r"[a-z0-9-]+==[\w.!]+", line) for line in self.lines)

    def test_the_lock_allows_what_the_project_asks_for(self) -> None:
        for requirement in self.direct():
            version = self.pins[environment.normal(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"

    def test_environment_lists_the_direct_packages_and_no_others(self) -> None:
        text = (ROOT / "environment.yml").read_text(encoding="utf-8")
        listed = re.findall(r"^  - ([\w-]+)==(\S+)$", text, re.MULTILINE)
        assert dict(listed) == {(name := environment.normal(one.name)): self.pins[name] for one in self.direct()}
        assert f"- python{self.project['requires-python']}\n" in text

    def test_a_pin_that_is_missing_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
        for name in ("pyproject.toml", "requirements.lock"):
            text = (ROOT / name).read_text(encoding="utf-8")
            (tmp_path / name).write_text(re.sub(r"^torch==.*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
        with pytest.raises(KeyError, match="torch"):
            environment.render()

    @pytest.mark.parametrize("path", modules("course") + modules("autograder"), ids=lambda path: path.name)
    def test_what_is_imported_is_asked_for(self, path: Path) -> None:
        names = {environment.normal(requirement.name) for requirement in self.direct()}
        provided = {"IPython": "ipython", "yaml": "pyyaml", "matplotlib_inline": "ipython", "cycler": "matplotlib"}
        provided |= {"markdown_it": "markdown-it-py", "zmq": "pyzmq", "PIL": "pillow"}
        provided |= {"docutils": "sphinx-design", "sphinx": "jupyter-book"}
        own = {"solutions", "course", "autograder"} | set(sys.stdlib_module_names)
        for package in packages(path) - own:
            assert environment.normal(provided.get(package, package)) in names, f"{path.name} imports {package}"


class TestCommittedFiles:
    def test_are_small(self) -> None:
        large = [path for path in tracked() if path.stat().st_size > LIMIT]
        named = [path.relative_to(ROOT).as_posix() for path in large]
        models = [name for name in named if re.fullmatch(r"checkpoints/[\w-]+/model\.safetensors", name)]
        assert [name for name in named if not name.startswith(VENDOR) and name not in models] == []
        assert sum((ROOT / name).stat().st_size for name in models) < 4 * LIMIT

    def test_name_no_place_on_the_machine_they_were_written_on(self) -> None:
        for path in tracked():
            if path.relative_to(ROOT).as_posix().startswith(VENDOR):
                continue
            found = PLACES.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert found is None, f"{path} mentions {found and found[0]}"

    def test_hold_no_results_of_grading_and_no_caches(self) -> None:
        names = [path.relative_to(ROOT).as_posix() for path in tracked()]
        assert not [
            name for name in names if re.search(r"^grading/|gradebook\.db|__pycache__|\.ipynb_checkpoints", name)
        ]

    def test_a_place_on_a_machine_would_be_noticed(self) -> None:
        for place in (
            "see /" + "work/main",
            "in /tmp/" + "w",
            "'/tmp/" + "w/venv'",
            "/home/" + "me/x",
            "/root/" + ".cache",
        ):
            assert PLACES.search(place)
        for harmless in ("/home/runner/x", "https://a.b/" + "work/", "/tmp/" + "where", "work/main", "/workspace/"):
            assert not PLACES.search(harmless)


class TestProcessesSideBySide:
    """What shares remembered outcomes or a costly fixture must not be done in every process again."""

    GROUPED = """
import pytest

@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in "ab"])
@pytest.mark.parametrize("number", range(4))
def test_in_a_group(name, number):
    pass
"""

    def test_get_whole_groups(self, tmp_path: Path) -> None:
        path = tmp_path / "test_grouped.py"
        path.write_text(self.GROUPED, encoding="utf-8")
        options = ["-n", "2", "--dist", "loadgroup", "-v", "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
        run = subprocess.run([sys.executable, "-m", "pytest", *options, str(path)], capture_output=True, text=True)
        dealt = re.findall(r"\[(gw\d)\].*test_in_a_group\[\d-(\w)\]", run.stdout)
        assert len(dealt) == 8, run.stdout
        assert len(set(dealt)) == 2, run.stdout
