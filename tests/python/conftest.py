"""Fixtures of all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import framecache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where `cache` keeps its files."""
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> Iterator[framecache.Cache]:
    """An empty cache."""
    with framecache.Cache(f"file://{directory}") as opened:
        yield opened
