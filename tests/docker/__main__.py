"""`python -m tests.docker`, or `make docker-test`: builds the images and runs the stack as an operator would.

    build ─▶ look at the images ─▶ 2 × serve behind the proxy ─▶ train ─▶ export ─▶ the same containers answer with the
    new version by HTTPS and gRPC over TLS ─▶ kill one of two under load ─▶ bring it back ─▶ move to the next release
    under load ─▶ ask the prediction log for all of it ─▶ remove everything

It needs a Docker engine and Compose, takes some minutes, and leaves the built images.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import grpc

from tests.docker.clients import Https, Load, grpc_classifier, load, token
from tests.docker.stack import ROOT, Stack, run, stack, wait_until

# Both replicas log to one file of their common volume.
LOG: Final = "sqlite:////var/lib/shoal/predictions.db"
Counted = tuple[int, float]  # requests that were answered, and the seconds that they took together
MAX_ABOVE_BASE_BYTES: Final = 250_000_000
BASE: Final = "python:3.11-slim-bookworm"
IMAGES: Final = ("shoal-serve:docker-test", "shoal-train:docker-test", "shoal-proxy:docker-test")
PICTURE: Final = (ROOT / "docs/examples/seven.png").read_bytes
# What a replica may lose that is killed: what it answered since it last wrote to its spool, a quarter of a second.
LOST_WITH_A_KILL_S: Final = 0.5


def main() -> int:
    """Runs every step; the first that does not hold ends it."""
    parser = argparse.ArgumentParser(prog="python -m tests.docker", description=__doc__.splitlines()[0])
    parser.add_argument("--build-network", default="default", help="network of the builds (default: default)")
    parser.add_argument("--no-build", action="store_true", help="take the images that are there")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: stopped"))  # the stack goes down all the same
    variables = {
        "BUILD_NETWORK": arguments.build_network,
        "TRAIN_ARGS": "--epochs 4 --set filters=[8,16] --set dense_units=[32]",
        "SHOAL_PREDICTION_LOG": LOG,
        "SHOAL_TRUSTED_PROXIES": "172.16.0.0/12,192.168.0.0/16",
    }
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder), variables) as started:
        if not arguments.no_build:
            say("builds serve, training and proxy")
            started.compose("build", "serve", "training", "proxy")
        check_images()
        check_stack(started)
    say("all of it holds")
    return 0


def check_images() -> None:
    """What the images are, apart from what they do."""
    for image in IMAGES:
        user = run(["docker", "inspect", "--format", "{{.Config.User}}", image]).strip()
        expect(user == "10001:10001", f"{image} runs without root: {user or 'root'}")
        tools = in_image(image, "command -v gcc cc g++ ld as make; true")
        expect(not tools, f"{image} holds no compiler {tools}")
    above = _size_bytes(IMAGES[0]) - _size_bytes(BASE)
    expect(above <= MAX_ABOVE_BASE_BYTES, f"{IMAGES[0]} is {above / 1e6:.0f} MB above its base, at most 250")
    left = in_image(IMAGES[0], "ls -A ~root/.cache /tmp 2>/dev/null; ls /opt/shoal/bin | grep pip; true", "--user", "0")
    expect("pip" not in left and ".txt" not in left, f"no pip, no cache and no file of the build is left {left}")
    cores = in_image(IMAGES[0], "python -c 'import server.cores as c; print(c.available_cores())'", "--cpus", "1")
    expect(cores == "1", f"a quota of one core is one worker: {cores}")


def in_image(image: str, command: str, *options: str) -> str:
    """What a shell command prints in a container of its own."""
    return run(["docker", "run", "--rm", *options, "--entrypoint", "sh", image, "-c", command]).strip()


def check_stack(started: Stack) -> None:
    """From the start of two replicas to the death of one."""
    say("starts two replicas and the proxy")
    started.compose("up", "-d", "--no-build", "--scale", "serve=2", "serve", "proxy")
    plain, bearer = Https(started), token(started)
    wait_until("the proxy answers for a ready replica", lambda: _ready(started))
    for container in [*started.containers("serve"), *started.containers("proxy")]:
        wait_until("each container is healthy by its own check", partial(_healthy, container))
        expect(_read_only(container), f"{container[:12]} is healthy, and its root file system read-only")
    status, _ = plain.ask("POST", "/predict", PICTURE())
    expect(status == 401, f"no token, no answer: {status}")
    check_clients_address(started)
    check_hidden(started, bearer)
    check_answers(started, bearer, version=1)
    check_feedback(started, bearer)
    check_new_version(started, bearer)
    killed = check_dying_replica(started, bearer)
    moved = check_next_release(started, bearer)
    check_prediction_log(started, killed, moved)
    check_nobody(started, bearer)


def check_hidden(started: Stack, bearer: str) -> None:
    """What is the operator's is not to be had through the proxy."""
    client = Https(started, bearer)
    for path in ("/metrics", "/v2/repository/index"):
        status, _ = client.ask("POST" if "v2" in path else "GET", path)
        expect(status == 404, f"{path} is hidden behind the proxy: {status}")


def check_clients_address(started: Stack) -> None:
    """A refusal in the server's log has the address that the proxy saw, not the proxy's."""
    seen = {line["client"] for line in _json_log(started.containers("proxy"))}
    noted = {line["address"] for line in _json_log(started.containers("serve")) if line.get("event") == "refused"}
    expect(bool(noted) and noted <= seen, f"refusals are of the clients that the proxy saw: {noted} of {seen}")


def check_feedback(started: Stack, bearer: str) -> None:
    """What was answered is in the log, whichever replica is asked; saying what was right takes a scope of its own."""
    asked = Https(started, bearer).ask("POST", "/predict", PICTURE())[1]
    said = json.dumps({"request_id": asked["request_id"], "label": asked["labels"][0]}).encode()
    status, _ = Https(started, bearer).ask("POST", "/feedback", said)
    expect(status == 403, f"feedback takes the scope feedback: {status}")
    judge = Https(started, token(started, "feedback"))
    for _ in range(2):
        status, told = judge.ask("POST", "/feedback", said)
        expect(status == 200 and told["correct"] == 1, f"feedback on what was answered is taken: {status} {told}")


def check_answers(started: Stack, bearer: str, version: int) -> None:
    """Both ports answer with a version, and gRPC refuses who shows no token."""
    status, answer = Https(started, bearer).ask("POST", "/predict", PICTURE())
    expect(status == 200 and answer["version"] == version, f"HTTPS answers with version {version}: {status} {answer}")
    with grpc_classifier(started, bearer) as classify:
        reply = classify(PICTURE())
        expect(reply.version == version, f"gRPC over TLS answers with version {version}: {reply.version}")
    with grpc_classifier(started) as classify:
        try:
            classify(PICTURE())
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
        expect(code is grpc.StatusCode.UNAUTHENTICATED, f"gRPC without a token is refused: {code}")


def check_new_version(started: Stack, bearer: str) -> None:
    """Trains and exports in containers; the replicas, which nobody touches, answer with the new version."""
    before = started.containers("serve")
    say("trains the digits")
    started.job("training")
    say("exports")
    started.job("export")
    client = Https(started, bearer)
    took_s = wait_until(
        "version 2 answers", lambda: client.ask("POST", "/predict", PICTURE())[1].get("version") == 2, limit_s=60
    )
    say(f"version 2 answered {took_s:.1f} s after the export's end")
    time.sleep(2)  # the other replica looks at its folder by a clock of its own
    check_answers(started, bearer, version=2)
    expect(started.containers("serve") == before, "the same containers served all the time")


def check_dying_replica(started: Stack, bearer: str) -> Counted:
    """SIGKILL for one of two replicas under load, and its return: no request fails."""
    victim, began_s = started.containers("serve")[0], time.monotonic()
    with load(started, bearer, PICTURE()) as (by_https, by_grpc):
        wait_until("the load is under way", lambda: min(by_https.answered, by_grpc.answered) > 50)
        run(["docker", "kill", victim])
        say("killed one replica of two")
        time.sleep(4)  # what is measured is what clients see meanwhile
        run(["docker", "start", victim])
        wait_until("the replica is healthy again", partial(_healthy, victim))
        time.sleep(3)
    check_no_failures(by_https, by_grpc)
    expect(not by_https.reopened, f"and none had to open its connection again: {by_https.reopened}")
    retried = sum("," in line["replica"] for line in _proxy_log(started))
    say(f"the proxy sent {retried} requests to the other replica")
    answering = {line["replica"] for line in _proxy_log(started)[-200:]}
    expect(len([one for one in answering if one.endswith(":8000")]) == 2, f"both replicas answer again: {answering}")
    return by_https.answered + by_grpc.answered, time.monotonic() - began_s


def check_next_release(started: Stack, bearer: str) -> Counted:
    """`deploy/blue-green.sh` takes back a release that is not fit, and moves over to one that is, under load."""
    run(["docker", "tag", IMAGES[0], "shoal-serve:docker-test-next"])
    before, began_s = started.containers("serve"), time.monotonic()
    with load(started, bearer, PICTURE()) as (by_https, by_grpc):
        say("tries to move to a release whose p99 is said to be too slow")
        try:
            started.blue_green("docker-test-next", bearer, "--max-p99-ms 0.001")
            taken_back = ""
        except RuntimeError as error:
            taken_back = str(error)
        expect("not fit by itself" in taken_back, "it is taken back")
        expect(started.containers("serve") == before, "what served was not touched")
        say("moves to the next release")
        started.blue_green("docker-test-next", bearer, "--max-p99-ms 2000")
    check_no_failures(by_https, by_grpc)
    say(f"{by_https.reopened} kept connections were opened again, because nginx closes idle ones when it is reloaded")
    images = {
        run(["docker", "inspect", "--format", "{{.Config.Image}}", one]).strip() for one in started.containers("serve")
    }
    expect(images == {"shoal-serve:docker-test-next"}, f"the next release serves: {images}")
    expect(not started.containers("serve-next"), "nothing is left beside it")
    check_answers(started, bearer, version=2)
    return by_https.answered + by_grpc.answered, time.monotonic() - began_s


def check_prediction_log(started: Stack, killed: Counted, moved: Counted) -> None:
    """All that was answered is in the log, but for the last moments of the replica that was killed."""
    answered, may_lack = killed[0] + moved[0], round(killed[0] / killed[1] * LOST_WITH_A_KILL_S)
    wait_until("what waits is written", lambda: logged(started) >= answered - may_lack, limit_s=60)
    say(f"{logged(started)} predictions are in the log, {answered} and some more were answered")


def logged(started: Stack) -> int:
    """How many predictions the log has."""
    report = ["python", "-m", "server", "report", "--database", LOG]
    return int(json.loads(run(["docker", "exec", started.containers("serve")[0], *report]))["predictions"])


def check_nobody(started: Stack, bearer: str) -> None:
    """With no replica left, both ports say so in their protocol's words."""
    started.compose("stop", "serve")
    status, answer = Https(started, bearer).ask("POST", "/predict", PICTURE())
    expect(status == 502 and "no replica" in answer["error"], f"nobody is there, by HTTPS: {status} {answer}")
    with grpc_classifier(started, bearer) as classify:
        try:
            classify(PICTURE())
            told = "an answer"
        except grpc.RpcError as error:
            told = f"{error.code()} {error.details()}"
    expect("UNAVAILABLE no replica answered" in told, f"nobody is there, by gRPC: {told}")


def check_no_failures(by_https: Load, by_grpc: Load) -> None:
    """Every request was answered."""
    for name, counted in (("HTTPS", by_https), ("gRPC", by_grpc)):
        summary = (
            f"{counted.answered} answered, slowest {counted.slowest_s * 1e3:.0f} ms, failures {counted.failures[:3]}"
        )
        expect(not counted.failures, f"no request by {name} failed: {summary}")


def expect(holds: bool, what: str) -> None:  # noqa: FBT001  reads as a sentence
    """Says what holds, or ends the run.

    Raises:
        AssertionError: It does not.
    """
    if not holds:
        raise AssertionError(what)
    say(f"ok: {what}")


def say(text: str) -> None:
    """Prints one line."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201  a command prints


def _ready(started: Stack) -> bool:
    try:
        return Https(started).ask("GET", "/health/ready")[0] == 200
    except OSError:
        return False


def _healthy(container: str) -> bool:
    return run(["docker", "inspect", "--format", "{{.State.Health.Status}}", container]).strip() == "healthy"


def _read_only(container: str) -> bool:
    return run(["docker", "inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", container]).strip() == "true"


def _size_bytes(image: str) -> int:
    return int(run(["docker", "image", "inspect", "--format", "{{.Size}}", image]))


def _proxy_log(started: Stack) -> list[dict[str, str]]:
    return _json_log(started.containers("proxy"))


def _json_log(containers: Sequence[str]) -> list[dict[str, str]]:
    # Our servers log to standard error, nginx to standard output.
    told = [run(["sh", "-c", f"docker logs {container} 2>&1"]) for container in containers]
    return [json.loads(line) for line in "".join(told).splitlines() if line.startswith("{")]


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, AssertionError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
