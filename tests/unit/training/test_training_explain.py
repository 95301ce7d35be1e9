"""Grad-CAM against the figures it must give, on models whose evidence is known; and the command on a run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.unit.training.finished_run import png, write_run

pytestmark = [
    pytest.mark.slow,  # TensorFlow takes seconds to import
    # Keras 3.15 saves TensorFlow 2.21's variables in a way that NumPy 2 will one day refuse; theirs to mend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

NAMES = ("red", "blue")
HEAD = np.array([[3.0, -3.0], [-3.0, 3.0]])  # red speaks for class 0, blue for class 1
Rows = NDArray[np.uint8]


def colour_model(head: NDArray[np.float64] = HEAD) -> Any:
    """Two maps, the red and the blue of each 2 × 2 pixels; their means decide."""
    import keras  # noqa: PLC0415

    layers = keras.layers
    pixels = keras.Input((8, 8, 3))
    conv = layers.Conv2D(2, 2, strides=2, use_bias=False, name="colours")
    mean = layers.GlobalAveragePooling2D()(layers.ReLU(name="active")(conv(layers.Rescaling(1 / 255)(pixels))))
    output = layers.Dense(2, activation="softmax", name="answer")
    model = keras.Model(pixels, output(mean), name="colours_model")
    kernel = np.zeros((2, 2, 3, 2))
    kernel[:, :, 0, 0] = kernel[:, :, 2, 1] = 0.25
    conv.set_weights([kernel])
    output.set_weights([head, np.zeros(2)])
    return model


def patches() -> Rows:
    """One picture, red in the upper left corner and blue in the lower right one."""
    row = np.zeros((1, 8, 8, 3), np.uint8)
    row[0, :2, :2, 0] = 255
    row[0, 4:8, 6:8, 2] = 200
    return row


def heat(model: Any, of_class: int, layer: str = "active", rows: Rows | None = None) -> NDArray[np.float32]:
    from training.grad_cam import grad_cam, named_layer  # noqa: PLC0415

    pictures = patches() if rows is None else rows
    return grad_cam(model, pictures, np.full(len(pictures), of_class), named_layer(model, layer))


def red_map() -> NDArray[np.float32]:
    expected = np.zeros((4, 4), np.float32)
    expected[0, 0] = 1
    return expected


def blue_map() -> NDArray[np.float32]:
    expected = np.zeros((4, 4), np.float32)
    expected[2:, 3] = 1
    return expected


def test_heat_lies_where_the_evidence_is() -> None:
    np.testing.assert_allclose(heat(colour_model(), 0)[0], red_map(), atol=1e-6)
    np.testing.assert_allclose(heat(colour_model(), 1)[0], blue_map(), atol=1e-6)


def test_heat_of_averaged_maps_is_the_class_activation_map() -> None:
    # Selvaraju et al. 2017, section 3.1: with global average pooling, Grad-CAM is CAM, ReLU(Σ w A).
    head = np.array([[1.5, -1.0], [0.4, 2.0]])
    rows = np.random.default_rng(2).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    pooled = rows.reshape(5, 4, 2, 4, 2, 3).mean(axis=(2, 4)) / 255
    cam = np.maximum(pooled[..., 0] * head[0, 1] + pooled[..., 2] * head[1, 1], 0)
    expected = cam / cam.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(heat(colour_model(head), 1, rows=rows), expected, atol=1e-5)


def test_a_sure_softmax_still_has_its_heat() -> None:
    np.testing.assert_allclose(heat(colour_model(HEAD * 1000), 1)[0], blue_map(), atol=1e-6)


def test_frozen_and_nested_models_give_the_same_heat() -> None:
    import keras  # noqa: PLC0415

    inner = colour_model()
    inner.trainable = False
    pixels = keras.Input((8, 8, 3))
    nested = keras.Sequential([pixels, inner])
    np.testing.assert_allclose(heat(nested, 1)[0], blue_map(), atol=1e-6)


def test_no_evidence_is_no_heat_rather_than_no_number() -> None:
    dark = np.zeros((1, 8, 8, 3), np.uint8)
    assert (heat(colour_model(), 0, rows=dark) == 0).all()


def test_watching_leaves_the_model_as_it_was() -> None:
    model = colour_model()
    before = model.predict_on_batch(patches())
    heat(model, 0)
    assert all("call" not in layer.__dict__ for layer in model.layers)
    assert (model.predict_on_batch(patches()) == before).all()


def test_the_last_convolution_is_taken_with_its_activation() -> None:
    from training.grad_cam import last_maps  # noqa: PLC0415

    assert last_maps(colour_model(), patches()).name == "active"


def test_a_convolution_of_one_pixel_is_passed_over() -> None:
    import keras  # noqa: PLC0415

    from training.grad_cam import last_maps  # noqa: PLC0415

    layers = keras.layers
    kinds = [layers.Conv2D(2, 3, name="roomy"), layers.MaxPooling2D(), layers.Conv2D(2, 3, name="a_pixel")]
    model = keras.Sequential([keras.Input((8, 8, 3)), *kinds, layers.Flatten(), layers.Dense(2, activation="softmax")])
    assert last_maps(model, patches()).name == "roomy"


def test_feature_maps_are_what_the_layers_give() -> None:
    from training.grad_cam import feature_maps  # noqa: PLC0415

    maps = feature_maps(colour_model(), patches())
    assert list(maps) == ["001-colours"]
    np.testing.assert_allclose(maps["001-colours"][0, ..., 0], red_map(), atol=1e-6)
    np.testing.assert_allclose(maps["001-colours"][0, ..., 1], blue_map() * 200 / 255, atol=1e-6)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: `colours`, which finds colours by a convolution, and `flat`, which has none."""
    import keras  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("runs")
    rows = np.concatenate([patches(), patches()[..., ::-1], np.zeros((8, 8, 8, 3), np.uint8)])
    labels = np.array([0] * 9 + [1])
    write_run(folder / "colours", colour_model(), rows, labels, NAMES)
    layers = keras.layers
    flat = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2, activation="softmax")])
    write_run(folder / "flat", flat, rows, labels, NAMES)
    return folder


def test_the_command_draws_the_kept_pictures(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    assert command("explain", "colours", "--runs", str(root)) == 0
    out = root / "colours" / "1" / "figures" / "explain"
    files = {str(file.relative_to(out)) for file in out.rglob("*.png")}
    assert files == {"samples.png", "predictions.png", "grad_cam.png", "features/001-colours.png"}
    for file in files:
        with Image.open(out / file) as drawn:
            assert len(np.unique(np.asarray(drawn.convert("L")))) > 5
    shown = capsys.readouterr().out
    assert "sample 0" in shown
    assert "(is red)" in shown  # its picture is mostly blue
    assert "4 figures" in shown


def test_the_command_takes_a_persons_own_pictures(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine.png"
    own.write_bytes(png(np.full((30, 20, 3), [0, 0, 250], np.uint8)))
    out = tmp_path / "out"
    arguments = ["--images", str(own), "--layer", "colours", "--out", str(out), "--runs", str(root)]
    assert command("explain", "colours", *arguments) == 0
    assert capsys.readouterr().out.split()[:2] == ["mine.png", "blue"]
    assert (out / "grad_cam.png").is_file()


def test_a_model_without_convolutions_has_its_predictions_drawn(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    assert command("explain", "flat", "--out", str(tmp_path), "--runs", str(root)) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"samples.png", "predictions.png"}
    assert "no Grad-CAM and no feature maps, because the model has no convolution" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "arguments", "words"),
    [
        ("colours", ["--layer", "nose"], "--layer: expected a layer with maps, such as the convolutions (colours)"),
        ("colours", ["--layer", "answer"], "--layer: expected a layer that gives maps [n, height, width, channels]"),
        ("flat", ["--layer", "nose"], "(none, as the model has no convolution)"),
        ("colours", ["--images", "no-such.png"], "error: --images: [Errno 2]"),
        ("colours", ["--images", "pyproject.toml"], "error: --images: expected a JPEG, PNG,"),
    ],
)
def test_what_cannot_be_explained_is_one_line_and_writes_nothing(
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    root: Path,
    tmp_path: Path,
    run: str,
    arguments: list[str],
    words: str,
) -> None:
    assert command("explain", run, *arguments, "--out", str(tmp_path / "out"), "--runs", str(root)) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert command("explain", "flat", "--out", str(tmp_path / "file" / "out"), "--runs", str(root)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: cannot write to {tmp_path}/file/out ([Errno 20] Not a directory")
    assert shown.endswith("; choose another folder with --out\n")
