"""Names under which the HTTP application keeps what its handlers share."""

from typing import Final

from aiohttp import web

from server.metrics import Metrics
from server.security import Security
from server.service import Service
from server.tensors import Timing
from server.transports.v2 import V2

SERVICE: Final = web.AppKey("service", Service)
METRICS: Final = web.AppKey("metrics", Metrics)
V2_DOOR: Final = web.AppKey("v2", V2)
SECURITY: Final = web.AppKey("security", Security)
BODY_LIMIT: Final = web.AppKey("body_limit", int)
REQUEST_ID: Final = web.RequestKey("request_id", str)
TIMING: Final = web.RequestKey("timing", Timing)
