"""`course train` and checkpoints: the same seed gives the same run, a stopped run goes on, and nothing good is lost."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from datasets import DatasetDict

from course import checkpoints, files, training
from course.chapters import CourseError
from course.checkpoints import padded
from course.cli import main
from course.recipes import RECIPES, Recipe, characters, reversals, subwords
from course.tasks import Translation
from course.training import Options, Run, batches, new_run
from solutions.config import TransformerConfig
from solutions.transformer import EncoderDecoder

SMALL = replace(
    RECIPES["reversal"],
    config={"d_model": 16, "num_heads": 2, "num_layers": 1, "dropout": 0.1},
    steps=12, tokens_per_batch=300, warmup_steps=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def material() -> tuple[Any, Translation]:
    data = reversals()
    small = {name: split.select(range(200)) for name, split in data.items()}
    tokenizer = characters(data["train"])
    return tokenizer, Translation(DatasetDict(small), tokenizer)


@pytest.fixture
def run(material: tuple[Any, Translation]) -> Run:
    return new_run(SMALL, *material, Options(seed=3))


def go_to(run: Run, step: int) -> Run:
    """Train to a step and no further."""

    def stop(run: Run) -> None:
        if run.progress.step >= step:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run.train(stop)
    return run


class TestRun:
    def test_the_same_seed_gives_the_same_losses_and_another_seed_others(self, material: Any) -> None:
        losses = [go_to(new_run(SMALL, *material, Options(seed=seed)), 5).progress.losses for seed in (3, 3, 4)]
        assert losses[0] == losses[1] != losses[2]

    def test_goes_on_from_a_saved_state_bit_for_bit(self, material: Any, tmp_path: Path) -> None:
        whole = go_to(new_run(SMALL, *material, Options(seed=3)), 12)
        go_to(new_run(SMALL, *material, Options(seed=3)), 5).save(tmp_path)
        second = new_run(SMALL, *material, Options(seed=3))
        assert second.resume(tmp_path)
        assert second.progress.step == 5
        go_to(second, 12)
        assert second.progress.losses == whole.progress.losses
        for own, other in zip(second.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(own, other)

    def test_there_is_nothing_to_go_on_from_at_first(self, run: Run, tmp_path: Path) -> None:
        assert not run.resume(tmp_path)

    def test_a_state_of_other_settings_is_refused(self, run: Run, material: Any, tmp_path: Path) -> None:
        run.save(tmp_path)
        for other in (
            new_run(SMALL, *material, Options(seed=4)),
            new_run(replace(SMALL, learning_rate=1.0), *material, Options(seed=3)),
        ):
            with pytest.raises(CourseError, match=r"other settings\. Start anew with --restart"):
                other.resume(tmp_path)

    @pytest.mark.parametrize("size", [0, 7, 1000])
    def test_a_damaged_state_is_refused_and_kept(self, run: Run, tmp_path: Path, size: int) -> None:
        run.save(tmp_path)
        path = tmp_path / training.STATE
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CourseError, match=r"is damaged: .*was not changed"):
            run.resume(tmp_path)
        assert path.stat().st_size == size

    def test_a_loss_that_is_no_number_stops_it_and_changes_no_weight(self, run: Run) -> None:
        go_to(run, 3)
        with torch.no_grad():
            next(run.model.parameters())[0, 0] = float("nan")
        before = [parameter.clone() for parameter in run.model.parameters()]
        with pytest.raises(CourseError, match=r"The loss became nan at step 3\. Nothing of this step was kept"):
            run.train()
        assert run.progress.step == 3
        for old, new in zip(before, run.model.parameters(), strict=True):
            assert torch.equal(old.nan_to_num(), new.nan_to_num())

    def test_a_disk_that_is_full_leaves_the_old_state(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run.save(tmp_path)
        before = (tmp_path / training.STATE).read_bytes()

        def full(tensors: Any, path: Path, metadata: Any) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(training, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            go_to(run, 2).save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [training.STATE]
        assert (tmp_path / training.STATE).read_bytes() == before

    def test_minutes_end_it_and_shape_the_learning_rate(self, material: Any) -> None:
        run = new_run(replace(SMALL, steps=10**6), *material, Options(minutes=0.02))
        start = time.monotonic()
        run.train()
        assert run.share == 1
        assert run.progress.seconds >= 0.02 * 60
        assert time.monotonic() - start < 30

    def test_learning_rate_rises_then_falls_to_a_twentieth(self, run: Run) -> None:
        rates = []
        for step in range(SMALL.steps + 1):
            run.progress.step = step
            rates.append(run._schedule())
        peak = rates.index(max(rates))
        assert peak == SMALL.warmup_steps - 1
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert rates[-1] == pytest.approx(0.05)

    def test_padding_is_not_learned(self, run: Run) -> None:
        run.model.eval()
        assert isinstance(run.task, Translation)
        source, target = torch.tensor([[4, 5, 2]]), torch.tensor([[5, 2]])
        pad = torch.full((1, 3), run.task.pad_id)
        one, count = run._loss(run.model, (source, target), 0.0)
        more, same = run._loss(run.model, (torch.cat([source, pad], 1), torch.cat([target, pad], 1)), 0.0)
        assert count == same == 2
        assert torch.allclose(one, more, atol=1e-6)


class TestBatches:
    def test_hold_every_example_once_within_the_limit(self) -> None:
        sizes = torch.randint(1, 40, (300,), generator=torch.Generator().manual_seed(0)).tolist()
        made = list(batches(sizes, 200, seed=1))
        assert sorted(place for batch in made for place in batch) == list(range(300))
        for batch in made:
            assert len(batch) * max(sizes[place] for place in batch) <= 200
        assert made == list(batches(sizes, 200, seed=1)) != list(batches(sizes, 200, seed=2))

    def test_an_example_over_the_limit_stands_alone(self) -> None:
        assert sorted(batches([50, 2], 10, seed=0)) == [[0], [1]]

    def test_padded(self) -> None:
        assert padded([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]


class TestTokenizers:
    @pytest.mark.parametrize("make", [characters, subwords(300)])
    def test_round_trip(self, make: Any) -> None:
        data = reversals()["train"].select(range(300))
        tokenizer = make(data)
        texts = list(data["source"])[:20]
        ids = checkpoints.encode(tokenizer, texts)
        assert [text.strip() for text in checkpoints.decode(tokenizer, ids)] == texts

    def test_reversals_are_reversed_and_not_repeated(self) -> None:
        data = reversals()
        every = [text for split in data.values() for text in split["source"]]
        assert len(set(every)) == len(every) == 21_000
        assert all(source[::-1] == target for source, target in zip(*data["test"][:].values(), strict=True))


class TestCheckpoint:
    @pytest.fixture
    def saved(self, run: Run, material: Any, tmp_path: Path) -> Path:
        checkpoints.save(tmp_path, run.model, material[0], run.card("course train reversal", "reversal"))
        return tmp_path

    def test_comes_back_as_it_was_in_half_precision(self, run: Run, saved: Path) -> None:
        loaded = checkpoints.load(saved)
        assert not loaded.model.training
        assert loaded.card["seed"] == 3
        assert loaded.card["data"] == "reversal"
        assert loaded.card["tokens"] == run.progress.tokens
        for own, other in zip(loaded.model.parameters(), run.model.parameters(), strict=True):
            assert own.dtype == torch.float32
            assert torch.equal(own, other.half().float())
        assert loaded.model.output.weight is loaded.model.encoder.embedding.tokens.weight
        assert {path.name for path in saved.iterdir()} == {"card.json", "model.safetensors", "tokenizer.json"}

    def test_a_missing_file_is_named(self, saved: Path) -> None:
        (saved / "tokenizer.json").unlink()
        with pytest.raises(CourseError, match=r"tokenizer.json is missing. Make one with `course train"):
            checkpoints.load(saved)
        with pytest.raises(CourseError, match=r"There is no checkpoint in .*checkpoints/nothing"):
            checkpoints.load("nothing")

    @pytest.mark.parametrize("name", ["card.json", "model.safetensors", "tokenizer.json"])
    def test_a_truncated_file_is_refused(self, saved: Path, name: str) -> None:
        path = saved / name
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(CourseError, match="is damaged or of another version"):
            checkpoints.load(saved)

    def test_a_checkpoint_of_another_model_is_refused_by_tensor(self, saved: Path) -> None:
        card = json.loads((saved / "card.json").read_text("utf-8"))
        for change, words in (
            ({"num_layers": 2}, r"has no tensor `"),
            ({"bias": False}, r"has a tensor that the model lacks, `"),
            ({"d_ff": 32}, r"has shape \("),
        ):
            (saved / "card.json").write_text(json.dumps(card | {"config": card["config"] | change}), "utf-8")
            with pytest.raises(CourseError, match=words):
                checkpoints.load(saved)

    def test_tied_weights_are_written_once(self, run: Run, saved: Path) -> None:
        size = sum(parameter.numel() * 2 for parameter in run.model.parameters())
        assert size < (saved / "model.safetensors").stat().st_size < size + 10_000

    def test_every_shipped_one_loads_and_has_a_complete_card(self) -> None:
        places = sorted((Path(__file__).parent.parent / "checkpoints").iterdir())
        # Every recipe's, but for the toy that the tests train themselves.
        assert {place.name for place in places} == RECIPES.keys() - {"reversal"}
        for place in places:
            loaded = checkpoints.load(place.name)
            asked = {"command", "seed", "steps", "minutes", "validation loss", "hardware", "torch", "learned"}
            assert asked <= loaded.card.keys()
            shipped = [path for path in place.iterdir() if path.name != training.STATE]
            assert sum(path.stat().st_size for path in shipped) < 6_000_000


class TestCommand:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = reversals()
        few = {name: split.select(range(200)) for name, split in data.items()}
        monkeypatch.setitem(RECIPES, "reversal", replace(SMALL, data=lambda: few))

    def test_makes_a_checkpoint_that_can_be_used(self, tmp_path: Path) -> None:
        outcome = CliRunner().invoke(main, ["train", "reversal", "--output", str(tmp_path)])
        assert outcome.exit_code == 0, outcome.output
        assert "12 steps in" in outcome.stdout
        assert isinstance(checkpoints.load(tmp_path).model, EncoderDecoder)

    def test_going_on_after_the_end_changes_nothing(self, tmp_path: Path) -> None:
        command = ["train", "reversal", "--output", str(tmp_path)]
        CliRunner().invoke(main, command)
        before = (tmp_path / "model.safetensors").read_bytes()
        assert "Going on from step 12" in CliRunner().invoke(main, command).stdout
        assert (tmp_path / "model.safetensors").read_bytes() == before

    def test_restart_forgets(self, tmp_path: Path) -> None:
        command = ["train", "reversal", "--output", str(tmp_path)]
        CliRunner().invoke(main, command)
        assert CliRunner().invoke(main, [*command, "--seed", "1"]).exit_code == 2
        outcome = CliRunner().invoke(main, [*command, "--seed", "1", "--restart"])
        assert outcome.exit_code == 0
        assert "Going on" not in outcome.stdout

    def test_a_model_that_does_not_exist(self) -> None:
        outcome = CliRunner().invoke(main, ["train", "reversals"])
        assert (outcome.exit_code, outcome.stdout) == (2, "")
        assert "no model 'reversals'. The models are: reversal, dates, translation, stories-gpt" in outcome.stderr

    def test_a_folder_that_cannot_be_written_is_found_before_training(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        outcome = CliRunner().invoke(main, ["train", "reversal", "--output", str(tmp_path / "file" / "in")])
        assert outcome.exit_code == 2
        assert "cannot use" in outcome.stderr

    def test_mine_without_a_workspace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COURSE_WORKSPACE", str(tmp_path))
        outcome = CliRunner().invoke(main, ["train", "reversal", "--mine", "--output", str(tmp_path / "out")])
        assert outcome.exit_code == 2
        assert "There is no workspace/transformer.py" in outcome.stderr


@pytest.mark.slow
def test_ctrl_c_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "course", "train", "reversal", "--output", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # As in a terminal: what a shell has put into the background ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step"):  # it trains, and has said so once
            break
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert process.wait(60) == 130, said
    assert "nothing is lost" in said
    data = reversals()
    tokenizer = characters(data["train"])
    run = new_run(RECIPES["reversal"], tokenizer, Translation(data, tokenizer), Options())
    assert run.resume(tmp_path)
    assert 0 < run.progress.step == len(run.progress.losses) < RECIPES["reversal"].steps


def test_a_config_of_a_recipe_is_valid() -> None:
    for recipe in RECIPES.values():
        assert isinstance(recipe, Recipe)
        TransformerConfig(vocab_size=10, **recipe.config)


def test_a_killed_write_leaves_no_file_behind(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "new" / "file", interrupted)
    assert list((tmp_path / "new").iterdir()) == []
