"""Where a cache keeps things, and what the environment says about it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import framecache
from framecache._settings import Settings
from support import run

if TYPE_CHECKING:
    from pathlib import Path

WRONG = [
    ("URL", "http://host", "expected 'file:///path'"),
    ("URL", "file:///cache?max_bytes=many", "max_bytes: expected a size such as 2GiB"),
    ("URL", "file:///cache?colour=red", "settings of max_bytes, index_bytes, verify"),
    ("TTL", "soon", "expected seconds above 0 and at most 31622400000, or 'none'"),
    ("TTL", "0", "expected seconds above 0"),
    ("TTL", "nan", "expected seconds above 0"),
    ("TTL", "inf", "expected seconds above 0"),
    ("TTL", "1e300", "expected seconds above 0"),
    ("L1", "much", "expected a size such as 256MiB, or 'off'"),
    ("L1", "0", "expected a size such as 256MiB, or 'off'"),
    ("L1", "-1", "expected a size such as 256MiB, or 'off'"),
    ("CODEC", "pickle", "expected 'auto', 'msgpack' or 'json'"),
    ("COMPRESSION", "zip", "expected None, 'lz4', 'zstd', 'zstd:LEVEL'"),
    ("COMPRESSION", "zstd:23", "with a level from 1 to 22"),
    ("COMPRESSION", "zstd:", "with a level from 1 to 22"),
    ("COMPRESSION", "lz4:1", "with a level from 1 to 22"),
    ("MAX_VALUE_BYTES", "0", "expected a size such as 256MiB, from 1 to"),
    ("MAX_VALUE_BYTES", "999999999TiB", "expected a size such as 256MiB, from 1 to"),
    ("ON_ERROR", "ignore", "expected 'count' or 'raise'"),
    ("DISABLE", "maybe", "expected '1' or '0'"),
]


class TestEnvironment:
    @pytest.mark.parametrize(("name", "text", "expected"), WRONG)
    def test_a_wrong_value_is_an_error_that_names_variable_and_form(
        self, monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str
    ) -> None:
        monkeypatch.setenv(f"FRAMECACHE_{name}", text)
        with pytest.raises(framecache.InvalidArgument) as raised:
            framecache.Cache()
        assert str(raised.value).startswith(f"FRAMECACHE_{name}: ")
        assert expected in str(raised.value)
        assert text.partition("?")[0].partition(":")[0] in str(raised.value) or "max_bytes" in str(raised.value)

    def test_each_variable_is_taken_for_what_is_not_given(self, tmp_path: Path) -> None:
        settings = Settings(
            {
                "FRAMECACHE_URL": f"file://{tmp_path}/cache",
                "FRAMECACHE_NAMESPACE": "mine",
                "FRAMECACHE_TTL": "1.5",
                "FRAMECACHE_L1": "1KiB",
                "FRAMECACHE_CODEC": "json",
                "FRAMECACHE_COMPRESSION": "zstd:22",
                "FRAMECACHE_MAX_VALUE_BYTES": "2MB",
                "FRAMECACHE_ON_ERROR": "raise",
                "FRAMECACHE_DISABLE": "Yes",
            }
        )
        assert settings.url == f"file://{tmp_path}/cache"
        assert (settings.namespace, settings.ttl, settings.l1, settings.codec) == ("mine", 1.5, 1024, "json")
        assert (settings.compression, settings.max_value_bytes) == ("zstd:22", 2_000_000)
        assert (settings.on_error, settings.disable) == ("raise", True)

    def test_without_variables_and_with_empty_ones_there_are_defaults(self) -> None:
        empty = {f"FRAMECACHE_{name}": "" for name in ("URL", "TTL", "COMPRESSION", "DISABLE", "NAMESPACE")}
        for settings in (Settings({}), Settings(empty)):
            assert (settings.url, settings.namespace, settings.ttl, settings.l1) == (None, "", None, 256 << 20)
            assert (settings.codec, settings.compression, settings.max_value_bytes) == ("auto", None, 1 << 30)
            assert (settings.on_error, settings.disable) == ("count", False)
        assert Settings({"FRAMECACHE_L1": "off"}).l1 is Settings({"FRAMECACHE_L1": "none"}).l1 is None

    def test_arguments_come_before_variables(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("FRAMECACHE_URL", f"file://{tmp_path}/variable")
        monkeypatch.setenv("FRAMECACHE_TTL", "0.001")
        monkeypatch.setenv("FRAMECACHE_L1", "off")
        with framecache.Cache("memory://", ttl=None, l1=1 << 20) as cache:
            cache.set("key", 1)
            entry = cache.get_entry("key")
            assert entry is not None
            assert entry.deadline is None
            assert cache.health()["l1"]["max_bytes"] == 1 << 20
        assert not (tmp_path / "variable").exists()

    def test_disabled_nothing_is_read_or_stored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FRAMECACHE_DISABLE", "1")
        with framecache.Cache() as cache:
            calls: list[int] = []
            f = cache(name="f")(lambda x: calls.append(x))
            f(1), f(1)
            assert calls == [1, 1]
            assert cache.set("key", 1) is False
            assert cache.get("key", 7) == 7
            assert cache.get_or_set("key", lambda: 2) == 2
            assert cache.health()["enabled"] is False


class TestPlaces:
    def test_the_users_directory(self, tmp_path: Path) -> None:
        code = "import framecache; framecache.Cache('file:').set('key', 1); print(framecache.Cache('file:').get('key'))"
        assert run(code, env={"XDG_CACHE_HOME": str(tmp_path)}) == "1\n"
        assert (tmp_path / "framecache").stat().st_mode & 0o777 == 0o700
        assert run(code, env={"XDG_CACHE_HOME": "relative", "HOME": str(tmp_path / "home")}) == "1\n"
        assert (tmp_path / "home" / ".cache" / "framecache").is_dir()

    @pytest.mark.parametrize("url", ["file:///tmp/framecache-test/../x?mode=rw", "memory://"])
    def test_known_urls(self, url: str, tmp_path: Path) -> None:
        framecache.Cache(url.replace("/tmp/framecache-test/../x", f"{tmp_path}/x")).close()

    def test_settings_of_the_store(self, tmp_path: Path) -> None:
        url = (
            f"file://{tmp_path}/a%20b?max_bytes=1GiB&index_bytes=64MiB&verify=full&durability=power&index=pwrite"
            "&writer_timeout=2.5&mode=rw"
        )
        with framecache.Cache(url) as cache:
            assert cache.set("key", 1)
            assert cache.usage()["max_bytes"] == 1 << 30
        assert (tmp_path / "a b").is_dir()
        with framecache.Cache(f"file://{tmp_path}/a%20b?mode=ro") as cache:
            assert cache.get("key") == 1

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "memcached://host",
            "file://host/path",
            "file:relative",
            "/path",
            "memory://x",
            "file:///path#fragment",
            "file:///path?verify=some",
            "file:///path?verify=full&verify=full",
            "file:///path?mode=rw&mode=ro",
            "file:///path?writer_timeout=-1",
            "file:///path?writer_timeout=nan",
            7,
        ],
    )
    def test_other_urls_are_refused(self, url: Any) -> None:
        with pytest.raises(framecache.InvalidArgument, match=r"^url: "):
            framecache.Cache(url)

    def test_without_any_tier_there_is_no_cache(self) -> None:
        with pytest.raises(framecache.InvalidArgument, match="l1: expected a size, as there is no other tier"):
            framecache.Cache(l1=None)

    @pytest.mark.parametrize("l1", [0, -1, "0", "x", 1.5, True, "1.5MiB", b"1MiB", 1 << 64])
    def test_wrong_sizes_of_l1_are_refused(self, l1: Any) -> None:
        with pytest.raises(framecache.InvalidArgument, match=r"^l1: expected "):
            framecache.Cache(l1=l1)

    @pytest.mark.parametrize(
        "options",
        [
            {"namespace": 7},
            {"codec": "pickle"},
            {"compression": "zip"},
            {"compression": 7},
            {"max_value_bytes": 0},
            {"max_value_bytes": "1"},
            {"on_error": "ignore"},
            {"on_tamper": "ignore"},
            {"ttl": 0},
        ],
    )
    def test_wrong_arguments_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(framecache.InvalidArgument, match=f"^{next(iter(options))}: expected "):
            framecache.Cache(**options)

    def test_namespaces_of_one_directory_are_apart(self, tmp_path: Path) -> None:
        url = f"file://{tmp_path}/cache"
        with framecache.Cache(url, namespace="a") as a, framecache.Cache(url, namespace="b") as b:
            a.set("key", 1, tags=["tag"])
            b.set("key", 2, tags=["tag"])
            assert (a.get("key"), b.get("key")) == (1, 2)
            a.invalidate_tags("tag")
            assert (a.get("key"), b.get("key")) == (None, 2)
            a.set("key", 3)
            a.clear()
            assert (a.get("key"), b.get("key")) == (None, 2)

    def test_namespaces_of_functions_are_apart(self) -> None:
        with framecache.Cache() as cache:
            f = cache(name="f", namespace="other", tags=("tag",))(lambda x: [x])
            f(1)
            cache.invalidate_tags("tag")
            cache.clear()
            f(1)
            assert f.cache_info() == (1, 1, 0, 0)


class TestDefault:
    def test_the_default_cache_is_made_when_it_is_first_used(self, tmp_path: Path) -> None:
        code = """
            import framecache, threading
            assert "cache" not in vars(framecache)
            made = []
            threads = [threading.Thread(target=lambda: made.append(framecache.cache)) for _ in range(8)]
            [thread.start() for thread in threads], [thread.join() for thread in threads]
            assert set(made) == {framecache.cache}

            @framecache.cache
            def f(x):
                return [x]

            print(f(1), framecache.cache)
        """
        url = f"file://{tmp_path}/cache"
        assert run(code, env={"FRAMECACHE_URL": url}) == f"[1] framecache.Cache({url!r})\n"

    def test_other_names_of_the_package_are_attribute_errors(self) -> None:
        with pytest.raises(AttributeError, match="module 'framecache' has no attribute 'cash'"):
            framecache.cash  # noqa: B018


def test_all_names_of_the_package_are_there() -> None:
    for name in framecache.__all__:
        assert getattr(framecache, name) is not None


def test_importing_the_package_imports_little() -> None:
    code = """
        import sys
        before = set(sys.modules)
        import framecache
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
    """
    child = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; sys.path[:0] = " + repr(sys.path) + "\n" + _dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(child.stdout.split())
    assert not imported & {"typing", "inspect", "asyncio", "dataclasses", "logging", "re", "enum", "json", "numpy"}


def _dedent(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)
