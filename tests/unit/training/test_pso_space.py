"""Encodings that have to be exact."""

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from training.pso_space import SwarmSpace


def shares_of(distribution: BaseDistribution, count: int = 100_000) -> dict[Any, float]:
    axis = SwarmSpace({"p": distribution}).axes["p"]
    values, counts = np.unique([axis.at_share((i + 0.5) / count) for i in range(count)], return_counts=True)
    return dict(zip(values.tolist(), (counts / count).tolist(), strict=True))


def test_every_integer_and_every_step_owns_an_equal_stretch() -> None:
    assert shares_of(IntDistribution(-2, 2), 5000) == dict.fromkeys([-2, -1, 0, 1, 2], 0.2)
    assert shares_of(IntDistribution(10, 40, step=10), 4000) == dict.fromkeys([10, 20, 30, 40], 0.25)
    steps = shares_of(FloatDistribution(0.0, 0.3, step=0.1), 4000)
    assert list(steps.values()) == [0.25] * 4
    np.testing.assert_allclose(list(steps), [0.0, 0.1, 0.2, 0.3])


def test_the_stretches_of_a_logarithmic_integer_end_half_way_to_its_neighbours() -> None:
    expected = {value: np.log((value + 0.5) / (value - 0.5)) / np.log(4.5 / 0.5) for value in (1, 2, 3, 4)}
    assert shares_of(IntDistribution(1, 4, log=True), 10_000) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_octaves_of_a_logarithmic_integer_weigh_the_same() -> None:
    shares = shares_of(IntDistribution(4, 511, log=True))
    octaves = [sum(share for value, share in shares.items() if low <= value < 2 * low) for low in (8, 16, 64, 128)]
    np.testing.assert_allclose(octaves, octaves[0], rtol=0.05)
    assert set(shares) == set(range(4, 512))


def test_the_middle_of_a_logarithmic_float_is_its_geometric_mean() -> None:
    space = SwarmSpace({"p": FloatDistribution(1e-5, 1e-1, log=True)})
    assert space.decode(np.array([0.5]), np.random.default_rng(0))["p"] == pytest.approx(1e-3)
    assert space.encode({"p": 1e-4})[0] == pytest.approx(0.25)


def test_a_category_is_one_coordinate_per_choice_and_none_dies_out() -> None:
    space = SwarmSpace({"n": IntDistribution(0, 1), "p": CategoricalDistribution(["a", None, "c"])})
    np.testing.assert_array_equal(space.encode({"n": 1, "p": None}), [0.75, 0, 1, 0])
    rng = np.random.default_rng(0)
    drawn = [space.decode(np.array([0.1, 0, 1, 0]), rng)["p"] for _ in range(2000)]
    counts = [drawn.count(choice) / 2000 for choice in ("a", None, "c")]
    np.testing.assert_allclose(counts, [0.05 / 1.15, 1.05 / 1.15, 0.05 / 1.15], atol=0.02)


def test_a_space_tells_itself_from_one_with_other_bounds() -> None:
    one, two = (SwarmSpace({"p": FloatDistribution(0, high)}) for high in (1, 2))
    assert one.fingerprint != two.fingerprint
    assert one.covers({"p": FloatDistribution(0, 1), "q": IntDistribution(0, 3)})
    assert not one.covers({"p": FloatDistribution(0, 2)})
    assert not one.covers({})
