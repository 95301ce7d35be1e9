"""Whatever happens in the models folder, the steps lead to what is wanted and never past an empty shelf."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.repository import Load, ModelFolder, Scan, Stamp, VersionPolicy, next_step, settle

versions = st.integers(1, 6)
stamps = st.sampled_from([(("model.onnx", 1, 1, mark),) for mark in range(3)])
folders: st.SearchStrategy[dict[int, Stamp]] = st.dictionaries(versions, stamps)
policies = st.one_of(
    st.builds(VersionPolicy, latest=st.integers(1, 3)),
    st.just(VersionPolicy(latest=None)),
    st.builds(VersionPolicy, latest=st.none(), listed=st.frozensets(versions)),
)


@pytest.mark.slow
@given(available=folders, loaded=folders, broken=st.frozensets(versions), policy=policies)
def test_steps_reach_what_is_wanted_and_keep_something_loaded(
    available: dict[int, Stamp], loaded: dict[int, Stamp], broken: frozenset[int], policy: VersionPolicy
) -> None:
    rejected: dict[int, Stamp] = {}
    had_any = bool(loaded)

    def wanted() -> frozenset[int]:
        return policy.pick(v for v, stamp in available.items() if v in loaded or rejected.get(v) != stamp)

    for _ in range(40):
        step = next_step(available, loaded, wanted(), rejected)
        if step is None:
            break
        if isinstance(step, Load):
            assert available[step.version] == step.stamp
            assert step.version not in rejected, "a version that failed was tried again"
            if step.version in broken:
                rejected[step.version] = step.stamp
            else:
                loaded[step.version] = step.stamp
        else:
            del loaded[step.version]
        assert loaded or not had_any, "the last version was let go"
        had_any = had_any or bool(loaded)
    else:
        raise AssertionError("the steps never end")
    for version in wanted() - rejected.keys():
        assert loaded[version] == available[version]
    if wanted() & loaded.keys():
        assert loaded.keys() <= wanted()


@given(loaded=folders)
def test_model_whose_folder_is_gone_is_let_go_whole(loaded: dict[int, Stamp]) -> None:
    for _ in range(len(loaded)):
        step = next_step({}, loaded, frozenset(), {}, present=False)
        assert step is not None
        del loaded[step.version]
    assert next_step({}, loaded, frozenset(), {}, present=False) is None


@pytest.mark.slow
@given(history=st.lists(folders, min_size=2, max_size=8))
def test_only_what_was_seen_twice_in_a_row_is_believed(history: list[dict[int, Stamp]]) -> None:
    scans = [Scan({"any": ModelFolder("any", available)}) for available in history]
    believed = scans[0]
    for before, now in itertools.pairwise(scans):
        old = believed.models["any"].versions
        believed = settle(now, before, believed)
        for version, stamp in believed.models["any"].versions.items():
            assert version in now.models["any"].versions
            twice = now.models["any"].versions[version] == before.models["any"].versions.get(version) == stamp
            assert twice or old.get(version) == stamp
    stable = settle(scans[-1], scans[-1], believed)
    assert stable == scans[-1]


@given(present=st.frozensets(versions), policy=policies)
def test_policy_reads_back_as_it_is_spelled(present: frozenset[int], policy: VersionPolicy) -> None:
    if policy.listed == frozenset():
        return  # cannot be spelled, and nobody can set it
    assert VersionPolicy.parse(str(policy)).pick(present) == policy.pick(present) <= present
