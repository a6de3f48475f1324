"""What an `except` clause matched in the first run it matches on replay."""

import asyncio
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from sqlalchemy.exc import IntegrityError

from edda import exceptions
from edda.engine.codec import decode_error, encode_error, in_words, register_error, summarise_error
from edda.engine.codec.errors import ERROR_CHARS_MAX, STACK_TRACE_CHARS_MAX
from edda.exceptions import (
    CompensationFailedError,
    EddaError,
    EventTimeoutError,
    RecordedError,
    RetryExhaustedError,
    SerializationError,
    TerminalError,
    WorkflowCancelledException,
)


class PaymentError(Exception):
    """Its constructor wants other arguments than `args`."""

    def __init__(self, *, code: int, amount: Decimal) -> None:
        super().__init__(f"payment of {amount} refused: {code}")
        self.code = code
        self.amount = amount


class Picky(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "nothing there", path)
        self.extra = [path]


@dataclasses.dataclass
class DataError(Exception):
    code: int
    detail: str = ""


class Careful(Exception):
    def __init__(self, public: str, secret: str) -> None:
        super().__init__(public)
        self.public = public
        self.secret = secret

    def __edda_attributes__(self) -> Mapping[str, object]:
        return {"public": self.public}


class Counting(Exception):
    made = 0

    def __new__(cls, *args: object) -> "Counting":
        cls.made += 1
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        type(self).made += 1
        super().__init__(*args)


class Outer:
    class InnerError(LookupError):
        pass


class Spec(BaseModel):
    quantity: int = Field(ge=1)
    name: str

    @field_validator("name")
    @classmethod
    def short(cls, name: str) -> str:
        if len(name) > 3:
            raise ValueError("too {long}")
        if name == "bad":
            raise PydanticCustomError("house_rule", "broke {rule}", {"rule": "one"})
        return name


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error with a traceback, as an activity leaves it."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def back(error: BaseException) -> BaseException:
    return decode_error(encode_error(error))


def invalid(**data: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(data)
    return caught.value


ERRORS: list[BaseException] = [
    Exception(),
    ValueError("boom"),
    ValueError("a", 1, (2.5, None)),
    KeyError("missing"),
    IndexError(3),
    TypeError("Grüße"),
    ZeroDivisionError("division by zero"),
    StopIteration(5),
    OSError("only text"),
    FileNotFoundError(2, "No such file", "/tmp/x"),
    OSError(18, "cross-device", "a", None, "b"),
    PermissionError(13, "denied"),
    ConnectionResetError(104, "reset"),
    TimeoutError("slow"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
    ImportError("no", name="mod", path="/x"),
    NameError("name 'x' is not defined", name="x"),
    SyntaxError("bad", ("f.py", 1, 2, "text", 1, 3)),
    json.JSONDecodeError("Expecting value", "doc", 0),
    asyncio.CancelledError("gone"),
    asyncio.IncompleteReadError(b"ab", 5),
    PaymentError(code=7, amount=Decimal("9.50")),
    Picky("/data"),
    DataError(1, "x"),
    Outer.InnerError("k"),
    TerminalError("no card"),
    EddaError(),
    RetryExhaustedError("5 attempts"),
    EventTimeoutError("payment.completed", 2.5),
    WorkflowCancelledException(instance_id="w-1", unknown=("a:1",)),
    CompensationFailedError(instance_id="w-1", failed=("refund:1",)),
    SerializationError("nope"),
    exceptions.NondeterminismError(instance_id="i", seq=3, recorded="a", found="b"),
    exceptions.MissingExtraError(what="x", package="asyncpg", extra="postgresql"),
    RecordedError("shop.Gone", "lost", "trace"),
    ExceptionGroup("two", [ValueError("a"), PaymentError(code=1, amount=Decimal(1))]),
    ExceptionGroup("deep", [ExceptionGroup("inner", [KeyError("k")])]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_with_class_args_text_and_attributes(error: BaseException) -> None:
    restored = back(raised(error))
    assert type(restored) is type(error)
    assert str(restored) == str(error)
    if isinstance(error, BaseExceptionGroup):
        assert isinstance(restored, BaseExceptionGroup)
        for inner, other in zip(restored.exceptions, error.exceptions, strict=True):
            assert (type(inner), str(inner)) == (type(other), str(other))
        return
    assert restored.args == error.args
    assert restored.__dict__ == error.__dict__


def test_attributes_that_the_built_in_classes_hold_come_back() -> None:
    picky = back(Picky("/data"))
    assert isinstance(picky, Picky)
    assert (picky.errno, picky.strerror, picky.filename, picky.extra) == (2, "nothing there", "/data", ["/data"])
    missing = back(ModuleNotFoundError("no", name="mod", path="/x"))
    assert isinstance(missing, ModuleNotFoundError)
    assert (missing.name, missing.path) == ("mod", "/x")
    undecodable = back(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"))
    assert isinstance(undecodable, UnicodeDecodeError)
    assert (undecodable.object, undecodable.end) == (b"\xff", 1)
    renamed = back(OSError(18, "cross-device", "a", None, "b"))
    assert isinstance(renamed, OSError)
    assert (renamed.filename, renamed.filename2) == ("a", "b")


def test_notes_come_back() -> None:
    error = ValueError("x")
    error.add_note("while paying")
    assert back(error).__notes__ == ["while paying"]


def test_a_validation_error_comes_back() -> None:
    for error in (invalid(quantity=0), invalid(quantity="x", name="long name"), invalid(quantity=1, name="bad")):
        restored = back(error)
        assert isinstance(restored, ValidationError)
        assert restored.title == error.title
        assert [(d["type"], d["loc"], d["msg"]) for d in restored.errors()] == [
            (d["type"], d["loc"], d["msg"]) for d in error.errors()
        ]
        assert str(restored).splitlines()[:3] == str(error).splitlines()[:3]


def test_a_validation_error_about_something_unstorable_comes_back() -> None:
    restored = back(invalid(quantity=object(), name="x"))
    assert isinstance(restored, ValidationError)
    assert restored.errors()[0]["type"] == "int_type"


def test_a_database_error_keeps_its_class_and_its_original() -> None:
    error = IntegrityError("INSERT …", {"id": 1}, ValueError("UNIQUE constraint failed"))
    restored = back(error)
    assert isinstance(restored, IntegrityError)
    assert str(restored) == str(error)
    assert isinstance(restored.orig, ValueError)
    assert restored.params == {"id": 1}


def test_causes_come_back_and_a_retry_keeps_the_last_error() -> None:
    restored = back(
        raised(RetryExhaustedError("gave up"), raised(PaymentError(code=1, amount=Decimal(1)), KeyError("k")))
    )
    assert isinstance(restored, RetryExhaustedError)
    assert isinstance(restored.__cause__, PaymentError)
    assert restored.__cause__.code == 1
    assert isinstance(restored.__cause__.__cause__, KeyError)


def test_a_long_or_circular_chain_of_causes_ends() -> None:
    first = ValueError("0")
    error = first
    for n in range(1, 500):
        following = ValueError(str(n))
        following.__cause__ = error
        error = following
    restored: BaseException | None = back(error)
    length = 0
    while restored is not None:
        restored, length = restored.__cause__, length + 1
    assert 5 < length < 20
    first.__cause__ = error
    back(error)
    one = ValueError("one")
    one.__cause__ = one
    assert back(one).__cause__ is None


def test_an_error_that_holds_itself_comes_back_without_it() -> None:
    error = PaymentError(code=1, amount=Decimal(1))
    error.me = error  # type: ignore[attr-defined]
    error.others = [KeyError(error)]  # type: ignore[attr-defined]
    restored = back(error)
    assert isinstance(restored, PaymentError)
    assert restored.code == 1
    assert "me" not in restored.__dict__


def test_an_argument_that_cannot_be_stored_gives_way_to_the_message() -> None:
    error = ValueError("about", object())
    restored = back(error)
    assert type(restored) is ValueError
    assert restored.args == (str(error),)


def test_an_attribute_that_cannot_be_stored_is_left_out() -> None:
    error = PaymentError(code=1, amount=Decimal(1))
    error.connection = object()  # type: ignore[attr-defined]
    error.text = "\ud800"  # type: ignore[attr-defined]
    restored = back(error)
    assert restored.__dict__ == {"code": 1, "amount": Decimal(1)}


def test_an_error_chooses_what_is_stored_of_it() -> None:
    text = encode_error(Careful("seen", "canary"))
    assert "canary" not in text
    restored = decode_error(text)
    assert isinstance(restored, Careful)
    assert restored.__dict__ == {"public": "seen"}


def test_no_constructor_of_the_users_runs() -> None:
    text = encode_error(Counting("x"))
    made = Counting.made
    assert type(decode_error(text)) is Counting
    assert Counting.made == made


def test_a_second_round_changes_nothing() -> None:
    for error in ERRORS:
        once = encode_error(back(error))
        again = encode_error(decode_error(once))
        assert json.loads(once) | {"stack_trace": ""} == json.loads(again) | {"stack_trace": ""}


# -- unknown classes -----------------------------------------------------------------------------------------------


def test_a_local_class_is_recorded_by_name_unless_it_is_registered() -> None:
    class LocalError(Exception):
        pass

    restored = back(raised(LocalError("x"), KeyError("k")))
    assert type(restored) is RecordedError
    assert restored.error_type.endswith("LocalError")
    assert restored.error_message == "x"
    assert "Traceback" in restored.stack_trace
    assert isinstance(restored.__cause__, KeyError)
    assert register_error(LocalError) is LocalError
    assert type(back(LocalError("x"))) is LocalError


def test_a_recorded_error_that_fails_a_workflow_keeps_the_original_name() -> None:
    again = encode_error(RecordedError("shop.Gone", "lost"))
    assert summarise_error(again).error_type == "shop.Gone"
    assert type(decode_error(again)) is RecordedError


def test_another_process_that_lacks_the_module_gets_a_recorded_error_and_imports_nothing() -> None:
    script = (
        "import sys\n"
        "from edda.engine.codec import decode_error\n"
        "error = decode_error(sys.stdin.read())\n"
        "print(type(error).__name__, error, 'xml.parsers.expat' in sys.modules)\n"
    )
    text = encode_error(ValueError("x")).replace("builtins:ValueError", "xml.parsers.expat:ExpatError")
    done = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "RecordedError ValueError: x False"


@pytest.mark.parametrize("stops", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_stops_a_process_comes_back_as_a_mere_record(stops: BaseException) -> None:
    assert type(back(stops)) is RecordedError


# -- bounds and hostile errors -------------------------------------------------------------------------------------


def test_a_stack_trace_is_bounded_and_keeps_both_ends() -> None:
    namespace: dict[str, Any] = {}
    lines = "\n".join(f"def f{n}(): f{n + 1}()" for n in range(400))
    exec(f"{lines}\ndef f400(): raise ValueError('the end')", namespace)
    with pytest.raises(ValueError, match="the end") as caught:
        namespace["f0"]()
    trace = summarise_error(encode_error(caught.value)).stack_trace
    assert len(trace) < STACK_TRACE_CHARS_MAX + 100
    assert trace.startswith("Traceback")
    assert trace.endswith("ValueError: the end\n")


def test_a_huge_error_keeps_its_class_and_the_beginning_of_its_message() -> None:
    for error in (ValueError("x" * 10**6), PaymentError(code=1, amount=Decimal(1))):
        error.__dict__["body"] = "y" * 10**6
        text = encode_error(error)
        assert len(text) <= ERROR_CHARS_MAX
        assert type(decode_error(text)) is type(error)


class Awkward(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    @property
    def __dict__(self) -> dict[str, object]:  # type: ignore[override]
        raise RuntimeError("no attributes")


class Liar(Exception):
    def __edda_attributes__(self) -> Any:
        return 5


class BadProperty(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no args")


@pytest.mark.parametrize("error", [Awkward("x"), Liar("x"), BadProperty("x"), ValueError("\ud800", "\x00")])
def test_encoding_never_raises(error: BaseException) -> None:
    text = encode_error(raised(error))
    text.encode()
    assert "\x00" not in text
    assert type(decode_error(text)) is type(error)


class Hasty(Exception):
    def __str__(self) -> str:
        raise asyncio.CancelledError


class Unfinished(RecordedError):
    def __init__(self) -> None:
        pass


class Disguised(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no class")


class NamelessClass(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")

    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no module")


class Nameless(Exception, metaclass=NamelessClass):
    pass


class Halved(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


Halved.__qualname__ = "Hal\ud800ved"


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (Hasty, "Hasty"),
        (Unfinished, "Unfinished"),
        (Disguised, "Disguised"),
        (Nameless, "Nameless"),
        (Halved, "Hal\\ud800ved"),
    ],
    ids=["str is cancelled", "no type", "no class", "no name", "half a character"],
)
def test_the_worst_of_classes_is_recorded_and_has_words(cls: type[Exception], told: str) -> None:
    error = raised(cls())
    summary = summarise_error(encode_error(error))
    assert summary.error_type == told
    assert in_words(error)


@given(
    st.lists(st.none() | st.text(st.characters()) | st.integers() | st.binary() | st.floats(), max_size=4),
    st.dictionaries(st.text(), st.text() | st.floats() | st.decimals(), max_size=3),
    st.sampled_from([ValueError, KeyError, PaymentError, OSError, TerminalError, Exception, DataError]),
)
def test_any_error_comes_back_as_its_class(
    args: list[object], attributes: dict[str, object], cls: type[Exception]
) -> None:
    error = Exception.__new__(cls) if cls is not OSError else OSError(*args)
    if cls is not OSError:
        error.args = tuple(args)
    error.__dict__.update(attributes)
    restored = back(error)
    assert type(restored) is type(error)  # OSError(1, …) makes a PermissionError
    assert encode_error(restored) == encode_error(decode_error(encode_error(restored)))


# -- hostile rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", "{}", '{"error_type":1}', '{"error_type":"x"', "NaN"])
def test_a_text_that_is_no_error_is_refused(text: str) -> None:
    for read in (decode_error, summarise_error):
        with pytest.raises(SerializationError):
            read(text)


HERE = __name__


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "os:system"},
        {"type": "builtins:eval", "args": ["1"]},
        {"type": "builtins:SystemExit", "args": [3]},
        {"type": "builtins:KeyboardInterrupt"},
        {"type": "builtins:BaseException"},
        {"type": f"{HERE}:Spec"},
        {"type": f"{HERE}:Outer"},
        {"type": f"{HERE}:Outer.InnerError.__init__"},
        {"type": f"{HERE}:pytest.UsageError"},
        {"type": 5},
        {"type": "x"},
        {"type": None},
        {"type": "builtins:UnicodeDecodeError", "args": [1]},
        {"type": "builtins:ExceptionGroup", "args": ["x", []]},
        {"type": "builtins:ExceptionGroup", "args": ["x", [{"$edda": "error", "v": {}}], 1]},
        {"type": "builtins:ValueError", "args": 5},
        {"type": "builtins:ValueError", "args": [{"$edda": "nope"}]},
        {"type": "pydantic_core._pydantic_core:ValidationError", "args": [1]},
        {"type": "pydantic_core._pydantic_core:ValidationError", "args": ["x", [{"type": "no"}], "python"]},
        {"type": "pydantic_core._pydantic_core:SchemaError"},
    ],
)
def test_a_forged_error_is_only_a_record(changes: dict[str, object]) -> None:
    record = json.loads(encode_error(ValueError("x"))) | changes
    restored = decode_error(json.dumps(record))
    assert type(restored) is RecordedError
    assert restored.error_type == "ValueError"


def test_forged_attributes_are_only_data() -> None:
    record = json.loads(encode_error(PaymentError(code=1, amount=Decimal(1))))
    record["attributes"] = {"__class__": "x", "__traceback__": 1, "__cause__": 2, "args": [5]}
    record["state"] = {"__class__": 1, "name": 2}
    restored = decode_error(json.dumps(record))
    assert type(restored) is PaymentError
    assert restored.__cause__ is None
    assert restored.__traceback__ is None
    assert restored.args == ("payment of 1 refused: 1",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$edda", "v", "t", "error"]), inner),
    max_leaves=8,
)
TYPES = [
    f"builtins:{name}" for name in ("OSError", "UnicodeDecodeError", "ExceptionGroup", "ImportError", "SyntaxError")
]


@settings(max_examples=300)
@given(st.sampled_from(TYPES), st.lists(json_values, max_size=5), json_values, json_values, json_values)
def test_no_forged_error_does_anything_but_come_back(
    name: str, args: list[object], attributes: object, state: object, cause: object
) -> None:
    record = {"error_type": "x", "type": name, "args": args, "attributes": attributes, "state": state, "cause": cause}
    assert isinstance(decode_error(json.dumps(record)), Exception)
