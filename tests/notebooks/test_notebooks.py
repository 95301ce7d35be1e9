"""The notebooks run from top to bottom, and are kept without their outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {"01-exploration": 4, "02-preprocessing": 2, "03-model-experiments": 8}
LONGEST_CELL_LINES = 25  # what is longer belongs into the package, where it is typed and tested


def read(book: Path) -> Any:
    return nbformat.read(book, as_version=4)  # type: ignore[no-untyped-call]


@pytest.fixture
def quiet_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has the kernel's files go to a temporary folder, and TensorFlow keep its remarks to itself."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))


def test_there_are_three() -> None:
    assert [book.name for book in BOOKS] == [
        "01-exploration.ipynb",
        "02-preprocessing.ipynb",
        "03-model-experiments.ipynb",
    ]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_is_kept_without_outputs_and_thin(book: Path) -> None:
    notebook = read(book)
    nbformat.validate(notebook)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert (cell.outputs, cell.execution_count) == ([], None), cell.source
        assert cell.source.count("\n") < LONGEST_CELL_LINES, cell.source


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_kernel")
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_runs(book: Path) -> None:
    notebook = read(book)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[book.stem]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert sorted(FOLDER.iterdir()) == BOOKS  # what it wrote lies elsewhere
