"""Who is looking: a token is shown once and becomes a cookie; the cookie gives the forms their secret.

Pure: no HTTP, no clock. Laws:
- The token itself is in no cookie, no page and no log; everything is derived from it by HMAC, so a viewer that is
  started again with the same token knows its visitors, and one with another token knows none of them.
- Every comparison takes the same time, whatever is compared.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

TOKEN_LENGTH_MIN: Final = 16
"""Of a token that somebody chose."""
_COOKIE: Final = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})")


def new_token() -> str:
    return secrets.token_urlsafe(24)


class Sessions:
    """Of one token."""

    def __init__(self, token: str) -> None:
        if len(token) < TOKEN_LENGTH_MIN or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(f"token must be at least {TOKEN_LENGTH_MIN} visible ASCII characters without spaces")
        self._key = hashlib.sha256(b"edda.viewer\0" + token.encode()).digest()

    def __repr__(self) -> str:
        return "Sessions()"

    @property
    def cookie_name(self) -> str:
        """Cookies are shared by all ports of a host: two viewers must not take each other's."""
        return f"edda_viewer_{self._derive('name', '')[:8]}"

    def is_token(self, sent: str) -> bool:
        sent_key = hashlib.sha256(b"edda.viewer\0" + sent.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(sent_key, self._key)

    def new_cookie(self) -> str:
        nonce = secrets.token_hex(16)
        return f"{nonce}.{self._derive('cookie', nonce)}"

    def is_cookie(self, cookie: str) -> bool:
        found = _COOKIE.fullmatch(cookie)
        return found is not None and hmac.compare_digest(found[2], self._derive("cookie", found[1]))

    def form_secret(self, cookie: str) -> str:
        """What a form of ours carries, and a form of a stranger cannot."""
        return self._derive("form", cookie)

    def is_form_secret(self, cookie: str, sent: str) -> bool:
        return hmac.compare_digest(sent.encode("utf-8", "surrogatepass"), self.form_secret(cookie).encode())

    def _derive(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()
