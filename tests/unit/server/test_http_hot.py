from typing import Any

import pytest
from aiohttp.http_parser import HttpRequestParserPy
from hypothesis import example, given
from hypothesis import strategies as st

from server.tensors import Timing
from server.transports.http_hot import MAX_KEPT, MAX_KEPT_BYTES, Heads, Hot, read, spell, spell_head
from server.transports.http_inference import Answer

BODY = b"\x89PNG\r\n\r\n bytes"


def request(path: str = "/predict", *headers: str, body: bytes = BODY, line: str = "POST {} HTTP/1.1") -> bytes:
    lines = [line.format(path), "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


WHOLE = request()
LIMIT = 1000


def hot(data: bytes) -> Hot:
    found = read(data, LIMIT)
    assert isinstance(found, Hot)
    return found


def test_a_plain_prediction_is_read() -> None:
    found = hot(
        request(
            "/predict/cifar-10.b",
            "content-type:  image/png ",
            "X-Request-ID: mine",
            "x-latency-budget-ms: 50",
            "Connection: Keep-Alive",
        )
    )
    call = found.call
    assert (found.v2, found.path) == (False, "/predict/cifar-10.b")
    assert (call.model, call.version, call.body, call.content_type) == ("cifar-10.b", None, BODY, "image/png")
    assert (call.request_id, call.budget_ms, call.header_length) == ("mine", "50", None)


def test_a_v2_inference_is_read() -> None:
    found = hot(request("/v2/models/a/versions/7/infer", "Inference-Header-Content-Length: 3"))
    assert (found.v2, found.call.model, found.call.version, found.call.header_length) == (True, "a", "7", "3")
    assert hot(request("/v2/models/a/infer")).call.version is None


def test_the_default_model_and_no_type() -> None:
    call = hot(request(body=b"")).call
    assert (call.model, call.content_type, call.body) == ("", "", b"")


def test_every_request_without_a_name_gets_its_own() -> None:
    assert hot(WHOLE).call.request_id != hot(WHOLE).call.request_id
    assert hot(request("/predict", "X-Request-Id: with spaces")).call.request_id != "with spaces"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        WHOLE + b"x",
        WHOLE[:20],
        WHOLE.replace(b"\r\n", b"\n"),
        WHOLE.replace(b"Host: x\r\n", b""),
        WHOLE.replace(b"Host: x", b"Host : x"),
        WHOLE.replace(b"Host: x", b"Host: \xff"),
        WHOLE.replace(b"Host: x", b"Host: x\r\n folded"),
        WHOLE.replace(b"Host: x", b"Host: x\r\nHost: y"),
        WHOLE.replace(b"Host: x", b"Host: x\r\ncontent-length: 4"),
        WHOLE.replace(b"Host: x", b"Host: x\x00"),
        WHOLE.replace(b"Content-Length: 14", b"Content-Length: +14"),
        WHOLE.replace(b"Content-Length: 14", b"Content-Length: 0000000014"),
        WHOLE.replace(b"Content-Length: 14\r\n", b""),
        request(line="GET {} HTTP/1.1"),
        request(line="POST {} HTTP/1.0"),
        request(line="POST  {} HTTP/1.1"),
        request("/predict?top_k=3"),
        request("/predict/a/b"),
        request("/predict/a%20b"),
        request("/v2/models/a/ready"),
        request("/v2/models/a/infer", "Accept-Encoding: gzip"),
        request("/predict", "Expect: 100-continue"),
        request("/predict", "Transfer-Encoding: chunked"),
        request("/predict", "Content-Encoding: gzip"),
        request("/predict", "Connection: close"),
        request("/predict", "Upgrade: websocket"),
        request("/predict", "Authorization: Bearer x"),
    ],
)
def test_everything_else_is_left_to_aiohttp(data: bytes) -> None:
    assert read(data, LIMIT) is None


def test_a_body_that_is_not_all_there_is_waited_for() -> None:
    head = len(WHOLE) - len(BODY)
    assert {read(WHOLE[:length], LIMIT) for length in range(head, len(WHOLE))} == {len(WHOLE)}
    assert {read(WHOLE[:length], LIMIT) for length in range(head)} == {None}


def test_a_body_over_the_limit_is_not_waited_for() -> None:
    assert isinstance(read(request(body=b"x" * LIMIT), LIMIT), Hot)
    assert read(request(body=b"x" * (LIMIT + 1)), LIMIT) is None
    assert read(request(body=b"x" * (LIMIT + 1))[:-1], LIMIT) is None


class _Loop:
    """The little that aiohttp's parser asks of a loop."""

    def get_debug(self) -> bool:
        return False


class _Protocol:
    """The little that it asks of a connection."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Host", "content-type", "X-Request-Id", "Accept", "Cookie", "TE", "a", ""]),
        st.text(st.characters(max_codepoint=255), max_size=8),
    ),
    max_size=4,
)


@given(
    path=st.one_of(st.sampled_from(["/predict", "/predict/m", "/v2/models/m/infer"]), st.text(max_size=9)),
    headers=HEADERS,
    body=st.binary(max_size=20),
    cut=st.integers(-3, 3),
)
@example(path="/predict", headers=[("a", "b\r\nContent-Length: 0")], body=b"abc", cut=0)
def test_what_is_read_here_aiohttp_reads_the_same(
    path: str, headers: list[tuple[str, str]], body: bytes, cut: int
) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    data = f"POST {path} HTTP/1.1\r\nHost: h\r\n{head}Content-Length: {len(body) + cut}\r\n\r\n".encode() + body
    found = read(data, LIMIT)
    if not isinstance(found, Hot):
        return
    parser: Any = HttpRequestParserPy(_Protocol(), _Loop(), 2**16)  # type: ignore[arg-type]
    messages, upgraded, rest = parser.feed_data(data)
    ((message, payload),) = messages
    assert (message.method, message.path, message.should_close, upgraded, rest) == (
        "POST",
        found.path,
        False,
        False,
        b"",
    )
    assert message.headers.get("Content-Type", "") == found.call.content_type
    assert message.compression is None
    assert not message.chunked
    assert b"".join(getattr(payload, "_buffer", ())) == found.call.body  # an empty body has no buffer
    assert payload.is_eof()


@given(st.binary(max_size=80))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    read(data, LIMIT)
    read(b"POST /predict HTTP/1.1\r\nHost: h\r\n" + data, LIMIT)


def test_an_answer_is_spelt() -> None:
    answer = Answer(b"{}", "application/json", Timing(1, 2, 3))
    head, _, body = spell(answer, "me", "total;dur=1", close=False).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert {"Content-Length: 2", "X-Request-Id: me", "Server-Timing: total;dur=1", "Server: Shoal"} < {*lines}
    assert not any(line.startswith(("Connection", "Inference")) for line in lines)
    assert body == b"{}"


def test_a_last_answer_says_so_and_v2_tells_its_header_length() -> None:
    answer = Answer(b"{}xx", "application/octet-stream", Timing(1, 2, 3), header_length=2)
    spelt = spell(answer, "me", "total;dur=1", close=True)
    assert b"\r\nInference-Header-Content-Length: 2\r\n" in spelt
    assert b"\r\nConnection: close\r\n\r\n" in spelt
    refused = spell_head(429, "Too Many Requests", "text/plain", 0, "me", "t", "Retry-After: 1\r\n", close=False)
    assert refused.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nRetry-After: 1\r\n" in refused


def test_a_head_that_was_read_before_says_the_same() -> None:
    heads = Heads()
    for body in (BODY, BODY, BODY[::-1]):
        first, known = read(request(body=body), LIMIT), read(request(body=body), LIMIT, heads=heads)
        assert isinstance(first, Hot)
        assert isinstance(known, Hot)
        assert (known.v2, known.path, known.call.body) == (first.v2, first.path, body)
        assert known.call.request_id != first.call.request_id
    for data in (WHOLE + b"x", request("/predict", "Cookie: a=b"), request("/other")):
        assert read(data, LIMIT, heads=heads) is None
    assert read(WHOLE[:-1], LIMIT, heads=heads) == len(WHOLE)
    assert read(WHOLE, len(BODY) - 1, heads=heads) is None


def test_heads_with_credentials_or_names_of_their_own_are_not_kept() -> None:
    heads = Heads()
    secret, named = request("/predict", "Authorization: Bearer abc"), request("/predict", "X-Request-Id: mine")
    assert isinstance(read(secret, LIMIT, lambda _: True, heads), Hot)
    assert read(secret, LIMIT, heads=heads) is None
    assert isinstance(read(named, LIMIT, heads=heads), Hot)
    assert isinstance(read(request("/predict", "X: " + "y" * MAX_KEPT_BYTES), LIMIT, heads=heads), Hot)
    assert len(heads) == 0
    assert isinstance(read(WHOLE, LIMIT, heads=heads), Hot)
    assert len(heads) == 1


def test_so_many_heads_are_kept_and_no_more() -> None:
    heads = Heads()
    for number in range(3 * MAX_KEPT):
        assert isinstance(read(request("/predict", f"X: {number}"), LIMIT, heads=heads), Hot)
        assert len(heads) <= MAX_KEPT
