"""Starts of workflows: what is stored for one, wherever it is asked for, and what it means that its id is taken."""

from __future__ import annotations

from typing import Any

from edda.core.commit import Creation, NewInstance
from edda.core.history import InstanceId
from edda.core.search import terms_of
from edda.engine.plans import plan_of
from edda.exceptions import ConflictError
from edda.workflow import Workflow


def new_instance(
    workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, id: str = ""
) -> NewInstance:
    """What is to be stored for a start. Raises what is wrong with the arguments: that is the caller's mistake."""
    signature = plan_of(workflow).signature
    bound = signature.bind(args, kwargs)
    text = signature.encode(bound.args, bound.kwargs)
    return NewInstance(
        id=InstanceId(id),
        workflow=workflow.name,
        input=text,
        args_hash=signature.canonical_hash(args, kwargs),
        terms=terms_of(workflow.name, text, workflow.search_fields),
    )


def check_same_start(new: NewInstance, there: Creation, *, on_conflict: str) -> None:
    """An id with other arguments may be wanted as it is; one of another workflow has another result, and never is."""
    if there.workflow != new.workflow:
        raise ConflictError(
            f"Workflow instance '{new.id}' exists already: it was started with workflow '{there.workflow}', and "
            f"cannot be returned as one of '{new.workflow}'. Choose another id.",
            instance_id=new.id,
        )
    if there.args_hash != new.args_hash and on_conflict == "error":
        raise ConflictError(
            f"Workflow instance '{new.id}' exists already and was started with other arguments. Choose another id, or "
            'options(..., on_conflict="return") to get the existing one.',
            instance_id=new.id,
        )
