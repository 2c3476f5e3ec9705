"""What tells one cached function from another: nothing of one is ever returned by another."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import framecache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def python(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run Python, and return what it prints."""
    child = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(textwrap.dedent(text))
    return path


def apart(functions: list[Any], *args: object) -> bool:
    keys = [function.key(*args) for function in functions]
    return len(set(keys)) == len(keys)


PROGRAM = """
    import framecache
    cache = framecache.Cache("file://{directory}", namespace="{namespace}")

    @cache{options}
    def answer(x):
        return {result}

    print(answer(1), answer.cache_info().misses)
"""


def program(directory: Path, result: str, options: str = "", namespace: str = "") -> str:
    return textwrap.dedent(PROGRAM.format(directory=directory, result=result, options=options, namespace=namespace))


class TestPrograms:
    def test_two_scripts_with_a_function_of_one_name_are_apart(self, tmp_path: Path) -> None:
        one = script(tmp_path / "one" / "job.py", program(tmp_path / "cache", "[x]"))
        two = script(tmp_path / "two" / "job.py", program(tmp_path / "cache", "[x]"))
        assert python(one) == "[1] 1"
        assert python(two) == "[1] 1"
        assert python(one) == "[1] 0"

    def test_a_script_is_the_same_by_any_path(self, tmp_path: Path) -> None:
        one = script(tmp_path / "job.py", program(tmp_path / "cache", "[x]"))
        link = tmp_path / "link.py"
        link.symlink_to(one)
        assert python(one) == "[1] 1"
        assert python(link) == "[1] 0"
        assert python("job.py", cwd=tmp_path) == "[1] 0"

    def test_a_script_whose_path_has_a_hash_sign_has_keys_of_its_own(self, tmp_path: Path) -> None:
        one = script(tmp_path / "a#b" / "job.py", program(tmp_path / "cache", "[x]"))
        two = script(tmp_path / "a%23b" / "job.py", program(tmp_path / "cache", "[x]"))
        assert [python(one), python(two), python(one), python(two)] == ["[1] 1", "[1] 1", "[1] 0", "[1] 0"]

    def test_a_module_that_is_run_and_imported_is_one(self, tmp_path: Path) -> None:
        script(tmp_path / "package" / "job.py", program(tmp_path / "cache", "[x]"))
        assert python("-m", "package.job", cwd=tmp_path) == "[1] 1"
        assert python("-c", "import package.job", cwd=tmp_path) == "[1] 0"

    def test_a_process_that_a_script_spawns_finds_what_the_script_stored(self, tmp_path: Path) -> None:
        text = """
            import framecache, multiprocessing
            cache = framecache.Cache("file://{directory}")

            @cache
            def answer(x):
                return [x]

            def child():
                print(answer(1), answer.cache_info().misses, flush=True)

            if __name__ == "__main__":
                answer(1)
                process = multiprocessing.get_context("spawn").Process(target=child)
                process.start()
                process.join()
        """
        assert python(script(tmp_path / "job.py", text.format(directory=tmp_path / "cache"))) == "[1] 0"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("x + 1", "x + 2"),
            ("abs(x)", "bin(x)"),
            ("(lambda y: y)(x)", "(lambda y: -y)(x)"),
            ("[y for y in (x,)]", "[y + 1 for y in (x,)]"),
            ("x in {1, 2}", "x in {3, 2}"),
            ("x is ...", "x is not ..."),
        ],
    )
    def test_an_edited_function_does_not_return_what_it_did(self, tmp_path: Path, before: str, after: str) -> None:
        path = tmp_path / "job.py"
        directory = tmp_path / "cache"
        expected = [str(eval(result, {"x": 1})) for result in (before, after)]
        assert python(script(path, program(directory, before))) == f"{expected[0]} 1"
        assert python(script(path, program(directory, after))) == f"{expected[1]} 1"
        assert python(script(path, program(directory, before))) == f"{expected[0]} 0"

    def test_an_edited_function_with_the_same_version_goes_on(self, tmp_path: Path) -> None:
        path = tmp_path / "job.py"
        assert python(script(path, program(tmp_path / "cache", "'old'", "(version=1)"))) == "old 1"
        assert python(script(path, program(tmp_path / "cache", "'new'", "(version=1)"))) == "old 0"
        assert python(script(path, program(tmp_path / "cache", "'new'", "(version=2)"))) == "new 1"

    def test_moving_a_function_within_its_file_changes_nothing(self, tmp_path: Path) -> None:
        text = program(tmp_path / "cache", "[x]")
        assert python(script(tmp_path / "job.py", text)) == "[1] 1"
        assert python(script(tmp_path / "job.py", "# A comment.\n\n" + text)) == "[1] 0"

    @pytest.mark.parametrize("default", ["x=1", "*, x=1"])
    def test_an_edited_default_does_not_return_what_the_old_one_did(self, tmp_path: Path, default: str) -> None:
        text = program(tmp_path / "cache", "x").replace("answer(x)", f"answer({default})").replace("(1)", "()")
        assert python(script(tmp_path / "job.py", text)) == "1 1"
        assert python(script(tmp_path / "job.py", text.replace("x=1", "x=2"))) == "2 1"

    def test_an_edited_function_under_a_wrapper_does_not_return_what_it_did(self, tmp_path: Path) -> None:
        text = (
            program(tmp_path / "cache", "x", "(name='answer')")
            .replace("def answer", "@wrapped\ndef answer")
            .replace("@cache", WRAPPER + "\n@cache", 1)
        )
        assert python(script(tmp_path / "job.py", text)) == "1 1"
        assert python(script(tmp_path / "job.py", text.replace("return x", "return -x"))) == "-1 1"

    def test_the_namespace_counts(self, tmp_path: Path) -> None:
        assert python(script(tmp_path / "job.py", program(tmp_path / "cache", "x", namespace="one"))) == "1 1"
        assert python(script(tmp_path / "job.py", program(tmp_path / "cache", "x", namespace="two"))) == "1 1"


WRAPPER = """
import functools

def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper
"""


def adder(n: Any) -> Callable[[int], Any]:
    def add(x: int) -> Any:
        return x + n

    return add


class Unknown:
    """Keys cannot be made of its instances."""

    def __init__(self, n: int = 0) -> None:
        self.n = n

    def method(self, x: int) -> int:
        return self.n + x

    def __call__(self, x: int) -> int:
        return self.n + x


@dataclass(frozen=True)
class Point:
    n: int

    def method(self, x: int) -> int:
        return self.n + x

    def __call__(self, x: int) -> int:
        return self.n + x


@dataclass
class Movable:
    n: int

    def method(self, x: int) -> int:
        return self.n + x


class TestFunctions:
    @pytest.mark.parametrize("options", [{}, {"version": 1}, {"name": "add"}, {"key": lambda x: x}])
    def test_closures_over_different_values_are_apart(self, cache: framecache.Cache, options: dict[str, Any]) -> None:
        values = [1, 1.0, True, "1", b"1", (1,), [1], adder(1), adder(2), Unknown, Point, Point(1), len]
        assert apart([cache(**options)(adder(value)) for value in values], 1)
        assert cache(**options)(adder(1)).key(1) == cache(**options)(adder(1)).key(1)

    def test_what_keys_cannot_be_made_of_needs_a_name(self, cache: framecache.Cache) -> None:
        with pytest.raises(framecache.EncodeError, match=r"adder\.<locals>\.add: .*found n, .*Unknown; pass name= or"):
            cache(adder(Unknown()))
        assert cache(name="add")(adder(Unknown())).key(1).startswith("add#")
        assert cache(key=lambda x: x)(adder(Unknown())).key(1)

    def test_functions_that_close_over_each_other_have_an_identity(self, cache: framecache.Cache) -> None:
        def circle(result: str) -> list[Callable[[], object]]:
            functions: list[Callable[[], object]] = []

            def first() -> object:
                return second, third, result

            def second() -> object:
                return first, second, third

            def third() -> object:
                return first, second, third

            functions += first, second, third
            return functions

        cached = [cache(function) for result in "ab" for function in circle(result)]
        assert apart(cached)

    def test_lambdas_of_one_place_are_apart_by_what_they_do(self, cache: framecache.Cache) -> None:
        assert apart([cache(lambda x: 1), cache(lambda x: 2), cache(lambda x: x), cache(lambda x=1: x)], 1)

    def test_functions_of_one_name_in_two_classes_are_apart(self, cache: framecache.Cache) -> None:
        class A:
            @cache(ignore=("self",))
            def name(self) -> str:
                return "A"

            class Inner:
                @cache(ignore=("self",))
                def name(self) -> str:
                    return "Inner"

        class B:
            @cache(ignore=("self",))
            def name(self) -> str:
                return "B"

        assert [A().name(), A.Inner().name(), B().name()] * 2 == [A().name(), A.Inner().name(), B().name()] * 2
        assert [A().name(), A.Inner().name(), B().name()] == ["A", "Inner", "B"]

    def test_partial_functions_are_apart_by_function_and_arguments(self, cache: framecache.Cache) -> None:
        def add(x: int, y: int = 0) -> int:
            return x + y

        def subtract(x: int, y: int = 0) -> int:
            return x - y

        for options in ({}, {"version": 1}):
            partials = [
                functools.partial(add, y=1),
                functools.partial(add, y=2),
                functools.partial(add, 1),
                functools.partial(subtract, 1),
                functools.partial(functools.partial(add, 1)),
            ]
            cached = [cache(**options)(partial) for partial in partials]
            assert apart(cached[:-1], 1)
            assert [one(1) for one in cached] == [2, 3, 2, 0, 2]
            assert cached[0].key(1).startswith(f"{__name__}.")
        with pytest.raises(framecache.EncodeError, match=r"found an argument, .*Unknown"):
            cache(functools.partial(add, Unknown()))

    @pytest.mark.parametrize("of", [lambda one: one, lambda one: one.method])
    def test_bound_methods_and_objects_count_by_their_instance(
        self, cache: framecache.Cache, of: Callable[[Any], Any]
    ) -> None:
        assert [cache(of(Point(n)))(1) for n in (1, 2, 1)] == [2, 3, 2]
        with pytest.raises(framecache.EncodeError, match="Unknown; pass name= or key="):
            cache(of(Unknown()))
        assert cache(name="of")(of(Unknown(1)))(1) == 2

    def test_a_bound_method_of_what_may_change_is_refused(self, cache: framecache.Cache) -> None:
        with pytest.raises(framecache.EncodeError, match="Movable"):
            cache(Movable(1).method)

    def test_builtin_functions_have_an_identity(self, cache: framecache.Cache) -> None:
        assert cache(len)([1, 2]) == 2
        assert cache(sorted)([2, 1], reverse=True) == [2, 1]
        assert apart([cache(len), cache(sorted)], [1])
        with pytest.raises(framecache.InvalidArgument, match=r"expected a function with a signature, got .*max"):
            cache(max)

    def test_options_that_change_what_is_stored_count(self, cache: framecache.Cache) -> None:
        def pair(x: int, y: int = 0) -> tuple[int, int]:
            return x, y

        options: list[dict[str, Any]] = [
            {},
            {"codec": "json"},
            {"views": True},
            {"ignore": ("y",)},
            {"key": lambda x: x},
            {"key": lambda x: (x,)},
            {"version": 1},
            {"version": "1"},
            {"name": "pair"},
            {"namespace": "other"},
        ]
        cached = [cache(**one)(pair) for one in options]
        assert len({(one.key(1), "namespace" in option) for one, option in zip(cached, options, strict=True)}) == len(
            options
        )
        assert cached[0](1) == (1, 0)
        assert cached[1](1) == [1, 0]

    def test_functions_decorated_in_many_threads_are_apart(self, cache: framecache.Cache) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:
            cached = list(pool.map(lambda n: cache(adder(n)), range(400)))
        assert [one(0) for one in cached] == list(range(400))
        assert [one(0) for one in cached] == list(range(400))


class TestArguments:
    ALL = (1, 1.0, True, "1", b"1", (1,), [1], {1}, frozenset((1,)), {1: 1}, None, "", b"", (), [], {}, "None", "1.0")

    def test_values_that_are_equal_or_look_alike_are_apart(self, cache: framecache.Cache) -> None:
        shown = cache(lambda x: [type(x).__name__, repr(x)])
        expected = [[type(x).__name__, repr(x)] for x in self.ALL]
        assert [shown(x) for x in self.ALL] == expected
        assert [shown(x) for x in self.ALL] == expected
        assert shown.cache_info() == (len(self.ALL), len(self.ALL), 0, 0)

    def test_arguments_do_not_run_into_each_other(self, cache: framecache.Cache) -> None:
        joined = cache(lambda *args, **kwargs: [list(args), kwargs])
        calls = [("1:b:2", "3"), ("1", "2:b:3"), ("1", "b", "2", "3"), (("1", "b"), "2", "3"), ("12", "3"), ("1", "23")]
        assert [joined(*args) for args in calls * 2] == [[list(args), {}] for args in calls * 2]
        named = [{"a": 1, "b": 2}, {"a": "1", "b": 2}, {"a": 12}, {"ab": 12}]
        assert [joined(**kwargs) for kwargs in named * 2] == [[[], kwargs] for kwargs in named * 2]
        assert joined(("a", 1)) == [[["a", 1]], {}] or joined(("a", 1)) == [[("a", 1)], {}]

    def test_all_forms_of_one_call_are_one(self, cache: framecache.Cache) -> None:
        calls = itertools.count()

        @cache(key=None, name="forms")
        def forms(x: int, y: int = 2, *, z: int = 3) -> int:
            return next(calls)

        assert {forms(1), forms(x=1), forms(1, 2), forms(1, y=2), forms(y=2, x=1), forms(1, z=3)} == {0}
        assert forms(1, z=4) == 1

    def test_large_arrays_differ_by_one_cell(self, cache: framecache.Cache) -> None:
        import numpy as np

        total = cache(lambda array: float(array.sum()))
        one, two = np.zeros(5000), np.zeros(5000)
        two[2500] = 1
        assert [total(one), total(two), total(one.astype("f4")), total(one.reshape(50, 100))] == [0.0, 1.0, 0.0, 0.0]
        assert total.cache_info().misses == 4

    def test_a_changed_argument_is_another_call(self, cache: framecache.Cache) -> None:
        total = cache(sum)
        numbers = [1, 2]
        assert total(numbers) == 3
        numbers.append(3)
        assert total(numbers) == 6
        assert total([1, 2]) == 3
        assert total.cache_info().misses == 2

    def test_an_argument_without_a_form_is_named_with_the_ways_out(self, cache: framecache.Cache) -> None:
        @cache
        def reads(connection: object, x: int) -> int:
            return x

        with pytest.raises(framecache.EncodeError, match=r"connection.*reads.*key=.*ignore=") as raised:
            reads(Unknown(), 1)
        assert isinstance(raised.value, TypeError)
        assert cache(ignore=["connection"])(reads.__wrapped__)(Unknown(), 1) == 1
        assert cache(key=lambda connection, x: x)(reads.__wrapped__)(Unknown(), 1) == 1

    def test_ignored_parameters_exist(self, cache: framecache.Cache) -> None:
        with pytest.raises(framecache.InvalidArgument, match=r"ignore: expected names of parameters \(x, y\), got 'z'"):
            cache(ignore=("z",))(lambda x, y: x)
        with pytest.raises(framecache.InvalidArgument, match="ignore: expected several of them, got the str 'x'"):
            cache(ignore="x")

    @pytest.mark.parametrize("name", ["", "a#b", "a\0b", 7])
    def test_names_that_keys_cannot_begin_with_are_refused(self, cache: framecache.Cache, name: Any) -> None:
        with pytest.raises(framecache.InvalidArgument, match="name: expected a str without '#'"):
            cache(name=name)(lambda: 1)

    def test_a_version_is_a_value_that_keys_can_be_made_of(self, cache: framecache.Cache) -> None:
        with pytest.raises(framecache.InvalidArgument, match="version: expected a value that keys can be made of"):
            cache(version=object())


class Keyed:
    calls = 0

    def __init__(self, n: int) -> None:
        self.n = n

    def cache_key(self) -> int:
        return self.n


class TestInstances:
    def test_an_instance_counts_by_its_cache_key(self, cache: framecache.Cache) -> None:
        double = cache(_double)
        Some = type("Some", (Keyed,), {"double": double, "__module__": __name__})
        globals()["Some"] = Some
        assert [Some(n).double() for n in (1, 2, 1)] == [2, 4, 2]
        assert double.cache_info() == (1, 2, 0, 0)

    def test_a_frozen_dataclass_counts_by_its_fields(self, cache: framecache.Cache) -> None:
        double = cache(_double)
        assert [double(Point(n)) for n in (1, 2, 1)] == [2, 4, 2]
        assert double.cache_info().misses == 2

    @pytest.mark.parametrize("instance", [Unknown(1), Movable(1)])
    def test_another_instance_is_refused(self, cache: framecache.Cache, instance: object) -> None:
        expected = r"self.*cache_key\(\).*frozen dataclass"
        with pytest.raises(framecache.EncodeError, match=expected):
            cache(_double)(instance)

    def test_an_ignored_instance_does_not_count(self, cache: framecache.Cache) -> None:
        double = cache(ignore=("self",))(_double)
        assert [double(Unknown(n)) for n in (1, 2)] == [2, 2]

    def test_class_methods_count_by_their_class(self, cache: framecache.Cache) -> None:
        for decorated in (lambda f: classmethod(cache(f)), lambda f: cache(classmethod(f))):
            _Base.name = decorated(lambda cls: cls.__name__)
            assert [_Base.name(), _Derived.name(), _Base().name(), _Derived().name()] == ["_Base", "_Derived"] * 2

    def test_static_methods_bind_to_nothing(self, cache: framecache.Cache) -> None:
        for decorated in (lambda f: staticmethod(cache(f)), lambda f: cache(staticmethod(f))):
            _Base.double = decorated(lambda x: 2 * x)
            assert [_Base.double(1), _Base().double(1), _Derived.double(2)] == [2, 2, 4]
            assert sum(_Base.double.cache_info()[:2]) == 3

    def test_properties_are_cached_from_within(self, cache: framecache.Cache) -> None:
        Point.double = property(cache(_double))  # type: ignore[attr-defined]
        assert [Point(1).double, Point(2).double, Point(1).double] == [2, 4, 2]  # type: ignore[attr-defined]
        with pytest.raises(framecache.InvalidArgument, match="expected a function, got <property"):
            cache(property(_double))


def _double(self: Any) -> int:
    return 2 * int(self.n)


class _Base:
    name: Any
    double: Any


class _Derived(_Base):
    pass
