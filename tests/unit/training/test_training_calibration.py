"""Temperature scaling: the fit against a known temperature, and the fold into models that end in several ways."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import

CLASSES = 4
Rows = NDArray[np.uint8]


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras  # noqa: PLC0415

    return keras


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True), dtype=np.float32)


def calibrated_sample(rows: int = 4000) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits and labels drawn from their softmax: the true temperature of these logits is 1."""
    random = np.random.default_rng(5)
    logits = random.normal(scale=2.0, size=(rows, CLASSES))
    labels = np.array([random.choice(CLASSES, p=row / row.sum()) for row in softmax(logits).astype(np.float64)])
    return logits, labels


def test_fit_finds_by_how_much_the_logits_were_multiplied() -> None:
    from training import calibration  # noqa: PLC0415

    logits, labels = calibrated_sample()
    fitted = calibration.fit(softmax(logits * 2.5), labels)
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)
    assert fitted.ece_after < 0.25 * fitted.ece_before
    assert fitted.nll_after < fitted.nll_before
    assert fitted.objection == ""
    assert calibration.fit(softmax(logits * 0.4), labels).temperature == pytest.approx(0.4, rel=0.05)


def test_calibrated_answers_are_left_alone() -> None:
    from training import calibration  # noqa: PLC0415

    logits, labels = calibrated_sample()
    best = calibration.fit(softmax(logits), labels).temperature
    assert "as good as 1" in calibration.fit(softmax(logits / best), labels).objection


def test_temperature_that_lowers_the_loss_but_not_the_calibration_error_is_refused() -> None:
    from training.calibration import Fit  # noqa: PLC0415

    worse = Fit(1.5, 10, nll_before=1.0, nll_after=0.9, ece_before=0.02, ece_after=0.03)
    assert "does not lower both" in worse.objection


def test_softening_is_undone_by_the_inverse_and_keeps_the_order() -> None:
    from training import calibration  # noqa: PLC0415

    probabilities = softmax(calibrated_sample(50)[0])
    softer = calibration.softened(probabilities, 3.0)
    assert softer.max() < probabilities.max()
    assert (softer.argsort(axis=1) == probabilities.argsort(axis=1)).all()
    np.testing.assert_allclose(calibration.softened(softer, 1 / 3), probabilities, atol=1e-5)
    certain = np.array([[1.0, 0.0]], dtype=np.float32)
    assert calibration.softened(certain, 2.0).tolist() == [[1.0, 0.0]]


def in_the_layer(layers: Any, features: Any) -> Any:
    return layers.Dense(CLASSES, activation="softmax")(features)


def after_the_layer(layers: Any, features: Any) -> Any:
    return layers.Softmax()(layers.Rescaling(0.5)(layers.Dense(CLASSES, use_bias=False)(features)))


def of_one_sigmoid(layers: Any, features: Any) -> Any:
    second = layers.Dense(1, activation="sigmoid")(features)
    return layers.Concatenate()([layers.Rescaling(-1.0, offset=1.0)(second), second])


def hidden_by_a_nonlinearity(layers: Any, features: Any) -> Any:
    return layers.Softmax()(layers.Activation("tanh")(layers.Dense(CLASSES)(features)))


def without_dense(layers: Any, features: Any) -> Any:
    picture = layers.Reshape((1, 1, 12))(features)
    return layers.Flatten()(layers.Conv2D(CLASSES, 1, activation="softmax")(picture))


def too_sure(keras: Any, end: Callable[[Any, Any], Any]) -> tuple[Any, Rows, NDArray[np.float32], NDArray[np.int64]]:
    """A model, rows, its answers, and labels drawn from softer answers than its own."""
    from training import calibration  # noqa: PLC0415

    keras.utils.set_random_seed(3)
    pixels = keras.Input((2, 2, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 40, offset=-3.2)(pixels))
    model = keras.Model(pixels, end(keras.layers, features))
    random = np.random.default_rng(4)
    rows = random.integers(0, 256, (1500, 2, 2, 3), dtype=np.uint8)
    answers = model.predict_on_batch(rows)
    honest = calibration.softened(answers, 2.0).astype(np.float64)
    labels = np.array([random.choice(len(row), p=row / row.sum()) for row in honest])
    return model, rows, answers, labels


@pytest.mark.parametrize("end", [in_the_layer, after_the_layer, of_one_sigmoid])
def test_temperature_is_folded_into_the_last_weights_exactly(keras: Any, end: Callable[[Any, Any], Any]) -> None:
    from training import calibration  # noqa: PLC0415

    model, rows, before, labels = too_sure(keras, end)
    layers = [type(layer).__name__ for layer in model.layers]
    record = calibration.calibrate(model, rows, before, labels)
    after = model.predict_on_batch(rows)
    assert record["applied"], record["reason"]
    assert record["temperature"] == pytest.approx(2.0, rel=0.15)
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()
    np.testing.assert_allclose(after, calibration.softened(before, record["temperature"]), atol=2e-6)
    assert [type(layer).__name__ for layer in model.layers] == layers


@pytest.mark.parametrize(
    ("end", "reason"), [(hidden_by_a_nonlinearity, "does not end in"), (without_dense, "no dense layer")]
)
def test_other_ends_are_left_as_they_were(keras: Any, end: Callable[[Any, Any], Any], reason: str) -> None:
    from training import calibration  # noqa: PLC0415

    model, rows, before, labels = too_sure(keras, end)
    record = calibration.calibrate(model, rows, before, labels)
    assert not record["applied"]
    assert reason in record["reason"]
    assert (model.predict_on_batch(rows) == before).all()


def test_dense_layer_inside_a_nested_model_is_found(keras: Any) -> None:
    from training import calibration  # noqa: PLC0415

    inner, rows, before, _ = too_sure(keras, in_the_layer)
    pixels = keras.Input((2, 2, 3))
    outer = keras.Model(pixels, inner(pixels))
    assert calibration.fold(outer, 2.0, rows[:50], calibration.softened(before[:50], 2.0)) == ""
    np.testing.assert_allclose(outer.predict_on_batch(rows), calibration.softened(before, 2.0), atol=2e-6)
