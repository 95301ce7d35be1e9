import pytest

from server.cost_model import CostModel, Smoothed, buckets


def test_buckets_are_powers_of_two_and_the_largest() -> None:
    assert buckets(1) == (1,)
    assert buckets(2) == (1, 2)
    assert buckets(6) == (1, 2, 4, 6)
    assert buckets(32) == (1, 2, 4, 8, 16, 32)


def test_nothing_measured_costs_nothing() -> None:
    model = CostModel()
    assert model.cost_s(7) == 0.0
    assert dict(model.costs) == {}


def test_between_points_the_cost_is_interpolated_and_outside_them_proportional() -> None:
    model = CostModel()
    for rows, seconds in ((8, 0.07), (2, 0.02), (4, 0.03)):
        model.measure(rows, seconds)
    assert list(model.costs) == [2, 4, 8]
    assert model.cost_s(1) == pytest.approx(0.01)
    assert model.cost_s(2) == pytest.approx(0.02)
    assert model.cost_s(3) == pytest.approx(0.025)
    assert model.cost_s(5) == pytest.approx(0.04)
    assert model.cost_s(8) == pytest.approx(0.07)
    assert model.cost_s(16) == pytest.approx(0.14)
    assert model.cost_s(0) == 0.0


def test_a_new_measurement_replaces_what_was_derived_from_the_old() -> None:
    model = CostModel()
    model.measure(4, 0.4)
    assert model.cost_s(2) == pytest.approx(0.2)
    model.measure(4, 0.8)
    assert model.cost_s(2) == pytest.approx(0.4)


def test_real_runs_scale_the_whole_curve() -> None:
    model = CostModel()
    model.measure(1, 0.01)
    model.measure(4, 0.02)
    for _ in range(200):
        model.observe(4, 0.06)
    assert model.cost_s(4) == pytest.approx(0.06, rel=1e-3)
    assert model.cost_s(1) == pytest.approx(0.03, rel=1e-3)
    assert model.costs[1] == model.cost_s(1)


def test_without_a_warm_up_the_first_run_stands_for_all_sizes() -> None:
    model = CostModel()
    model.observe(2, 0.0)
    assert dict(model.costs) == {}
    model.observe(2, 0.02)
    assert model.cost_s(2) == 0.02
    assert model.cost_s(6) == pytest.approx(0.06)
    model.observe(6, 0.12)
    assert list(model.costs) == [2]
    assert model.cost_s(2) > 0.02


def test_the_mean_of_the_first_samples_is_plain() -> None:
    smoothed = Smoothed()
    for sample in (0.2, 0.4):
        smoothed.add(sample)
    assert smoothed.value == pytest.approx(0.2 + (0.4 - 0.2) / 3)
    started = Smoothed(1.0)
    started.add(2.0)
    assert started.value == pytest.approx(1.5)
    started.add(3.0)
    assert started.value == pytest.approx(2.0)


def test_an_outlier_counts_as_four_times_the_mean_at_most() -> None:
    smoothed = Smoothed(1.0)
    for _ in range(50):
        smoothed.add(1.0)
    smoothed.add(1000.0)
    assert smoothed.value == pytest.approx(1.3)
    smoothed.add(0.0)
    assert smoothed.value == pytest.approx(1.17)


def test_a_lasting_change_is_learnt() -> None:
    smoothed = Smoothed(1.0)
    for _ in range(50):
        smoothed.add(1.0)
    for _ in range(40):
        smoothed.add(10.0)
    assert smoothed.value == pytest.approx(10.0, rel=0.1)
    for _ in range(50):
        smoothed.add(1.0)
    assert smoothed.value == pytest.approx(1.0, rel=0.1)
