"""Keeps the lists of versions in step: `requirements.lock` from what is installed, `environment.yml` from both files.

`pyproject.toml` says what the course needs; the lock says which version of that, and of all it needs in turn.
"""

import re
import sys
import tomllib
from importlib.metadata import distributions

import yaml

from course.chapters import root

_UNLOCKED = {"build-a-transformer", "pip", "wheel"}


def normal(name: str) -> str:
    """A package's name as pip compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock() -> str:
    """Every package installed here, pinned; without local versions such as `+cpu`, which no index knows."""
    pins = {normal(found.name): found.version.partition("+")[0] for found in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()) if name not in _UNLOCKED)


def pins() -> dict[str, str]:
    """Package -> version, as `requirements.lock` has it."""
    lines = (root() / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line)


def render() -> str:
    """The text of `environment.yml`: the packages that the course names, at their locked versions."""
    project = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["test"]
    names = [normal(re.split(r"[<>=!~;\[ ]", line)[0]) for line in needed]
    locked = pins()
    packages = [f"{name}=={locked[name]}" for name in names if name not in _UNLOCKED]
    # An editable install, so that the notebooks find the chapters beside the packages.
    dependencies = [f"python{project['requires-python']}", "pip", {"pip": [*packages, "-e ."]}]
    environment = {"name": project["name"], "channels": ["conda-forge"], "dependencies": dependencies}
    head = "# Derived by `make lock` from pyproject.toml and requirements.lock; do not edit.\n"
    return head + str(yaml.safe_dump(environment, sort_keys=False))


def main() -> None:
    """Write both files anew from the environment that runs this."""
    (root() / "requirements.lock").write_text(lock(), encoding="utf-8")
    (root() / "environment.yml").write_text(render(), encoding="utf-8")
    sys.stdout.write("Wrote requirements.lock and environment.yml.\n")


if __name__ == "__main__":
    main()
