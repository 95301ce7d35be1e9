from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.admission import Admission
from server.decode_pool import DecodePool
from server.metrics import Metrics
from server.response_cache import ENTRY_BYTES, ResponseCache, key_of
from server.service import Service
from server.shadow import Shadows
from server.tensors import Array, InferRequest, Numbers
from server.versions import LoadedModel
from tests import virtual_time
from tests.unit.server.test_service import FakeEngine, FakeModels, load, picture, rows
from tests.virtual_time import now_s


def version(number: int = 1) -> LoadedModel:
    async def make() -> LoadedModel:
        return load("grey", number, FakeEngine())

    return virtual_time.run(make())


def answer(value: float, size: int = 2) -> dict[str, Array]:
    return {"probabilities": np.full((1, size), value, np.float32)}


def keys(model: LoadedModel, *requests: InferRequest) -> set[object]:
    return {key_of(model, request.images, request) for request in requests}


def test_what_was_kept_is_found_and_counted() -> None:
    cache, model = ResponseCache(10_000), version()
    key = key_of(model, (b"a",), InferRequest())
    assert key is not None
    assert cache.find(key) is None
    cache.keep(key, answer(0.5))
    found = cache.find(key)
    assert found is not None
    assert found["probabilities"].tolist() == [[0.5, 0.5]]
    numbers = cache.statistics()
    assert (numbers.entries, numbers.hits, numbers.misses, numbers.evicted) == (1, 1, 1, 0)
    assert numbers.n_bytes == ENTRY_BYTES + 8


def test_an_answer_is_a_copy_of_its_own_rows_alone() -> None:
    cache, key = ResponseCache(10_000), key_of(version(), (b"a",), InferRequest())
    assert key is not None
    batch = np.zeros((64, 2), np.float32)
    cache.keep(key, {"probabilities": batch[3:4]})
    found = cache.find(key)
    assert found is not None
    assert found["probabilities"].base is None


def test_strings_count_with_what_they_hold() -> None:
    cache, key = ResponseCache(10_000), key_of(version(), (b"a",), InferRequest())
    assert key is not None
    cache.keep(key, {"label": np.array([b"x" * 500], dtype=object)})
    assert cache.statistics().n_bytes == ENTRY_BYTES + 8 + 500


def test_the_least_recently_used_go_first_and_the_bound_holds() -> None:
    room = 3 * (ENTRY_BYTES + 8)
    cache, model = ResponseCache(room), version()
    made = [key_of(model, (bytes([n]),), InferRequest()) for n in range(5)]
    for n, key in enumerate(made):
        assert key is not None
        cache.keep(key, answer(n))
        assert cache.statistics().n_bytes <= room
        cache.find(cast("tuple[LoadedModel, bytes]", made[0]))
    kept = [n for n, key in enumerate(made) if cache.find(cast("tuple[LoadedModel, bytes]", key)) is not None]
    assert kept == [0, 3, 4]
    assert cache.statistics().evicted == 2


def test_what_alone_is_too_large_is_not_kept_and_makes_no_room() -> None:
    cache, model = ResponseCache(2000), version()
    small, large = (key_of(model, (name,), InferRequest()) for name in (b"s", b"l"))
    assert small is not None
    assert large is not None
    cache.keep(small, answer(1))
    cache.keep(large, answer(1, 1000))
    assert cache.find(large) is None
    assert cache.find(small) is not None


def test_equal_inputs_have_one_key_and_others_their_own() -> None:
    model = version()
    assert keys(
        model,
        InferRequest(inputs={"image": rows(1)}),
        InferRequest(inputs={"image": np.asfortranarray(rows(1))}, request_id="x", protocol="grpc", priority=3),
    ) == {key_of(model, (), InferRequest(inputs={"image": rows(1)}))}
    different = [
        InferRequest(images=(b"ab", b"c")),
        InferRequest(images=(b"a", b"bc")),
        InferRequest(images=(b"abc",)),
        InferRequest(inputs={"image": rows(1)}),
        InferRequest(inputs={"image": rows(2)}),
        InferRequest(inputs={"picture": rows(1)}),
        InferRequest(inputs={"image": rows(1).reshape(1, 4)}),
        InferRequest(inputs={"image": rows(1).astype(np.int8)}),
        InferRequest(numbers=Numbers(rows(1))),
        InferRequest(numbers=Numbers(rows(1), "0-1")),
    ]
    assert len(keys(model, *different)) == len(different)
    assert key_of(model, (b"a",), InferRequest()) != key_of(version(), (b"a",), InferRequest())


def test_strings_are_not_cached() -> None:
    assert key_of(version(), (), InferRequest(inputs={"text": np.array([b"a"], object)})) is None


def test_versions_that_were_let_go_are_forgotten() -> None:
    async def check() -> None:
        cache = ResponseCache(10_000)
        old, new = load("grey", 1, FakeEngine()), load("grey", 2, FakeEngine())
        object.__setattr__(old, "_closed", True)
        for model in (old, new):
            key = key_of(model, (b"a",), InferRequest())
            assert key is not None
            cache.keep(key, answer(1))
        cache.forget_closed()
        assert cache.statistics().entries == 1
        assert cache.statistics().n_bytes == ENTRY_BYTES + 8

    virtual_time.run(check())


@pytest.mark.parametrize(
    "request_",
    [
        lambda level: InferRequest(inputs={"image": rows(level)}),
        lambda level: InferRequest(images=(picture(level),)),
        lambda level: InferRequest(inputs={"image": np.array([picture(level)], object)}),
        lambda level: InferRequest(numbers=Numbers(rows(level)), outputs=("probabilities",)),
    ],
)
def test_the_service_runs_equal_inputs_once(request_: Callable[[int], InferRequest]) -> None:
    async def check() -> None:
        engine = FakeEngine()
        metrics, cache = Metrics(), ResponseCache(10_000)
        metrics.caching = cache.statistics
        pool = DecodePool(1, max_pixels=10_000, clock=now_s)
        service = Service(
            FakeModels(load("grey", 3, engine)),
            pool,
            admission=Admission(),
            metrics=metrics,
            shadows=Shadows(),
            budget_s=0.2,
            cache=cache,
            clock=now_s,
        )
        answers = [await service.infer(request_(level)) for level in (7, 7, 9, 7)]
        assert [a.outputs["probabilities"].tolist() for a in answers] == [[[v, v]] for v in (7, 7, 9, 7)]
        assert engine.runs == 2
        assert answers[1].timing.infer_us == 0 < answers[0].timing.infer_us
        samples = {
            (sample.name, sample.labels.get("found", "")): sample.value
            for family in text_string_to_metric_families(metrics.render().decode())
            for sample in family.samples
        }
        assert samples["shoal_cache_requests_total", "yes"] == 2
        assert samples["shoal_cache_requests_total", "no"] == 2
        assert samples["shoal_cache_entries", ""] == 2
        pool.close()

    virtual_time.run(check())
