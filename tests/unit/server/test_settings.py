from pathlib import Path

import pytest
from pydantic import ValidationError

from server.cli import read_settings, settings_docs
from server.errors import StartupError
from server.settings import GROUPS, Settings

DOCS = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SHOAL_{name.upper()}", raising=False)


def faults(*arguments: str) -> list[str]:
    with pytest.raises(StartupError) as raised:
        read_settings(arguments)
    return str(raised.value).splitlines()


def test_defaults_serve_models_here() -> None:
    settings = read_settings([])
    assert settings.models == Path("models")
    assert (settings.host, settings.http_port, settings.grpc_port) == ("127.0.0.1", 8000, 8001)
    assert settings.latency_budget_ms == 200


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("http_port: 1001\ngrpc_port: 1002\nmax_batch_rows: 3\nproviders: [cuda, cpu]\n")
    monkeypatch.setenv("SHOAL_HTTP_PORT", "2001")
    monkeypatch.setenv("SHOAL_GRPC_PORT", "2002")
    settings = read_settings(["--config", str(file), "--http-port", "3001"])
    assert (settings.http_port, settings.grpc_port, settings.max_batch_rows) == (3001, 2002, 3)
    assert settings.providers == ("cuda", "cpu")
    assert settings.max_queue_rows == 4096


def test_the_file_may_be_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("variant: int8\n")
    monkeypatch.setenv("SHOAL_CONFIG", str(file))
    assert read_settings([]).variant == "int8"


@pytest.mark.parametrize("text", ["cuda,cpu", " cuda , cpu "])
def test_providers_are_a_list_with_commas(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(["--providers", text]).providers == ("cuda", "cpu")
    monkeypatch.setenv("SHOAL_PROVIDERS", text)
    assert read_settings([]).providers == ("cuda", "cpu")


def test_what_kubernetes_injects_for_a_service_of_our_name_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SHOAL_PORT", "tcp://10.0.0.1:8000")
    assert read_settings([]).http_port == 8000


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read_settings([]).http_port = 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--http-port", "99999"], "--http-port: expected less than or equal to 65535, received '99999'"),
        (["--max-batch-rows", "many"], "--max-batch-rows: expected a whole number, received 'many'"),
        (["--latency-budget-ms", "x"], "--latency-budget-ms: expected a number, received 'x'"),
        (["--log-level", "loud"], "--log-level: expected 'debug', 'info', 'warning' or 'error', received 'loud'"),
        (["--providers", "gpu"], "--providers: expected 'cpu', 'cuda' or 'openvino', received 'gpu'"),
        (["--providers", ""], "--providers: expected 'cpu', 'cuda' or 'openvino', received ''"),
        (["--nonsense"], "unrecognized arguments: --nonsense; see python -m server --help"),
        (["--http", "1"], "unrecognized arguments: --http 1; see python -m server --help"),
        (["--http-port"], "argument --http-port: expected one argument; see python -m server --help"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(arguments: list[str], line: str) -> None:
    assert faults(*arguments) == [line]


def test_every_fault_has_its_line() -> None:
    assert [line.split(":")[0] for line in faults("--http-port", "x", "--max-body-bytes", "0")] == [
        "--http-port",
        "--max-body-bytes",
    ]


def test_one_port_for_both_is_a_fault_but_any_two_are_none() -> None:
    (line,) = faults("--http-port", "9000", "--grpc-port", "9000")
    assert "two different ports" in line
    assert read_settings(["--http-port", "0", "--grpc-port", "0"]).http_port == 0


def test_a_wrong_variable_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_DRAIN_GRACE_S", "-1")
    assert faults() == ["SHOAL_DRAIN_GRACE_S: expected greater than or equal to 0, received '-1'"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http_prt: 1", "http_prt in {file}: no such setting; did you mean http_port?"),
        ("zzz: 1", "zzz in {file}: no such setting; see --help"),
        ("host: [1]", "host in {file}: expected a valid string, received [1]"),
        ("providers: 5", "providers in {file}: expected a list of providers such as cuda,cpu, received 5"),
        ("providers: []", "providers in {file}: expected a list of providers such as cuda,cpu, received []"),
        ("a: [", "expected a YAML file of settings in {file}: "),
        ("- 1", "expected a YAML file of settings in {file}: "),
        ("\x00", "expected a YAML file of settings in {file}: "),
    ],
)
def test_a_wrong_line_of_the_file_names_the_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(text)
    (line,) = faults("--config", str(file))
    assert line.startswith(words.format(file=file))


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults("--config", "/nowhere.yaml") == [
        "--config: expected a YAML file of settings, there is no file /nowhere.yaml"
    ]
    monkeypatch.setenv("SHOAL_CONFIG", "/nowhere.yaml")
    assert faults() == ["SHOAL_CONFIG: expected a YAML file of settings, there is no file /nowhere.yaml"]


def test_help_teaches_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        read_settings(["--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in text
    for title in GROUPS:
        assert title in text
    assert "examples:" in text


def test_every_setting_is_in_one_group_with_a_description() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description, name
        for suffix, unit in (("_ms", "milliseconds"), ("_s", "seconds")):
            if name.endswith(suffix) and not name.endswith("_per_s"):
                assert unit in field.description


def test_the_page_of_settings_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--print-settings-docs"])
    assert capsys.readouterr().out == settings_docs()
    assert DOCS.read_text() == settings_docs(), "run: python -m server --print-settings-docs > docs/settings.md"


def test_workers_are_dealt_out_to_the_devices_in_turn() -> None:
    settings = read_settings(["--devices", "2,5"])
    assert settings.devices == (2, 5)
    assert [settings.of_slot(slot).devices for slot in range(4)] == [(2,), (5,), (2,), (5,)]
    assert read_settings([]).of_slot(3).devices == ()


def test_a_device_is_a_number_from_0() -> None:
    assert any("devices" in line for line in faults("--devices", "0,-1"))
