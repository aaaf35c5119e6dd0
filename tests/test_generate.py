"""`course generate`: a language model goes on with a text, and what it is refused for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import checkpoints
from tests.course_fixtures import ROOT, run_course


def texts(*arguments: str) -> list[str]:
    """What is written, text by text."""
    outcome = run_course("generate", *arguments)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    parts = re.split(r"^--- (\d+) of (\d+)\n", outcome.stdout, flags=re.MULTILINE)
    assert parts[0] == ""
    assert parts[1::3] == [str(number + 1) for number in range(len(parts) // 3)]
    assert set(parts[2::3]) == {str(len(parts) // 3)}
    return [text.removesuffix("\n") for text in parts[3::3]]


def refused(*arguments: str) -> str:
    """The one line of the refusal."""
    outcome = run_course("generate", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert re.fullmatch(r"Error: [^\n]*\.\n", outcome.stderr), outcome.stderr
    return outcome.stderr


class TestTexts:
    def test_five_that_differ_and_go_on_with_the_prompt(self) -> None:
        found = texts("--prompt", "Return the", "--tokens", "12")
        assert len(found) == 5
        assert len(set(found)) > 1
        assert all(text.startswith("Return the") for text in found)

    def test_the_same_seed_writes_the_same(self) -> None:
        asked = ("--prompt", "Mia had", "--model", "stories-gpt", "--tokens", "8", "--num", "3")
        assert texts(*asked) == texts(*asked, "--seed", "0")
        assert texts(*asked) != texts(*asked, "--seed", "1")

    def test_without_a_prompt_the_model_begins(self) -> None:
        (text,) = texts("--model", "stories-gpt", "--num", "1", "--tokens", "5")
        assert re.match(r"[A-Z]\w+ .* \.\.\.", text)

    def test_one_that_ends_has_no_dots(self) -> None:
        (text,) = texts("--model", "stories-gpt", "--num", "1", "--tokens", "180", "--prompt", "Mia")
        assert not text.endswith("...")

    def test_at_temperature_0_or_with_one_token_to_draw_from_all_are_alike(self) -> None:
        asked = ("--prompt", "Return", "--tokens", "8", "--num", "2")
        greedy = texts(*asked, "--temperature", "0")
        assert len(set(greedy)) == 1
        assert texts(*asked, "--top-k", "1") == texts(*asked, "--top-p", "1e-6") == greedy
        assert texts(*asked[:4], "--beams", "1") == greedy[:1]

    def test_the_penalty_changes_a_text_that_repeats_itself(self) -> None:
        asked = ("--prompt", "Return a new", "--num", "1", "--temperature", "0")
        assert "new new new" in texts(*asked)[0]
        assert "new new" not in texts(*asked, "--penalty", "1.3")[0]

    def test_beams_give_as_many_as_asked_for(self) -> None:
        asked = ("--prompt", "Return the", "--tokens", "6", "--beams")
        assert len(texts(*asked, "3")) == len(set(texts(*asked, "3"))) == 3
        assert len(texts(*asked, "7")) == 5
        assert texts(*asked, "3", "--num", "1") == texts(*asked, "3")[:1]

    def test_the_context_can_be_filled_and_not_exceeded(self) -> None:
        longest = json.loads((ROOT / "checkpoints" / "stories-gpt" / "card.json").read_text("utf-8"))["config"]
        assert texts("--model", "stories-gpt", "--num", "1", "--tokens", str(longest["max_length"] - 1))
        said = refused("--model", "stories-gpt", "--tokens", str(longest["max_length"]))
        assert "at most 191 with --tokens" in said

    def test_a_folder_is_read_like_a_name(self, tmp_path: Path) -> None:
        shutil.copytree(ROOT / "checkpoints" / "stories-gpt", tmp_path / "mine")
        asked = ("--prompt", "Mia had", "--tokens", "8", "--model")
        assert texts(*asked, str(tmp_path / "mine")) == texts(*asked, "stories-gpt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--tokens 0", "--tokens 0 must be at least 1"),
        ("--num 0", "--num 0 must be at least 1"),
        ("--temperature -0.1", "--temperature -0.1 must be at least 0"),
        ("--temperature nan", "--temperature nan must be at least 0"),
        ("--top-k 0", "--top-k 0 must be at least 1"),
        ("--top-k 2049", "--top-k 2049 must be at most 2048"),
        ("--top-p 0", "--top-p 0 must be above 0 and at most 1"),
        ("--top-p 1.01", "--top-p 1.01 must be above 0 and at most 1"),
        ("--penalty 0.9", "--penalty 0.9 must be at least 1"),
        ("--beams 0", "--beams 0 must be at least 1"),
        ("--beams 2 --num 3", "--num 3 must be at most --beams 2"),
        ("--beams 2 --top-p 0.9", "leave out --top-p"),
        ("--tokens 256", "ask for at most 255 with --tokens"),
        ("--prompt " + "a-" * 600, "and --tokens 40 more make"),
        ("--prompt \udcff", "--prompt has bytes that are no text"),
        ("--model nothing", "There is no model 'nothing'"),
        ("--model dates", "docstrings-gpt, stories-gpt"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments: str, words: str) -> None:
    assert words in refused(*arguments.split(" "))


def test_a_folder_that_is_no_such_model_is_refused(tmp_path: Path) -> None:
    assert "card.json is missing" in refused("--model", str(tmp_path))
    assert "is a transformer.EncoderDecoder" in refused("--model", str(checkpoints.folder("dates")))


@pytest.mark.parametrize("option", ["--seed", "--top-k"])
def test_what_is_no_number_is_a_mistake_of_usage(option: str) -> None:
    outcome = run_course("generate", option, "many")
    assert outcome.exit_code == 2
    assert option in outcome.stderr


def test_what_takes_long_to_import_is_left_alone() -> None:
    code = "import sys, course.writing; print({'datasets', 'transformers', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
