"""Email addresses in one form, so that two spellings of an address are equal.

The form is that of NFKC in lower case: `<local part>@<domain>`, both in ASCII. A domain in another script is
encoded by IDNA (UTS 46), so one that looks like another is a different text, and reads `xn--...`. Local parts
are compared without case: RFC 5321 lets a host tell them apart, but none of note does.
"""

import re
from unicodedata import category, normalize

import idna

MAX_LENGTH, MAX_LOCAL_LENGTH = 254, 64
"""Characters, from RFC 5321."""
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
"""Dot-atoms of RFC 5322. Quoted local parts and those beyond ASCII (RFC 6531) are refused."""
_TOP_LEVEL = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]{1,59}")
"""Never a number, so no domain is an IP address."""


def normalize_email(text: str) -> str:
    """Return an address in its one form.

    Raises:
        ValueError: it is no valid address; the message is a code of what is wrong with it.
    """
    if any(category(each).startswith("C") for each in text):  # UTS 46 drops some of these
        raise ValueError("HIDDEN_CHARACTER")
    local, separator, domain = normalize("NFKC", text).lower().rpartition("@")
    if not separator:
        raise ValueError("NO_AT_SIGN")
    if len(local) > MAX_LOCAL_LENGTH or not _LOCAL.fullmatch(local):
        raise ValueError("LOCAL_PART")
    try:
        encoded = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except idna.IDNAError:
        raise ValueError("DOMAIN") from None
    _, dot, top_level = encoded.rpartition(".")
    if not dot or not _TOP_LEVEL.fullmatch(top_level):
        raise ValueError("DOMAIN")
    address = f"{local}@{encoded}"
    if len(address) > MAX_LENGTH:
        raise ValueError("LENGTH")
    return address
