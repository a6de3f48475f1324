"""Real workflows from Flask and Django: views that start them and wait for them, through a portal, on a real app."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, jsonify
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from edda import EddaApp, InstanceNotFoundError, WorkflowContext, activity, wait_timer, workflow
from edda.http import Portal


@activity(name="wsgi.upper")
def upper(ctx: WorkflowContext, name: str) -> str:
    return name.upper()


@workflow(name="wsgi.greet")
async def greet(ctx: WorkflowContext, name: str) -> str:
    await wait_timer(ctx, 0.01)
    return f"Hello, {await upper(ctx, name)}!"


@pytest.fixture
def flask(tmp_path: Path) -> Iterator[FlaskClient]:
    app = EddaApp(db_url=f"sqlite:///{tmp_path}/edda.db", workflows=[greet])
    portal = Portal(app)
    web = Flask(__name__)

    @web.put("/greetings/<name>")
    def start(name: str) -> ResponseReturnValue:
        return jsonify(portal.start(greet.options(id=name), name)), 202

    @web.get("/greetings/<name>")
    def look(name: str) -> ResponseReturnValue:
        try:
            return jsonify(portal.call(app.handle(name).result(timeout=20), timeout_seconds=30))
        except InstanceNotFoundError as error:
            return jsonify(str(error)), 404

    yield web.test_client()
    portal.close()


def test_views_of_flask_start_a_workflow_and_wait_for_it(flask: FlaskClient) -> None:
    assert flask.put("/greetings/ann").get_json() == "ann"
    assert flask.get("/greetings/ann").get_json() == "Hello, ANN!"
    assert flask.get("/greetings/bob").status_code == 404


DJANGO = """
import sys
import django
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="test")
django.setup()

from edda import EddaApp, WorkflowContext, wait_timer, workflow
from edda.http import Portal

@workflow
async def greet(ctx: WorkflowContext, name: str) -> str:
    await wait_timer(ctx, 0.01)
    return f"Hello, {name}!"

portal = Portal(EddaApp(db_url=sys.argv[1]))

def start(request, name):
    handle = portal.start(greet.options(id=name), name)
    return JsonResponse({"result": portal.call(handle.result(), timeout_seconds=30)})

urlpatterns = [path("greetings/<name>", start)]

from django.test import Client
print(Client().get("/greetings/ann").json()["result"])
portal.close()
"""


@pytest.mark.process
def test_views_of_django_start_a_workflow_and_wait_for_it(tmp_path: Path) -> None:
    (tmp_path / "shop_site.py").write_text(DJANGO)
    outcome = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "shop_site.py"), f"sqlite:///{tmp_path}/edda.db"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.stdout == "Hello, ann!\n", outcome.stderr
