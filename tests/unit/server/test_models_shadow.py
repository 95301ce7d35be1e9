"""Versions that compute requests unseen."""

from pathlib import Path

import numpy as np
import pytest

from server.health_bounds import Health
from server.shadow import Shadows, compare
from tests.unit.server.bundle_factory import TRAP, pictures, write_bundle, write_policy, write_trapped
from tests.unit.server.models_harness import Harness, run


def test_shadow_computes_what_was_answered_and_is_counted(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "pets", version)
    write_policy(tmp_path, '{"default": 1, "shadow": {"version": 2, "percent": 100}}')

    async def test(harness: Harness) -> None:
        shadows, rows = Shadows(), pictures(6, seed=3)
        model = harness.models.choose("pets")
        with model.lease():
            answered = await model.batcher.submit({"image": rows})
        shadow = harness.models.shadow(model, "key")
        assert shadow is not None
        assert (model.version, shadow.version) == (1, 2)
        shadows.mirror(shadow, model.version, {"image": rows}, answered.outputs)
        assert shadow.in_flight == 1
        await shadows.idle()
        mine = (await shadow.batcher.submit({"image": rows})).outputs["probabilities"]
        theirs = answered.outputs["probabilities"]
        (counts,) = shadows.statistics()
        assert (counts.name, counts.answered, counts.shadow, counts.requests, counts.rows) == ("pets", 1, 2, 1, 6)
        assert counts.agreed_rows == (mine.argmax(axis=1) == theirs.argmax(axis=1)).sum()
        assert counts.max_abs_difference == pytest.approx(np.abs(mine - theirs).max())
        assert shadow.health == Health()

    run(tmp_path, test)


def test_shadow_failures_and_drops_are_counted_and_hurt_nobody(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_trapped(tmp_path, 2)
    write_policy(tmp_path, '{"default": 1, "shadow": {"version": 2, "percent": 100}}')

    async def test(harness: Harness) -> None:
        shadows, rows = Shadows(max_running=1), np.full((1, 4, 4, 3), TRAP, dtype=np.uint8)
        model = harness.models.choose("pets")
        shadow = harness.models.shadow(model)
        assert shadow is not None
        for _ in range(3):
            shadows.mirror(shadow, 1, {"image": rows}, {"probabilities": np.zeros((1, 3), dtype=np.float32)})
        await shadows.idle()
        (counts,) = shadows.statistics()
        assert (counts.requests, counts.failed, counts.dropped) == (0, 1, 2)
        shadows.mirror(shadow, 1, {"image": pictures(1)}, {"other": np.zeros(1)})
        await shadows.idle()
        assert shadows.statistics()[0].failed == 2

    run(tmp_path, test)


def test_closing_shadows_gives_their_leases_back(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "pets", version)
    write_policy(tmp_path, '{"default": 1, "shadow": {"version": 2, "percent": 100}}')

    async def test(harness: Harness) -> None:
        shadows = Shadows()
        shadow = harness.models.shadow(harness.models.choose("pets"))
        assert shadow is not None
        shadows.mirror(shadow, 1, {"image": pictures(1)}, {"probabilities": np.zeros((1, 3), dtype=np.float32)})
        await shadows.close()
        assert shadow.in_flight == 0
        assert shadows.statistics() == ()

    run(tmp_path, test)


def test_without_a_policy_nobody_is_shadowed(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        model = harness.models.choose("pets")
        assert harness.models.shadow(model) is None

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("answer", "shadow", "expected"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]], (2, 1, 0.5)),
        ([[1.5], [2.5]], [[1.5], [2.0]], (2, 1, 0.5)),
        ([[0.9, 0.1]], [[0.9, 0.1, 0.0]], (1, 0, float("inf"))),
        (2.0, 2.0, (1, 1, 0.0)),
    ],
)
def test_answers_are_compared_by_class_or_by_value(answer: object, shadow: object, expected: object) -> None:
    assert compare(np.asarray(answer), np.asarray(shadow)) == pytest.approx(expected)


def test_strings_are_compared_too() -> None:
    assert compare(np.array([b"a", b"b"], dtype=object), np.array([b"a", b"c"], dtype=object)) == (2, 1, 0.0)
