"""deploy/kubernetes and deploy/kserve: every overlay builds, has the schema, and fits together with the server."""

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import ENV_PREFIX, Settings
from training import cli as training_cli

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = ("overlays/cpu", "overlays/gpu", "overlays/cpu-pull", "tuning")
SERVING = OVERLAYS[:3]
OPERATORS = ("monitoring.coreos.com/", "serving.kserve.io/")  # their schemas come with them, not with Kubernetes
VERSION = "1.33"

Manifest = dict[str, Any]


def documents(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module")
def built() -> dict[str, list[Manifest]]:
    """What `kubectl apply -k` would send, for each overlay."""
    kubectl, kustomize = shutil.which("kubectl"), shutil.which("kustomize")
    if kubectl is None and kustomize is None:
        pytest.skip("neither kubectl nor kustomize is installed")
    command = [kustomize, "build"] if kustomize else [str(kubectl), "kustomize"]
    found = {}
    for overlay in OVERLAYS:
        done = subprocess.run([*command, str(KUBERNETES / overlay)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[overlay] = documents(done.stdout)
    return found


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"])]
    return found


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "Job"):
            yield manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def assert_valid(manifest: Manifest) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it opens its schemas by an interface that Python has deprecated
        kubernetes_validate = pytest.importorskip(
            "kubernetes_validate", reason="make setup installs kubernetes-validate"
        )
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def raw_manifests() -> list[Path]:
    """The files as they are, less what only kustomize reads."""
    files = [*KUBERNETES.rglob("*.yaml"), *(ROOT / "deploy/kserve").glob("*.yaml")]
    return sorted(
        file for file in files if file.name not in ("kustomization.yaml", "pull.yaml") and "values" not in file.name
    )


@pytest.mark.parametrize("file", raw_manifests(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_manifest_has_the_schema_of_its_kind(file: Path) -> None:
    for manifest in documents(file.read_text()):
        if not manifest["apiVersion"].startswith(OPERATORS):
            assert_valid(manifest)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_an_overlay_makes_has_the_schema_too(built: dict[str, list[Manifest]], overlay: str) -> None:
    assert built[overlay]
    for manifest in built[overlay]:
        if not manifest["apiVersion"].startswith(OPERATORS):
            assert_valid(manifest)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace(built: dict[str, list[Manifest]], overlay: str) -> None:
    for manifest in built[overlay]:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "shoal", manifest["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_meet_the_restricted_standard(built: dict[str, list[Manifest]], overlay: str) -> None:
    for pod in pods(built[overlay]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_service_sets_a_setting_of_the_server_by_its_name(built: dict[str, list[Manifest]], overlay: str) -> None:
    for pod in pods(built[overlay]):
        assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("overlay", SERVING)
def test_whatever_points_at_the_replicas_finds_them(built: dict[str, list[Manifest]], overlay: str) -> None:
    manifests = built[overlay]
    deployment = one(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    for service in (one(manifests, "Service", "shoal"), one(manifests, "Service", "shoal-grpc")):
        assert service["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert one(manifests, kind)["spec"][path]["matchLabels"].items() <= labels
    target = one(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert one(manifests, "Service", "shoal-grpc")["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("overlay", SERVING)
def test_the_pod_outlives_its_drain(built: dict[str, list[Manifest]], overlay: str) -> None:
    pod = one(built[overlay], "Deployment")["spec"]["template"]["spec"]
    settings = settings_of(built[overlay])
    stop_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert stop_s + settings.drain_grace_s + settings.drain_timeout_s < pod["terminationGracePeriodSeconds"]


def settings_of(manifests: list[Manifest]) -> Settings:
    """The settings that the pods get; one that does not exist or is out of bounds is an error."""
    data = next(m["data"] for m in manifests if m["kind"] == "ConfigMap" and "settings" in m["metadata"]["name"])
    assert all(name.startswith(ENV_PREFIX) for name in data)
    return Settings(**{name.removeprefix(ENV_PREFIX).lower(): value for name, value in data.items()})


@pytest.mark.parametrize("overlay", SERVING)
def test_the_settings_are_the_servers(built: dict[str, list[Manifest]], overlay: str) -> None:
    assert settings_of(built[overlay]).providers == (("cuda",) if overlay == "overlays/gpu" else ("cpu",))


@pytest.mark.parametrize("overlay", SERVING)
def test_a_database_that_is_away_does_not_fill_the_pods_disk(built: dict[str, list[Manifest]], overlay: str) -> None:
    settings, pod = settings_of(built[overlay]), one(built[overlay], "Deployment")["spec"]["template"]["spec"]
    tmp = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "tmp")
    workers = settings.workers or int(pod["containers"][0]["resources"]["limits"]["cpu"])
    assert 2 * workers * settings.prediction_log_spool_bytes <= int(tmp["sizeLimit"].removesuffix("Mi")) << 20


def test_the_probes_ask_what_the_server_answers(built: dict[str, list[Manifest]]) -> None:
    container = one(built["overlays/cpu"], "Deployment")["spec"]["template"]["spec"]["containers"][0]
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"/health/ready", "/health/live"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"  # a busy server must not be killed


def test_a_gpu_is_asked_for_where_the_provider_is_cuda(built: dict[str, list[Manifest]]) -> None:
    container = one(built["overlays/gpu"], "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith("-gpu")
    settings = settings_of(built["overlays/gpu"])
    assert (settings.workers, settings.decode_threads) == (1, int(container["resources"]["limits"]["cpu"]) - 1)


def test_models_come_from_the_volume_or_are_pulled_never_both(built: dict[str, list[Manifest]]) -> None:
    def models(overlay: str) -> Manifest:
        pod = one(built[overlay], "Deployment")["spec"]["template"]["spec"]
        return next(volume for volume in pod["volumes"] if volume["name"] == "models")

    assert "persistentVolumeClaim" in models("overlays/cpu")
    assert models("overlays/cpu-pull").keys() == {"name", "emptyDir"}
    assert not [m for m in built["overlays/cpu-pull"] if m["kind"] == "PersistentVolumeClaim"]


def test_scaling_goes_by_the_metric_that_the_adapter_makes(built: dict[str, list[Manifest]]) -> None:
    values = yaml.safe_load((KUBERNETES / "components/monitoring/prometheus-adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    metrics = one(built["overlays/cpu"], "HorizontalPodAutoscaler")["spec"]["metrics"]
    names = [metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"]
    assert names == [rule["name"]["as"]]
    assert "shoal_stage_seconds" in (ROOT / "server/metrics.py").read_text() + (ROOT / "docs/metrics.md").read_text()


def test_the_tuning_job_says_what_tune_understands(built: dict[str, list[Manifest]]) -> None:
    (pod,) = pods(built["tuning"])
    arguments = pod["containers"][0]["args"]
    assert arguments[:3] == ["python", "-m", "training"]
    options = training_cli.parser().parse_args(arguments[3:])
    assert options.best == "0"
    assert one(built["tuning"], "Job")["spec"]["completionMode"] == "Indexed"


def test_the_inference_service_names_the_runtime_beside_it() -> None:
    (runtime,) = documents((ROOT / "deploy/kserve/runtime.yaml").read_text())
    (service,) = documents((ROOT / "deploy/kserve/inference-service.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [known["name"] for known in runtime["spec"]["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"  # KServe looks for that one
    assert container["args"][:2] == ["--models", "/mnt/models"]  # where its initializer puts the model
