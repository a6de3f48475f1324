"""The handshake of CloudEvents WebHooks: a sender asks by OPTIONS whether it may deliver here.

Answered only where origins are configured. A callback that it names is never called: it would let anyone make this
process send requests.
"""

from __future__ import annotations

from edda.http.answers import Answer, Problem, Refusal, encoded
from edda.http.asgi import Headers
from edda.http.options import HttpOptions
from edda.http.request import Request


def handshake(request: Request, options: HttpOptions) -> Answer:
    origin = request.header("webhook-request-origin")
    if not origin:
        text = "OPTIONS is answered for the WebHook handshake only: WebHook-Request-Origin is missing"
        raise Refusal(Problem(status=400, error_type="missing_origin", error=text))
    if origin not in options.webhook_origins and "*" not in options.webhook_origins:
        raise Refusal(Problem(status=403, error_type="forbidden", error="This origin may not deliver here"))
    return Answer(200, encoded({"status": "allowed"}), _consent(request, origin, options))


def _consent(request: Request, origin: str, options: HttpOptions) -> Headers:
    rate = options.webhook_requests_per_minute
    consent = ((b"allow", b"POST"), (b"webhook-allowed-origin", origin.encode("latin-1")))
    if rate is None and request.header("webhook-request-rate") is None:
        return consent
    return (*consent, (b"webhook-allowed-rate", b"*" if rate is None else str(rate).encode()))
