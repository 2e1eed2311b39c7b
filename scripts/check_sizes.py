"""Fails when a source file is longer than 600 lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIMIT = 600

listed = subprocess.run(["git", "ls-files", "*.py", "*.sh", "Makefile"], capture_output=True, text=True, check=True)
long = [
    f"{path}: {lines} lines, more than {LIMIT}"
    for path in listed.stdout.split()
    if Path(path).exists() and (lines := len(Path(path).read_text().splitlines())) > LIMIT
]
print("\n".join(long) or f"no file over {LIMIT} lines")
sys.exit(bool(long))
