import pytest

from server.transports.request_ids import request_id_of


@pytest.mark.parametrize("given", ["a", "order-66", "urn:x:1/2+3=4@5~6_7.8", "A" * 128])
def test_sound_ids_are_kept(given: str) -> None:
    assert request_id_of(given) == given


@pytest.mark.parametrize("given", [None, "", "A" * 129, "a b", "<b>", "a\r\nb", "a\n", "ü", "a\x00"])
def test_others_are_replaced_by_new_ones(given: str | None) -> None:
    first, second = request_id_of(given), request_id_of(given)
    assert first != second
    assert request_id_of(first) == first
