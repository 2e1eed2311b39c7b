"""Certificates for tests, made on the spot by the machine's own openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, *addresses: str, name: str = "bridge") -> dict[str, str]:
    """A certificate for ``addresses`` that signs itself in ``folder``; the ``tls`` of a listener. Skips without openssl."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = "subjectAltName=" + ",".join(f"IP:{address}" for address in addresses or ("127.0.0.1",))
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}", "-addext", names),
    ]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        pytest.skip(f"no certificate can be made: {error}")
    if made.returncode != 0:
        pytest.skip(f"no certificate can be made: {made.stderr[-200:]}")
    return {"cert_file": str(cert), "key_file": str(key)}
