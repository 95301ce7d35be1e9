import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidInput
from server.transports.codecs.multipart import Part, parse_form

TYPE = "multipart/form-data; boundary=limit"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--limit\r\n" + part + b"\r\n" for part in parts) + b"--limit--\r\n"


def part(about: str, content: bytes, *more: str) -> bytes:
    headers = [f"Content-Disposition: form-data; {about}", *more]
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + content


@given(st.lists(st.binary(max_size=200).filter(lambda content: b"--limit" not in content), min_size=1, max_size=5))
def test_contents_come_through_byte_for_byte(contents: list[bytes]) -> None:
    body = form(*(part(f'name="f{i}"; filename="{i}.png"', content) for i, content in enumerate(contents)))
    assert parse_form(body, TYPE) == [Part(f"f{i}", f"{i}.png", content) for i, content in enumerate(contents)]


def test_names_quoted_bare_absent_and_in_other_alphabets() -> None:
    body = form(
        part('filename="日本.png"; name="größe"', b"1"),
        part("name=bare", b"2"),
        part('name="with \\"quotes\\""; filename=""', b"3", "Content-Type: image/png"),
        b"X-Only: this\r\n\r\n4",
        part('NAME="upper"', b"5", "content-transfer-encoding: BINARY"),
    )
    parts = parse_form(body, TYPE)
    assert [(p.name, p.filename) for p in parts] == [
        ("größe", "日本.png"),
        ("bare", None),
        ('with \\"quotes\\"', ""),
        ("", None),
        ("upper", None),
    ]
    assert [p.content for p in parts] == [b"1", b"2", b"3", b"4", b"5"]


def test_a_preamble_an_epilogue_and_padding_are_passed_over() -> None:
    body = b"hello\r\n" + form(part("name=a", b"1")).replace(b"--limit\r\n", b"--limit  \r\n", 1) + b"bye"
    assert [p.content for p in parse_form(body, TYPE)] == [b"1"]


@pytest.mark.parametrize(
    "content_type", ['multipart/form-data; boundary="limit"', "multipart/form-data; charset=utf-8; Boundary=limit"]
)
def test_the_boundary_is_found(content_type: str) -> None:
    assert len(parse_form(form(part("name=a", b"1")), content_type)) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (form(part("name=a", b"1")), "multipart/form-data", "boundary"),
        (form(part("name=a", b"1")), "multipart/form-data; boundary=other", "cut short"),
        (form(), TYPE, "cut short"),
        (form(part("name=a", b"1"))[:-10], TYPE, "cut short"),
        (b"", TYPE, "cut short"),
        (form(b"no empty line"), TYPE, "empty line"),
        (form(part("name=a", b"QQ==", "Content-Transfer-Encoding: base64")), TYPE, "base64"),
    ],
)
def test_what_is_no_form(body: bytes, content_type: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_form(body, content_type)
