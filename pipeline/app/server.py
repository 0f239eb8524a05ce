"""The web server: a page, its two files, and one address that answers an image."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.app.service import Service
from pipeline.dataset.images import ImageError
from pipeline.errors import UsageError
from pipeline.user_file import printable

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PAGE = Path(__file__).parent / "page"
_FILES = {"/": "index.html", "/app.js": "app.js", "/app.css": "app.css"}
_MOST_WAITING = 16
_DRAINED = 16

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_app(service: Service, host: str) -> Starlette:
    """The web application.

    Args:
        service: what answers.
        host: that it is bound to; a loopback one answers to loopback names only, so that no other
            site can reach it through a name of its own.
    """
    allowed = [*LOOPBACK, "[::1]"] if host in LOOPBACK else ["*"]
    routes: list[BaseRoute] = [Route(path, _file(name)) for path, name in _FILES.items()]
    routes += [
        Route("/about", _about(service)),
        Route("/answer", _Answers(service).respond, methods=["POST"]),
    ]
    guards = [
        Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
        Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False),
    ]
    return Starlette(routes=routes, middleware=guards)


async def _with_headers(request: Request, respond: RequestResponseEndpoint) -> Response:
    response = await respond(request)
    response.headers.update(_HEADERS)
    return response


def _file(name: str) -> Any:  # noqa: ANN401 - an endpoint, whose type Starlette does not name
    async def respond(request: Request) -> Response:
        del request
        return FileResponse(_PAGE / name)

    return respond


def _about(service: Service) -> Any:  # noqa: ANN401 - as above
    async def respond(request: Request) -> Response:
        del request
        return JSONResponse(service.about())

    return respond


class _Answers:
    """Answers images one after another; each takes all CPUs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def respond(self, request: Request) -> Response:
        # A page of another site can send no such header without being asked for leave first.
        if request.headers.get("x-requested-with") != "pipeline-app":
            return _refusal(403, "send images from the page of this app")
        if self._waiting >= _MOST_WAITING:
            return _refusal(503, "too many images are waiting: try again in a minute")
        self._waiting += 1
        try:
            return await self._answer(request)
        finally:
            self._waiting -= 1

    async def _answer(self, request: Request) -> Response:
        most = self._service.options.most_bytes
        data = await _body(request, most)
        if data is None:
            return _refusal(413, f"larger than {most / (1 << 20):.0f} MB: send a smaller file")
        name = printable(request.query_params.get("name", "image"), 200)
        try:
            async with self._turn:
                return JSONResponse(await asyncio.to_thread(self._service.answer, name, data))
        except ImageError as error:
            return _refusal(422, str(error))
        except MemoryError:
            return _refusal(422, "does not fit into the memory: send a smaller image")
        except Exception:
            log.exception("an image could not be answered")
            return _refusal(500, "internal fault: see the terminal in which the app runs")


async def _body(request: Request, most: int) -> bytes | None:
    """What was sent, or None if it is more than `most` bytes.

    What is too much is read all the same, and forgotten: a browser that is answered while it
    sends shows a broken connection, and not the answer. Without end, it is cut off.
    """
    parts: list[bytes] = []
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > _DRAINED * most:
            return None
        if total > most:
            parts.clear()
        else:
            parts.append(part)
    return b"".join(parts) if total <= most else None


def _refusal(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def open_socket(host: str, port: int) -> socket.socket:
    """Bind a port, 0 for any that is free.

    Raises:
        UsageError: it is taken, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"{host}, port {port}: cannot be bound ({reason}): choose another --port"
        ) from error


def serve(service: Service, host: str, bound: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(
        make_app(service, host),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
    )
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        log.info("stopped")
