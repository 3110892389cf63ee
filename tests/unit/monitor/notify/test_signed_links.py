"""Signed links: forgery, expiry, rotation of the secret, and one id for each claim."""

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.notify.signed_links import LINK_LIFETIME_US, LinkClaim, LinkRefused, read_link, sign_link

NOW_US = 1_790_000_000_000_000
SECRET = "s" * 40
CLAIM = LinkClaim(
    database_id="d1", incident_id=7, verb="false_alarm", channel="post", expires_at_us=NOW_US + LINK_LIFETIME_US
)
TOKEN = sign_link(CLAIM, SECRET)


def refused(token: str, *secrets: str, now_us: int = NOW_US) -> str:
    with pytest.raises(LinkRefused) as caught:
        read_link(token, secrets or (SECRET,), now_us=now_us)
    return caught.value.reason


def test_a_token_gives_its_claim_until_it_expires() -> None:
    assert read_link(TOKEN, [SECRET], now_us=NOW_US) == CLAIM
    assert read_link(TOKEN, [SECRET], now_us=CLAIM.expires_at_us - 1) == CLAIM
    assert refused(TOKEN, now_us=CLAIM.expires_at_us) == "expired"
    assert CLAIM.who == "mail:post"


def test_both_secrets_of_a_rotation_are_valid_and_no_other() -> None:
    assert read_link(TOKEN, ["new" * 20, SECRET], now_us=NOW_US) == CLAIM
    assert refused(TOKEN, "new" * 20) == "forged"
    assert sign_link(CLAIM, "new" * 20) != TOKEN
    with pytest.raises(LinkRefused):
        read_link(TOKEN, [], now_us=NOW_US)


@pytest.mark.parametrize(
    "change",
    [
        {"incident_id": 8},
        {"verb": "acknowledge"},
        {"channel": "other"},
        {"expires_at_us": CLAIM.expires_at_us + 1},
        {"database_id": "d2"},
    ],
)
def test_another_claim_under_the_same_signature_is_forged(change: dict[str, object]) -> None:
    other = sign_link(replace(CLAIM, **change), SECRET)
    forged = f"{other.partition('.')[0]}.{TOKEN.partition('.')[2]}"
    assert refused(forged) == "forged"
    assert replace(CLAIM, **change).id != CLAIM.id


def test_a_signed_payload_of_another_form_is_refused() -> None:
    for content in ('["d1",7,"accept","post",1]', '{"a":1}', "[1]", "no JSON"):
        payload = base64.urlsafe_b64encode(content.encode()).rstrip(b"=").decode()
        assert refused(f"{payload}.x") == "forged"


def test_an_expired_claim_of_another_verb_is_forged_even_if_it_is_signed() -> None:
    assert refused(sign_link(replace(CLAIM, verb="accept"), SECRET)) == "forged"  # type: ignore[arg-type]


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="utf-8"))
def test_no_changed_token_is_accepted(position: int, char: str) -> None:
    changed = TOKEN[:position] + char + TOKEN[position + 1 :]
    if changed != TOKEN:
        assert refused(changed) == "forged"


@given(st.text(max_size=300))
def test_no_text_is_accepted(text: str) -> None:
    assert refused(text) == "forged"


def test_a_token_fits_into_an_address() -> None:
    assert len(TOKEN) < 200
    assert set(TOKEN) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert json.loads(base64.urlsafe_b64decode(TOKEN.partition(".")[0] + "=="))[1] == 7
