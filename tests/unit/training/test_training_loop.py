"""The loop by itself: what ends it, what it tells the user, checkpoints on a full disk, several devices."""

import errno
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.images import ImageSpec
from training.errors import Diverged, TrainingError
from training.recipe import Recipe, resolve
from training.settings import TrainSettings

pytestmark = [
    pytest.mark.slow,  # TensorFlow takes seconds to import
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

ROOT = Path(__file__).resolve().parents[3]


def recipe(**given: Any) -> Recipe:
    given = {"epochs": 3, "batch_size": 16, "augment": "none", **given}
    return resolve(TrainSettings(**given), {}, precision="float32", image=ImageSpec(4, 4, 1))


def build() -> Any:
    import keras  # noqa: PLC0415

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dropout(0.1)]
    return keras.Sequential([keras.Input((4, 4, 1)), *layers, keras.layers.Dense(2, activation="softmax")])


@pytest.fixture(scope="module")
def split() -> Any:
    from training.data.loading import Split  # noqa: PLC0415

    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 100)
    return Split(
        (random.integers(0, 100, (100, 4, 4, 1)) + 100 * labels[:, None, None, None]).astype(np.uint8), labels, ()
    )


def fit(split: Any, tmp_path: Path, decided: Recipe, model: Any = build, **more: Any) -> Any:
    from training import loop, pipeline  # noqa: PLC0415

    feed = pipeline.Feed(split, 2, batch_size=decided.batch_size, seed=1)
    places = loop.Places(tmp_path / ".checkpoint", tmp_path / "tensorboard", more.pop("checkpoint_minutes", 10))
    return loop.fit(model, feed, pipeline.plain_batches(split, 2, batch_size=50), decided, places, **more)


class Stop(Exception):
    """Ends a training from outside."""


def stop_after(epochs: int) -> Any:
    def on_epoch(line: Any) -> None:
        if line.epoch == epochs:
            raise Stop

    return on_epoch


@pytest.mark.parametrize(("optimizer", "schedule"), [("sgd", "plateau"), ("adamw", "one-cycle")])
def test_goes_on_to_the_same_weights(split: Any, tmp_path: Path, optimizer: str, schedule: str) -> None:
    decided = recipe(optimizer=optimizer, schedule=schedule, ema=0.5, lookahead=2)
    whole = fit(split, tmp_path / "whole", decided)
    with pytest.raises(Stop):
        fit(split, tmp_path / "parts", decided, on_epoch=stop_after(2))
    parts = fit(split, tmp_path / "parts", decided)
    assert (whole.resumed_at, parts.resumed_at) == (0, 14)
    assert all(np.array_equal(one, other) for one, other in zip(whole.weights, parts.weights, strict=True))
    assert [line.val_loss for line in whole.history] == [line.val_loss for line in parts.history]
    again = fit(split, tmp_path / "parts", decided)  # of a finished training, nothing is left to do
    assert all(np.array_equal(one, other) for one, other in zip(whole.weights, again.weights, strict=True))


def test_goes_on_within_an_epoch(
    split: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.checkpoints import Store  # noqa: PLC0415

    decided = recipe(ema=0.5)
    whole = fit(split, tmp_path / "whole", decided)
    save = Store.save

    def stopping(self: Any, model: Any, progress: Any, *, best: bool) -> None:
        save(self, model, progress, best=best)
        if progress.step == 10:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(Store, "save", stopping)
        with pytest.raises(Stop):
            fit(split, tmp_path / "parts", decided, checkpoint_minutes=1e-9)
    parts = fit(split, tmp_path / "parts", decided)
    assert parts.resumed_at == 10
    assert "after epoch 1 of 3 and 3 of 7 steps" in capsys.readouterr().out
    assert all(np.array_equal(one, other) for one, other in zip(whole.weights, parts.weights, strict=True))
    assert [line.loss for line in parts.history] == pytest.approx([line.loss for line in whole.history], rel=1e-5)


def test_average_and_last_weights_differ_and_are_what_validation_saw(split: Any, tmp_path: Path) -> None:
    plain, averaged = (fit(split, tmp_path / str(ema), recipe(ema=ema)) for ema in (0, 0.9))
    assert not np.allclose(plain.weights[0], averaged.weights[0])
    model = build()
    model.set_weights(list(averaged.weights))
    probabilities = model.predict(split.rows, verbose=0)
    loss = -np.log(probabilities[np.arange(100), split.labels]).mean()
    assert averaged.history[-1].val_loss == pytest.approx(loss, rel=1e-4)
    assert plain.history[-1].val_loss != pytest.approx(loss, rel=1e-3)


def test_best_epoch_is_kept_across_a_stop(split: Any, tmp_path: Path) -> None:
    # The rate is far too high: accuracy goes up and down.
    decided = recipe(keep="best", epochs=6, optimizer="sgd", learning_rate=20.0, schedule="constant", patience=0)
    whole = fit(split, tmp_path / "whole", decided)
    best = max(whole.history, key=lambda line: (line.val_accuracy, -line.val_loss))
    assert whole.best_epoch == best.epoch
    for epochs in (2, 5):
        with pytest.raises(Stop):
            fit(split, tmp_path / "parts", decided, on_epoch=stop_after(epochs))
    parts = fit(split, tmp_path / "parts", decided)
    assert parts.best_epoch == best.epoch
    assert all(np.array_equal(one, other) for one, other in zip(whole.weights, parts.weights, strict=True))
    assert [file.name for file in (tmp_path / "parts" / ".checkpoint").glob("best-*")] == [f"best-{best.epoch}.npz"]


def test_patience_ends_training(split: Any, tmp_path: Path) -> None:
    fitted = fit(
        split, tmp_path, recipe(epochs=50, learning_rate=1e-12, schedule="plateau", patience=2, weight_decay=0)
    )
    assert len(fitted.history) < 20


@pytest.mark.parametrize("steps_between_looks", [1, 1000])
def test_loss_that_is_no_number_ends_training(
    split: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_between_looks: int
) -> None:
    from training import loop  # noqa: PLC0415

    monkeypatch.setattr(loop, "_CHECKED_STEPS", steps_between_looks)

    def broken() -> Any:
        model = build()
        model.layers[-1].kernel.assign(np.full((16, 2), np.nan))
        return model

    with pytest.raises(Diverged, match=r"finite loss, received nan in epoch 1; lower --learning-rate \(it was 0.001\)"):
        fit(split, tmp_path, recipe(), broken)
    assert not (tmp_path / ".checkpoint").exists()


@pytest.mark.parametrize(("batch_size", "advice"), [(16, "try --batch-size 8"), (1, "smaller by --image-size")])
def test_batch_that_does_not_fit_into_memory(split: Any, tmp_path: Path, batch_size: int, advice: str) -> None:
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    class Greedy(keras.Sequential):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.raises(TrainingError, match=rf"a batch of {batch_size} rows .*; .*{advice}"):
        fit(split, tmp_path, recipe(batch_size=batch_size), lambda: Greedy(build().layers))


def test_full_disk_is_not_taken_for_too_little_memory(split: Any, tmp_path: Path) -> None:
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    class Full(keras.Sequential):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            raise tf.errors.ResourceExhaustedError(None, None, "events.v2; No space left on device")

    with pytest.raises(TrainingError, match=rf"cannot write in {tmp_path}, the disk is full; make room") as raised:
        fit(split, tmp_path, recipe(), lambda: Full(build().layers))
    assert "--batch-size" not in str(raised.value)


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """Writing more into a file fails, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_full_disk_leaves_the_checkpoint_before(split: Any, tmp_path: Path) -> None:
    decided = recipe()
    whole = fit(split, tmp_path / "whole", decided)
    with pytest.raises(Stop):
        fit(split, tmp_path / "parts", decided, on_epoch=stop_after(1))
    state = (tmp_path / "parts" / ".checkpoint" / "state.npz").read_bytes()
    with files_up_to(1000), pytest.raises(TrainingError, match=r"cannot write the checkpoint .*File too large.*intact"):
        fit(split, tmp_path / "parts", replace(decided))
    assert [file.name for file in (tmp_path / "parts" / ".checkpoint").iterdir()] == ["state.npz"]
    assert (tmp_path / "parts" / ".checkpoint" / "state.npz").read_bytes() == state
    parts = fit(split, tmp_path / "parts", decided)
    assert all(np.array_equal(one, other) for one, other in zip(whole.weights, parts.weights, strict=True))


def test_no_space_is_told_by_the_systems_words(split: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **arrays: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    words = r"state.npz \(No space left on device\); it needs 0.0 MB; make room and run the same command again"
    with pytest.raises(TrainingError, match=words):  # and there is no checkpoint before that could be intact
        fit(split, tmp_path, recipe())


def test_damaged_checkpoint_is_told(split: Any, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(split, tmp_path, recipe(), on_epoch=stop_after(1))
    (tmp_path / ".checkpoint" / "state.npz").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"cannot continue from .* start over by --fresh"):
        fit(split, tmp_path, recipe())


def test_two_devices_share_every_batch(tmp_path: Path) -> None:
    code = (
        "import sys, tensorflow as tf;"
        "cpus = tf.config.list_physical_devices('CPU');"
        "tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2);"
        "from training.cli import run; run(sys.argv[1:])"
    )
    settings = ["--epochs", "2", "--ema", "0.5", "--devices", "cpu:0,1", "--runs", str(tmp_path), "--batch-size", "16"]
    command = [sys.executable, "-c", code, "train", *settings, "--learning-rate", "0.003"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "device /device:CPU:0, /device:CPU:1: each takes its share of every batch" in finished.stdout
    run = json.loads((tmp_path / "digits" / "1" / "run.json").read_text())
    assert (run["settings"]["devices"], run["timing"]["input_share"]) == ("cpu:0,1", None)
    assert json.loads((tmp_path / "digits" / "1" / "metrics.json").read_text())["test"]["accuracy"] > 0.3


@pytest.mark.parametrize(
    ("spec", "words"),
    [("gpu:9", r"different numbers of the devices there are .*; received 'gpu:9'"), ("cpu:0,0", "received 'cpu:0,0'")],
)
def test_devices_that_are_not_there(spec: str, words: str) -> None:
    from training import devices  # noqa: PLC0415

    with pytest.raises(TrainingError, match=words):
        devices.scope(spec)
