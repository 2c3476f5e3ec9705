"""Cached functions: every form of a call is one key, wrong calls are the function's own errors, and the object behaves
as the function does."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import pathlib
import pickle
import random
import sys
import threading
import types
import typing
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import call_of, encoding, keep, no_decoder
from framecache import EncodeError
from framecache._framecache import L1, MISSING, Call
from support import run


def parameters(a: int, b: str = "b", /, c: float = 1.5, *rest: int, d: bytes = b"d", **more: object) -> str:
    """Take all kinds."""
    return "result"


def test_positional_keyword_and_default_forms_are_one_call() -> None:
    call = call_of(parameters)
    forms = [
        call.canonical(1),
        call.canonical(1, "b"),
        call.canonical(1, "b", 1.5),
        call.canonical(1, c=1.5),
        call.canonical(1, d=b"d", c=1.5),
        call.canonical(1, "b", **{"d": b"d"}),
        call.canonical(1, **{"".join(["c"]): 1.5}),
    ]
    assert len(set(forms)) == 1
    assert call.canonical(1, "c") not in forms
    assert call.canonical(1, a=1) not in forms  # a keyword of **more: `a` is positional-only


def test_keywords_that_are_not_interned_are_found_by_their_text() -> None:
    call = call_of(lambda x, *, key: None)
    name = "".join(["k", "e", "y"])
    assert call.canonical(1, **{name: 2}) == call.canonical(key=2, x=1)


def test_extra_keywords_count_in_any_order() -> None:
    call = call_of(parameters)
    keywords = {f"keyword_{number}": number for number in range(20)}
    shuffled = list(keywords.items())
    random.Random(5).shuffle(shuffled)
    assert call.canonical(1, **keywords) == call.canonical(1, **dict(shuffled))
    assert call.canonical(1, **keywords) != call.canonical(1, **{**keywords, "keyword_3": 4})


def test_boundaries_between_arguments_count() -> None:
    join = call_of(lambda *parts, **named: None)
    assert join.canonical("1:b:2", "3") != join.canonical("1", "2:b:3")
    assert join.canonical("a", "b") != join.canonical("ab") != join.canonical("ab", "")
    assert join.canonical(("a", "b")) != join.canonical("a", "b")
    assert join.canonical(a=1) != join.canonical("a", 1) != join.canonical(("a", 1)) != join.canonical({"a": 1})
    two = call_of(lambda a, b: None)
    assert two.canonical("1", "23") != two.canonical("12", "3")


def test_defaults_count_as_they_are_at_the_call() -> None:
    default = [1]

    def with_default(x: object = default) -> None: ...

    call = call_of(with_default)
    before = call.canonical()
    assert before == call.canonical([1])
    default.append(2)
    assert call.canonical() == call.canonical([1, 2]) != before


def test_ignored_parameters_do_not_count_and_need_no_form() -> None:
    call = call_of(lambda x, connection, *rest, **more: None, ignore=("connection", "rest", "more"))
    assert call.canonical(1, object()) == call.canonical(1, None, object(), who=object())
    assert call.canonical(1, 1) != call.canonical(2, 1)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_any_number_of_parameters(count: int) -> None:
    names = [f"p{number}" for number in range(count)]
    namespace: dict[str, Any] = {}
    exec(f"def many({', '.join(f'{name}=0' for name in names)}): ...", namespace)
    call = call_of(namespace["many"])
    values = list(range(count))
    assert call.canonical(*values) == call.canonical(**dict(zip(names, values, strict=True)))
    assert call.canonical(*values)[4:] == b"".join(map(encoding, values))
    for place in range(count):
        assert call.canonical(**{names[place]: 99}) != call.canonical()


def one(a: int) -> None: ...
def none() -> None: ...
def two(a: int, b: int = 1, *, k: int) -> None: ...
def keyword_only(*, k: int, m: int, n: int = 0) -> None: ...
def positional_only(a: int, b: int, /) -> None: ...
def variadic(a: int, *rest: int, k: int = 0) -> None: ...
def keywords(a: int, /, b: int, **more: int) -> None: ...


FUNCTIONS = [one, none, two, keyword_only, positional_only, variadic, keywords, parameters]


@given(
    st.sampled_from(FUNCTIONS),
    st.integers(0, 5),
    st.sets(st.sampled_from(["a", "b", "c", "d", "k", "m", "n", "zz", "rest", "more"]), max_size=4),
)
def test_hypothesis_a_wrong_call_raises_the_error_of_the_function(function: Any, count: int, names: set[str]) -> None:
    call = call_of(function)
    given_by_name = dict.fromkeys(sorted(names), 1)
    try:
        function(*range(count), **given_by_name)
    except TypeError as error:
        expected = str(error).partition(". Did you mean")[0]
        for form in (call, call.key, call.canonical):
            with pytest.raises(TypeError) as raised:
                form(*range(count), **given_by_name)
            assert str(raised.value) == expected
    else:
        assert call(*range(count), **given_by_name) is MISSING


def test_a_wrong_call_of_a_method_counts_the_instance() -> None:
    class Shop:
        def price(self, item: int) -> None: ...

    method = Shop.price
    Shop.price = call_of(method, ignore=("self",))  # type: ignore[method-assign]
    with pytest.raises(TypeError) as raised:
        Shop().price(1, 2)  # type: ignore[call-arg]
    assert str(raised.value).endswith("Shop.price() takes 2 positional arguments but 3 were given")


def test_key_makes_what_counts() -> None:
    seen = []

    def make(*args: object, **kwargs: object) -> object:
        seen.append((args, kwargs))
        return [1, "two"]

    call = call_of(lambda x, *, y: None, key=make)
    assert call.canonical(object(), y=object()) == call.canonical(1, y=2)
    assert call.canonical(1, y=2) == b"\x01\x00\x00\x00\x0d" + encoding([1, "two"])
    assert seen[-1] == ((1,), {"y": 2})
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'y'"):
        call(1)
    failing = call_of(one, key=lambda a: [object()])
    with pytest.raises(EncodeError, match=r"what key= of .*\.one returned, at \[0\]: expected"):
        failing(1)


def test_a_miss_gets_the_canonical_bytes_and_the_arguments_of_the_call() -> None:
    seen = []
    call = call_of(parameters, miss=lambda *given: seen.append(given) or "computed")
    assert call(1, c=2.5, who=3) == "computed"
    assert seen == [(call.canonical(1, "b", 2.5, who=3), (1,), {"c": 2.5, "who": 3})]
    assert call.hits == 0


def test_a_hit_returns_the_value_and_calls_nothing() -> None:
    l1 = L1(1 << 20, decode=no_decoder)
    call = call_of(parameters, l1=l1, miss=lambda *_: pytest.fail("called"))
    value = "a value"
    keep(l1, call.canonical(1), value)
    assert call(1) is value
    assert call(1, "b", d=b"d") is value
    assert call.hits == 2
    l1.slow = 1
    slow = call_of(parameters, l1=l1, miss=lambda canonical, args, kwargs: ("slow", canonical))
    assert slow(1) == ("slow", slow.canonical(1))
    assert slow.hits == 0


def test_functions_of_different_scopes_share_no_entries() -> None:
    l1 = L1(1 << 20, decode=no_decoder)
    first, second = (call_of(one, l1=l1, scope=scope) for scope in (1, 2))
    keep(l1, first.canonical(1), "first")
    assert first(1) == "first"
    assert second(1) is MISSING
    assert first.canonical(1)[4:] == second.canonical(1)[4:]


def test_keys_are_label_and_hash_and_lead_back_to_the_entry() -> None:
    l1 = L1(1 << 20, decode=no_decoder)
    call = call_of(one, l1=l1)
    key = call.key(5)
    label, _, digits = key.partition("#")
    assert label == "test_call_binding.one"
    assert len(digits) == 64
    assert digits == digits.lower()
    assert call.key_of(call.canonical(5)) == key
    assert call.find(key) is None
    for number in range(10):
        keep(l1, call.canonical(number), number)
    assert call.find(key) == call.canonical(5)
    for other in ("", key[:-1], key.upper(), "x" + key, call.key(99)):
        assert call.find(other) is None
    with pytest.raises(ValueError, match="canonical bytes of this function"):
        call.key_of(b"\x02\x00\x00\x00")
    with pytest.raises(ValueError, match="canonical bytes of this function"):
        call.key_of(b"")
    with pytest.raises(TypeError):
        call.key_of("text")


def test_keys_with_a_label_beyond_ascii() -> None:
    def größe(x: int) -> None: ...

    call = call_of(größe)
    assert call.key(1).startswith("test_call_binding.test_keys_with_a_label_beyond_ascii.<locals>.größe#")
    assert call.key_of(call.canonical(1)) == call.key(1)


@call_of
def of_module(x: int, y: str = "") -> list[int]:
    """Return nothing."""
    raise AssertionError


class Shop:
    @call_of
    def bound(self, x: int) -> None: ...

    @classmethod
    @call_of
    def of_class(cls, x: int) -> None: ...

    @staticmethod
    @call_of
    def static(x: int) -> None: ...

    def cache_key(self) -> object:
        return 7


def test_the_object_passes_for_the_function() -> None:
    assert inspect.isfunction(of_module)
    assert isinstance(of_module, types.FunctionType)
    assert type(of_module) is Call
    assert inspect.isroutine(of_module)
    assert not inspect.iscoroutinefunction(of_module)
    assert not inspect.isgeneratorfunction(of_module)
    assert inspect.signature(of_module) == inspect.signature(of_module.__wrapped__)
    assert typing.get_type_hints(of_module) == {"x": int, "y": str, "return": list[int]}
    assert (of_module.__name__, of_module.__module__) == ("of_module", "test_call_binding")
    assert of_module.__doc__ == "Return nothing."
    assert of_module.__defaults__ == ("",)
    assert of_module.__code__ is of_module.__wrapped__.__code__
    assert inspect.getsource(of_module).endswith("raise AssertionError\n")
    assert repr(of_module) == "<cached function test_call_binding.of_module>"
    of_module.extra = 1
    assert vars(of_module)["extra"] == 1
    with pytest.raises(TypeError):
        Call.__call__ = None  # type: ignore[method-assign]


def test_it_is_pickled_and_copied_as_itself() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(of_module, protocol)) is of_module
    assert copy.copy(of_module) is of_module
    assert copy.deepcopy([of_module])[0] is of_module
    assert pickle.loads(pickle.dumps(Shop.static)) is Shop.static


def test_methods_are_bound_as_those_of_functions() -> None:
    shop = Shop()
    assert isinstance(shop.bound, types.MethodType)
    assert shop.bound.__self__ is shop
    assert Shop.bound is vars(Shop)["bound"]
    assert shop.bound(1) is MISSING
    assert Shop.of_class(1) is MISSING
    assert Shop.static(1) is MISSING
    assert vars(Shop)["bound"].canonical(shop, 1)[4:] == encoding(shop) + encoding(1)


def test_an_instance_counts_only_by_a_declared_identity() -> None:
    from key_values import Account, Color, Fixed, Money, Plain, Point

    def method(self: object, x: int) -> None: ...

    call = call_of(method)
    for owner in (Account("a", 1), Fixed(1), Color.red, Money(5)):
        assert call.canonical(owner, 1)[4:] == encoding(owner) + encoding(1)
    for owner, found in ((Plain(), "Plain"), (Point(1), "Point, a dataclass that is not frozen"), ([Plain()], "Plain")):
        with pytest.raises(EncodeError) as raised:
            call(owner, 1)
        text = str(raised.value)
        assert "argument self" in text
        assert 'ignore=("self",)' in text
        assert text.endswith(found)
    with pytest.raises(EncodeError, match="of a frozen dataclass, an Enum or a class registered"):
        call(Plain(), 1)
    assert call.canonical([Point(1)], 1)  # no instance of a class that has methods of its own
    # Elsewhere a dataclass counts by its fields, frozen or not.
    assert call.canonical(Fixed(Point(1)), 1)


def test_a_cycle_through_the_object_is_collected() -> None:
    class Holder:
        pass

    for part in ("miss", "key", "attribute", "default"):
        holder = Holder()

        def miss(*_: object, holder: object = holder) -> None: ...

        if part == "default":

            def function(x: object = holder) -> None: ...

            call = call_of(function)
        else:
            call = call_of(one, **({part: miss} if part != "attribute" else {}))
        holder.call = call  # type: ignore[attr-defined]
        if part == "attribute":
            call.holder = holder
        gone = weakref.ref(holder), weakref.ref(call)
        del holder, call, miss
        if part == "default":
            del function
        gc.collect()
        assert [reference() for reference in gone] == [None, None], part


def test_references_are_given_back() -> None:
    l1 = L1(1 << 20, decode=no_decoder)

    class Item:
        def cache_key(self) -> object:
            raise LookupError

    call = call_of(parameters, l1=l1, miss=lambda canonical, args, kwargs: None)
    failing = call_of(one)
    value, item, dictionary = "a value " * 4, Item(), {"who": object.__class__}
    keep(l1, call.canonical(1), value)

    def counts() -> list[int]:
        return [sys.getrefcount(each) for each in (value, item, dictionary, call, failing, failing.__wrapped__)]

    before = counts()
    for _ in range(100):
        assert call(1) is value
        call(2, "x", 3.0, 4, d=b"", **dictionary)
        call.key(1)
        with pytest.raises(EncodeError):
            failing([item, dictionary, object()][1:])
        with pytest.raises((EncodeError, LookupError)):
            failing(item)
        with pytest.raises(TypeError):
            failing(item, item)
    assert counts() == before


def test_what_runs_while_a_call_is_encoded_may_call_the_same_function() -> None:
    from key_values import Row

    l1 = L1(1 << 20, decode=no_decoder)
    call = call_of(one, l1=l1)
    keep(l1, call.canonical(1), "inner")

    class Asking(Row):
        def cache_key(self) -> object:
            return call(1)

    globals()["Asking"] = Asking
    Asking.__qualname__ = "Asking"
    keep(l1, call.canonical([0, Asking("", 0)]), "outer")
    assert call([0, Asking("", 0)]) == "outer"
    assert call.hits == 3


def test_threads_hit_side_by_side() -> None:
    l1 = L1(1 << 22, decode=no_decoder)
    call = call_of(lambda x, y="": None, l1=l1)
    for number in range(500):
        keep(l1, call.canonical(number, "é" * number), str(number))
    wrong = []

    def run() -> None:
        for number in range(500):
            if call(number, y="é" * number) != str(number):
                wrong.append(number)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert call.hits == 2000


def test_what_no_signature_has_is_refused() -> None:
    l1 = L1(1 << 20, decode=no_decoder)

    def made(parameters: object, **options: Any) -> Call:
        return Call(l1, 1, b"", "f", parameters, None, **{"describe": len, **options})

    for wrong in ([("a", 5, MISSING, False)], [("a", 3, MISSING, False), ("b", 1, MISSING, False)],
                  [("a", 2, MISSING, False), ("b", 2, MISSING, False)]):  # fmt: skip
        with pytest.raises(ValueError, match="parameters: expected"):
            made(wrong)
    with pytest.raises(ValueError, match="length 4"):
        made([("a",)])
    with pytest.raises(TypeError, match="describe"):
        Call(l1, 1, b"", "f", [], None)
    with pytest.raises(ValueError, match="describe: expected a callable"):
        made([], describe=1)
    with pytest.raises(TypeError):
        Call(object(), 1, b"", "f", [], None, describe=len)
    with pytest.raises(OverflowError):
        Call(l1, 2**32, b"", "f", [], None, describe=len)
    with pytest.raises(AttributeError, match="__wrapped__"):
        _ = made([]).__code__
    with pytest.raises(TypeError):
        type("Derived", (Call,), {})


def test_a_description_of_another_form_is_an_error_of_its_maker() -> None:
    call = Call(
        L1(1 << 20, decode=no_decoder), 1, b"", "f", [("x", 1, MISSING, False)], None, describe=lambda value: value
    )
    with pytest.raises(TypeError):
        call(object())
    assert functools.partial(call, 1)() is MISSING


def test_calls_while_the_interpreter_ends() -> None:
    code = """
        from calls import call_of

        class Last:
            def __init__(self, call):
                self.call = call

            def __del__(self, print=print, object=object, Exception=Exception):
                print(self.call(1))
                for arguments in ((object(),), ()):
                    try:
                        self.call(*arguments)
                    except Exception as error:
                        print(type(error).__name__)

        call = call_of(lambda x: None, miss=lambda canonical, args, kwargs: args)
        call.cycle = call
        last = Last(call)
        last.cycle = last
    """
    assert run(code, env={"PYTHONPATH": str(pathlib.Path(__file__).parent)}).split("\n")[:3] == [
        "(1,)", "EncodeError", "TypeError",
    ]  # fmt: skip
