"""The training loop on batches made of random numbers: parts of a batch, memory, counted FLOPs, one batch overfitted."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from dailies.curation.errors import NotFinite, OutOfMemory, UsageError  # noqa: E402
from dailies.training import flops, loop, memory, step, unet_task  # noqa: E402
from dailies.training.data.batches import Batch, Batches  # noqa: E402
from dailies.training.data.prefetch import prefetch  # noqa: E402
from dailies.training.diffusion import objective  # noqa: E402
from dailies.training.diffusion.conditioning import Condition  # noqa: E402
from dailies.training.diffusion.encoders import Models  # noqa: E402
from dailies.training.diffusion.sample import bind_condition  # noqa: E402
from dailies.training.ema import Ema  # noqa: E402
from dailies.training.models import VideoUNet  # noqa: E402
from dailies.training.models import blocks as model_blocks  # noqa: E402
from dailies.training.models.trainable import build  # noqa: E402
from dailies.training.recipes import load_recipe  # noqa: E402
from dailies.training.recipes.recipe import Phase, TrainingRecipe, UNetSpec  # noqa: E402
from tests.training_export import MODELS, build_export  # noqa: E402

PHASE = Phase(
    name="video", task="text-to-video", steps=40, batch=4, size=(32, 24), frames=3, warmup=0, lr=3e-3, validate_every=2,
    validation_clips=1, validation_sigmas=(1.0,), save_every=1, samples=1, sample_steps=2,
)  # fmt: skip
IMAGE = dataclasses.replace(PHASE, name="image", task="text-to-image", frames=1, steps=2, batch=2)
RECIPE = TrainingRecipe(
    name="test",
    unet=UNetSpec(channels=(32,), attention=(True,), heads=1),
    text_tokens=8,
    phases=(PHASE,),
    autocast=False,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _unet(phase: Phase = PHASE) -> VideoUNet:
    torch.manual_seed(0)
    return build(phase, RECIPE.unet, 24, (6, 8))


def _batch(count: int = PHASE.batch) -> Batch:
    made = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, count, 3, 4, 6, 8, generator=made).unbind()
    ids = torch.tensor([7.0, 127.0, 0.0]).expand(count, 3)
    return Batch(
        clip_ids=tuple(f"clip{i}" for i in range(count)),
        clean=clean,
        noise=noise,
        sigma=torch.linspace(-2, 2, count).exp(),
        condition=Condition(tokens_BLD=torch.randn(count, 8, 24, generator=made), added_time_ids_BK=ids),
    )


def _stepped(unet: VideoUNet, optimizer: torch.optim.Optimizer, batch: Batch, phase: Phase, number: int) -> float:
    """The loss of one step of a phase on ``batch``."""
    parts = list(unet_task.split_batch(batch, unet_task.at_once(phase)))

    def losses(model: VideoUNet, part: Batch) -> dict[str, torch.Tensor]:
        return {"loss": unet_task.batch_loss(model, part, RECIPE, phase)}

    return step.train_step(unet, optimizer, parts, losses, phase, "phase video", number)["loss"]


# ---- one step -------------------------------------------------------------------------------------------------------


def test_parts_are_the_batch_in_its_order() -> None:
    batch = _batch()
    cut = list(unet_task.split_batch(batch, 2))
    assert [part.clip_ids for part in cut] == [("clip0", "clip1"), ("clip2", "clip3")]
    for name in ("clean", "noise", "sigma"):
        assert torch.equal(torch.cat([getattr(part, name) for part in cut]), getattr(batch, name))
    for name in ("tokens_BLD", "added_time_ids_BK"):
        whole = getattr(batch.condition, name)
        assert torch.equal(torch.cat([getattr(part.condition, name) for part in cut]), whole)


@pytest.mark.parametrize("kind", ["edm", "flow"])
@pytest.mark.parametrize("clip", [1e-2, 1e6])
def test_parts_have_the_gradient_of_the_large_batch(kind: str, clip: float) -> None:
    def stepped(accumulate: int) -> tuple[float, VideoUNet]:
        phase = dataclasses.replace(PHASE, accumulate=accumulate, clip_grad=clip, objective=kind)
        unet = _unet()
        return _stepped(unet, torch.optim.SGD(unet.parameters()), _batch(), phase, 0), unet

    (loss, whole), *others = [stepped(accumulate) for accumulate in (1, 2, 4)]
    norm = torch.cat([p.grad.flatten() for p in whole.parameters() if p.grad is not None]).norm().item()
    assert norm == pytest.approx(clip, rel=1e-3) if clip < 1 else 0.1 < norm < clip
    for again, parted in others:
        assert again == pytest.approx(loss, rel=1e-5)
        for (name, one), other in zip(whole.named_parameters(), parted.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None), name
            if one.grad is not None:
                assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-6 * norm), name


def test_learning_rate_rises_stays_and_falls_to_zero() -> None:
    phase = dataclasses.replace(PHASE, steps=10, warmup=4, decay=0.4, lr=1.0)
    rates = [step.learning_rate(phase, number) for number in range(11)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
    flat = dataclasses.replace(phase, warmup=0, decay=0.0)
    assert [step.learning_rate(flat, number) for number in (0, 9)] == [1, 1]


def test_a_group_with_a_unit_takes_steps_and_is_clipped_in_it() -> None:
    one, other = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other], "unit": 10.0}])
    one.grad, other.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.4])
    assert step.clip_gradient(optimizer, 1.0) == pytest.approx(5)  # of (3, 0, 0, 4)
    assert torch.allclose(torch.cat([one.grad, other.grad]), torch.tensor([0.6, 0, 0, 0.08]))
    assert step.clip_gradient(optimizer, 1e6) == pytest.approx(1)
    phase = dataclasses.replace(PHASE, warmup=0, decay=0.0, batch=1, lr=0.5, clip_grad=1e6)
    part = _batch(1)
    losses = step.train_step(
        torch.nn.Identity(), optimizer, [part], lambda *_: {"loss": one.sum() + other.sum()}, phase, "t", 0
    )
    assert torch.allclose(one, torch.tensor(-0.5))
    assert torch.allclose(other, torch.tensor(-5.0))
    assert losses["gradient_norm"] == pytest.approx((2 + 200) ** 0.5)


def test_a_wrong_number_in_any_part_stops_before_the_weights_change() -> None:
    batch = _batch()
    batch.clean[3, 0, 0, 0, 0] = float("nan")
    unet = _unet()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    optimizer = torch.optim.AdamW(unet.parameters())
    with pytest.raises(NotFinite, match=r"step 5: loss \(nan\) .* samples clip0, clip1, clip2, clip3$"):
        _stepped(unet, optimizer, batch, dataclasses.replace(PHASE, accumulate=4), 5)
    assert all(torch.equal(before[name], value) for name, value in unet.state_dict().items())


@pytest.mark.parametrize("kind", ["edm", "flow"])
def test_one_batch_can_be_overfitted(kind: str) -> None:
    phase = dataclasses.replace(PHASE, objective=kind, batch=2)
    batch, unet = _batch(2), _unet()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=phase.lr)
    losses = [_stepped(unet, optimizer, batch, phase, number) for number in range(phase.steps)]
    assert losses[-1] < losses[0] / 50


@pytest.mark.parametrize(
    ("warmup", "decay", "rates"),
    [
        (4, 0.0, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 1, 1]),
        (0, 0.4, [1, 1, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (2, 0.2, [1 / 2, 1, 1, 1, 1, 1, 1, 1, 1, 1 / 2]),
        (5, 1.0, [1 / 5, 2 / 5, 3 / 5, 7 / 10, 6 / 10, 5 / 10, 4 / 10, 3 / 10, 2 / 10, 1 / 10]),
        (0, 0.05, [1] * 10),
    ],
)
def test_the_learning_rate_of_each_of_ten_steps(warmup: int, decay: float, rates: list[float]) -> None:
    """Excludes a first or last step of rate 0, which learns nothing, a decay over all steps or the first ones, and the product
    of warm-up and decay where they meet."""
    phase = dataclasses.replace(PHASE, steps=10, warmup=warmup, decay=decay, lr=2.0)
    assert [step.learning_rate(phase, at) for at in range(10)] == pytest.approx([2 * rate for rate in rates])


def test_a_step_is_as_long_as_the_learning_rate_of_its_number() -> None:
    moved = []
    for at in (0, 3, 38):
        phase = dataclasses.replace(PHASE, warmup=4, decay=0.1, batch=2, accumulate=1)
        unet = _unet()
        before = [parameter.detach().clone() for parameter in unet.parameters()]
        _stepped(unet, torch.optim.SGD(unet.parameters(), lr=9.0), _batch(2), phase, at)
        after = [parameter.detach() for parameter in unet.parameters()]
        moved.append(sum(float((a - b).double().square().sum()) for a, b in zip(after, before, strict=True)) ** 0.5)
    assert [length / moved[1] for length in moved] == pytest.approx([1 / 4, 1, 2 / 4], rel=1e-3)


def test_averaged_weights_keep_a_share_that_grows_to_the_decay() -> None:
    """A weight of 0 that follows one of 1 keeps 1/10, 2/11, 3/12 of its distance, and then a half. Excludes the shares
    swapped, the larger of the two, and a first step that forgets nothing or all."""
    model, trained = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.ones_(trained.weight)
    ema = Ema(model, 0.5)
    left = 1.0
    for number, keep in ((0, 1 / 10), (1, 2 / 11), (2, 3 / 12), (7, 8 / 17), (8, 1 / 2), (1000, 1 / 2)):
        ema.update(trained, number)
        left *= keep
        assert 1 - ema.model.weight.item() == pytest.approx(left, rel=1e-3)
    assert trained.weight.item() == 1
    assert not ema.model.weight.requires_grad


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_advice_begins_with_what_changes_no_result() -> None:
    said = memory.oom_hint(PHASE, 2)
    order = [
        "accumulate=2 instead of 1",
        "checkpoint_levels=(0,)",
        "fewer frames than 3",
        "smaller size than 32×24",
    ]
    assert sorted(order, key=said.index) == order
    assert "4 samples at a time of 3 frames" in said
    least = dataclasses.replace(PHASE, accumulate=4, checkpoint_levels=(0, 1))
    assert "accumulate" not in memory.oom_hint(least, 2)
    assert "checkpoint_levels" not in memory.oom_hint(least, 2)
    assert "checkpoint_levels=(0, 1)" in memory.oom_hint(dataclasses.replace(PHASE, checkpoint_levels=(1,)), 2)
    assert "fewer frames" not in memory.oom_hint(IMAGE, 2)


def _exhaust_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def _exhaust_cpu() -> None:
    torch.empty(10**16)


@pytest.mark.parametrize("exhaust", [_exhaust_gpu, _exhaust_cpu])
def test_out_of_memory_says_what_to_lower(exhaust: Callable[[], None]) -> None:
    with (
        pytest.raises(OutOfMemory, match="phase video: out of memory at 4 samples") as caught,
        memory.explain_oom(lambda: memory.oom_hint(PHASE, 2)),
    ):
        exhaust()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="mat1"), memory.explain_oom(lambda: memory.oom_hint(PHASE, 2)):
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"accumulate": 3}, "accumulate"), ({"accumulate": 0}, "accumulate"), ({"checkpoint_levels": (-1,)}, "levels")],
)
def test_wrong_settings_are_refused_by_field(change: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        dataclasses.replace(PHASE, **change)


# ---- counted FLOPs --------------------------------------------------------------------------------------------------


def test_flops_without_memory_are_those_of_a_real_step() -> None:
    how = objective.Flow()
    unet, batch = _unet(), _batch(2)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        how.loss(bind_condition(unet, batch.condition), batch.clean, batch.noise, batch.sigma).mean().backward()
    counted = flops.training_flops(unet, batch, how)
    assert counted == counter.get_total_flops()
    # All but the embedding of the frames' numbers, which samples share.
    assert counted == pytest.approx(2 * flops.training_flops(unet, _batch(1), how), rel=0.01)
    unet.checkpoint_levels((0,))  # work done twice is no progress
    assert flops.training_flops(unet, batch, how) == counted


def test_counting_draws_nothing_and_leaves_the_model() -> None:
    unet = _unet()
    before, weights = torch.get_rng_state(), {name: value.clone() for name, value in unet.state_dict().items()}
    rates = flops.StepRates(unet, PHASE, torch.device("cpu"), autocast=True)
    said = rates([_batch(4)], 2.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[name], value) for name, value in unet.state_dict().items())
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert "mfu" not in said  # of a CPU no peak is known
    one = flops.training_flops(unet, _batch(1), objective.Edm())
    assert said["tflops_per_second"] == pytest.approx(4 * one / 2 / 1e12)
    assert one > 6 * sum(p.numel() for p in unet.parameters())  # each weight meets many pixels


def test_rates() -> None:
    assert flops.Pace()(6 * 10**12, 3, 2.0) == {"samples_per_second": 1.5, "tflops_per_second": 3.0}
    h100 = flops.peak_of("NVIDIA H100 80GB HBM3")
    assert h100 == 989e12
    assert flops.Pace(peak=h100)(10**15, 3, 2.0)["mfu"] == pytest.approx(500 / 989)
    names = ("NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA H200", "NVIDIA GeForce GTX 1080")
    assert [flops.peak_of(name) for name in names] == [756e12, 312e12, 989e12, None]


# ---- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_out_of_memory_goes_on_in_smaller_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = build_export(tmp_path / "export", clips=3, size=(64, 48), frames=(12, 12), validation=3)
    recipe = dataclasses.replace(RECIPE, phases=(dataclasses.replace(IMAGE, objective="flow"),))
    real, calls = unet_task.bind_condition, []

    def exhausted(unet: VideoUNet, condition: Condition) -> Callable[..., torch.Tensor]:
        calls.append(unet.training)
        if calls.count(True) == 2:  # the second step
            torch.empty(10**16)
        return real(unet, condition)

    monkeypatch.setattr(unet_task, "bind_condition", exhausted)
    with pytest.raises(OutOfMemory, match=r"phase image: .* accumulate=2 .* checkpoint_levels=\(0,\)"):
        loop.train(recipe, export, tmp_path / "run", MODELS, say=lambda line: None)
    monkeypatch.setattr(unet_task, "bind_condition", real)

    lower = dataclasses.replace(recipe.phases[0], accumulate=2, checkpoint_levels=(0,))
    checkpoint, again = model_blocks.checkpoint, []
    monkeypatch.setattr(model_blocks, "checkpoint", lambda *args, **how: (again.append(1), checkpoint(*args, **how))[1])
    said: list[str] = []
    run = loop.train(dataclasses.replace(recipe, phases=(lower,)), export, tmp_path / "run", MODELS, say=said.append)
    assert "image: goes on from step 1" in said
    # A step of two parts, in each the only level's layers: one down, two in the middle, two up.
    assert len(again) == 2 * 5
    lines = [json.loads(line) for line in (run.folder / "phases" / "image" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [0, 1]
    ratio = [line["tflops_per_second"] / line["samples_per_second"] for line in steps]
    assert ratio == pytest.approx([ratio[0]] * 2)  # FLOPs of a sample: the same however a step is cut
    assert ratio[0] > 0
    assert not any("mfu" in line for line in steps)
    with pytest.raises(UsageError, match="recipe: "):
        loop.train(dataclasses.replace(recipe, seed=1), export, tmp_path / "run", MODELS)
    deeper = dataclasses.replace(lower, checkpoint_levels=(1,))
    with pytest.raises(UsageError, match=r"checkpoint_levels=\(1,\): the network has levels 0 to 0"):
        loop.train(dataclasses.replace(recipe, phases=(deeper,)), export, tmp_path / "other", MODELS)
    assert not (tmp_path / "other").exists()


def test_a_run_computes_on_the_cores_that_are_left_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Threads:
        """One at the second look and two at the third."""

        looks = 0

        def look(self) -> str | None:
            self.looks += 1
            return {2: "1 of 2 threads", 3: "2 of 2 threads"}.get(self.looks)

    steps, validations, said = Threads(), Threads(), list[str]()
    monkeypatch.setattr(loop, "THREADS", steps)
    monkeypatch.setattr(unet_task, "THREADS", validations)
    export = build_export(tmp_path / "export", clips=3, size=(64, 48), frames=(12, 12), validation=3)
    recipe = dataclasses.replace(RECIPE, phases=(dataclasses.replace(IMAGE, steps=3, validate_every=9),))
    loop.train(recipe, export, tmp_path / "run", MODELS, say=said.append)
    assert (steps.looks, validations.looks) == (3, 2)
    assert [line for line in said if "threads" in line] == ["image: 1 of 2 threads"]


@pytest.mark.parametrize("depth", [0, 2])
def test_a_step_that_fails_leaves_no_thread_behind(depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = build_export(tmp_path / "export", clips=3, size=(64, 48), frames=(12, 12), validation=3)
    recipe = dataclasses.replace(RECIPE, phases=(IMAGE,))
    monkeypatch.setattr(loop, "prefetch", lambda make, start, stop, _: prefetch(make, start, stop, depth))
    kept: list[Batches] = []
    init = Batches.__init__
    monkeypatch.setattr(
        Batches, "__init__", lambda self, *args, **how: (kept.append(self), init(self, *args, **how))[1]
    )

    def fail(*_: object) -> dict[str, float]:
        assert _threads()  # some read
        raise RuntimeError("a step that fails")

    monkeypatch.setattr(loop, "train_step", fail)
    with pytest.raises(RuntimeError, match="a step that fails"):
        loop.train(recipe, export, tmp_path / "run", MODELS, device="cpu", say=lambda line: None)
    deadline = time.monotonic() + 10
    while _threads() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept  # so that no thread ends only because its pool was collected
    assert not _threads()


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("read", "prefetch"))]


def test_a_recipe_whose_weights_are_not_given_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"svd lacks weights to start from \(--from\), a VAE \(--vae\), a text encoder"
    ):
        loop.train(load_recipe("svd"), tmp_path / "none", tmp_path / "run", Models())
    assert not list(tmp_path.iterdir())
