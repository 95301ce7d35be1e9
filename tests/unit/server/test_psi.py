import math

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from server.merged_metrics import MergedMetrics, pack
from server.psi import LEAST_ROWS_PER_BIN, PSI_FAMILY, REFERENCE_FAMILY, ROWS_FAMILY, is_enough, psi

REFERENCE = (50.0, 50.0)


def test_it_is_the_sum_over_bins_of_the_difference_times_the_logarithm_of_the_ratio() -> None:
    p, q = (30.5 / 101, 70.5 / 101), (50.5 / 101, 50.5 / 101)
    by_hand = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert psi(REFERENCE, (30, 70)) == pytest.approx(by_hand)
    assert psi(REFERENCE, REFERENCE) == 0
    assert psi(REFERENCE, (5000, 5000)) == 0


def test_an_empty_bin_makes_it_large_and_not_infinite() -> None:
    assert 1 < psi((100, 0), (0, 100)) < 100


def test_few_rows_tell_nothing() -> None:
    assert not is_enough((LEAST_ROWS_PER_BIN, LEAST_ROWS_PER_BIN - 1))
    assert is_enough((2 * LEAST_ROWS_PER_BIN, 0))


def page(*live: float) -> bytes:
    """What a worker tells that has seen so many rows in each bin."""
    families: list[Metric] = []
    for name, counts in ((ROWS_FAMILY, live), (REFERENCE_FAMILY, REFERENCE)):
        family = GaugeMetricFamily(name, "", labels=("model", "version", "feature", "bin"))
        for number, count in enumerate(counts):
            family.add_metric(["grey", "1", "classes", str(number)], count)
        families.append(family)
    index = GaugeMetricFamily(PSI_FAMILY, "", labels=("model", "version", "feature"))
    if is_enough(live):
        index.add_metric(["grey", "1", "classes"], psi(REFERENCE, live))
    return pack([*families, index])


def merged(*pages: bytes) -> dict[str, list[float]]:
    metrics = MergedMetrics()
    for number, one in enumerate(pages):
        metrics.update(number, one)
    return {family.name: [sample.value for sample in family.samples] for family in metrics.merge([])}


def test_workers_that_each_see_a_part_are_judged_by_the_whole() -> None:
    told = merged(page(100, 0), page(0, 100))
    assert told[ROWS_FAMILY] == [100, 100]
    assert told[REFERENCE_FAMILY] == list(REFERENCE)
    assert told[PSI_FAMILY] == [0]


def test_workers_that_each_see_too_little_see_enough_together() -> None:
    told = merged(page(20, 5), page(20, 5))
    assert told[PSI_FAMILY] == [pytest.approx(psi(REFERENCE, (40, 10)))]
    assert merged(page(20, 5))[PSI_FAMILY] == []
