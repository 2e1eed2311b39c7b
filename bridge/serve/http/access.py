"""Who may read: readers on this machine, those with a token, or everybody."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bridge.serve.http.message import Answer, problem


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks an application: the address, whether it is of this machine, and the SHA-256 digest of a valid token, if any."""

    address: str
    loopback: bool
    token: bytes | None


class Access:
    """The rule of one listener.

    tokens: SHA-256 digests of reader tokens. insecure: names are for everybody, until there are tokens.
    """

    def __init__(self, tokens: frozenset[bytes], *, insecure: bool) -> None:
        self.tokens = tokens
        self._guarded = bool(tokens)
        self._insecure = insecure

    def replace(self, tokens: frozenset[bytes]) -> None:
        """Take ``tokens`` for the old ones. Where there were tokens once it is never open again, whatever ``insecure`` says."""
        self.tokens = tokens
        self._guarded = self._guarded or bool(tokens)

    def lets_in(self, authorization: str | None, *, loopback: bool) -> bool:
        """Whether a reader may read: with a token, from a loopback address, or because the listener is insecure.

        A token that is none of ours is refused wherever it comes from: its owner should learn that it is wrong or revoked.
        """
        if self._guarded and (token := _bearer_token(authorization)) is not None:
            return _digest(token) in self.tokens
        return loopback or (self._insecure and not self._guarded)

    def caller(self, address: str, authorization: str | None, *, loopback: bool) -> Caller:
        """Who it is that was let in."""
        token = _bearer_token(authorization) if self._guarded else None
        return Caller(address, loopback, _digest(token) if token is not None else None)


def unauthorized(authorization: str | None) -> Answer:
    """The answer to a reader who may not read (RFC 6750, section 3)."""
    if _bearer_token(authorization) is None:
        return problem(401, "a bearer token is needed to read from here", headers=[("WWW-Authenticate", "Bearer")])
    return problem(401, "the bearer token is not valid here", headers=[("WWW-Authenticate", 'Bearer error="invalid_token"')])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("latin-1")).digest()


def _bearer_token(authorization: str | None) -> str | None:
    """The token in an Authorization field, None where there is none (RFC 6750, section 2.1)."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
