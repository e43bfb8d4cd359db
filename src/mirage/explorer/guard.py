"""Who may talk to the server: hosts, origins, the token, and the size of what is sent; headers that browsers obey."""

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

Scope = MutableMapping[str, object]
LOOPBACK = ("localhost", "127.0.0.1", "::1")
COOKIE = "mirage-token"
DROPPED = 2**26  # bytes of a refused body that are read
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """An ASGI application in front of another that lets only the right requests through.

    Args:
        app: What is guarded.
        token: What everybody has to show, as `Authorization: Bearer`, cookie or `?token=`; nobody if None, and then
            only requests to the loopback by its own name are answered, which defeats DNS rebinding.
        limits: Bytes of a body by the path it is sent to; "" for all others.
    """

    def __init__(self, app: Callable, *, token: str | None, limits: dict[str, int]):
        self.app, self.token, self.limits = app, token, limits

    async def __call__(self, scope: Scope, receive: Callable, send: Callable[..., Awaitable[None]]) -> None:
        """Answer, or hand on."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, said = self._verdict(scope, headers)
        if status == 200:
            return await self.app(scope, receive, _with_headers(send))
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008, "reason": said[:120]})
        await _hear_out(receive)
        fields = dict(HEADERS) | {"content-type": "application/json", "cache-control": "no-store"}
        if status == 303:
            fields |= {
                "location": said,
                "set-cookie": f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000",
            }
        if status == 401 and "text/html" in headers.get("accept", ""):
            fields["content-type"], body = "text/plain; charset=utf-8", said.encode()
        else:
            body = json.dumps({"detail": said}).encode()
        raw = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})

    def _verdict(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str]:
        """200, or what to answer instead."""
        host = headers.get("host", "")
        if self.token is None and _name(host) not in LOOPBACK:
            return 421, f"this server answers to {', '.join(LOOPBACK)} only, not to {host[:80]!r}"
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope.get("method") not in ("GET", "HEAD", "OPTIONS")
        if origin is not None and changes and urlsplit(origin).netloc != host:
            return 403, "requests from pages of other sites are refused"
        if self.token is not None:
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
            offered = query.pop("token", [""])[0]
            if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/" and self._is_it(offered):
                return 303, "/" + (f"?{urlencode(query, doseq=True)}" if query else "")
            bearer = headers.get("authorization", "").removeprefix("Bearer ")
            if not any(map(self._is_it, (offered, bearer, _cookie(headers.get("cookie", ""))))):
                return 401, "a token is needed: open the address that mirage explore printed, which ends in ?token=..."
        if scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
            most = self.limits.get(scope["path"], self.limits[""])
            length = headers.get("content-length", "0")
            if "transfer-encoding" in headers:
                return 411, "say the length of what you send: Content-Length is needed"
            if not length.isdecimal() or int(length[:18]) > most:
                return 413, f"at most {most / 2**20:g} MiB can be sent here"
        return 200, ""

    def _is_it(self, offered: str) -> bool:
        return hmac.compare_digest(offered.encode(), (self.token or "").encode())


async def _hear_out(receive: Callable[[], Awaitable[Scope]]) -> None:
    """Drop a body within reason: if the connection is closed while it is being sent, the answer may be lost with it."""
    left = DROPPED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _with_headers(send: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def wrapped(message: Scope) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            extra = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in present]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return wrapped
