"""
The reverse proxy in front of an app, as on Databricks Apps.

How it works. Each request is forwarded over a new connection to the app, and its body
and the body of the response are passed on as they arrive. The platform terminates TLS.
This proxy accepts plain HTTP and presents it to the app as https: in X-Forwarded-Proto,
Origin and Referer, and in the opposite direction in Location.
"""

import asyncio
import contextlib
import html
import os
from collections.abc import AsyncIterator
from typing import TypeAlias

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from django_lakebase.local.errors import LocalError

from .headers import build_request_headers, build_response_headers
from .users import USER_COOKIE, is_valid_user

HOST = "127.0.0.1"
BAD_REQUEST = 400
# Bytes of one header or address. aiohttp's own limit, 8 KiB, is lower than those of
# most proxies; a longer Content-Security-Policy, for example, would give status 502.
MAX_HEADER_SIZE = 64 * 1024
SIGN_IN_PATH = "/_local/sign-in"
SIGN_IN_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Local sign-in</title>
<meta name="viewport" content="width=device-width">
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 30rem;
  margin: 2rem auto; padding: 0 1rem; color-scheme: light dark; }}</style>
</head><body><h1>Local sign-in</h1>
<p>This browser is signed in as {user}.</p>
<form><label>E-mail address <input name="user" type="email"></label>
<button>Sign in</button></form>
<p>Leave the address empty to sign in as {default} again.</p>
</body></html>
"""

_WebSocket: TypeAlias = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


class AppProxy:
    """
    The proxy for the app that listens on *app_port*.

    *user* is the e-mail address of a client without the cookie of the sign-in page.
    *timeout*, in seconds, is the time for a request and its response.
    """

    def __init__(
        self, *, app_port: int, user: str, workspace_id: str, timeout: float
    ) -> None:
        self._app_port, self._user, self._timeout = app_port, user, timeout
        self._workspace_id = workspace_id

    @contextlib.asynccontextmanager
    async def serve(self, port: int) -> AsyncIterator[str]:
        """Listen on *port* (0: any) until the block ends; yield the URL."""
        app = web.Application()
        app.router.add_get(SIGN_IN_PATH, self._sign_in)
        # A path may contain "%0A", which "." would not match.
        app.router.add_route("*", r"/{path:[\s\S]*}", self._handle)
        runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            # If a client disconnects, so does the proxy.
            handler_cancellation=True,
            shutdown_timeout=0.1,
            max_line_size=MAX_HEADER_SIZE,
            max_field_size=MAX_HEADER_SIZE,
        )
        async with contextlib.AsyncExitStack() as stack:
            self._session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    # An idle connection could be closed by the app at any moment.
                    connector=aiohttp.TCPConnector(force_close=True, limit=0),
                    timeout=aiohttp.ClientTimeout(),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    max_line_size=MAX_HEADER_SIZE,
                    max_field_size=MAX_HEADER_SIZE,
                    skip_auto_headers=(
                        "Accept",
                        "Accept-Encoding",
                        "Content-Type",
                        "User-Agent",
                    ),
                )
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, HOST, port)
            try:
                await site.start()
            except OSError as exc:
                raise LocalError(
                    f"Port {port} of {HOST} cannot be used: "
                    f"{os.strerror(exc.errno or 0)}. Give "
                    "--proxy-port another one, or omit it to use a free port."
                ) from exc
            yield f"http://{HOST}:{runner.addresses[0][1]}"

    async def _sign_in(self, request: web.Request) -> web.Response:
        user = request.query.get("user")
        if user is None:
            page = SIGN_IN_PAGE.format(
                user=html.escape(self._find_user(request)),
                default=html.escape(self._user),
            )
            return web.Response(text=page, content_type="text/html")
        response = web.Response(status=303, headers={"Location": "/"})
        if not user:
            response.del_cookie(USER_COOKIE)
        elif is_valid_user(user):
            response.set_cookie(USER_COOKIE, user, httponly=True, samesite="Lax")
        else:
            return _error(BAD_REQUEST, f'"{user}" is not an e-mail address.')
        return response

    def _find_user(self, request: web.Request) -> str:
        user = request.cookies.get(USER_COOKIE, "")
        return user if is_valid_user(user) else self._user

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = build_request_headers(
            request.headers,
            user=self._find_user(request),
            workspace_id=self._workspace_id,
            address=request.remote or "",
        )
        # As the client sent it: the app may distinguish "%2F" from "/".
        # str() of a relative URL would add two slashes to a path that begins with two.
        path = request.rel_url.raw_path_qs
        url = URL(f"http://{HOST}:{self._app_port}{path}", encoded=True)
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._forward_websocket(request, url, headers)
            return await self._forward(request, url, headers)
        except aiohttp.WSServerHandshakeError as exc:
            # An app without WebSockets may respond with a page, so with status 200.
            status = exc.status if exc.status >= BAD_REQUEST else 502
            return _error(status, "The app rejected the WebSocket.")
        except aiohttp.ClientConnectorError:
            return _error(
                502,
                f"The app does not listen on port {self._app_port} "
                "(DATABRICKS_APP_PORT). It may still be starting.",
            )
        except aiohttp.ClientResponseError as exc:
            return _error(
                502, f"The app sent a response that is not valid HTTP ({exc.message})."
            )
        except aiohttp.ClientError as exc:
            return _error(
                502, f"The app closed the connection before it responded ({exc})."
            )

    async def _forward(
        self, request: web.Request, url: URL, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        response = None
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.request(
                    request.method,
                    url,
                    headers=headers,
                    data=request.content if request.body_exists else None,
                    allow_redirects=False,
                ) as upstream,
            ):
                response = web.StreamResponse(
                    status=upstream.status,
                    reason=upstream.reason,
                    headers=build_response_headers(
                        upstream.headers, request.headers.get("Host", "")
                    ),
                )
                await response.prepare(request)
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        except (TimeoutError, aiohttp.ClientError) as exc:
            if response is not None:
                # Without the end of the body, the client notices the failure.
                if request.transport is not None:
                    request.transport.close()
                return response
            if isinstance(exc, TimeoutError):
                return _error(
                    504, f"The app did not respond within {self._timeout:g} seconds."
                )
            raise
        return response

    async def _forward_websocket(
        self, request: web.Request, url: URL, headers: CIMultiDict[str]
    ) -> web.WebSocketResponse:
        protocols = request.headers.get("Sec-WebSocket-Protocol", "")
        async with self._session.ws_connect(
            url,
            headers=headers,
            protocols=[name.strip() for name in protocols.split(",") if name.strip()],
            autoping=False,
            # `_forward_messages` closes both with the same code.
            autoclose=False,
            max_msg_size=0,
        ) as upstream:
            response = web.WebSocketResponse(
                protocols=[upstream.protocol] if upstream.protocol else (),
                autoping=False,
                autoclose=False,
                max_msg_size=0,
            )
            await response.prepare(request)
            await asyncio.gather(
                _forward_messages(upstream, response),
                _forward_messages(response, upstream),
            )
            return response


async def _forward_messages(source: _WebSocket, target: _WebSocket) -> None:
    """Send the messages of *source* to *target* until one of them is closed."""
    with contextlib.suppress(ConnectionError):
        async for message in source:
            if message.type == WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type == WSMsgType.PING:
                await target.ping(message.data)
            elif message.type == WSMsgType.PONG:
                await target.pong(message.data)
    await target.close(code=source.close_code or aiohttp.WSCloseCode.OK)


def _error(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{status}: {text}\n")
