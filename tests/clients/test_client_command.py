import csv
import io
import json
from pathlib import Path

import pytest
from shoal_client.command import find_pictures, main
from shoal_client.errors import InvalidInput
from shoal_client.progress import Progress
from shoal_client.results import Answer, ClassScore, Prediction, Timing
from shoal_client.tables import make_writer

from benchmarks.server_process import Address

NOBODY = ("--server", "grpc://127.0.0.1:9")
Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def pictures(tmp_path: Path, digits: list[tuple[bytes, str]]) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for number, (file, _) in enumerate(digits[:4]):
        (folder / ("below" if number % 2 else "") / f"{number}.PNG").write_bytes(file)
    (folder / "notes.txt").write_text("no picture")
    return folder


# ---- without a server ----


def test_folders_are_searched_and_files_are_taken_as_they_are(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [file.relative_to(pictures).as_posix() for file in find_pictures([str(pictures)])]
    assert names == ["0.PNG", "2.PNG", "below/1.PNG", "below/3.PNG"]
    assert list(find_pictures([str(pictures / "notes.txt")])) == [pictures / "notes.txt"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{pictures / '0.PNG'}\n\n{pictures / '2.PNG'}\n"))
    assert len(list(find_pictures(["-"]))) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: PATH"),
        (["nowhere.png"], "there is no nowhere.png"),
        (["."], "found none in ."),
        (["x.png", "--top-k", "0"], "at least 1"),
        (["x.png", "--timeout-s", "inf"], "above 0"),
        (["x.png", "--format", "xml"], "xml"),
        (["x.png", "--server", "ftp://here"], "received 'ftp'"),
        (["x.png", "--server", "http://"], "grpc://host:port"),
        (["x.png", *NOBODY], "failed to connect"),
    ],
)
def test_errors_of_the_user_are_one_line_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    if words != "found none in .":
        (tmp_path / "x.png").write_bytes(b"x")
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("shoal-classify: ")
    assert told.err.count("\n") == 1
    assert words in told.err


def test_help_teaches(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out


def test_progress_on_a_terminal() -> None:
    now_s = 0.0
    terminal = Terminal()
    progress = Progress(10, terminal, lambda: now_s)
    for number in range(5):
        now_s += 1.0
        progress.advance(failed=number == 0)
    assert progress.line(now_s) == "█" * 12 + "░" * 12 + " 5/10 pictures, 1/s, 5 s left, 1 failed"
    assert terminal.getvalue().count("\r") == 5
    progress.finish()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_no_progress_in_a_file_and_no_redrawing_without_end() -> None:
    quiet = io.StringIO()
    Progress(2, quiet).advance(failed=False)
    assert quiet.getvalue() == ""
    terminal = Terminal()
    progress = Progress(1000, terminal, lambda: 1.0)
    for _ in range(1000):
        progress.advance(failed=False)
    assert terminal.getvalue().count("\r") == 1


ANSWER = Answer(
    (Prediction((ClassScore(1, 'a "cat", grey', 0.75), ClassScore(0, "dog", 0.25))),), "pets", 3, Timing(1, 2, 3)
)


def write(kind: str, count: int = 1) -> str:
    stream = io.StringIO()
    writer = make_writer(kind, stream)
    for _ in range(count):
        writer.write(Path("b,c.png"), ANSWER)
        writer.write(Path("d.png"), InvalidInput("no picture"))
    writer.finish()
    return stream.getvalue()


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(write("csv"))))
    assert [row["label"] for row in rows] == ['a "cat", grey', "dog", ""]
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert (rows[0]["file"], rows[0]["model"], rows[0]["version"]) == ("b,c.png", "pets", "3")
    assert float(rows[0]["probability"]) == 0.75
    assert rows[2]["error"] == "no picture"


def test_json_and_json_lines() -> None:
    whole = json.loads(write("json", 2))
    assert len(whole) == 4
    assert whole[0]["classes"][1] == {"label": "dog", "index": 0, "probability": 0.25}
    assert whole[3] == {"file": "d.png", "error": "no picture"}
    assert [json.loads(line) for line in write("jsonl", 2).splitlines()] == whole
    assert json.loads(write("json", 0)) == []


# ---- with one ----


@pytest.fixture(params=["grpc", "http"])
def address(request: pytest.FixtureRequest, server: Address) -> str:
    return f"grpc://{server.grpc}" if request.param == "grpc" else server.http


@pytest.mark.slow
def test_a_folder(address: str, pictures: Path, digits: list[tuple[bytes, str]], capsys: Capture) -> None:
    assert main([str(pictures), "--server", address]) == 0
    told = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(told.out)))
    expected = {f"{number}.PNG": label for number, (_, label) in enumerate(digits[:4])}
    assert {Path(row["file"]).name: row["label"] for row in rows} == expected
    assert told.err == "4 of 4 pictures classified\n"


@pytest.mark.slow
def test_a_file_that_is_no_picture_has_its_error_in_its_row(address: str, pictures: Path, capsys: Capture) -> None:
    output = pictures / "out.json"
    words = [str(pictures / "notes.txt"), str(pictures), "--format", "json", "--top-k", "2", "--output", str(output)]
    assert main([*words, "--server", address]) == 1
    rows = json.loads(output.read_text())
    assert "no picture" in rows[0]["error"]
    assert all(len(row["classes"]) == 2 for row in rows[1:])
    assert capsys.readouterr() == ("", "4 of 5 pictures classified, 1 failed\n")


@pytest.mark.slow
def test_quiet_and_a_model_that_is_not_there(address: str, pictures: Path, capsys: Capture) -> None:
    assert main([str(pictures), "--server", address, "--quiet", "--model", "digits", "--version", "1"]) == 0
    assert capsys.readouterr().err == ""
    output = pictures / "kept.csv"
    output.write_text("old")
    assert main([str(pictures), "--server", address, "--model", "nope", "--output", str(output)]) == 2
    assert "nope" in capsys.readouterr().err
    assert output.read_text() == "old"
    assert main([str(pictures), "--server", address, "--output", str(pictures)]) == 2
    assert "can be written" in capsys.readouterr().err
