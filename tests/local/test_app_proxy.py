"""The proxy of ``run --as-app``, in front of small apps in the same process."""

import asyncio
import contextlib
import gzip
import socket

import aiohttp
import pytest
from aiohttp import web

from django_lakebase.local.as_app.proxy import SIGN_IN_PATH, AppProxy
from django_lakebase.local.as_app.users import USER_COOKIE

# Seconds, which no passing test reaches.
ENDS_WITHIN = 30.0
FORGED = {
    "X-Forwarded-Email": "forged@example.com",
    "X_Forwarded_Email": "forged@example.com",
    "x-forwarded_USER": "forged",
    "X-Forwarded-Access-Token": "forged",
    "X-Forwarded-For": "192.0.2.1",
    "Forwarded": "for=192.0.2.1",
    "X_Real_Ip": "192.0.2.1",
    "X_Request_Id": "forged",
}


def make_proxy(app_port, timeout=ENDS_WITHIN):
    return AppProxy(
        app_port=app_port, user="me@example.com", workspace_id="42", timeout=timeout
    )


@contextlib.asynccontextmanager
async def open_app(handler, **options):
    """Serve *handler* behind the proxy; yield a client of the proxy."""
    runner = web.ServerRunner(
        web.Server(handler, auto_decompress=False, handler_cancellation=True),
        shutdown_timeout=0.1,
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with open_client(runner.addresses[0][1], **options) as client:
            yield client
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def open_client(app_port, **options):
    """Start a proxy for the app on *app_port*; yield a client of the proxy."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        asyncio.timeout(ENDS_WITHIN),
        make_proxy(app_port, **options).serve(0) as url,
        aiohttp.ClientSession(url, cookie_jar=jar, auto_decompress=False) as client,
    ):
        yield client


async def echo_headers(request):
    """Return the names and values of all headers, with the names as they arrived."""
    headers = [(k.decode(), v.decode()) for k, v in request.raw_headers]
    return web.json_response(headers, headers={"X-Path": request.raw_path})


async def fetch_url(client):
    """Return the URL of the proxy."""
    async with client.get(SIGN_IN_PATH) as response:
        return response.url.origin()


async def fetch_headers(client, path="/", **options):
    """Return the headers that the app receives; no name may be there twice."""
    async with client.get(path, **options) as response:
        pairs = [(name.lower(), value) for name, value in await response.json()]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_proxy_adds_the_headers_of_the_platform():
    async def run():
        async with open_app(echo_headers) as client:
            first, second = await fetch_headers(client), await fetch_headers(client)
            host = (await fetch_url(client)).authority
        assert first["x-forwarded-email"] == "me@example.com"
        assert first["x-forwarded-preferred-username"] == "me@example.com"
        assert first["x-forwarded-user"].endswith("@42")
        assert first["x-forwarded-host"] == first["host"] == host
        assert first["x-forwarded-proto"] == "https"
        assert first["x-real-ip"] == "127.0.0.1"
        assert first["x-request-id"] != second["x-request-id"]
        assert first["x-forwarded-user"] == second["x-forwarded-user"]

    asyncio.run(run())


def test_proxy_drops_headers_that_only_it_may_set():
    """A WSGI server maps X_Forwarded_Email to the same key as X-Forwarded-Email."""

    async def run():
        async with open_app(echo_headers) as client:
            headers = await fetch_headers(client, headers={**FORGED, "X-Other": "1"})
        assert "forged" not in str(headers)
        assert "192.0.2.1" not in str(headers)
        assert headers["x-other"] == "1"
        assert not any("_" in name for name in headers)

    asyncio.run(run())


def test_header_named_in_connection_is_still_set_by_the_proxy():
    """A proxy that removes these names after it adds headers would remove its own."""

    async def run():
        async with open_app(echo_headers) as client:
            named = {"Connection": "X-Forwarded-Email"}
            headers = await fetch_headers(client, headers=named)
        assert headers["x-forwarded-email"] == "me@example.com"

    asyncio.run(run())


def test_sign_in_page_changes_the_user_of_one_browser():
    async def run():
        async with open_app(echo_headers) as client, aiohttp.ClientSession() as other:
            url = await fetch_url(client)
            sign_in = url.with_path(SIGN_IN_PATH)
            await client.get(sign_in.with_query(user="second@example.com"))
            changed = await fetch_headers(client, cookies={"sessionid": "s"})
            unchanged = await fetch_headers(other, url)
            async with client.get(sign_in) as response:
                page = await response.text()
            async with client.get(sign_in.with_query(user="a b")) as response:
                rejected = response.status
            await client.get(sign_in.with_query(user=""))
            reset = await fetch_headers(client)
        assert changed["x-forwarded-email"] == "second@example.com"
        assert changed["cookie"] == "sessionid=s"
        assert unchanged["x-forwarded-email"] == "me@example.com"
        assert changed["x-forwarded-user"] != unchanged["x-forwarded-user"]
        assert "second@example.com" in page
        assert rejected == 400
        assert reset["x-forwarded-email"] == "me@example.com"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("user", "expected"),
    [("second@example.com", "second@example.com"), ("nonsense", "me@example.com")],
)
def test_cookie_sets_the_user_of_one_request(user, expected):
    async def run():
        async with open_app(echo_headers) as client:
            cookie = {"Cookie": f"a=1; {USER_COOKIE}={user}; b=2"}
            headers = await fetch_headers(client, headers=cookie)
        assert headers["x-forwarded-email"] == expected
        assert headers["cookie"] == "a=1; b=2"

    asyncio.run(run())


def test_app_sees_https_in_the_addresses_of_a_browser_and_vice_versa():
    async def redirect(request):
        location = request.headers["Origin"] + "/next"
        headers = {"Location": location, "X-Referer": request.headers["Referer"]}
        return web.Response(status=302, headers=headers)

    async def fetch(client, origin):
        headers = {"Origin": origin, "Referer": f"{origin}/form"}
        async with client.get("/", headers=headers, allow_redirects=False) as response:
            return response.headers["Location"], response.headers["X-Referer"]

    async def run():
        async with open_app(redirect) as client:
            host = (await fetch_url(client)).authority
            own = await fetch(client, f"http://{host}")
            other = await fetch(client, f"http://{host}.test")
        assert own == (f"http://{host}/next", f"https://{host}/form")
        assert other == (f"http://{host}.test/next", f"http://{host}.test/form")

    asyncio.run(run())


def test_path_compression_and_repeated_headers_pass_unchanged():
    body = gzip.compress(b"text")

    async def answer(request):
        headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        headers += [("Content-Encoding", "gzip"), ("X-Path", request.raw_path)]
        return web.Response(body=await request.read(), headers=headers, status=201)

    async def run():
        async with open_app(answer) as client:
            url = await fetch_url(client)
            url = url.joinpath("a%2Fb", encoded=True).with_query("q=%C3")
            gzipped = {"Content-Encoding": "gzip"}
            async with client.post(url, data=body, headers=gzipped) as response:
                assert response.status == 201
                assert await response.read() == body
                assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
                assert response.headers["X-Path"] == url.raw_path_qs

    asyncio.run(run())


@pytest.mark.parametrize("path", ["//a//b?q=1", "/a%0D%0Ab", "/%0a?%0a", "/a/../b"])
def test_unusual_path_passes_unchanged(path):
    async def answer(request):
        return web.Response(text=request.raw_path)

    async def run():
        async with open_app(answer) as client:
            url = await fetch_url(client)
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            assert (await reader.read()).decode().endswith(f"\r\n\r\n{path}")
            writer.close()

    asyncio.run(run())


def test_absolute_address_in_the_request_line_does_not_reach_another_server():
    async def answer(request):
        return web.Response(text=request.raw_path)

    async def run():
        async with open_app(answer) as client:
            url = await fetch_url(client)
            reader, writer = await asyncio.open_connection(url.host, url.port)
            line = b"GET http://example.com/path?q=1 HTTP/1.0\r\nHost: example.com"
            writer.write(line + b"\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\n/path?q=1")
            writer.close()

    asyncio.run(run())


def test_response_streams_chunk_by_chunk():
    async def run():
        received = asyncio.Event()

        async def stream(request):
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"first")
            await received.wait()
            await response.write(b"second")
            return response

        async with open_app(stream) as client, client.get("/") as response:
            assert await response.content.readany() == b"first"
            received.set()
            assert await response.content.read() == b"second"

    asyncio.run(run())


def test_request_body_streams_chunk_by_chunk():
    async def run():
        received = asyncio.Event()

        async def receive(request):
            first = await request.content.readany()
            received.set()
            return web.Response(body=first + b"," + await request.read())

        async def send():
            yield b"first"
            await received.wait()
            yield b"second"

        async with (
            open_app(receive) as client,
            client.post("/", data=send()) as response,
        ):
            assert await response.read() == b"first,second"

    asyncio.run(run())


def test_request_without_a_response_gets_504_after_the_timeout():
    async def wait(request):
        await asyncio.Event().wait()

    async def run():
        async with (
            open_app(wait, timeout=0.05) as client,
            client.get("/") as response,
        ):
            assert response.status == 504
            assert "within 0.05 seconds" in await response.text()

    asyncio.run(run())


def test_response_that_does_not_end_is_cut_after_the_timeout():
    async def run():
        closed = asyncio.Event()

        async def stream(request):
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"first")
            try:
                await asyncio.Event().wait()
            finally:
                closed.set()

        async with open_app(stream, timeout=0.5) as client, client.get("/") as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
            # The proxy has also closed its connection to the app.
            await closed.wait()

    asyncio.run(run())


def test_app_that_ends_during_a_response_is_noticed_by_the_client():
    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        request.transport.abort()
        return response

    async def run():
        async with open_app(stream) as client, client.get("/") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()

    asyncio.run(run())


def test_client_that_disconnects_ends_the_request_to_the_app():
    async def run():
        started, ended = asyncio.Event(), asyncio.Event()

        async def wait(request):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with open_app(wait) as client:
            request = asyncio.ensure_future(client.get("/"))
            await started.wait()
            request.cancel()
            await ended.wait()

    asyncio.run(run())


def test_app_that_does_not_listen_yet_gives_502_with_the_port():
    async def run():
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            async with open_client(port) as client, client.get("/") as response:
                assert response.status == 502
                assert f"does not listen on port {port}" in await response.text()

    asyncio.run(run())


def test_long_headers_pass():
    """A cookie, or a Content-Security-Policy, may be longer than aiohttp's 8 KiB."""
    text = "x" * 32768

    async def answer(request):
        return web.Response(headers={"X-Answer": text, "X-Path": request.raw_path})

    async def run():
        runner = web.ServerRunner(web.Server(answer, max_line_size=65536))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with (
            open_client(runner.addresses[0][1]) as client,
            client.get(
                f"/{text}", max_line_size=65536, max_field_size=65536
            ) as response,
        ):
            assert response.headers["X-Answer"] == text
            assert response.headers["X-Path"] == f"/{text}"
        await runner.cleanup()

    asyncio.run(run())


def test_response_that_is_not_http_gives_502():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"+OK POP3 server ready\r\n\r\n")
        writer.close()

    async def run():
        async with (
            await asyncio.start_server(answer, "127.0.0.1", 0) as server,
            open_client(server.sockets[0].getsockname()[1]) as client,
            client.get("/") as response,
        ):
            assert response.status == 502
            assert "is not valid HTTP" in await response.text()

    asyncio.run(run())


def test_app_that_closes_the_connection_gives_502():
    async def close(request):
        request.transport.abort()
        return web.Response()

    async def run():
        async with open_app(close) as client, client.get("/") as response:
            assert response.status == 502
            assert "closed the connection" in await response.text()

    asyncio.run(run())


def test_websocket_passes_with_its_protocol_and_the_user():
    async def echo(request):
        socket = web.WebSocketResponse(protocols=["chat"])
        await socket.prepare(request)
        await socket.send_str(request.headers["X-Forwarded-Email"])
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    async def run():
        async with (
            open_app(echo) as client,
            client.ws_connect("/", protocols=["other", "chat"]) as chat,
        ):
            assert chat.protocol == "chat"
            assert await chat.receive_str() == "me@example.com"
            await chat.ping()
            await chat.send_bytes(b"data")
            assert await chat.receive_bytes() == b"data"

    asyncio.run(run())


def test_end_of_a_websocket_reaches_the_other_side_with_its_code():
    async def run():
        ended: asyncio.Queue[int | None] = asyncio.Queue()

        async def serve(request):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            if request.path == "/close":
                await socket.close(code=4001)
            await socket.receive()
            await ended.put(socket.close_code)
            return socket

        async with open_app(serve) as client:
            async with client.ws_connect("/close") as chat:
                await chat.receive()
                assert chat.close_code == 4001
                await ended.get()
            async with client.ws_connect("/") as chat:
                await chat.close(code=4002)
            assert await ended.get() == 4002

    asyncio.run(run())


@pytest.mark.parametrize(("status", "expected"), [(403, 403), (200, 502)])
def test_rejected_websocket_gives_an_error_status(status, expected):
    async def reject(request):
        return web.Response(status=status)

    async def run():
        async with open_app(reject) as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await client.ws_connect("/")
        assert caught.value.status == expected

    asyncio.run(run())


def test_head_and_not_modified_pass_without_a_body():
    async def answer(request):
        status = 304 if request.path == "/cached" else 200
        return web.Response(status=status, body=None if status == 304 else b"body")

    async def run():
        async with open_app(answer) as client:
            async with client.head("/") as response:
                assert response.headers["Content-Length"] == "4"
            async with client.get("/cached") as response:
                assert response.status == 304
                assert await response.read() == b""
            async with client.get("/") as response:
                assert await response.read() == b"body"

    asyncio.run(run())
