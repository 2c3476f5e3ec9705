"""Web frameworks take a cached function for the function: as a view, with its parameters, sync or async."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import framecache
from support import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = framecache.Cache()
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    CALLS.clear()
    yield
    CACHE.clear()


def imported(name: str) -> Any:
    """Import a framework."""
    try:
        return __import__(name, fromlist=["*"])
    except ImportError as error:
        skip_or_fail(str(error))


def asked(app: Any, path: str, query: bytes = b"") -> tuple[int, bytes]:
    """Send a GET request to an ASGI application; return status and body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "state": {},
    }
    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return sent[0]["status"], body


def where(name: str) -> str:
    """Note a call; return whether it is in the thread of the loop."""
    CALLS.append(name)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return f"{name} in a thread" if threading.current_thread() is not threading.main_thread() else name
    return f"{name} in the loop"


class TestFastAPI:
    def test_endpoints_and_dependencies(self) -> None:
        fastapi = imported("fastapi")
        app = fastapi.FastAPI()

        @CACHE(ttl=60)
        def dependency(q: str = "none") -> str:
            return where(f"dependency {q}")

        @CACHE(ttl=60)
        async def adependency(q: str = "none") -> str:
            return where(f"adependency {q}")

        depends, adepends = fastapi.Depends(dependency), fastapi.Depends(adependency)

        @app.get("/sync/{item}")
        @CACHE(ttl=60)
        def sync(item: int, d: str = depends) -> list[str]:
            return [where(f"sync {item!r}"), d]

        @app.get("/async/{item}")
        @CACHE(ttl=60)
        async def async_(item: int, d: str = adepends) -> list[str]:
            return [where(f"async {item!r}"), d]

        # The annotations are text, which is resolved among the module's names.
        for endpoint in (sync, async_):
            assert endpoint.__annotations__["item"] == "int"

        for _ in range(2):
            assert asked(app, "/sync/7", b"q=x") == (
                200,
                b'["sync 7 in a thread","dependency x in a thread"]',
            )
            assert asked(app, "/async/7", b"q=x") == (200, b'["async 7 in the loop","adependency x in the loop"]')
        assert CALLS == ["dependency x", "sync 7", "adependency x", "async 7"]
        assert asked(app, "/sync/seven")[0] == 422
        schema = app.openapi()["paths"]["/sync/{item}"]["get"]["parameters"]
        assert {(one["name"], one["in"]) for one in schema} == {("item", "path"), ("q", "query")}


class TestStarlette:
    def test_routes(self) -> None:
        starlette = imported("starlette.applications")
        routing = imported("starlette.routing")
        responses = imported("starlette.responses")

        @CACHE(key=lambda request: request.url.path)
        def body(request: Any) -> str:
            return where("body")

        @CACHE(key=lambda request: request.url.path)
        async def abody(request: Any) -> str:
            return where("abody")

        def sync(request: Any) -> Any:
            return responses.PlainTextResponse(body(request))

        async def async_(request: Any) -> Any:
            return responses.PlainTextResponse(await abody(request))

        app = starlette.Starlette(routes=[routing.Route("/sync", sync), routing.Route("/async", async_)])
        for _ in range(2):
            assert asked(app, "/sync") == (200, b"body in a thread")
            assert asked(app, "/async") == (200, b"abody in the loop")
        assert CALLS == ["body", "abody"]

    def test_a_cached_function_is_taken_for_a_function(self) -> None:
        routing = imported("starlette.routing")

        # What is no function is taken for an ASGI application, and called as one.
        for function in (CACHE(name="s")(lambda request: ""), CACHE(name="a")(_abody)):
            route = routing.Route("/", function)
            assert route.app is not function
            assert route.methods == {"GET", "HEAD"}


async def _abody(request: Any) -> str:
    return ""


class TestDjango:
    def test_views(self) -> None:
        django = imported("django")
        conf = imported("django.conf")
        if not conf.settings.configured:
            conf.settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="tests", LOGGING_CONFIG=None)
            django.setup()
        base = imported("django.core.handlers.base")
        csrf = imported("django.views.decorators.csrf")
        test = imported("django.test")
        urls = imported("django.urls")
        http = imported("django.http")

        @CACHE(key=lambda request, number: (request.path, number))
        def body(request: Any, number: int) -> str:
            return where(f"body {number!r}")

        @CACHE(key=lambda request, number: (request.path, number))
        async def abody(request: Any, number: int) -> str:
            return where(f"abody {number!r}")

        def view(request: Any, number: int) -> Any:
            return http.HttpResponse(body(request, number))

        async def aview(request: Any, number: int) -> Any:
            return http.HttpResponse(await abody(request, number))

        urlpatterns[:] = [urls.path("sync/<int:number>", view), urls.path("async/<int:number>", aview)]
        urls.clear_url_caches()
        client = test.Client()
        for _ in range(2):
            assert client.get("/sync/7").content == b"body 7"
            assert client.get("/async/7").content.startswith(b"abody 7")
        assert CALLS == ["body 7", "abody 7"]

        # What Django asks of a view itself.
        detect = base.iscoroutinefunction if hasattr(base, "iscoroutinefunction") else asyncio.iscoroutinefunction
        assert not detect(body)
        assert detect(abody)
        exempt = csrf.csrf_exempt(body)
        assert exempt.csrf_exempt
        assert not detect(exempt)
        assert detect(csrf.csrf_exempt(abody))
        assert urls.path("x/<int:number>", body).callback is body


#: Django's, of this module.
urlpatterns: list[Any] = []
