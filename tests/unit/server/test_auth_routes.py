"""Which route and which method takes which scope: every one that is served, named here."""

from typing import Any, get_args

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from protos import classifier_pb2 as pb
from protos import inference_pb2 as v2
from protos import tensorflow_serving_pb2 as tf
from server.auth import Scope
from server.transports import grpc_security, http_security
from server.transports.http_docs import DOCS_ROUTES
from server.transports.http_explain import EXPLAIN_ROUTES
from server.transports.http_feedback import FEEDBACK_ROUTES
from server.transports.http_routes import ROUTES, Route
from server.transports.openapi import Served, build
from server.transports.tfserving_http import TFSERVING_ROUTES
from server.transports.v2_http import V2_ROUTES

SERVED: tuple[Route, ...] = (*ROUTES, *EXPLAIN_ROUTES, *FEEDBACK_ROUTES, *DOCS_ROUTES, *V2_ROUTES, *TFSERVING_ROUTES)


def routes_of(scope: str | None) -> set[str]:
    return {
        f"{route.method} {route.path}" for route in SERVED if http_security.scope_of(route.method, route.path) == scope
    }


def test_what_changes_something_takes_the_scope_admin() -> None:
    assert routes_of("admin") == {
        "POST /v2/repository/models/{model}/load",
        "POST /v2/repository/models/{model}/unload",
        "GET /v2/trace/setting",
        "POST /v2/trace/setting",
        "GET /v2/models/{model}/trace/setting",
        "POST /v2/models/{model}/trace/setting",
        "GET /v2/logging",
        "POST /v2/logging",
    }


def test_what_tells_neither_of_models_nor_of_callers_is_open() -> None:
    assert routes_of(None) == {f"GET {path}" for path in http_security.OPEN}


def test_metrics_have_a_scope_of_their_own() -> None:
    assert routes_of("metrics") == {"GET /metrics"}


def test_who_may_ask_need_not_be_who_may_say_what_was_right() -> None:
    assert routes_of("feedback") == {"POST /feedback"}


def test_all_else_takes_the_scope_predict() -> None:
    named = routes_of("predict")
    assert {"POST /predict", "POST /explain/{model}", "GET /model-info", "GET /v1/models", "GET /v2"} <= named
    assert all(":predict" not in path or path in named for path in (f"{r.method} {r.path}" for r in SERVED))
    assert len(SERVED) == sum(len(routes_of(scope)) for scope in (None, *get_args(Scope)))


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("HEAD", "/metrics", "metrics"),
        ("HEAD", "/health", None),
        ("POST", "/health", "admin"),
        ("POST", "/metrics", "admin"),
        ("GET", "/forgotten", "admin"),
        ("POST", "/predict/forgotten/{model}", "admin"),
        ("DELETE", "/predict", "admin"),
        ("POST", "/v2/models/{model}", "admin"),
    ],
)
def test_what_nobody_named_lets_nobody_in(method: str, path: str, scope: str | None) -> None:
    assert http_security.scope_of(method, path) == scope


# ---- what the OpenAPI document tells of it ----


def test_the_document_tells_who_may_what_where_that_is_asked() -> None:
    document = build(SERVED, Served("1", ("pets",), "image", asks=True))
    assert document["components"]["securitySchemes"].keys() == {"token", "key"}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            scope = http_security.scope_of(method.upper(), path)
            assert operation["security"] == ([] if scope is None else [{"token": [scope]}, {"key": [scope]}])
            assert ({"401", "403"} <= operation["responses"].keys()) == (scope is not None)
    headers = document["components"]["responses"]["V2Error401"]["headers"]
    assert "WWW-Authenticate" in headers


@pytest.mark.slow
def test_that_document_is_openapi_3_1_too() -> None:
    document = build(SERVED, Served("1", ("pets",), "image", asks=True))
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_where_nobody_is_asked_it_tells_nothing_of_it() -> None:
    document = build(SERVED, Served("1", ("pets",), "image"))
    assert "securitySchemes" not in document["components"]
    assert not any(
        "security" in made or "401" in made["responses"]
        for item in document["paths"].values()
        for made in item.values()
    )


# ---- gRPC ----

FILES: tuple[Any, ...] = (pb.DESCRIPTOR, v2.DESCRIPTOR, tf.DESCRIPTOR)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]


def methods_of(scope: str | None) -> set[str]:
    return {method for method in METHODS if grpc_security.scope_of(method) == scope}


def test_methods_that_change_something_take_the_scope_admin() -> None:
    assert methods_of("admin") == {
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        "/inference.GRPCInferenceService/TraceSetting",
        "/inference.GRPCInferenceService/LogSettings",
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    }


def test_methods_that_tell_only_of_life_are_open() -> None:
    assert methods_of(None) == {
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
    assert grpc_security.scope_of("/grpc.health.v1.Health/Watch") is None


def test_a_method_that_nobody_named_lets_nobody_in() -> None:
    assert grpc_security.scope_of("/shoal.v1.Classifier/Forgotten") == "admin"
    assert grpc_security.scope_of("/new.Service/Predict") == "admin"


def test_every_method_is_of_a_kind_that_has_a_guard() -> None:
    kinds = {
        (method.client_streaming, method.server_streaming)
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert kinds == {(False, False), (True, True)}
