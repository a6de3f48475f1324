"""CloudEvents, cancels and probes over HTTP: an `EddaApp` as an ASGI application.

`uvicorn module:app`, or `api.mount("/workflows", app)` under FastAPI, Starlette and others. Here is what one sets:
`EddaApp(authorizer=BearerToken(...), http=HttpOptions(...))`.
"""

from edda.http.application import HttpApp
from edda.http.authorizer import Action, Authorizer, FirstOf, Principal, Resource
from edda.http.bearer import BearerToken, Grant
from edda.http.door import Door
from edda.http.options import HttpOptions
from edda.http.portal import Portal
from edda.http.request import Request
from edda.http.standard_webhooks import StandardWebhooks

__all__ = [
    "Action",
    "Authorizer",
    "BearerToken",
    "Door",
    "FirstOf",
    "Grant",
    "HttpApp",
    "HttpOptions",
    "Portal",
    "Principal",
    "Request",
    "Resource",
    "StandardWebhooks",
]
