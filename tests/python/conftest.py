"""Fixtures of all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

import framecache

# How long an example takes says more of the machine than of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

#: Modules about what is in front of the store; all others are about what it does itself.
WITH_L1 = ("test_client_", "test_l1", "test_call_")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def l1_of_caches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of this process and its children have no L1: each read reaches the store. Where it fails, it raises."""
    if not request.node.path.name.startswith(WITH_L1):
        monkeypatch.setenv("FRAMECACHE_L1", "off")
    if request.node.path.name in ("test_store_directory.py", "test_store_disk.py"):
        monkeypatch.setenv("FRAMECACHE_ON_ERROR", "raise")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where `cache` keeps its files."""
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> Iterator[framecache.Cache]:
    """An empty cache."""
    with framecache.Cache(f"file://{directory}") as opened:
        yield opened
