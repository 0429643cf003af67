"""Email addresses have one form, whatever their spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.email_addresses import MAX_LENGTH, normalize_email


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada.Lovelace+shop@Example.COM", "ada.lovelace+shop@example.com"),
        ("\uff41da@example.com", "ada@example.com"),  # full width
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("ada@bu\u0308cher.example", "ada@xn--bcher-kva.example"),  # a combining character
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@\u0440\u0430ypal.com", "ada@xn--ypal-43d9g.com"),  # Cyrillic letters
        ("ada@example\u3002com", "ada@example.com"),  # an ideographic full stop
    ],
)
def test_spellings_of_an_address_have_one_form(text: str, expected: str) -> None:
    assert normalize_email(text) == expected
    assert normalize_email(expected) == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "NO_AT_SIGN"),
        ("@example.com", "LOCAL_PART"),
        ("a@@example.com", "LOCAL_PART"),
        (".a@example.com", "LOCAL_PART"),
        ("a..b@example.com", "LOCAL_PART"),
        ('"a b"@example.com', "LOCAL_PART"),
        ("\u00e9@example.com", "LOCAL_PART"),
        ("a" * 65 + "@example.com", "LOCAL_PART"),
        ("a@", "DOMAIN"),
        ("a@example", "DOMAIN"),
        ("a@example.com.", "DOMAIN"),
        ("a@-example.com", "DOMAIN"),
        ("a@exa_mple.com", "DOMAIN"),
        ("a@127.0.0.1", "DOMAIN"),
        ("a@[127.0.0.1]", "DOMAIN"),
        (f"a@{'x' * 64}.com", "DOMAIN"),
        (f"a@{'.'.join(['x' * 62] * 4)}.com", "DOMAIN"),
        (f"{'a' * 64}@{'.'.join(['x' * 62] * 3)}.com", "LENGTH"),
        ("a\n@example.com", "HIDDEN_CHARACTER"),
        ("a@example.com\x00", "HIDDEN_CHARACTER"),
        ("a@exam\u00adple.com", "HIDDEN_CHARACTER"),
        ("a@example.\u202emoc", "HIDDEN_CHARACTER"),
    ],
)
def test_what_is_no_address_has_a_cause(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=f"^{cause}$"):
        normalize_email(text)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_a_form_is_short_ascii_and_its_own_form(local: str, label: str) -> None:
    try:
        form = normalize_email(f"{local}@{label}.example")
    except ValueError as error:
        assert str(error).isupper()  # a code
    else:
        assert form.isascii()
        assert len(form) <= MAX_LENGTH
        assert normalize_email(form) == form
