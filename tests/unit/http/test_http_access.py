"""Who may read, what happens when that changes, and the certificate."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.serve.http.protocol import Connection
from bridge.serve.http.waiting import SLICE
from tests.unit.http.http_bench import GET, Bench, Wire, answers, ask, running, statuses, until

TOKEN = "correct horse"
OTHER = "battery staple"


def digests(*tokens: str) -> frozenset[bytes]:
    return frozenset(hashlib.sha256(token.encode()).digest() for token in tokens)


DIGEST = digests(TOKEN)

SEES = {
    "a loopback address": (True, "", DIGEST, False, True),
    "a loopback address with the token": (True, f"Bearer {TOKEN}", DIGEST, False, True),
    "a loopback address with another token": (True, "Bearer wrong", DIGEST, False, False),
    "a loopback address with an empty token": (True, "Bearer", DIGEST, False, False),
    "a loopback address with another scheme": (True, f"Basic {TOKEN}", DIGEST, False, True),
    "a loopback address with a token where none is known": (True, "Bearer wrong", frozenset(), False, True),
    "an insecure listener and a token where none is known": (False, "Bearer wrong", frozenset(), True, True),
    "the token": (False, f"Bearer {TOKEN}", DIGEST, False, True),
    "the token, however the scheme is written": (False, f"bearer  {TOKEN} ", DIGEST, False, True),
    "another token": (False, "Bearer wrong", DIGEST, False, False),
    "no token": (False, "", DIGEST, False, False),
    "another scheme": (False, f"Basic {TOKEN}", DIGEST, False, False),
    "a token twice": (False, f"Bearer {TOKEN}, Bearer {TOKEN}", DIGEST, False, False),
    "a secure listener without tokens": (False, "", frozenset(), False, False),
    "an insecure listener": (False, "", frozenset(), True, True),
    "an insecure listener that has tokens": (False, "", DIGEST, True, False),
    "no latin-1": (False, "Bearer \xff", DIGEST, False, False),
}


@pytest.mark.parametrize(("loopback", "header", "tokens", "insecure", "sees"), SEES.values(), ids=SEES)
async def test_who_sees_names(loopback: bool, header: str, tokens: frozenset[bytes], insecure: bool, sees: bool) -> None:
    server = Bench(tokens=tokens, insecure=insecure).server
    connection = Connection(server)
    connection.loopback = loopback
    assert server.sees_names(connection, header or None) is sees


@pytest.mark.parametrize("path", ["/v1/services", "/v1/instances", "/v1/status", "/metrics", "/openapi.json", "/", "/nothing"])
async def test_from_elsewhere_nothing_is_told_without_a_token(path: str) -> None:
    status, headers, body = await ask(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode(), tokens=DIGEST)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert b"shop" not in body
    status, _, _ = await ask(
        f"GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(), tokens=DIGEST
    )
    assert status in (200, 404)


async def test_from_elsewhere_health_is_told_and_readiness_without_names() -> None:
    assert (await ask(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n", tokens=DIGEST))[0] == 200
    status, _, body = await ask(b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n", tokens=DIGEST)
    assert status == 503
    assert b"secret-source" not in body
    _, _, body = await ask(f"GET /readyz HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(), tokens=DIGEST)
    assert b"secret-source" in body


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
async def test_loopback_addresses(peer: str) -> None:
    connection, wire = Connection(Bench().server), Wire()
    wire._extra["peername"] = (peer, 1)  # type: ignore[attr-defined]  # where a transport keeps it
    connection.connection_made(wire)
    assert connection.loopback


async def test_a_wrong_token_is_told_apart_from_none() -> None:
    _, headers, body = await ask(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\n\r\n", tokens=DIGEST)
    assert headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert b"wrong" not in body


# -- tokens that change


def request(token: str | None, path: str = "/v1/instances", accept: str = "application/json") -> bytes:
    bearer = f"Authorization: Bearer {token}\r\n" if token is not None else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n{bearer}\r\n".encode()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running(Bench(tokens=DIGEST)) as bench:
        yield bench


class Readers:
    """Connections that are kept open."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, *requests: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._bench.port)
        writer.write(b"".join(requests))
        self._writers.append(writer)
        return reader

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def block(self, *tokens: str | None) -> list[asyncio.StreamReader]:
        """A blocked read with each of ``tokens``."""
        received = await self._bench.say(request(TOKEN), until=1)
        cursor = answers(received)[0][1]["etag"][3:-1]
        readers = [await self.open(request(token, f"/v1/instances?after={cursor}")) for token in tokens]
        await until("all are blocked", lambda: self._bench.server.waits.blocked == len(tokens))
        return readers


@pytest.fixture
async def readers(bench: Bench) -> AsyncIterator[Readers]:
    readers = Readers(bench)
    yield readers
    await readers.close()


async def test_a_replaced_token_opens_and_an_old_one_does_not(bench: Bench) -> None:
    assert statuses(await bench.say(request(TOKEN), until=1)) == [200]
    assert statuses(await bench.say(request(OTHER), until=1)) == [401]
    bench.server.replace_tokens(digests(OTHER))
    assert statuses(await bench.say(request(TOKEN), until=1)) == [401]
    assert statuses(await bench.say(request(OTHER), until=1)) == [200]
    assert statuses(await bench.say(request(None), until=1)) == [200], "a loopback address needs none"


async def test_the_next_request_of_an_open_connection_is_looked_at_anew(bench: Bench) -> None:
    sock = bench.connect()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        for expected in (b"200", b"401"):
            await loop.sock_sendall(sock, request(TOKEN, "/v1/services"))
            assert (await loop.sock_recv(sock, 65536))[9:12] == expected
            bench.server.replace_tokens(frozenset())
    sock.close()


async def test_a_blocked_read_of_a_revoked_token_is_401_at_once(bench: Bench, readers: Readers) -> None:
    [revoked] = await readers.block(TOKEN)
    bench.server.replace_tokens(digests(OTHER))
    async with asyncio.timeout(1):
        head = await revoked.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b'error="invalid_token"' in head
    assert bench.server.waits.blocked == 0
    bench.show(3)
    await asyncio.sleep(0)
    assert bench.server.counts["refused", 401] == 1


async def test_reads_of_others_go_on(bench: Bench, readers: Readers) -> None:
    bench.server.replace_tokens(digests(TOKEN, OTHER))
    blocked = await readers.block(OTHER, None, TOKEN)
    bench.server.replace_tokens(digests(OTHER))
    await until("one is ended", lambda: bench.server.waits.blocked == 2)
    bench.show(3)
    async with asyncio.timeout(5):
        heads = [await reader.readuntil(b"\r\n\r\n") for reader in blocked]
    assert [head[9:12] for head in heads] == [b"200", b"200", b"401"]


async def test_what_waits_behind_a_revoked_read_is_401_too(bench: Bench) -> None:
    received = answers(await bench.say(request(TOKEN), until=1))
    blocked = request(TOKEN, f"/v1/instances?after={received[0][1]['etag'][3:-1]}")
    saying = asyncio.create_task(bench.say(blocked + request(TOKEN) + request(None), until=3))
    await until("it blocks", lambda: bench.server.waits.blocked == 1)
    bench.server.replace_tokens(frozenset())
    assert statuses(await saying) == [401, 401, 200]


async def test_a_stream_of_a_revoked_token_ends_and_others_go_on(bench: Bench, readers: Readers) -> None:
    streams = [await readers.open(request(token, accept="text/event-stream")) for token in (TOKEN, None)]
    for stream in streams:
        async with asyncio.timeout(5):
            await stream.readuntil(b'"complete":true}\n\n')
    bench.server.replace_tokens(digests(OTHER))
    bench.show(5)
    async with asyncio.timeout(1):
        assert await streams[0].read() == b""
    async with asyncio.timeout(5):
        assert b"shop/web/4" in await streams[1].readuntil(b"\n\n")
    assert len([connection for connection in bench.server.connections if connection.following is not None]) == 1


async def test_many_revoked_reads_are_ended_in_slices(bench: Bench, readers: Readers) -> None:
    count = 2 * SLICE + 3
    blocked = await readers.block(*[TOKEN] * count)
    bench.server.replace_tokens(frozenset())
    assert bench.server.waits.blocked >= count - SLICE
    async with asyncio.timeout(5):
        for reader in blocked:
            assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    assert bench.server.waits.blocked == 0


async def test_a_listener_that_had_tokens_is_never_open_again() -> None:
    """An emptied token file must not open an insecure listener."""
    connection, wire = Connection(Bench(tokens=DIGEST, insecure=True).server), Wire()
    connection.connection_made(wire)
    connection._server.replace_tokens(frozenset())
    connection.data_received(request(None))
    assert statuses(wire.written) == [401]


# -- the certificate


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


def certify(folder: Path, name: str, *key: str) -> tuple[Path, Path]:
    """A certificate of its own for ``name``, and its key."""
    cert_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    openssl(
        "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-newkey", *key, "-keyout", key_file, "-out", cert_file
    )
    return cert_file, key_file


EC = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("rsa:2048",)
ONLY_RSA = "ECDHE-RSA-AES256-GCM-SHA384"


async def shown(port: int, *, ciphers: str | None = None, name: str | None = "a") -> bytes:
    """The certificate that a new connection is shown, once it got an answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if ciphers is not None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(GET)
        assert b" 200 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert isinstance(certificate, bytes)
    return certificate


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*certify(tmp_path, "old", *RSA))
    _, bench.port = await bench.server.listen("127.0.0.1", 0, context)
    yield bench
    await bench.server.stop()


def certificate_in(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


async def test_new_connections_are_shown_the_new_certificate(secure: Bench, tmp_path: Path) -> None:
    assert await shown(secure.port) == certificate_in(tmp_path / "old.crt")
    for name, key in (("new", EC), ("newer", RSA)):
        cert_file, key_file = certify(tmp_path, name, *key)
        secure.server.reload_tls(cert_file, key_file)
        assert await shown(secure.port) == certificate_in(cert_file)
        assert await shown(secure.port, name="127.0.0.1") == certificate_in(cert_file)


async def test_an_old_certificate_of_another_key_type_is_not_shown_any_more(secure: Bench, tmp_path: Path) -> None:
    assert await shown(secure.port, ciphers=ONLY_RSA) == certificate_in(tmp_path / "old.crt")
    secure.server.reload_tls(*certify(tmp_path, "new", *EC))
    with pytest.raises(OSError):  # an alert, or the connection reset behind it
        await shown(secure.port, ciphers=ONLY_RSA)


async def test_open_connections_go_on_with_theirs(secure: Bench, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=context)
    secure.server.reload_tls(*certify(tmp_path, "new", *EC))
    writer.write(GET)
    async with asyncio.timeout(5):
        assert b" 200 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_bad_files_raise_and_the_old_certificate_stays(secure: Bench, tmp_path: Path) -> None:
    cert_file, key_file = certify(tmp_path, "new", *RSA)
    old_cert, old_key = tmp_path / "old.crt", tmp_path / "old.key"
    junk, missing, locked = tmp_path / "junk", tmp_path / "missing", tmp_path / "locked.key"
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    openssl("pkey", "-aes128", "-passout", "pass:x", "-in", key_file, "-out", locked)
    bad = [(cert_file, old_key), (old_cert, key_file), (junk, key_file), (cert_file, junk), (cert_file, locked)]
    for pair in [*bad, (missing, key_file), (cert_file, missing), (key_file, key_file)]:
        with pytest.raises(OSError):
            secure.server.reload_tls(*pair)
        assert await shown(secure.port) == certificate_in(old_cert)


def test_a_listener_without_tls_has_no_certificate_to_replace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no TLS"):
        Bench().server.reload_tls(tmp_path / "a", tmp_path / "b")
