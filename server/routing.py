"""Which version of a model answers a request. Pure.

    <models>/<name>/policy.json ──parse_policy──▶ TrafficPolicy ──route(key)──▶ version, and perhaps a shadow

    {
      "default": 3,                                     else the latest version that is ready
      "canary": {"version": 4, "percent": 10},          a tenth of the keys
      "ab": {"name": "trial-7", "percent": {"3": 50, "4": 50}},     instead of a canary
      "shadow": {"version": 5, "percent": 100},         answers too, but nobody sees it
      "versions": "latest:2"                            what is loaded beside these: "all", "latest:<count>", [1, 4]
    }

Every part may be left out. A key (a user, a session, else the request's id) is hashed, so it meets the same version at
every worker and after every restart, and a canary that grows from 10 to 20 % keeps the keys it had. A version that a
policy names but that is not ready gives its share to the default.
"""

import hashlib
import random
from collections.abc import Callable, Collection
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from server.errors import ShoalError, StartupError
from server.repository import VersionPolicy

_HASH_BYTES: Final = 8
_PLACES: Final = float(1 << 53)  # as many as a float tells apart below 1: more would round the last one up to 100 %
_FULL: Final = 100.0

Percent = Annotated[float, Field(ge=0, le=100)]
Version = Annotated[int, Field(ge=1, lt=10**18)]


class PolicyError(ShoalError):
    """A traffic policy's file is not one; the policy before it goes on."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(_Part):
    """A version and its share of the keys.

    Args:
        version: Which one.
        percent: Of the keys, 0..100.
    """

    version: Version
    percent: Percent


class Split(_Part):
    """An A/B trial.

    Args:
        name: Salts the hash, so that two trials divide the same keys independently.
        percent: Version → share of the keys, 0..100; what is left goes to the default.
    """

    name: str = ""
    percent: dict[Version, Percent]

    @field_validator("percent")
    @classmethod
    def _at_most_all(cls, percent: dict[int, float]) -> dict[int, float]:
        if sum(percent.values()) > _FULL:
            raise ValueError(f"expected at most 100 percent in all, received {sum(percent.values()):g}")
        return percent


class TrafficPolicy(_Part):
    """How one model's requests are divided among its versions.

    Args:
        default: Version of whatever no other part takes; None for the latest that is ready.
        canary: A version on trial with a share of the keys.
        ab: A trial of several versions; not together with a canary.
        shadow: A version that also computes a share of the requests; its answers are compared and thrown away.
        versions: Which versions are loaded beside those named here; None for the server's setting.
    """

    default: Version | None = None
    canary: Share | None = None
    ab: Split | None = None
    shadow: Share | None = None
    versions: VersionPolicy | None = None

    @field_validator("versions", mode="before")
    @classmethod
    def _parse_versions(cls, value: object) -> object:
        text = ",".join(map(str, value)) if isinstance(value, list) else value
        try:
            return VersionPolicy.parse(text) if isinstance(text, str) else text
        except StartupError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _one_trial(self) -> "TrafficPolicy":
        if self.canary and self.ab:
            raise ValueError("expected either 'canary' or 'ab', received both")
        return self

    @property
    def named(self) -> frozenset[int]:
        """The versions that have to be loaded for this policy."""
        shares = [share.version for share in (self.canary, self.shadow) if share]
        default = [self.default] if self.default else []
        return frozenset(default + shares + list(self.ab.percent if self.ab else ()))


class Route(NamedTuple):
    """Where a request goes.

    Args:
        version: Answers it.
        shadow: Computes it too, unseen; None for none.
    """

    version: int
    shadow: int | None = None


LATEST: Final = TrafficPolicy()


def parse_policy(text: bytes) -> TrafficPolicy:
    """Reads a policy file.

    Raises:
        PolicyError: It is no JSON, or no policy.
    """
    try:
        return TrafficPolicy.model_validate_json(text, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PolicyError(
            f"expected a traffic policy, received an invalid one: {where}: {first['msg']};"
            " correct the file, until then the policy before it goes on"
        ) from error


def route(
    policy: TrafficPolicy,
    ready: Collection[int],
    key: str,
    *,
    model: str = "",
    draw: Callable[[], float] = random.random,
) -> Route:
    """Chooses the version for one request.

    Args:
        policy: The model's.
        ready: Versions that can answer; at least one.
        key: What stays together; empty to draw at random.
        model: The model's name, which salts the hash: a key's place with one model says nothing about another.
        draw: Random numbers of [0, 1) for requests without a key.

    Returns:
        The version that answers, always one of `ready`, and the shadow.
    """
    default = policy.default if policy.default in ready else max(ready)
    assert default is not None
    version = _trial(policy, ready, key, model, draw)
    chosen = default if version is None else version
    shadow = policy.shadow
    if shadow is None or shadow.version not in ready or shadow.version == chosen:
        return Route(chosen)
    # A salt of its own: otherwise a shadow of 10 % would see the very keys that a canary of 10 % answers.
    return Route(chosen, shadow.version if _place(key, f"{model}/shadow", draw) < shadow.percent else None)


def exposed(policy: TrafficPolicy, ready: Collection[int]) -> frozenset[int]:
    """The versions whose answers callers may get.

    Args:
        policy: The model's.
        ready: Versions that can answer; at least one.
    """
    arms = policy.ab.percent if policy.ab else {}
    if policy.canary:
        arms = {policy.canary.version: policy.canary.percent}
    trial = {version for version, percent in arms.items() if percent > 0 and version in ready}
    default = {max(ready) if policy.default is None or policy.default not in ready else policy.default}
    return frozenset(trial if sum(arms[version] for version in trial) >= _FULL else trial | default)


def _trial(
    policy: TrafficPolicy, ready: Collection[int], key: str, model: str, draw: Callable[[], float]
) -> int | None:
    if policy.canary:
        arms, salt = {policy.canary.version: policy.canary.percent}, f"{model}/canary"
    elif policy.ab:
        arms, salt = policy.ab.percent, f"{model}/ab/{policy.ab.name}"
    else:
        return None
    place, start = _place(key, salt, draw), 0.0
    for version, percent in arms.items():
        start += percent
        if place < start:
            return version if version in ready else None
    return None


def _place(key: str, salt: str, draw: Callable[[], float]) -> float:
    """A key's place in [0, 100): the same wherever and whenever it is worked out."""
    if not key:
        return draw() * _FULL
    digest = hashlib.blake2b(f"{salt}\0{key}".encode(errors="surrogatepass"), digest_size=_HASH_BYTES).digest()
    return (int.from_bytes(digest, "big") >> 11) / _PLACES * _FULL
