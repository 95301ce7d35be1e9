"""`POST /feedback`: what was right, said later.

body ──▶ codec ──▶ service.take_feedback ──▶ codec ──▶ {"accepted": …, "correct": …, "unknown": […]}
"""

from typing import Final

from aiohttp import web

from server.errors import PredictionNotFound
from server.transports import openapi_feedback
from server.transports.codecs import feedback
from server.transports.http_inference import JSON
from server.transports.http_keys import SERVICE
from server.transports.http_routes import Route, read_body


async def post_feedback(request: web.Request) -> web.Response:
    """Answers `POST /feedback`: 200 where any of it was taken in, 404 where nothing it speaks of is in the log."""
    given = feedback.decode_request(await read_body(request))
    taken = await request.app[SERVICE].take_feedback(given)
    if not taken.accepted:
        one = taken.unknown[0]
        raise PredictionNotFound(
            f"expected request ids of logged predictions, received {one.request_id} (picture {one.position})"
            f"{f' and {len(taken.unknown) - 1:,} more' if len(taken.unknown) > 1 else ''}: never answered here, deleted"
            " by age, or not logged while the database was away"
        )
    return web.Response(body=feedback.encode_response(taken), content_type=JSON)


FEEDBACK_ROUTES: Final = (
    Route("POST", "/feedback", post_feedback, "say what a picture really was", openapi_feedback.FEEDBACK),
)
