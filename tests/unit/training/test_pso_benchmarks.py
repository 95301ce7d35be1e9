"""The benchmarks of the swarm: that they measure what they say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pso, pso_asking, pso_crash
from benchmarks.pso_functions import CONSTRAINED, REPORTED, TUNING, Problem
from benchmarks.pso_report import summarise, table
from benchmarks.pso_samplers import search


@pytest.mark.parametrize("problem", [*REPORTED, *TUNING, *CONSTRAINED], ids=lambda problem: problem.name)
def test_no_parameters_are_better_than_the_optimum(problem: Problem) -> None:
    member = problem.member(3)
    assert problem.shape(np.zeros_like(member.optimum)) == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(0)
    points = rng.uniform(-5, 5, size=(200, member.optimum.size))
    assert min(problem.shape(point) for point in points) > 0
    assert np.all(np.abs(member.optimum - 0.5) >= 0.15)


@pytest.mark.parametrize("problem", CONSTRAINED, ids=lambda problem: problem.name)
def test_few_random_points_keep_a_constraint_and_it_grows_with_the_sizes(problem: Problem) -> None:
    member = problem.member(3)
    assert member.limit is not None
    units = np.random.default_rng(0).uniform(size=(3000, member.optimum.size))
    kept = np.mean(units @ member.limit.weights <= member.limit.most)
    assert kept == pytest.approx(problem.allowed, rel=0.3)
    small = {name: one.choices[0] if hasattr(one, "choices") else one.low for name, one in problem.space().items()}
    large = {name: one.choices[0] if hasattr(one, "choices") else one.high for name, one in problem.space().items()}
    assert member.excess(small) < 0 < member.excess(large)


@pytest.mark.slow
def test_what_breaks_a_constraint_is_told_without_a_value_and_never_counts_as_the_best() -> None:
    problem = replace(CONSTRAINED[0], allowed=0.02)
    found = {sampler: search(sampler, problem.member(1), 1) for sampler in ("random", "pso")}
    assert found["pso"] == sorted(found["pso"], reverse=True)
    member = problem.member(1)
    unlimited = search("pso", replace(member, limit=None), 1)
    assert unlimited[-1] < found["pso"][-1] < found["random"][-1]


def test_the_reported_problems_are_not_those_the_defaults_were_chosen_on() -> None:
    kinds = {kind.rstrip("0123456789") for problem in REPORTED for kind in problem.kinds}
    assert kinds == {"float", "log", "int", "logint", "cat"}
    assert len(REPORTED) >= 8
    assert not {problem.name for problem in REPORTED} & {problem.name for problem in TUNING}
    assert not {problem.shape for problem in REPORTED} & {problem.shape for problem in TUNING}


def test_ranks_and_wins_of_a_known_case() -> None:
    values = {
        problem: {
            "random": {"0": [3.0], "1": [3.0]},
            "tpe": {"0": [2.0], "1": [1.0]},
            "pso": {"0": [1.0], "1": [1.0]},
        }
        for problem in ("a", "b", "c", "d", "e", "f")
    }
    row = summarise(values, [24])["24"]
    assert row["mean_rank"] == {"random": 3.0, "tpe": 1.75, "pso": 1.25}
    assert row["against"]["random"] == {"wins": 1.0, "wilcoxon_p": pytest.approx(2 * 2 / 64)}
    assert row["against"]["tpe"]["wins"] == 0.75
    assert row["friedman_p"] < 0.01
    assert "| 24 | 3.00 | 1.75 | 1.25 | 100% (p = 0.062) | 75% (p = 0.062) |" in table({"24": row})


@pytest.mark.slow
def test_the_swarm_beats_random_search_at_24_and_80_evaluations() -> None:
    seeds = range(2000, 2006)
    wins = [
        np.array(search("pso", problem.member(seed), seed)) < np.array(search("random", problem.member(seed), seed))
        for problem in TUNING[:6]
        for seed in seeds
    ]
    at_24, _, at_80, _ = np.mean(wins, axis=0)
    assert at_24 > 0.6
    assert at_80 > 0.8


@pytest.mark.slow
def test_the_suite_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, figure = tmp_path / "suite.json", tmp_path / "suite.svg"
    arguments = ["--seeds", "1", "--samplers", "random,tpe,pso", "--results", str(results), "--figure", str(figure)]
    searches: list[str] = []

    def interrupted(sampler: str, *_: object) -> list[float]:
        if len(searches) == 10:
            raise KeyboardInterrupt
        searches.append(sampler)
        return [len(searches) + step for step in (4.0, 3.0, 2.0, 1.0)]

    def complete(sampler: str, *_: object) -> list[float]:
        searches.append(sampler)
        return [4.0, 3.0, 2.0, 1.0]

    monkeypatch.setattr(pso, "search", interrupted)
    monkeypatch.setattr(pso, "_SAVE_EVERY", 1)
    assert pso.main(arguments) == 130
    first = len(searches)
    searches.clear()
    monkeypatch.setattr(pso, "search", complete)
    assert pso.main(arguments) == 0
    assert first + len(searches) == 3 * len(REPORTED)
    assert figure.stat().st_size > 1000
    assert json.loads(results.read_text())["summary"]["24"]["mean_rank"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--samplers", "pso,simplex"], "out of random, tpe, confpso-8, pso, received simplex"),
        (["--samplers", "pso,tpe"], "at least two other samplers"),
        (["--samplers", "random,tpe,pso", "--seeds", "0"], "at least one seed, received 0"),
        (
            ["--suite", "constrained", "--samplers", "random,pso,confpso-8"],
            "confpso-8 knows no constraints: leave it out",
        ),
    ],
)
def test_wrong_options_end_with_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pso.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "suite.json"
    results.write_text(json.dumps({"settings": {"pso": {"population": 99}}}))
    assert pso.main(["--samplers", "random,tpe,pso", "--results", str(results)]) == 2
    assert "results of other settings: move it away" in capsys.readouterr().err


@pytest.mark.slow
def test_asking_is_measured_on_a_study_with_stale_trials(tmp_path: Path) -> None:
    results = tmp_path / "asking.json"
    assert pso_asking.main(["--trials", "30", "--asks", "3", "--results", str(results)]) == 0
    measured = json.loads(results.read_text())
    assert measured["pso"]["median_ms"] > 0
    assert measured["random"]["median_ms"] > 0


@pytest.mark.slow
def test_killed_workers_lose_nothing_and_the_swarm_flies_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    outcome = pso_crash.torture(url, tmp_path / "journal", kills=3, resumed=10)
    assert outcome.faults() == []
    assert outcome.kills == 3
    assert outcome.resumed_flying == 10


def test_the_crash_test_names_what_went_wrong() -> None:
    outcome = pso_crash.Outcome(
        kills=1,
        told=5,
        lost=1,
        evaluated_twice=2,
        abandoned=0,
        resumed=4,
        resumed_flying=3,
        best_before=1,
        best_after=2,
    )
    assert outcome.faults() == [
        "1 finished trials were lost",
        "2 trials were evaluated twice",
        "only 3 of 4 resumed trials flew",
        "the best value was forgotten",
    ]
