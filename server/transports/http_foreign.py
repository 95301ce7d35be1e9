"""Answers that aiohttp gives by itself, before any handler: to what is no HTTP, or expects what nobody can do."""

import json
from http import HTTPStatus
from typing import Final

from aiohttp import web

from server.transports.request_ids import request_id_of

PROBLEM: Final = "application/problem+json"
MAX_DETAIL: Final = 300


def as_problem(answer: web.StreamResponse) -> web.Response:
    """Gives such an answer the form that all others have.

    Args:
        answer: aiohttp's; not sent yet.
    """
    status = HTTPStatus(answer.status)
    request_id = request_id_of(None)
    said = answer.text if isinstance(answer, web.Response) else None
    document = {
        "type": f"urn:shoal:{status.phrase.lower().replace(' ', '-')}",
        "title": status.phrase,
        "status": status.value,
        "detail": " ".join((said or status.description).split())[:MAX_DETAIL],
        "request_id": request_id,
    }
    headers = {"Server": "Shoal", "X-Request-Id": request_id, "Server-Timing": "total;dur=0.0"}
    problem = web.Response(
        status=status, body=json.dumps(document).encode("ascii"), content_type=PROBLEM, headers=headers
    )
    problem.force_close()
    return problem
