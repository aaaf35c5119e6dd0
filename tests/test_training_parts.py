"""Chapter 07's references against PyTorch's own, and what a checkpoint must survive."""

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from solutions.training import (
    AdamW,
    clip_gradients,
    cross_entropy,
    load_checkpoint,
    sample_batch,
    save_checkpoint,
    warmup_cosine,
)

settings.register_profile("training", deadline=None, max_examples=60, derandomize=True)
profile = settings.get_profile("training")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestCrossEntropy:
    @given(
        st.lists(st.integers(1, 4), max_size=2),
        st.integers(1, 9),
        st.floats(0, 1),
        st.sampled_from([-100, 0]),
        st.integers(0, 99),
    )
    @settings(profile)
    def test_equals_pytorch(self, front: list[int], classes: int, smoothing: float, ignored: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        z = normal(*front, 3, classes, seed=seed).requires_grad_()
        y = torch.randint(classes, (*front, 3), generator=generator)
        y[..., 0] = ignored
        ours = cross_entropy(z, y, ignored, smoothing)
        theirs = F.cross_entropy(z.flatten(0, -2), y.flatten(), ignore_index=ignored, label_smoothing=smoothing)
        if (y == ignored).all():
            assert ours == 0
            return
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
        gradients = [torch.autograd.grad(loss, z)[0] for loss in (ours, theirs)]
        assert torch.allclose(*gradients, rtol=0, atol=1e-10)

    def test_nothing_counts(self) -> None:
        z = normal(2, 3).requires_grad_()
        loss = cross_entropy(z, torch.tensor([-100, -100]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss == 0
        assert z.grad is not None and (z.grad == 0).all()

    def test_large_logits_stay_finite(self) -> None:
        z = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
        loss = cross_entropy(z, torch.tensor([1, 1]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss == 1e4
        assert z.grad is not None and z.grad.isfinite().all()

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"logits of shape \(2, 3, 5\) do not fit targets of shape \(6,\)"):
            cross_entropy(normal(2, 3, 5), torch.zeros(6, dtype=torch.long))


class TestAdamW:
    @pytest.mark.parametrize(
        "choices",
        [{}, {"lr": 0.1, "weight_decay": 0.3}, {"betas": (0.5, 0.9), "eps": 1e-4}, {"weight_decay": 0.0}],
        ids=str,
    )
    def test_equals_pytorch_over_1000_steps(self, choices: dict[str, Any]) -> None:
        start = [normal(3, 4, seed=1), normal(5, seed=2)]
        ours, theirs = ([nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
        mine, peer = AdamW(ours, **choices), torch.optim.AdamW(theirs, **choices)
        for step in range(1000):
            for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                a.grad = normal(*a.shape, seed=2 * step + place)
                b.grad = a.grad.clone()
            mine.step()
            peer.step()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-10)

    def test_float32_and_groups(self) -> None:
        ours, theirs = (
            [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))] for _ in range(2)
        )
        for kind, own in ((AdamW, ours), (torch.optim.AdamW, theirs)):
            groups = [{"params": own[:1], "weight_decay": 0.0}, {"params": own[1:], "lr": 0.5}]
            optimizer = kind(groups, lr=0.1)
            for step in range(20):
                own[0].grad, own[1].grad = torch.full((3,), step - 7.0), torch.ones(2)
                optimizer.step()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-5)
        assert (ours[2] == 1).all()

    def test_a_closure_is_called_with_gradients(self) -> None:
        w = nn.Parameter(torch.tensor([1.0]))
        optimizer = AdamW([w])

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (w**2).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        assert optimizer.step(closure) == 1
        assert w < 1

    @pytest.mark.parametrize(
        "wrong", [{"lr": -1}, {"eps": -1}, {"weight_decay": -1}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}], ids=str
    )
    def test_settings_outside_their_range(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AdamW([nn.Parameter(torch.ones(1))], **wrong)


class TestSchedule:
    def test_equals_pytorch(self) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.3)
        warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
        down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.03)
        both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, down], milestones=[10])
        for step in range(50):
            assert math.isclose(optimizer.param_groups[0]["lr"], warmup_cosine(step, 0.3, 0.03, 10, 50), abs_tol=1e-9)
            optimizer.step()
            both.step()

    @given(st.integers(0, 20), st.integers(1, 50), st.integers(0, 200))
    @settings(profile)
    def test_never_leaves_its_bounds(self, warmup: int, more: int, step: int) -> None:
        rate = warmup_cosine(step, 1.0, 0.1, warmup, warmup + more)
        assert 0 <= rate <= 1
        assert rate >= 0.1 - 1e-12 or step < warmup

    def test_no_steps_after_the_warm_up(self) -> None:
        with pytest.raises(ValueError, match="total_steps=5 must be more than warmup_steps=5"):
            warmup_cosine(0, 1.0, 0.1, 5, 5)


class TestClipping:
    @given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.floats(0.01, 10), st.integers(0, 99))
    @settings(profile)
    def test_equals_pytorch(self, sizes: list[int], max_norm: float, seed: int) -> None:
        ours, theirs = ([nn.Parameter(torch.zeros(size, dtype=torch.float64)) for size in sizes] for _ in range(2))
        for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = normal(*a.shape, seed=seed + place)
            b.grad = a.grad.clone()
        total = clip_gradients(iter(ours), max_norm)
        assert torch.allclose(total, nn.utils.clip_grad_norm_(theirs, max_norm), rtol=0, atol=1e-10)
        for a, b in zip(ours, theirs, strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-10)

    def test_no_gradients(self) -> None:
        assert clip_gradients([nn.Parameter(torch.ones(2))], 1.0) == 0


class TestBatches:
    @given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 99))
    @settings(profile)
    def test_targets_are_the_next_tokens(self, length: int, batch: int, seed: int) -> None:
        context = 1 + seed % (length - 1)
        tokens = torch.arange(length)
        inputs, targets = sample_batch(tokens, batch, context, torch.Generator().manual_seed(seed))
        assert inputs.shape == targets.shape == (batch, context)
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(inputs - inputs[:, :1], torch.arange(context).expand(batch, -1))

    def test_every_place_is_equally_likely(self) -> None:
        inputs, _ = sample_batch(torch.arange(12), 80_000, 4, torch.Generator().manual_seed(0))
        counts = torch.bincount(inputs[:, 0])
        assert len(counts) == 8
        assert ((counts - 10_000).abs() < 500).all()

    def test_a_text_that_is_too_short(self) -> None:
        with pytest.raises(ValueError, match="context_length=4 needs more tokens than that; the text has 4"):
            sample_batch(torch.arange(4), 1, 4, torch.Generator())


def trained(steps: int, width: int = 3) -> tuple[nn.Module, AdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
    optimizer = AdamW(model.parameters(), lr=0.05)
    go_on(model, optimizer, 0, steps)
    return model, optimizer


def go_on(model: nn.Module, optimizer: AdamW, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        model(normal(8, 4, seed=step).float()).square().mean().backward()
        optimizer.step()


class TestCheckpoints:
    def test_going_on_gives_the_same_run_bit_for_bit(self, tmp_path: Path) -> None:
        straight, _ = trained(20)
        half, optimizer = trained(10)
        save_checkpoint(tmp_path / "a.pt", half, optimizer, 10)
        model, fresh = trained(3)
        step = load_checkpoint(str(tmp_path / "a.pt"), model, fresh)
        go_on(model, fresh, step, 20)
        assert all(
            torch.equal(a, b) for a, b in zip(straight.state_dict().values(), model.state_dict().values(), strict=True)
        )

    def test_a_full_disk_leaves_the_older_one_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, optimizer = trained(2)
        path = tmp_path / "a.pt"
        save_checkpoint(path, model, optimizer, 2)
        before = path.read_bytes()

        def full(thing: Any, place: Any) -> None:
            Path(place).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(path, model, optimizer, 3)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("size", [0, 1, 100, -1])
    def test_a_damaged_file_changes_nothing(self, tmp_path: Path, size: int) -> None:
        model, optimizer = trained(2)
        path = tmp_path / "a.pt"
        save_checkpoint(path, model, optimizer, 2)
        path.write_bytes(path.read_bytes()[:size])
        other, fresh = trained(0)
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(ValueError, match="is no checkpoint, or it is damaged"):
            load_checkpoint(path, other, fresh)
        assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
        assert not fresh.state

    def test_another_model(self, tmp_path: Path) -> None:
        model, optimizer = trained(2)
        save_checkpoint(tmp_path / "a.pt", model, optimizer, 2)
        other, fresh = trained(0, width=5)
        with pytest.raises(ValueError, match="belongs to another model"):
            load_checkpoint(tmp_path / "a.pt", other, fresh)

    @pytest.mark.parametrize("state", [{}, 5, {"state": {}, "param_groups": []}], ids=str)
    def test_another_optimiser_changes_nothing(self, tmp_path: Path, state: Any) -> None:
        model, _ = trained(2)
        torch.save({"model": model.state_dict(), "optimizer": state, "step": 2}, tmp_path / "a.pt")
        other, fresh = trained(0)
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(ValueError, match="belongs to another optimizer, or it is damaged"):
            load_checkpoint(tmp_path / "a.pt", other, fresh)
        assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
        assert not fresh.state

    @pytest.mark.parametrize("weights", [[1], {"0.weight": 1}, 5], ids=str)
    def test_weights_of_another_kind(self, tmp_path: Path, weights: Any) -> None:
        torch.save({"model": weights, "optimizer": {}, "step": 2}, tmp_path / "a.pt")
        with pytest.raises(ValueError, match="is no checkpoint, or it is damaged"):
            load_checkpoint(tmp_path / "a.pt", *trained(0))

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="Is a directory"):
            load_checkpoint(tmp_path, *trained(0))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            load_checkpoint(tmp_path / "a.pt", *trained(0))

    def test_no_code_is_run(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.write_text, (tmp_path / "ran", "x"))

        torch.save({"model": Evil(), "optimizer": {}, "step": 0}, tmp_path / "a.pt")
        (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil()))
        for name in ("a.pt", "b.pt"):
            with pytest.raises(ValueError, match="no checkpoint"):
                load_checkpoint(tmp_path / name, *trained(0))
        assert not (tmp_path / "ran").exists()
