"""What an engine of one's own is written with: ``Cache(MyBackend())``. proto-docs/backend.md says how."""

from __future__ import annotations

from framecache._backend import AsyncBackend, Backend, Capabilities, Invalidations, NoRoom, Write

__all__ = ["AsyncBackend", "Backend", "Capabilities", "Invalidations", "NoRoom", "Write"]
