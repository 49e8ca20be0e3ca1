"""Pictures, monitors and TensorBoard never end a run; what a run cannot do without ends it with file, reason and remedy."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from shards.check.readable import unreadable
from tests.disk_full import with_no_room
from trainer import loop, pretrain
from trainer.config.schema import Config
from trainer.errors import TrainingError, UserError
from trainer.health.steps import collapse_readings
from trainer.probe import projection
from trainer.run import weights
from trainer.state.disk import written
from trainer.tracking import showing
from trainer.tracking.board import Board
from trainer.tracking.tracker import Tracker

RNG = np.random.default_rng(0)
GOOD = RNG.normal(size=(20, 4)).astype(np.float32)


def with_value(value: float) -> np.ndarray:
    x = GOOD.copy()
    x[3, 1] = value
    return x


UNFIT = {
    "not finite": (with_value(np.nan), "1 of 20 samples have features that are not finite"),
    "infinite": (with_value(-np.inf), "1 of 20 samples"),
    "too large": (with_value(1e30), r"features up to 1.0e\+30: the encoder diverged"),
    "too few": (GOOD[:5], "5 samples, at least 12 are needed"),
    "collapsed": (np.full((20, 4), 3.0, np.float32), "the encoder collapsed"),
    "collapsed but for rounding": (np.full((20, 4), 3.0) + RNG.uniform(0, 1e-7, (20, 4)), "the encoder collapsed"),
    "two points": (np.repeat(GOOD[:2], 10, 0), "2 different features among 20 samples"),
    "one number": (GOOD[:, :1], "at least 2 numbers a sample"),
}


class Recorder:
    """Stands in for a library's embedding or decomposition, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    def __call__(self, *_: Any, **__: Any) -> Recorder:
        return self

    def fit_transform(self, x_ND: np.ndarray) -> np.ndarray:
        self.asked.append(x_ND)
        return x_ND[:, :2]

    def svdvals(self, x_BD: torch.Tensor) -> torch.Tensor:
        self.asked.append(x_BD.numpy())
        return torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize("name", UNFIT)
def test_what_has_no_picture_never_reaches_the_embedding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, (x_ND, words) = Recorder(), UNFIT[name]
    monkeypatch.setattr("sklearn.manifold.TSNE", recorder)
    with pytest.raises(UserError, match=words):
        projection.project(x_ND)
    assert not recorder.asked
    assert projection.project(GOOD).shape == (20, 2)
    assert len(recorder.asked) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_monitors_read_finite_features_only(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(torch.linalg, "svdvals", recorder.svdvals)
    bad, one = torch.from_numpy(with_value(value)), torch.from_numpy(GOOD[:1])
    assert collapse_readings({"image": bad, "genes": one}) == {}
    assert not recorder.asked
    assert set(collapse_readings({"image": bad, "genes": torch.from_numpy(GOOD)})) == {
        "feature_std/genes",
        "effective_rank/genes",
    }
    assert len(recorder.asked) == 1


def test_features_that_are_all_alike_are_an_answer_of_a_probe() -> None:
    assert unreadable(np.ones((20, 4)), distinct=1) is None
    assert unreadable(np.ones((20, 4))) is not None


# ---------------------------------------------------------------------------------------------------------- a skipped step


def train_with(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> tuple[list[dict[str, Any]], list[int]]:
    """The loop over steps of these losses, a look at each; returns the logged rows and the steps that were drawn."""
    features = {"image": torch.full((4, 3), math.nan)}
    logged: list[dict[str, Any]] = []
    drawn: list[int] = []
    values, told = iter(losses), []
    monkeypatch.setattr(loop, "agree_sum", lambda votes, device: votes)
    monkeypatch.setattr(loop, "gather", lambda x: x)

    class Engine:
        config = SimpleNamespace(global_batch=4, health=SimpleNamespace(monitor_every=1), precision="fp32")
        optim = Config(method_name="x").optim
        grad_norm = 1.0

        def train(self) -> None: ...

        def accumulate(self, last: bool) -> None: ...

        def forward(self, batch: Any) -> Any:
            self.loss = torch.tensor(next(values))
            finite = bool(self.loss.isfinite())
            found = {"image": torch.randn(4, 3, generator=torch.Generator().manual_seed(0))} if finite else features
            return SimpleNamespace(total=self.loss, losses={"a": self.loss}, diagnostics={}, features=found, enqueue={})

        def backward(self, loss: Any) -> None: ...

        def readings(self) -> dict[str, int]:
            return {}

        def at(self, done: float) -> None:
            told.append(done)

        def update(self, lr: float, rows: Any) -> bool:
            return bool(self.loss.isfinite())

    micro = SimpleNamespace(micro=[None], bad=[], keys_hash="k", epoch=0, step=0)
    stage_run = loop.StageRun(
        stage=SimpleNamespace(name="s", select=None),  # type: ignore[arg-type]
        steps=len(losses), epoch_steps=1, evaluate_every=1, save_every=100,
        loader=SimpleNamespace(iterate=lambda *_: iter([micro] * len(losses))),
        keys=lambda *_: ["x"], validation=None, evaluate=lambda *_: {}, chance={},
        save=lambda: None, keep_best=lambda: None, show=lambda: drawn.append(len(logged)),
        done=lambda updates: updates / len(losses),
    )  # fmt: skip
    runtime = SimpleNamespace(device=torch.device("cpu"), rank=0, say=lambda text: None)
    tracker = SimpleNamespace(step=logged.append)
    loop.train(
        stage_run,
        Engine(),
        runtime,
        loop.Progress(),
        tracker,
        SimpleNamespace(asked=None),
        loop.BadSteps(5),  # type: ignore[arg-type]
    )
    # What follows the progress (a teacher's momentum) moves with the updates that were made, and is told once more at the end.
    made = [math.isfinite(loss) for loss in losses]
    assert told == [sum(made[:i]) / len(losses) for i in range(len(losses) + 1)]
    return logged, drawn


def test_a_step_that_is_not_finite_is_skipped_without_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, drawn = train_with(monkeypatch, [1.0, math.nan, 0.5, math.inf])
    assert [r["skipped"] for r in rows] == [False, True, False, True]
    assert ["effective_rank/image" in r for r in rows] == [True, False, True, False]
    assert drawn == [1, 3]


# ------------------------------------------------------------------------------------------------------------- TensorBoard


def test_tensorboard_on_a_full_disk_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    def curves() -> None:
        board = Board(tmp_path / "tensorboard", 0, lambda text: print(text, flush=True))
        for step in range(400):
            board.scalars({"loss": 1.0 / (step + 1)}, step)
            board.image("picture", np.zeros((8, 8, 3), np.uint8), step)
        board.close()

    said = with_no_room(curves)
    assert said.endswith("done"), said
    assert said.count("TensorBoard: ") == 1
    assert f"{tmp_path / 'tensorboard'} cannot be written (File too large)" in said
    assert "metrics.jsonl goes on" in said
    assert "log.tensorboard=false" in said
    assert "Traceback" not in said


def test_tensorboard_without_a_folder_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in its place")
    said: list[str] = []
    board = Board(tmp_path / "tensorboard", 0, said.append)
    board.scalars({"loss": 1.0}, 1)
    board.image("x", np.zeros((2, 2, 3), np.uint8), 1)
    board.close()
    assert len(said) == 1
    assert "File exists" in said[0] or "Not a directory" in said[0]


def test_tensorboard_that_can_be_written_is(tmp_path: Path) -> None:
    said: list[str] = []
    board = Board(tmp_path, 0, said.append)
    for step in (1, 2):
        board.scalars({"s/loss": 1.0 / step, "s/val/loss/a": 0.25, "s/skipped": False}, step)
    board.close()
    assert not said
    events = EventAccumulator(str(tmp_path)).Reload()
    read = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    twice = {"s/val/loss/a": 0.25, "s/skipped": 0.0}
    assert read == {"s/loss": [(1, 1.0), (2, 0.5)], **{tag: [(1, v), (2, v)] for tag, v in twice.items()}}


# ----------------------------------------------------------------------------------------------- what a run cannot do without


def test_the_log_of_steps_on_a_full_disk(tmp_path: Path) -> None:
    def steps() -> None:
        runtime: Any = SimpleNamespace(main=True, say=print)
        tracker = Tracker(tmp_path, runtime, 0, 100, 1000, tensorboard=False)
        for step in range(1, 100):
            tracker.step({"step": step, "stage": "s", "loss": 0.1, "skipped": False, "lr": 1.0, "samples_per_s": 1.0})

    said = with_no_room(steps, limit=1000)
    assert "raised TrainingError: the log of steps could not be written to" in said
    assert "metrics.jsonl: File too large; " in said
    assert "it goes on from the last checkpoint" in said


def test_weights_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = SimpleNamespace(weights=lambda: {"w": torch.zeros(1000)}, method=torch.nn.Linear(1, 1))
    monkeypatch.setattr(weights, "from_main", lambda make: make())
    said = with_no_room(lambda: weights.write_weights(tmp_path / "best.safetensors", engine, None))  # type: ignore[arg-type]
    assert (
        f"raised TrainingError: weights could not be written to {tmp_path / 'best.safetensors'}: File too large" in said
    )
    assert not list(tmp_path.iterdir()), "nor is half a file left"


@pytest.mark.parametrize(
    ("name", "fix"), [("/dev/full", "free space on that disk"), ("/proc/version", "right to write")]
)
def test_reasons_and_remedies(name: str, fix: str) -> None:
    import os

    def write() -> None:
        fd = os.open(name, os.O_WRONLY)
        os.write(fd, b"x")

    try:
        with written(Path(name), "something"):
            write()
    except TrainingError as e:
        assert "something could not be written to " + name in str(e)  # noqa: PT017
        assert fix in str(e) or os.geteuid() == 0  # noqa: PT017
        assert getattr(e, "everywhere", False)  # noqa: PT017
    else:
        pytest.fail("nothing was refused")


# ---------------------------------------------------------------------------------------------------- pictures of a run


class Drawing:
    """An engine whose method draws as it is told."""

    stage = "s"

    def __init__(self, pictures: Any) -> None:
        self.method, self.modes = SimpleNamespace(pictures=pictures), list[bool]()

    def train(self, mode: bool = True) -> None:
        self.modes.append(mode)


def test_a_picture_that_cannot_be_drawn_is_said_once(capsys: pytest.CaptureFixture) -> None:
    def fail(probe: Any) -> Any:
        raise ValueError("no head for figures")

    shown: list[str] = []
    tracker: Any = SimpleNamespace(main=True, undrawn=False, images=lambda name, *_: shown.append(name))
    engine: Any = Drawing(fail)
    showing.show(engine, None, tracker, 3)
    showing.show(engine, None, tracker, 4)
    out = capsys.readouterr().out
    assert out.count("the training goes on without them: ValueError: no head for figures") == 1
    assert engine.modes == [False, True, False, True], "training mode again, whatever happened"
    showing.show(Drawing(lambda probe: {"a": 1}), None, tracker, 5)  # type: ignore[arg-type]
    assert shown == ["s/a"]


def test_a_projection_that_fails_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    owner: Any = SimpleNamespace(config=None, data=None, out=tmp_path, runtime=SimpleNamespace(say=said.append))
    for error, words in (
        (UserError("no projection: the encoder collapsed"), "no projection: the encoder collapsed"),
        (RuntimeError("odd"), "RuntimeError: odd"),
        (OSError(28, "No space left on device", "x.png"), "x.png cannot be written (No space left on device)"),
    ):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(pretrain, "projection", fail)
        pretrain.show_projection(owner, SimpleNamespace(), 1)  # type: ignore[arg-type]
        assert said.pop() == f"projection.png was not drawn: {words}"
    assert not list(tmp_path.iterdir())
