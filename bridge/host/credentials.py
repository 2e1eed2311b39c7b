"""Who may read, and who we are: the token file and the TLS files of the listener, read again when they change."""

from __future__ import annotations

import hashlib
import logging
import ssl
from pathlib import Path

from bridge.host.config import HttpConfig, TlsConfig
from bridge.serve.http.server import HttpServer

_logger = logging.getLogger("bridge.credentials")

_Signature = tuple[tuple[int, int, int] | None, ...]


def read_tokens(path: Path | None) -> frozenset[bytes]:
    """SHA-256 digests of the tokens in a file, one a line; ``#`` begins a comment line. Raises OSError, ValueError (no UTF-8)."""
    if path is None:
        return frozenset()
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return frozenset(hashlib.sha256(line.encode()).digest() for line in lines if line and not line.startswith("#"))


def tls_context(config: TlsConfig | None) -> ssl.SSLContext | None:
    """The listener's TLS context: 1.2 or newer. Raises OSError (ssl.SSLError is one) for files that are no pair."""
    if config is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.cert_file, config.key_file)
    return context


class Credentials:
    """Keeps the listener's tokens and certificate like the files. What cannot be read leaves the last good ones in force."""

    def __init__(self, config: HttpConfig, server: HttpServer) -> None:
        self._config = config
        self._server = server
        self._tokens = _signature(config.token_file)
        self._certificate = self._pair()

    def refresh(self) -> None:
        """Read anew what changed since the last look; two calls of `stat` where nothing did."""
        tokens, certificate = _signature(self._config.token_file), self._pair()
        if tokens != self._tokens:
            self._tokens = tokens
            try:
                read = read_tokens(self._config.token_file)
                self._server.replace_tokens(read)
                level = logging.INFO if read else logging.WARNING  # without any, nobody but loopback may read
                _logger.log(level, "tokens read again", extra={"token_file": str(self._config.token_file), "tokens": len(read)})
            except (OSError, ValueError) as error:
                self._refuse("the tokens read last stay in force", self._config.token_file, error)
        if certificate != self._certificate and self._config.tls is not None:
            self._certificate = certificate
            try:
                self._server.reload_tls(self._config.tls.cert_file, self._config.tls.key_file)
                _logger.info("certificate read again", extra={"cert_file": str(self._config.tls.cert_file)})
            except OSError as error:
                self._refuse("the certificate read last stays in use", self._config.tls.cert_file, error)

    def _pair(self) -> _Signature:
        tls = self._config.tls
        return _signature(tls.cert_file, tls.key_file) if tls is not None else ()

    def _refuse(self, consequence: str, path: Path | None, error: Exception) -> None:
        _logger.error("credentials cannot be read", extra={"file": str(path), "reason": str(error), "consequence": consequence})


def _signature(*paths: Path | None) -> _Signature:
    signatures: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            found = path.stat() if path is not None else None
        except OSError:
            found = None
        signatures.append(None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(signatures)
