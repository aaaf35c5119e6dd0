"""Keeps what takes long to make, as Arrow files that are mapped into memory and not read as a whole."""

import hashlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import datasets
from datasets import DatasetDict


def kept(name: str, module: ModuleType, make: Callable[[], DatasetDict], versions: dict[str, str]) -> DatasetDict:
    """The splits from the last time, or made now and kept for the next time.

    Nothing that is kept is ever out of date: its folder is named by the source that makes it and what it is made from.
    A folder that is damaged is made anew; where nothing can be written, nothing is kept.

    Args:
        name: of the corpus.
        module: its source.
        make: makes the splits.
        versions: of what they are made from.
    """
    place = folder(name, module, versions)
    if place.exists():
        with suppress(Exception):  # an interrupted or damaged one; what can go wrong with it is the library's secret
            return DatasetDict.load_from_disk(str(place))
    splits = make()
    with suppress(OSError):
        _write(splits, place)
        return DatasetDict.load_from_disk(str(place))
    return splits


def folder(name: str, module: ModuleType, versions: dict[str, str]) -> Path:
    """Where the splits of a corpus are kept."""
    made_from = json.dumps([inspect.getsource(module), datasets.__version__, versions], sort_keys=True)
    key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    return Path(datasets.config.HF_DATASETS_CACHE) / "course" / f"{name}-{key}"


def _write(splits: DatasetDict, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    try:
        with _quiet():
            splits.save_to_disk(str(unfinished))
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a progress bar: what is written in a second needs none, least of all in a page."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
