"""One program on any tier: `python examples/anywhere.py URL`, where the URL is the only thing that changes.

python examples/anywhere.py memory://
python examples/anywhere.py file:///tmp/anywhere
python examples/anywhere.py redis://localhost:6379/0
python examples/anywhere.py redis+cluster://localhost:6379
"""

from __future__ import annotations

import asyncio
import sys

import framecache

cache = framecache.Cache(sys.argv[1] if len(sys.argv) > 1 else None, namespace="anywhere", ttl=300)
computed: list[object] = []


@cache(tags=["users"])
def user(number: int) -> dict[str, object]:
    """Take long to compute."""
    computed.append(number)
    return {"id": number, "name": f"user {number}", "groups": ("staff", frozenset({number}))}


@cache(stale_for=30)
async def page(number: int) -> str:
    """Take long to compute, too."""
    computed.append(f"page {number}")
    await asyncio.sleep(0)
    return f"page {number}"


async def pages() -> list[str]:
    """Ask for two pages, a hundred times at once."""
    return await asyncio.gather(*(page(number % 2) for number in range(100)))


def main() -> None:
    """Do a bit of everything, and say what came of it."""
    cache.clear()
    print("a function:", user(7), user(number=7))
    cache.invalidate_tags("users")
    print("invalidated:", user.get(7), user(7)["name"])
    print("coroutines:", sorted(set(asyncio.run(pages()))))
    print("computed:", sorted(map(str, computed)))

    print("stored:", cache.set("greeting", b"hello"), cache.set_many({"a": 1, "b": (2.5, None)}, tags=["letters"]))
    print("read:", cache.get("greeting"), cache.get_many(["a", "b", "c"]))
    print("if absent:", cache.set("greeting", b"other", if_absent=True), cache.get("greeting"))
    print("get or set:", cache.get_or_set("sum", lambda: sum(range(10))), cache.get("sum"))
    cache.invalidate_tags("letters")
    print("removed:", cache.get_many(["a", "b"]), cache.delete("greeting"), "greeting" in cache)
    cache.clear()
    print("cleared:", cache.get("sum", "nothing"))
    cache.close()


if __name__ == "__main__":
    main()
