"""docker-compose.yml: it has the published schema, hands on every setting, and opens no more than it has to."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("serve", "serve-gpu", "serve-next", "proxy", "training", "training-gpu", "optimization", "export", "jupyter")
# What the image or the service itself decides, so that .env cannot contradict the ports and volumes of this file.
FIXED = {"config", "models", "host", "http_port", "grpc_port", "ports_file", "providers", "log_format"}


def environment(name: str) -> dict[str, Any]:
    found = SERVICES[name].get("environment", {})
    assert isinstance(found, dict)
    return found


def test_it_has_the_schema_of_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (make setup does it)")
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_old_and_new_compose_read_it() -> None:
    # 1.29 knows neither of these; a `version` is a warning in Compose v2
    assert not {"name", "version", "include"} & COMPOSE.keys()
    assert all("gpus" not in service and "develop" not in service for service in SERVICES.values())


def test_it_has_a_service_for_each_job() -> None:
    assert set(SERVICES) == {*OURS, "prometheus", "alertmanager", "grafana", "postgres"}
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["serve"]


def test_every_setting_of_the_server_is_handed_on() -> None:
    expected = {ENV_PREFIX + name.upper() for name in Settings.model_fields.keys() - FIXED}
    assert environment("serve").keys() == expected, "add it under x-settings in docker-compose.yml, or to FIXED here"
    assert environment("serve-gpu").keys() == expected | {"SHOAL_PROVIDERS"}


def test_answers_wait_for_their_database_on_the_volume_and_not_in_memory() -> None:
    spool = environment("serve")["SHOAL_PREDICTION_LOG_SPOOL"]
    assert spool == "${SHOAL_PREDICTION_LOG_SPOOL:-/var/lib/shoal/spool}"
    assert any(volume.endswith(":/var/lib/shoal") for volume in SERVICES["serve"]["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_do_nothing_that_they_need_not(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "mem_limit" in service


def test_only_the_proxy_is_open_to_the_network() -> None:
    opened = {
        name: [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
        for name, service in SERVICES.items()
    }
    assert [name for name, ports in opened.items() if ports] == ["serve", "serve-gpu", "proxy"]
    assert all(port.startswith("${SERVE_ADDRESS:-127.0.0.1}:") for port in opened["serve"] + opened["serve-gpu"])
    assert "ports" not in SERVICES["postgres"]


def test_what_serves_comes_back_and_what_trains_ends() -> None:
    lasting = {
        "serve",
        "serve-gpu",
        "serve-next",
        "proxy",
        "jupyter",
        "prometheus",
        "alertmanager",
        "grafana",
        "postgres",
    }
    for name, service in SERVICES.items():
        assert service["restart"] == ("unless-stopped" if name in lasting else "no"), name


def test_gpus_are_reserved_for_what_runs_on_them() -> None:
    for name in ("serve-gpu", "training-gpu"):
        (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert SERVICES[name]["build"]["target"] == "gpu"


def test_a_replica_only_reads_the_models_that_export_writes() -> None:
    def source_and_rights(name: str) -> tuple[str, str]:
        (volume,) = [volume for volume in SERVICES[name]["volumes"] if ":/models" in volume]
        source, rights = volume.split(":/models")
        return source, rights

    read, written = source_and_rights("serve"), source_and_rights("export")
    assert read[0] == written[0]
    assert (read[1], written[1]) == (":ro", "")


def test_named_volumes_networks_and_folders_exist() -> None:
    for name, service in SERVICES.items():
        for network in service.get("networks", []):
            assert network in COMPOSE["networks"]
        for volume in service.get("volumes", []):
            source = re.sub(r"^\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            if source.startswith("./deploy/secrets"):
                continue  # made by deploy/secrets.sh
            exists = (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            assert exists, f"{name}: {volume}"


def test_the_example_of_env_names_every_variable_and_no_other() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT)) | {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"}
    shown = set(re.findall(r"^#?([A-Z][A-Z_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    settings = {name for name in shown if name.startswith(ENV_PREFIX)}
    assert shown - settings == used - {name for name in used if name.startswith(ENV_PREFIX)}
    assert settings <= environment("serve").keys()


def test_a_container_is_stopped_no_sooner_than_it_has_drained() -> None:
    grace_s = int(SERVICES["serve"]["stop_grace_period"].removesuffix("s"))
    fields = Settings.model_fields
    assert grace_s > fields["drain_timeout_s"].default + fields["drain_grace_s"].default


def test_prometheus_asks_the_port_that_the_replicas_have_for_metrics() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = [one for one in config["scrape_configs"] if one["job_name"] == "shoal"]
    assert {one["port"] for one in job["dns_sd_configs"]} == {environment("serve")["SHOAL_METRICS_PORT"]}
    assert {name for one in job["dns_sd_configs"] for name in one["names"]} <= set(SERVICES)
