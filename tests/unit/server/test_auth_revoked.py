"""Single tokens that are taken back, by a list of their ids that is followed."""

from pathlib import Path

import pytest

from server.auth_tokens import Revoked, Secrets, Tokens
from server.errors import Unauthenticated
from tests.unit.server.test_auth_tokens import check
from tests.wire.tokens import SECRET, shared_token


def with_revoked(tmp_path: Path, content: str) -> tuple[Tokens, Revoked]:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "revoked").write_text(content)
    revoked = Revoked(tmp_path / "revoked")
    return Tokens(Secrets(tmp_path / "secret"), None, revoked, issuer="", audience="", leeway_s=0.0), revoked


def test_a_token_that_was_taken_back_is_refused_and_no_other(tmp_path: Path) -> None:
    tokens, _ = with_revoked(tmp_path, "# stolen on Monday\n\n  one \ntwo\n")
    for token_id in ("one", "two"):
        with pytest.raises(Unauthenticated, match="was taken back"):
            check(tokens, shared_token(jti=token_id))
    check(tokens, shared_token(jti="three"))


def test_the_list_is_followed(tmp_path: Path) -> None:
    tokens, revoked = with_revoked(tmp_path, "")
    check(tokens, shared_token(jti="one"))
    assert not revoked.refresh()
    (tmp_path / "revoked").write_text("one\n")
    assert revoked.refresh()
    with pytest.raises(Unauthenticated, match="was taken back"):
        check(tokens, shared_token(jti="one"))


@pytest.mark.parametrize("token_id", [None, 7, ["one"]])
def test_with_a_list_a_token_that_nobody_could_take_back_is_refused(tmp_path: Path, token_id: object) -> None:
    tokens, _ = with_revoked(tmp_path, "")
    with pytest.raises(Unauthenticated, match=r"a token with jti|well-formed token"):
        check(tokens, shared_token(jti=token_id))


def test_a_token_with_a_wrong_signature_is_not_told_whether_it_was_taken_back(tmp_path: Path) -> None:
    tokens, _ = with_revoked(tmp_path, "one")
    with pytest.raises(Unauthenticated, match="wrong one"):
        check(tokens, shared_token("another-secret-of-more-than-32-bytes", jti="one"))
