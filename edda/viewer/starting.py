"""Starting an instance from a form: which workflows can be started, what their forms ask for, and what becomes of one.

With the code of a workflow its form asks for each parameter, and the arguments are validated before anything is stored.
Without it the arguments are JSON, as from the sender of an event: a worker reads them when the instance begins, and
sets it aside if they do not fit. It must not know HTML or databases. Law: a form that is sent twice starts one
instance.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from edda.core.commit import Creation, NewInstance
from edda.core.history import InstanceId
from edda.exceptions import EddaError
from edda.viewer import typed
from edda.viewer.loose import as_object
from edda.viewer.shapes import Kind, Shape, shape_of
from edda.workflow import check_id

if TYPE_CHECKING:
    from pydantic import ValidationError

    from edda.storage.port import Store

WHOLE: Final = Shape(kind=Kind.JSON, label="Arguments (JSON)", hint='{"order_id": "ORD-1"}')
"""All arguments in one field, by name."""
OF_THE_FORM: Final = frozenset({"secret", "id", "nonce", "do"})
"""Fields that are no arguments."""


class Code(Protocol):
    """Who knows the functions of workflows: an `EddaApp` does, whether it runs or not. Nothing here asks a database."""

    @property
    def db_url(self) -> str: ...
    @property
    def store_in_use(self) -> Store | None:
        """What it runs on, where it runs."""
        ...

    @property
    def workflow_names(self) -> frozenset[str]: ...
    def parameters_of(self, workflow: str) -> dict[str, Any] | None: ...
    def new_instance_of(
        self, workflow: str, arguments: Mapping[str, object], *, id: str | None = None
    ) -> NewInstance: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A form as it stands: what was typed, and what is wrong with it."""

    workflow: str
    known: bool
    """Its code is here."""
    shape: Shape
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    id: str = ""
    nonce: str = ""
    """Made for each form: the same form with the same arguments is the same start."""
    errors: Mapping[str, str] = field(default_factory=dict[str, str])
    """By path; under `id` what is wrong with the id."""

    @property
    def fields(self) -> typed.Field:
        return typed.drawn(self.shape, self.texts, self.errors)


def new_draft(code: Code | None, workflow: str, parameters: Sequence[str]) -> Draft:
    """The first form. `parameters`: names that the source tells, where the code is not here."""
    known = code is not None and workflow in code.workflow_names
    shape = _shape(code, workflow)
    example = {name: None for name in parameters} if shape is WHOLE else None
    texts = typed.filled(shape, example)
    return Draft(workflow=workflow, known=known, shape=shape, texts=texts, nonce=secrets.token_hex(8))


def draft_of(code: Code | None, workflow: str, form: Mapping[str, str]) -> Draft:
    """The form as it was sent."""
    return Draft(
        workflow=workflow,
        known=code is not None and workflow in code.workflow_names,
        shape=_shape(code, workflow),
        texts={name: text for name, text in form.items() if name not in OF_THE_FORM},
        id=form.get("id", "").strip(),
        nonce=form.get("nonce", ""),
    )


def changed(draft: Draft, wish: str) -> Draft:
    """With a row more or less, as the button says."""
    texts = typed.changed(draft.shape, draft.texts, wish)
    return draft if texts is None else replace(draft, texts=texts)


def made(draft: Draft, code: Code | None) -> NewInstance | Draft:
    """What is to be stored; or the form again, with what is wrong."""
    reading = typed.read(draft.shape, draft.texts)
    arguments = as_object(reading.value)
    if arguments is None and not reading.problems:
        reading.problems[typed.ROOT] = 'This has to be one JSON object: the arguments by name, {"order_id": "ORD-1"}'
    problems = {**reading.problems, **_problem_of(draft.id)}
    if problems or arguments is None:
        return replace(draft, errors=problems)
    from pydantic import ValidationError  # to look at a database needs none of it

    try:
        if code is not None and draft.known:
            new = code.new_instance_of(draft.workflow, arguments, id=draft.id or None)
        else:
            new = unread(draft.workflow, arguments)
    except ValidationError as error:
        return replace(draft, errors=_errors(draft, error))
    except (EddaError, TypeError, ValueError) as error:
        return replace(draft, errors={typed.ROOT: str(error)})
    return new._replace(id=InstanceId(draft.id or _id_of(draft, new)))


def unread(workflow: str, arguments: Mapping[str, Any]) -> NewInstance:
    """A start without code: tags mean nothing in what somebody typed, as in what comes from outside."""
    text = json.dumps({"args": [], "kwargs": arguments, "foreign": True}, separators=(",", ":"), ensure_ascii=False)
    return NewInstance(
        id=InstanceId(""), workflow=workflow, input=text, args_hash=hashlib.sha256(text.encode()).hexdigest()
    )


def refused(draft: Draft, new: NewInstance, creation: Creation) -> Draft | None:
    """The form again, where another start has this id; None where it was this very start."""
    if creation.created or (creation.workflow, creation.args_hash) == (new.workflow, new.args_hash):
        return None
    what = "with other arguments" if creation.workflow == new.workflow else f"of the workflow {creation.workflow}"
    return replace(draft, errors={"id": f"There is an instance with this id already, {what}"})


def _shape(code: Code | None, workflow: str) -> Shape:
    parameters = code.parameters_of(workflow) if code is not None and workflow in code.workflow_names else None
    return WHOLE if parameters is None else shape_of(parameters)


def _problem_of(instance_id: str) -> dict[str, str]:
    if not instance_id:
        return {}
    try:
        check_id(instance_id)
    except ValueError as error:
        return {"id": str(error)}
    return {}


def _errors(draft: Draft, error: ValidationError) -> dict[str, str]:
    """By path. A parameter that was passed by position is named by its place."""
    names = [member.key for member in draft.shape.members]
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        first, *rest = one["loc"] or ("",)
        named = names[first] if isinstance(first, int) and first < len(names) else first
        problems.append(((named, *rest), one["msg"]))
    return typed.placed(draft.shape, draft.texts, problems)


def _id_of(draft: Draft, new: NewInstance) -> str:
    digest = hashlib.sha256(f"{draft.nonce}\0{new.args_hash}".encode()).hexdigest()
    return f"{draft.workflow[:180]}-{digest[:32]}"
