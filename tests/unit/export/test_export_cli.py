"""The command line: exit codes, one line for bad input, tables that tell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export import pipeline
from export.__main__ import main
from export.errors import GateFailed
from export.pipeline import Result

ROOT = Path(__file__).parents[3]
ROOMY = ("--max-accuracy-drop", "0.02", "--max-class-drop", "0.2", "--min-agreement", "0.95")


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "export", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_help_teaches_and_imports_nothing_heavy() -> None:
    done = run_command("create", "--help")
    assert done.returncode == 0
    assert "--min-agreement" in done.stdout
    assert "examples:" in done.stdout
    heavy = "{'tensorflow', 'onnx', 'onnxruntime', 'rich'}"
    probe = f"import sys, export.__main__; print(sorted({heavy} & set(sys.modules)))"
    listed = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "[]"


@pytest.mark.slow
def test_no_run_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run_command("create", "--name", "m", "--runs", str(tmp_path), "--models", str(tmp_path / "models"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: expected a finished run in {tmp_path / 'm'}, found none; train one: make train NAME=m"
    ]
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_a_real_export_prints_no_library_noise(runs: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    done = run_command("create", "--name", "tiny", "--runs", str(runs), "--models", str(models), *ROOMY)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"export {runs / 'tiny' / '1'} to {models / 'tiny' / '1'}"
    steps = [line.partition(":")[0] for line in lines if line.endswith(" s")]
    assert steps[:5] == ["Keras", "convert", "verify float32", "quantize int8", "verify int8"]
    assert steps[5:] in ([], ["OpenVINO"])  # where it is installed
    assert lines[-1].startswith(f"wrote {models / 'tiny' / '1'} in ")


@pytest.mark.slow
def test_calibration_of_another_shape_is_exit_code_2(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.savez(
        runs / "tiny" / "1" / "calibration.npz", rows=np.zeros((3, 9, 9, 1), np.uint8), labels=np.zeros(3, np.int64)
    )
    assert main(["create", "--name", "tiny", "--runs", str(runs), "--models", str(tmp_path / "models")]) == 2
    error = capfd.readouterr().err
    assert "calibration.npz: expected rows uint8[n, 8, 8, 1] as the model takes, received uint8[3, 9, 9, 1]" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--name", "../x"], "expected a name of letters"),
        (["create", "--name", "m", "--min-agreement", "2"], "error: min_agreement: Input should be less than or"),
        (["create", "--name", "m", "--variants", "int4"], "out of float32, int8, int8-amx, float16, received 'int4'"),
        (["create", "--name", "m", "--calibration", "magic"], "error: calibration: Input should be"),
        (["show", "m"], "expected a model out of []"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missed_float32_gate_is_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*given: object) -> Result:
        raise GateFailed("float32 is not the model that Keras trained")

    monkeypatch.setattr(pipeline, "create", fail)
    assert main(["create", "--name", "m"]) == 3
    assert capfd.readouterr().err == "error: float32 is not the model that Keras trained\n"


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*given: object) -> Result:
        raise OSError(28, "No space left on device", "models/m/.partial-1/model.onnx")

    monkeypatch.setattr(pipeline, "create", fail)
    assert main(["create", "--name", "m"]) == 2
    assert capfd.readouterr().err == "error: models/m/.partial-1/model.onnx: No space left on device\n"


def test_an_unexpected_exception_shows_what_the_libraries_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*given: object) -> Result:
        os.write(2, b"deep inside a library\n")
        raise RuntimeError("a bug")

    monkeypatch.setattr(pipeline, "create", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["create", "--name", "m"])
    assert "deep inside a library" in capfd.readouterr().err


def test_list_and_show_of_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--models", str(tmp_path)]) == 0
    assert "make one: python -m export create" in capsys.readouterr().out


@pytest.mark.slow
def test_list_and_show_tell_what_is_there(exported: Result, capsys: pytest.CaptureFixture[str]) -> None:
    models = str(exported.folder.parents[1])
    assert main(["list", "--models", models, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"
    assert main(["list", "--models", models]) == 0
    assert "float32, int8" in capsys.readouterr().out
    assert main(["show", "tiny", "--models", models]) == 0
    shown = capsys.readouterr().out
    assert "tiny version 1" in shown
    assert "16 images, tolerance 0.001" in shown
    assert main(["show", "tiny", "--version", "1", "--models", models, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"][0]["name"] == "float32"
    assert main(["show", "tiny", "--version", "7", "--models", models]) == 2
