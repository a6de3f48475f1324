"""The arguments of one call <-> JSON text: `{"args": [...], "kwargs": {...}}`.

Built once per workflow or activity function and lazily, because annotations may name what is defined later. The first
parameter (the context) is never stored.

Laws: what is wrong with a call is found before anything is stored; defaults are stored with the call, so that changing
one in the code does not change an instance under way (a default that cannot be stored, such as a client, is left out).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from inspect import Parameter, Signature, signature
from typing import Any, NamedTuple, cast

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs, PydanticUndefined, to_json, to_jsonable_python

from edda.engine.codec.annotations import Annotations, plain_function
from edda.engine.codec.tagged import (
    INT_SMALL_MAX,
    TAG,
    TAG_IN_JSON,
    JsonValue,
    Tagger,
    canonical,
    dump_plain,
    load_plain,
)
from edda.engine.codec.types import TYPES
from edda.engine.codec.values import ValueCodec, unresolved
from edda.exceptions import SerializationError

BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class BoundArguments(NamedTuple):
    """The arguments of one call after binding, without the context: `func(ctx, *args, **kwargs)`."""

    args: tuple[object, ...]
    kwargs: dict[str, object]


class SignatureCodec:
    """For the calls of one function. Make it where the function is decorated (see `Annotations`).

    With `validate`, arguments are checked and converted by pydantic, as workflows promise; without, they only have to
    fit the signature, and the types of activities' arguments are nobody's business, as in Python.
    """

    def __init__(self, func: Callable[..., object], *, skip_first: bool, validate: bool = True) -> None:
        self._func = func
        self._skip_first = skip_first
        self._validate = validate
        self._name = _name(func)
        self._annotations = Annotations(plain_function(func))

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> BoundArguments:
        """TypeError or pydantic's ValidationError: the caller's mistake. Nothing of it is stored."""
        plan = self._plan
        if plan.validate is not None:
            bound = BoundArguments(*plan.validate(ArgsKwargs(args, kwargs)))
        elif len(args) + len(kwargs) == plan.exact_count and _are_keys(plan.positional[len(args) :], kwargs):
            return BoundArguments(args, kwargs)
        else:
            bound = self._fit(args, kwargs)
        return self._without_unstorable(bound) if plan.unstorable else bound

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        if self._are_direct(args, kwargs):
            try:
                return to_json({"args": args, "kwargs": kwargs}).decode()
            except ValueError:
                pass  # a lone surrogate: the slow road says in which argument
        by_position = [self._codec_at(index).encode_text(value) for index, value in enumerate(args)]
        by_name = [f"{dump_plain(name)}:{self._codec_of(name).encode_text(value)}" for name, value in kwargs.items()]
        return f'{{"args":[{",".join(by_position)}],"kwargs":{{{",".join(by_name)}}}}}'

    def decode(self, text: str) -> tuple[tuple[object, ...], dict[str, object]]:
        tree = load_plain(text)
        args, kwargs = (tree.get("args"), tree.get("kwargs")) if isinstance(tree, dict) else (None, None)
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise SerializationError(f"The stored arguments of {self._name} are not of the form {{args, kwargs}}")
        if isinstance(tree, dict) and tree.get("foreign"):
            return (), self._foreign(kwargs)
        tagged = TAG_IN_JSON in text
        return (
            tuple(_decode(self._codec_at(index), node, tagged) for index, node in enumerate(args)),
            {name: _decode(self._codec_of(name), node, tagged) for name, node in kwargs.items()},
        )

    def _foreign(self, members: Mapping[str, JsonValue]) -> dict[str, object]:
        """The members of an event's data: who sent it does not choose our types. Those that a newer version of the
        function takes, and this one does not, are passed over."""
        return {
            name: self._codec_of(name).decode_foreign(node)
            for name, node in members.items()
            if self._plan.takes_any_name or name in self._plan.by_name
        }

    def by_name(self, text: str) -> dict[str, object]:
        """The recorded arguments by parameter name, also those passed by position or left to their defaults.

        Arguments of `*rest` are one tuple under `rest`; those of `**options` stand beside the others.
        """
        plan = self._plan
        args, kwargs = self.decode(text)
        named = dict(plan.defaults)
        named.update(zip(plan.positional, args, strict=False))
        if plan.var_positional:
            named[plan.var_positional] = args[len(plan.positional) :]
        return named | kwargs

    def canonical_hash(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
        """As the function `canonical_hash`; and an argument may be passed by name or by position."""
        names = self._plan.positional
        return canonical_hash(args[len(names) :], {**dict(zip(names, args, strict=False)), **kwargs})

    @cached_property
    def result(self) -> ValueCodec:
        what = f"the result of {self._name}"
        return ValueCodec(self._resolve("return", what), what=what)

    # -- the plan ---------------------------------------------------------------------------------------------------

    @cached_property
    def _plan(self) -> _Plan:
        parameters = self._parameters()
        hints = {p.name: self._resolve(p.name, f"parameter '{p.name}' of {self._name}") for p in parameters}
        codecs = {
            name: ValueCodec(hint, what=f"argument '{name}' of {self._name}", trusting=True)
            for name, hint in hints.items()
        }
        positional = [p.name for p in parameters if p.kind in BY_POSITION]
        rest = [p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL]
        options = [p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD]
        defaults = {p.name: default for p in parameters for default in _defaults(p)}
        return _Plan(
            signature=Signature(parameters),
            codecs=[codecs[name] for name in positional],
            by_name={p.name: codecs[p.name] for p in parameters if p.kind not in VARIADIC},
            rest=codecs[rest[0]] if rest else ANY_ARGUMENT,
            options=codecs[options[0]] if options else ANY_ARGUMENT,
            takes_any_name=bool(options),
            positional=positional,
            var_positional=rest[0] if rest else "",
            defaults=defaults,
            unstorable={name: default for name, default in defaults.items() if not _is_storable(codecs[name], default)},
            exact_count=len(positional) if all(p.kind is Parameter.POSITIONAL_OR_KEYWORD for p in parameters) else -1,
            validate=self._validator(parameters, hints) if self._validate else None,
        )

    def _parameters(self) -> list[Parameter]:
        try:
            parameters = list(signature(self._func).parameters.values())
        except ValueError:  # some functions written in C have no signature
            return [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
        if not self._skip_first or (parameters and parameters[0].kind is Parameter.VAR_POSITIONAL):
            return parameters
        if not parameters or parameters[0].kind not in BY_POSITION:
            raise TypeError(f"{self._name} needs the context as its first parameter")
        return parameters[1:]

    def _resolve(self, parameter: str, what: str) -> object:
        try:
            return self._annotations.resolve(parameter)
        except (NameError, AttributeError, SyntaxError, TypeError) as error:
            raise unresolved(what, self._annotations.text(parameter), error) from error

    def _validator(self, parameters: list[Parameter], hints: dict[str, object]) -> Validate:
        def collect(*args: object, **kwargs: object) -> BoundArguments:
            return BoundArguments(args, kwargs)

        typed = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
        for attribute, value in (
            ("__signature__", Signature(typed)),
            ("__annotations__", {name: hint for name, hint in hints.items() if hint is not Parameter.empty}),
            ("__name__", getattr(self._func, "__name__", "call")),
            ("__qualname__", self._name),
        ):
            setattr(collect, attribute, value)
        try:
            adapter = TypeAdapter[Any](cast(Any, collect), config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUndefinedAnnotation as error:
            raise unresolved(f"a parameter of {self._name}", repr(error.name), error) from error
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise SerializationError(f"The parameters of {self._name} cannot be validated: {error}") from error
        return cast(Validate, adapter.validator.validate_python)

    # -- binding by hand --------------------------------------------------------------------------------------------

    def _fit(self, args: tuple[object, ...], kwargs: dict[str, object]) -> BoundArguments:
        try:
            bound = self._plan.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None
        bound.apply_defaults()
        return BoundArguments(bound.args, bound.kwargs)

    def _without_unstorable(self, bound: BoundArguments) -> BoundArguments:
        """Defaults that cannot be stored are left to the call itself; what stood behind one is passed by name."""
        plan = self._plan
        if len(bound.args) > len(plan.positional):
            return bound
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for name, value in [*zip(plan.positional, bound.args, strict=False), *bound.kwargs.items()]:
            if name in plan.unstorable and value is plan.unstorable[name]:
                continue
            in_order = len(args) < len(plan.positional) and plan.positional[len(args)] == name and not kwargs
            if in_order:
                args.append(value)
            else:
                kwargs[name] = value
        return BoundArguments(tuple(args), kwargs)

    def _are_direct(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
        plan = self._plan
        if len(args) > len(plan.codecs):
            return False
        for codec, value in zip(plan.codecs, args, strict=False):
            if not codec.is_direct(value):
                return False
        for name, value in kwargs.items():
            named = plan.by_name.get(name)
            if named is None or not named.is_direct(value):
                return False
        return True

    def _codec_at(self, index: int) -> ValueCodec:
        plan = self._plan
        return plan.codecs[index] if index < len(plan.codecs) else plan.rest

    def _codec_of(self, name: str) -> ValueCodec:
        return self._plan.by_name.get(name, self._plan.options)


VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
ANY_ARGUMENT = ValueCodec(what="argument", trusting=True)
Validate = Callable[[ArgsKwargs], tuple[tuple[object, ...], dict[str, object]]]


class _Plan(NamedTuple):
    """What is known of a function once its annotations are resolved."""

    signature: Signature
    codecs: list[ValueCodec]
    by_name: dict[str, ValueCodec]
    rest: ValueCodec
    options: ValueCodec
    takes_any_name: bool
    positional: list[str]
    var_positional: str
    defaults: dict[str, object]
    unstorable: dict[str, object]
    exact_count: int
    """Number of arguments of a call that needs no binding, because it names every one; -1 if there is no such call."""
    validate: Validate | None


def canonical_hash(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """SHA-256 of a call in canonical JSON: the caller's own arguments, before defaults, validation and codec.

    Equal calls have equal hashes in every process, whatever the order of names, keys or set members; 9 equals 9.0.
    """
    if not args and TAG not in kwargs and all(map(_is_never_tagged, kwargs.values())):
        text = canonical([[], cast("dict[str, JsonValue]", kwargs)])
    else:
        text = canonical([_canonical(list(args)), _canonical(dict(kwargs))])
    return hashlib.sha256(text.encode()).hexdigest()


def _is_never_tagged(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    return type(value) is str or (type(value) is int and -INT_SMALL_MAX < value < INT_SMALL_MAX)


def _canonical(value: object) -> JsonValue:
    try:
        return FOR_HASH.tag(value)
    except SerializationError:
        # A type of the user's that only its annotation can store.
        try:
            plain: object = to_jsonable_python(value, inf_nan_mode="constants")
        except ValueError:
            plain = None
        if plain is None:
            raise
        return FOR_HASH.tag(plain)


FOR_HASH = Tagger(TYPES, for_hash=True)


def _are_keys(names: list[str], kwargs: dict[str, object]) -> bool:
    return not kwargs or all(name in kwargs for name in names)


def _decode(codec: ValueCodec, node: JsonValue, tagged: bool) -> object:
    if not tagged and codec.reads_directly(node):
        return node
    return codec.decode_text(to_json(node).decode())


def _defaults(parameter: Parameter) -> list[object]:
    """None or one; `Field(1, ge=1)` as a default stands for 1."""
    default: object = parameter.default
    if isinstance(default, FieldInfo):
        default = default.get_default(call_default_factory=False)
    return [] if default is Parameter.empty or default is PydanticUndefined else [default]


def _is_storable(codec: ValueCodec, default: object) -> bool:
    try:
        codec.encode_text(default)
    except SerializationError:
        return False
    return True


def _name(func: Callable[..., object]) -> str:
    named = plain_function(func)
    return f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', repr(named))}"
