"""From best values to ranks, tests of significance, a table and a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import friedmanchisquare, rankdata, wilcoxon  # type: ignore[import-untyped, unused-ignore]

OURS: Final = "pso"
_COLOURS: Final = {"random": "#999999", "tpe": "#4477aa", "confpso-8": "#ccbb44", "pso": "#cc3311"}
Values = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]


def summarise(values: Values, budgets: Sequence[int]) -> dict[str, Any]:
    """Ranks and tests per budget.

    A block is one function (problem and seed); the samplers of a block are ranked, 1 for the best, ties shared.
    Friedman's test asks over all blocks whether samplers differ at all. Wilcoxon's signed-rank test compares ours with
    each other one over the problems' mean ranks, since functions of one problem are alike; its p-values are two-sided
    and Holm-corrected over the others (Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR
    7, 2006).

    Args:
        values: Problem → sampler → seed → best true value at each budget.
        budgets: What the values belong to.

    Returns:
        Budget → `mean_rank`, `friedman_p`, `against` (sampler → `wins`, `wilcoxon_p`) and `mean_rank_by_problem`.
    """
    samplers = list(next(iter(values.values())))
    return {str(budget): _at_budget(values, samplers, column) for column, budget in enumerate(budgets)}


def _at_budget(values: Values, samplers: list[str], column: int) -> dict[str, Any]:
    blocks = {problem: _blocks(by_sampler, samplers, column) for problem, by_sampler in values.items()}
    ranks = {problem: rankdata(block, axis=1) for problem, block in blocks.items()}
    by_problem = np.array([rank.mean(axis=0) for rank in ranks.values()])
    everything = np.concatenate(list(blocks.values()))
    ours = samplers.index(OURS)
    others = [index for index in range(len(samplers)) if index != ours]
    p_values = _holm([float(wilcoxon(by_problem[:, ours], by_problem[:, other]).pvalue) for other in others])
    return {
        "mean_rank": dict(zip(samplers, by_problem.mean(axis=0).round(3).tolist(), strict=True)),
        "friedman_p": float(friedmanchisquare(*everything.T).pvalue),
        "against": {
            samplers[other]: {"wins": _wins(everything[:, ours], everything[:, other]), "wilcoxon_p": p_value}
            for other, p_value in zip(others, p_values, strict=True)
        },
        "mean_rank_by_problem": {
            problem: dict(zip(samplers, rank.mean(axis=0).round(2).tolist(), strict=True))
            for problem, rank in ranks.items()
        },
    }


def _blocks(by_sampler: Mapping[str, Mapping[str, Sequence[float]]], samplers: list[str], column: int) -> NDArray[Any]:
    seeds = sorted(set.intersection(*(set(by_sampler[sampler]) for sampler in samplers)), key=int)
    return np.array([[by_sampler[sampler][seed][column] for sampler in samplers] for seed in seeds])


def _wins(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Share of blocks that ours wins; a tie is half a win."""
    return round(float(np.mean(ours < theirs) + 0.5 * np.mean(ours == theirs)), 3)


def _holm(p_values: Sequence[float]) -> list[float]:
    order = np.argsort(p_values)
    corrected, floor = [1.0] * len(p_values), 0.0
    for place, index in enumerate(order.tolist()):
        floor = max(floor, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = floor
    return corrected


def table(summary: Mapping[str, Any]) -> str:
    """The summary as a Markdown table.

    Args:
        summary: From `summarise`.
    """
    samplers = list(next(iter(summary.values()))["mean_rank"])
    others = [sampler for sampler in samplers if sampler != OURS]
    heads = ["evaluations", *(f"rank of {sampler}" for sampler in samplers), *(f"{OURS} beats {s}" for s in others)]
    lines = ["| " + " | ".join([*heads, "Friedman p"]) + " |", "|" + "---|" * (len(heads) + 1)]
    for budget, row in summary.items():
        ranks = [f"{row['mean_rank'][sampler]:.2f}" for sampler in samplers]
        wins = [f"{row['against'][s]['wins']:.0%} (p = {row['against'][s]['wilcoxon_p']:.2g})" for s in others]
        lines.append("| " + " | ".join([budget, *ranks, *wins, f"{row['friedman_p']:.1g}"]) + " |")
    return "\n".join(lines)


def draw(summary: Mapping[str, Any], file: Path) -> None:
    """Draws mean ranks over the budgets, and each problem's at the third budget.

    Args:
        summary: From `summarise`.
        file: SVG or PNG, by its suffix.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    budgets = list(summary)
    for sampler in summary[budgets[0]]["mean_rank"]:
        ranks = [summary[budget]["mean_rank"][sampler] for budget in budgets]
        left.plot(budgets, ranks, marker="o", label=sampler, color=_COLOURS.get(sampler))
    left.set(title="over all problems", xlabel="evaluations, 4 in flight", ylabel="mean rank (1 is best)")
    left.invert_yaxis()
    left.grid(alpha=0.3)
    left.legend()
    _draw_problems(right, budgets[-2], summary[budgets[-2]]["mean_rank_by_problem"])
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _draw_problems(axes: Any, budget: str, by_problem: Mapping[str, Mapping[str, float]]) -> None:
    for place, ranks in enumerate(by_problem.values()):
        for sampler, rank in ranks.items():
            axes.plot(rank, place, marker="o", color=_COLOURS.get(sampler))
    axes.set(title=f"by problem, {budget} evaluations", xlabel="mean rank (1 is best)")
    axes.set_yticks(range(len(by_problem)), list(by_problem))
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
