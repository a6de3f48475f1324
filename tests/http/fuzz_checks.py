"""What is checked of every answer that schemathesis gets, and the document that it is compared with.

What a batch accepts is not compared: one wrong event in it does not make the request a wrong one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

CONTENT = (Path(__file__).parents[2] / "docs" / "reference" / "openapi.json").read_bytes()
DOCUMENT: dict[str, Any] = json.loads(CONTENT)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
