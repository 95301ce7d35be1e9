"""The registry: every architecture learns, survives saving and becomes ONNX; what it refuses; and the CNN's shape.

Keras takes seconds to import, so it is imported when a test runs.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.images import ImageSpec
from training import models
from training.errors import TrainingError

# Keras 3.15 saves TensorFlow 2.21's variables in a way that NumPy 2 will one day refuse; theirs to mend.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"filters": (8, 16), "dense_units": (32,)},
    "fast": {"widths": (16, 16), "stem_filters": 8},
    "fast, residual": {"widths": (16, 16), "stem_filters": 8, "convs": 3},
    "fast, of unequal depths": {"widths": (16, 16), "stem_filters": 8, "convs": (3, 1)},
    "resnet": {"widths": (8, 16), "blocks": 1},
    "binary": {"filters": (8, 8, 16)},
    "mlp": {"units": (32,)},
    "transfer": {"backbone": "MobileNet", "weights": "none"},
}


@dataclass(frozen=True)
class Trained:
    """What two epochs on some digits made of an architecture."""

    name: str
    model: Any
    rows: NDArray[np.uint8]
    losses: list[float]


@cache
def learnt(name: str) -> Trained:
    """Trains an architecture once, whatever the order of the tests."""
    import keras  # noqa: PLC0415 (slow to import)
    from sklearn.datasets import load_digits  # noqa: PLC0415

    from training import layers  # noqa: PLC0415

    digits, classes = load_digits(), 2 if name == "binary" else 10
    chosen = np.flatnonzero(digits.target < classes)[: 64 if name == "transfer" else 320]
    rows = (digits.images[chosen, :, :, None] * 15.9).astype(np.uint8)
    if name == "transfer":  # the smallest picture that backbones take
        rows = rows.repeat(4, axis=1).repeat(4, axis=2)
    architecture = models.get(name.partition(",")[0])
    settings, image = architecture.settings(**SMALL[name]), ImageSpec(*rows.shape[1:])
    keras.utils.set_random_seed(3)
    with layers.training_build():
        learner = architecture.build(settings, image, classes)
    architecture.prepare(learner, rows)
    learner.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    labels, callbacks = digits.target[chosen], [*architecture.callbacks(settings)]
    history = learner.fit(rows, labels, batch_size=32, epochs=2, verbose=0, callbacks=callbacks)
    model = architecture.build(settings, image, classes)
    model.set_weights(learner.get_weights())
    return Trained(name, model, rows, history.history["loss"])


@pytest.fixture(params=sorted(SMALL))
def trained(request: pytest.FixtureRequest) -> Trained:
    return learnt(request.param)


@pytest.mark.slow
def test_every_model_learns_and_gives_probabilities(trained: Trained) -> None:
    assert trained.losses[1] < trained.losses[0]
    assert trained.model.output_names == ["probabilities"]
    assert type(trained.model.layers[1]).__name__ == "Rescaling"
    assert trained.model.layers[1].scale == 1 / 255
    answers = np.asarray(trained.model(trained.rows[:9], training=False))
    assert answers.dtype == np.float32
    assert answers.sum(axis=1) == pytest.approx(1, abs=1e-5)
    # It tells pictures apart, normalised by the batch: a backbone's averages need hundreds of steps.
    assert np.ptp(np.asarray(trained.model(trained.rows[:9], training=True)), axis=0).max() > 0.01


@pytest.mark.slow
def test_every_model_survives_saving_without_our_code(trained: Trained, tmp_path: Path) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    trained.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert not [
        layer for layer in loaded._flatten_layers() if not type(layer).__module__.startswith(("keras.", "keras.src."))
    ]
    rows = trained.rows[:9]
    np.testing.assert_allclose(
        np.asarray(loaded(rows, training=False)), np.asarray(trained.model(rows, training=False)), atol=1e-6
    )


@pytest.mark.slow
def test_every_model_becomes_onnx(trained: Trained) -> None:
    import onnxruntime  # noqa: PLC0415

    from export import convert  # noqa: PLC0415 (imports onnx)
    from export.graph import pixel_chain  # noqa: PLC0415

    graph = convert.to_onnx(trained.model, opset=17)
    chain = pixel_chain(graph)
    assert chain is not None
    assert chain.scale == pytest.approx(1 / 255)
    assert chain.offset == 0
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {"image": trained.rows[:64]})
    np.testing.assert_allclose(answers, np.asarray(trained.model(trained.rows[:64], training=False)), atol=1e-4)


@pytest.fixture
def cnn() -> Any:
    return models.get("cnn")


def build(name: str, image: ImageSpec, classes: int, **settings: Any) -> Any:
    architecture = models.get(name)
    return architecture.build(architecture.settings(**settings), image, classes)


def test_every_model_is_tried_here() -> None:
    assert {name.partition(",")[0] for name in SMALL} == set(models.MODELS)


def test_unknown_model() -> None:
    expected = "--model: expected one of binary, cnn, fast, mlp, resnet, transfer, or your own as module:function"
    for name in ("resnet9000", "module:", ":build", "a b:build", "/etc/passwd:x"):
        with pytest.raises(TrainingError) as caught:
            models.get(name)
        assert str(caught.value) == f"{expected}; received '{name}'"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "smallest"),
    [("fast", (2, 40), "3x3"), ("resnet", (40, 3), "4x4"), ("binary", (7, 7), "8x8")],
)
def test_pictures_that_are_too_small(name: str, size: tuple[int, int], smallest: str) -> None:
    with pytest.raises(TrainingError, match=f"at least {smallest} pixels, received {size[0]}x{size[1]}"):
        build(name, ImageSpec(*size, 1), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("fast", ImageSpec(3, 3, 1)),
        ("fast", ImageSpec(100, 71, 3)),
        ("resnet", ImageSpec(4, 5, 1)),
        ("resnet", ImageSpec(150, 128, 3)),
        ("binary", ImageSpec(8, 9, 1)),
        ("mlp", ImageSpec(2, 3, 3)),
    ],
)
def test_any_larger_size_channels_and_number_of_classes(name: str, image: ImageSpec) -> None:
    classes = 2 if name == "binary" else 1000
    model = build(name, image, classes, **SMALL[name])
    architecture = models.get(name)
    architecture.prepare(model, np.random.default_rng(0).integers(0, 256, (3, *image.shape), dtype=np.uint8))
    assert np.asarray(model(np.zeros((1, *image.shape)))).shape == (1, classes)


@pytest.mark.slow
def test_binary_answers_both_classes_of_one_sigmoid_and_takes_no_third() -> None:
    model = build("binary", ImageSpec(16, 16, 3), 2)
    last = model.get_layer("second")
    assert (last.units, last.activation.__name__) == (1, "sigmoid")
    dense = [layer.units for layer in model.layers if type(layer).__name__ == "Dense"]
    convolutions = [layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert (convolutions, dense) == ([32, 64, 128], [128, 64, 1])
    with pytest.raises(TrainingError, match="expected data of 2 classes, received 3; choose another model"):
        build("binary", ImageSpec(16, 16, 3), 3)


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "parameters"), [(3, 0.27e6), (5, 0.46e6), (9, 0.85e6)])
def test_resnet_has_the_published_number_of_parameters(blocks: int, parameters: float) -> None:
    model = build("resnet", ImageSpec(32, 32, 3), 10, blocks=blocks)
    assert model.count_params() == pytest.approx(parameters, rel=0.03)  # table 6 of the paper, to two digits
    convolutions = sum(type(layer).__name__ == "Conv2D" and layer.kernel_size == (3, 3) for layer in model.layers)
    assert convolutions + 1 == 6 * blocks + 2


@pytest.mark.slow
def test_fast_whitens_patches_and_begins_as_an_identity() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 34, 34, 3)).astype(float)
    smooth = (
        noise[:, 2:, 2:] + 2 * noise[:, 1:-1, 1:-1] + noise[:, :-2, :-2] + noise.mean(axis=3)[:, 2:, :-2, None]
    ) / 5
    smooth = smooth.astype(np.uint8)
    model = build("fast", ImageSpec(32, 32, 3), 10)
    models.get("fast").prepare(model, smooth)
    stem = model.get_layer("stem")
    assert not stem.trainable
    answers = np.asarray(stem(smooth / np.float32(255)))[:, ::2, ::2].reshape(-1, 24)
    np.testing.assert_allclose(answers[:, :12], -answers[:, 12:], atol=1e-3)
    patterns = answers[:, :12]
    np.testing.assert_allclose(patterns.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(np.corrcoef(patterns, rowvar=False), np.eye(12), atol=1e-2)
    assert np.all(patterns.std(axis=0) < 1.01)
    assert patterns.std(axis=0)[0] == pytest.approx(1, abs=0.02)
    same = np.asarray(model.get_layer("block_2_conv_2")(np.ones((1, 5, 5, 256), np.float32)))
    np.testing.assert_allclose(same, 1, atol=1e-6)


@pytest.mark.slow
def test_fast_with_three_convolutions_adds_the_last_two_to_what_they_start_from() -> None:
    import keras  # noqa: PLC0415 (slow to import)

    model = build("fast", ImageSpec(32, 32, 3), 10, widths=(8,), convs=3)
    parts = keras.Model(
        model.input, [model.get_layer(f"block_1_{part}").output for part in ("1_act", "3_norm", "3_act")]
    )
    start, change, end = parts(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32))
    assert np.asarray(change).std() > 0.1
    np.testing.assert_allclose(end, np.maximum(start + change, 0), atol=1e-5)


@pytest.mark.slow
def test_fast_has_as_many_convolutions_as_asked_for_in_each_block() -> None:
    model = build("fast", ImageSpec(32, 32, 3), 10, widths=(8, 8, 8), convs=(3, 1, 2))
    blocks = [layer.name[6] for layer in model.layers if "_conv_" in layer.name]
    assert blocks == list("111233")


def test_depths_of_fast_that_are_not_one_for_each_block() -> None:
    from training.errors import TrainingError  # noqa: PLC0415
    from training.settings import parse_model_settings  # noqa: PLC0415

    words = r"--set convs: expected one number, or one for each of the 2 widths; received \[1, 2, 3\]"
    with pytest.raises(TrainingError, match=words):
        parse_model_settings(models.get("fast").settings, {"widths": "[8, 8]", "convs": "[1, 2, 3]"})


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["ResNet50", "MobileNetV2", "DenseNet121"])
def test_transfer_gives_the_backbone_its_own_preprocessing(backbone: str) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    from training.models import transfer  # noqa: PLC0415

    make, preprocess = transfer._backbone(backbone)
    assert callable(make)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    for channels in (1, 3):
        seen = pictures[..., :channels]
        pixels = keras.Input((4, 4, channels))
        prepared = transfer._expected(keras.layers.Rescaling(1 / 255)(pixels), preprocess)
        expected = preprocess(np.broadcast_to(seen, pictures.shape).copy())
        np.testing.assert_allclose(np.asarray(keras.Model(pixels, prepared)(seen)), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_transfer_freezes_its_backbone_first() -> None:
    import keras  # noqa: PLC0415 (slow to import)

    from training.models import transfer  # noqa: PLC0415

    pixels = keras.Input((4, 4, 1))
    inner = keras.Sequential([keras.layers.Dense(2), keras.layers.BatchNormalization()], name="backbone")
    features = keras.layers.Flatten()(inner(pixels))
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax", name="last")(features))
    model.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
    seen: list[list[NDArray[np.float32]]] = [model.get_weights()]
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()))
    random = np.random.default_rng(0)
    rows, labels = random.normal(3, 1, (16, 4, 4, 1)), random.integers(0, 3, 16)
    model.fit(rows, labels, epochs=3, verbose=0, callbacks=[transfer.Freeze(2), after])
    moved = [
        [not np.array_equal(now, then) for now, then in zip(later, earlier, strict=True)]
        for earlier, later in pairwise(seen)
    ]
    backbone = len(inner.weights)
    assert moved[0] == moved[1] == [False] * backbone + [True, True]
    assert moved[2] == [True] * (backbone + 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet50"}, "--set backbone: expected one of ConvNeXtBase.* received 'resnet50'"),
        ({"weights": "nowhere.h5"}, "expected imagenet, none or a file of weights, received 'nowhere.h5'"),
        ({"weights": "none"}, "MobileNetV2 cannot be made for 16x16 pictures with weights 'none': .*at least 32x32"),
    ],
)
def test_transfer_says_what_it_cannot_have(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build("transfer", ImageSpec(16, 16, 3), 2, **settings)


@pytest.mark.slow
def test_transfer_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    def unreachable(*arguments: object, **options: object) -> None:
        raise Exception("URL fetch failure on https://x/y.h5: None -- [Errno -2] Name not known")  # noqa: TRY002 (Keras's)

    unreachable.__module__ = keras.applications.MobileNetV2.__module__  # where the preprocessing is
    monkeypatch.setattr(keras.applications, "MobileNetV2", unreachable)
    with pytest.raises(TrainingError, match=r"cannot be downloaded .*; give a file by --set weights=<file>"):
        build("transfer", ImageSpec(32, 32, 3), 2)


@pytest.mark.slow
def test_transfer_takes_weights_from_a_file_and_refuses_a_damaged_one(tmp_path: Path) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    keras.utils.set_random_seed(8)
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    network.save_weights(tmp_path / "net.weights.h5")
    chosen = {"backbone": "MobileNet", "weights": str(tmp_path / "net.weights.h5")}
    loaded = build("transfer", ImageSpec(40, 32, 1), 2, **chosen).get_layer("backbone")
    for ours, theirs in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    (tmp_path / "net.weights.h5").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"MobileNet cannot be made .*; change --image-size or --set weights"):
        build("transfer", ImageSpec(40, 32, 1), 2, **chosen)


@pytest.mark.slow
def test_cnn_has_the_published_number_of_parameters(cnn: Any) -> None:
    model = cnn.build(cnn.settings(), ImageSpec(32, 32, 3), 10)
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    normalisation = 4 * (32 + 64 + 128 + 256)
    dense = (1024 * 512 + 512) + (512 * 256 + 256) + (256 * 10 + 10)
    assert model.count_params() == convolutions + normalisation + dense == 1_048_554


@pytest.mark.slow
def test_cnn_blocks_are_conv_norm_relu_pool_dropout(cnn: Any) -> None:
    model = cnn.build(cnn.settings(), ImageSpec(32, 32, 3), 10)
    kinds = [type(layer).__name__ for layer in model.layers[2:22]]
    assert kinds == ["Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D", "Dropout"] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "blocks"),
    [((1, 9), 0), ((2, 2), 1), ((8, 8), 3), ((8, 64), 3), ((15, 15), 3), ((16, 16), 4), ((99, 99), 4)],
)
def test_cnn_uses_as_many_blocks_as_fit_and_says_so(cnn: Any, size: tuple[int, int], blocks: int) -> None:
    spec = ImageSpec(*size, 1)
    model = cnn.build(cnn.settings(), spec, 2)
    assert sum(type(layer).__name__ == "MaxPooling2D" for layer in model.layers) == blocks
    assert (f"the first {blocks} of 4 blocks" in cnn.note(cnn.settings(), spec)) == (blocks < 4)


@pytest.mark.slow
def test_cnn_averages_large_maps_rather_than_grow(cnn: Any) -> None:
    small = cnn.build(cnn.settings(), ImageSpec(64, 64, 3), 10).count_params()
    large = cnn.build(cnn.settings(), ImageSpec(224, 224, 3), 10).count_params()
    asked = cnn.build(cnn.settings(head="average"), ImageSpec(32, 32, 3), 10).count_params()
    assert large == asked == 1_048_554 - (1024 - 256) * 512
    assert small == 1_048_554 + (4096 - 1024) * 512


@pytest.mark.slow
def test_cnn_in_bfloat16_scales_and_answers_in_float32(cnn: Any) -> None:
    import keras  # noqa: PLC0415 (slow to import)

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = cnn.build(cnn.settings(), ImageSpec(32, 32, 3), 10)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("scale").compute_dtype == "float32"
    assert model.get_layer("block_1_conv").compute_dtype == "bfloat16"
    assert model.get_layer("probabilities").compute_dtype == "float32"
    assert math.prod(model.output.shape[1:]) == 10
