"""Shoal's client: pictures to a running server, classes back, over gRPC or HTTP, with or without an event loop.

GrpcClient   AsyncGrpcClient    the faster way; many pictures go over a few streams
HttpClient   AsyncHttpClient    where only HTTP gets through
"""

from shoal_client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    Refused,
    ServerFailed,
    ShoalError,
    Unauthenticated,
    Unavailable,
    UnsupportedImage,
)
from shoal_client.grpc_async import AsyncGrpcClient
from shoal_client.grpc_sync import GrpcClient
from shoal_client.http_async import AsyncHttpClient
from shoal_client.http_sync import HttpClient
from shoal_client.images import Image
from shoal_client.results import Answer, ClassScore, ModelInfo, Outcome, Prediction, Timing
from shoal_client.retries import Clock, RetryPolicy
from shoal_client.settings import ClientSettings

__all__ = [
    "Answer",
    "AsyncGrpcClient",
    "AsyncHttpClient",
    "ClassScore",
    "ClientSettings",
    "Clock",
    "ConnectionLost",
    "DeadlineExceeded",
    "GrpcClient",
    "HttpClient",
    "Image",
    "InvalidInput",
    "ModelInfo",
    "ModelNotFound",
    "Outcome",
    "Overloaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "Prediction",
    "Refused",
    "RetryPolicy",
    "ServerFailed",
    "ShoalError",
    "Timing",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedImage",
]
