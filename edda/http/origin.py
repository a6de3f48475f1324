"""Against web pages that send requests from the browser of someone who can reach this app.

Where no authorizer is set, being able to reach the app is all that is asked, and a page of any site can make a browser
do that: a bare POST to `http://localhost:8000/cancel/...` needs no leave. Browsers say where a request comes from, and
programs do not. With an authorizer there is nothing to guard: no browser adds a token or a signature by itself.
"""

from __future__ import annotations

from edda.http.answers import Problem, Refusal
from edda.http.request import Request


def check_origin(request: Request) -> None:
    """Raises Refusal for a request that a page of another site has made."""
    site = request.header("sec-fetch-site")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        origin = request.header("origin")
        foreign = origin is not None and origin.partition("://")[2] != request.header("host")
    if foreign:
        text = "A web page of another site has sent this: set an authorizer, and send what it asks for"
        raise Refusal(Problem(status=403, error_type="forbidden", error=text))
