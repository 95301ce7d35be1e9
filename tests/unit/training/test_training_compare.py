"""Comparisons: how contenders are written, what is worked out of their runs, and that no finished run is made twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training import contenders
from training.errors import TrainingError

KERAS_SAVES = pytest.mark.filterwarnings(
    # Keras 3.15 saves TensorFlow 2.21's variables in a way that NumPy 2 will one day refuse; theirs to mend.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SMALL = "cnn:set.filters=[4],set.dense_units=[8]"
FASTER = f"{SMALL},learning-rate=0.01"


def read(*words: str) -> list[tuple[str, str, dict[str, Any]]]:
    return [(one.name, one.model, dict(one.changes)) for one in contenders.parse(words)]


def test_a_word_is_a_list_of_models_or_one_with_settings() -> None:
    assert read("cnn,mlp") == [("cnn", "cnn", {}), ("mlp", "mlp", {})]
    assert read("cnn", "cnn:optimizer=adam,augment=none") == [
        ("cnn", "cnn", {}),
        ("cnn:optimizer=adam,augment=none", "cnn", {"optimizer": "adam", "augment": "none"}),
    ]


def test_commas_and_colons_inside_values_and_models() -> None:
    word = "my.nets:build:batch-size=32,set.filters=[8,16],set.dropout=0.1"
    changes = {"batch_size": "32", "set": {"filters": "[8,16]", "dropout": "0.1"}}
    assert read(word) == [(word, "my.nets:build", changes)]
    word = "cnn:augment=flip,cutout=8,learning-rate=0.1"
    assert read(word) == [(word, "cnn", {"augment": "flip,cutout=8", "learning_rate": "0.1"})]


def test_changes_count_more_than_what_all_share() -> None:
    contender = contenders.parse(["cnn:epochs=5,set.dropout=0.1"])[0]
    settings = contender.settings({"epochs": 9, "data": "digits", "set": {"dropout": "0.9", "filters": "[8]"}}, seed=3)
    assert (settings.epochs, settings.seed, settings.model, settings.data) == (5, 3, "cnn", "digits")
    assert settings.set == {"dropout": "0.1", "filters": "[8]"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "--model: expected one of "),
        (["cnn:colour=red"], "--models: expected one of .*; received 'colour'"),
        (["cnn:seed=3"], "--models: expected one of .*; received 'seed'"),
        (["cnn:data=digits"], "--models: expected one of .*; received 'data'"),
        (["cnn,mlp:epochs=3"], "received 'cnn,mlp'; put a space"),
        (["epochs=3"], "expected MODEL or MODEL:SETTING=VALUE"),
        (["cnn", "cnn"], "--models: expected each contender once; received 'cnn'"),
    ],
)
def test_words_that_name_no_contender(words: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        contenders.parse(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "cnn:epochs=0"], "error: --models cnn:epochs=0: --epochs: expected greater than or equal to 1"),
        (["--models", "cnn", "--seeds", "0"], "error: --seeds: expected at least 1; received '0'"),
        (["--models", "cnn", "--minutes", "0"], "error: --minutes: expected more than 0"),
        (
            ["--models", "cnn", "--minutes", "2", "--epochs", "3"],
            "error: --minutes: expected more than 0, and no --epochs",
        ),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert command("compare", *arguments, "--runs", str(tmp_path)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(message)
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_spread_is_the_sample_standard_deviation() -> None:
    from training.compare import spread  # noqa: PLC0415 (imports TensorFlow)

    assert spread([1.0, 2.0, 6.0]) == {"values": [1.0, 2.0, 6.0], "mean": 3.0, "deviation": pytest.approx(7**0.5)}
    assert spread([2.0]) == {"values": [2.0], "mean": 2.0, "deviation": None}


@pytest.mark.slow
def test_epochs_within_a_time_go_by_the_fastest_epoch(tmp_path: Path) -> None:
    from training.compare import epochs_within  # noqa: PLC0415 (imports TensorFlow)
    from training.runs import Run  # noqa: PLC0415

    (tmp_path / "history.csv").write_text("epoch,duration_s\n1,50.0\n2,8.0\n")
    assert epochs_within(Run(tmp_path, {}), minutes=1) == 7
    assert epochs_within(Run(tmp_path, {}), minutes=0.01) == 1


@pytest.mark.slow
@KERAS_SAVES
def test_a_comparison_trains_what_is_missing_and_reuses_the_rest(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shared = ["--epochs", "1", "--fraction", "0.1", "--runs", str(tmp_path)]
    assert command("compare", "--models", SMALL, *shared) == 0
    assert trained(tmp_path) == ["1"]
    assert "finished before" not in capsys.readouterr().out

    assert command("compare", "--models", SMALL, FASTER, *shared) == 0
    assert trained(tmp_path) == ["1", "2"]  # another learning rate is another run
    shown = capsys.readouterr().out
    assert f"finished before: {tmp_path / 'digits' / '1'}" in shown
    assert shown.count("finished before") == 1

    comparison = json.loads((tmp_path / "comparisons" / "digits" / "comparison.json").read_text())
    first, second = comparison["contenders"]
    assert (comparison["seeds"], comparison["data"]["source"]) == ([0], "digits")
    assert (first["runs"], second["runs"]) == (["digits/1"], ["digits/2"])
    assert second["changes"] == {"set": {"filters": "[4]", "dense_units": "[8]"}, "learning_rate": "0.01"}
    assert first["accuracy"]["values"] == [accuracy(tmp_path / "digits" / "1")]
    assert second["accuracy"]["values"] == [accuracy(tmp_path / "digits" / "2")]


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    out, made = tmp_path / "file" / "out", tmp_path / "runs"
    assert command("compare", "--models", SMALL, "--out", str(out), "--epochs", "1", "--runs", str(made)) == 2
    assert capsys.readouterr().err.startswith(f"error: cannot write to {out} ([Errno 20] Not a directory")
    assert not made.exists()


@pytest.mark.slow
def test_what_is_worked_out_of_several_seeds(tmp_path: Path) -> None:
    from training import comparison_files  # noqa: PLC0415 (imports matplotlib)
    from training.compare import Outcome, summarised  # noqa: PLC0415 (imports TensorFlow)

    one, other = contenders.parse(["cnn", "cnn:optimizer=adam"])
    outcomes = [
        Outcome(one, (made_by_hand(tmp_path, 1, 0.80), made_by_hand(tmp_path, 2, 0.90))),
        Outcome(other, (made_by_hand(tmp_path, 3, 0.82), made_by_hand(tmp_path, 4, 0.96))),
    ]
    first, second = summarised(outcomes)
    assert first["accuracy"] == {
        "values": [0.8, 0.9],
        "mean": pytest.approx(0.85),
        "deviation": pytest.approx(0.0707, abs=1e-4),
    }
    assert first["points_gained"] == {"values": [0.0, 0.0], "mean": 0.0, "deviation": 0.0}
    # Seed by seed: 2 and 6 points, which say more than 89 ± 10 % against 85 ± 7 % would.
    assert second["points_gained"]["values"] == pytest.approx([2, 6])
    assert second["points_gained"]["deviation"] == pytest.approx(8**0.5)
    assert (second["training_s"], second["epochs"], second["runs"]) == (120.0, 2.0, ["made/3", "made/4"])

    comparison = {"data": {"source": "a|b", "fingerprint": "f"}, "seeds": [0, 1], "contenders": [first, second]}
    comparison_files.write(tmp_path / "out", comparison)
    table = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert table[2].startswith("| contender | accuracy % | points gained |")
    assert table[4].startswith("| cnn | 85.00 ± 7.07 | +0.00 ± 0.00 |")
    assert table[5].startswith("| cnn:optimizer=adam | 89.00 ± 9.90 | +4.00 ± 2.83 |")
    assert "Test split of a\\|b" in table[7]
    assert len({len(line) for line in comparison_files.console_lines(comparison)}) == 1
    with Image.open(tmp_path / "out" / "comparison.png") as drawn:
        assert len(np.unique(np.asarray(drawn.convert("L")))) > 10


def trained(root: Path) -> list[str]:
    return sorted(folder.name for folder in (root / "digits").iterdir() if not folder.name.startswith("."))


def accuracy(run: Path) -> float:
    return float(json.loads((run / "metrics.json").read_text())["test"]["accuracy"])


def made_by_hand(root: Path, number: int, correct: float) -> Any:
    from training.runs import Run  # noqa: PLC0415

    folder = root / str(number)
    folder.mkdir()
    test = {"accuracy": correct, "macro": {"f1": correct}, "loss": 0.5, "ece": 0.01}
    (folder / "metrics.json").write_text(json.dumps({"test": test}))
    (folder / "history.csv").write_text("epoch,val_accuracy\n1,0.5\n2,0.7\n")
    record = {"parameters": 1000, "timing": {"training_s": 120.0}, "epochs": 2, "git_revision": "f"}
    return Run(folder, record | {"name": "made", "run": number})
