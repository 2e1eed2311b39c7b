"""The test image: one static C program, imported as an image, since nothing can be pulled."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from .binaries import find
from .cache import cache_dir, digest, make_once, run_step

_SOURCE = Path(__file__).parent / "image" / "server.c"
NAME = "envbridge-test"
_HEALTH = 'HEALTHCHECK --interval=300ms --timeout=2s --retries=2 CMD ["/server", "check"]'
TAGS: dict[str, tuple[str, ...]] = {
    "1": (),
    "2": ("ENV BANNER=two",),
    "health": (_HEALTH,),
}
"""The image's tags and what each changes: "2" answers "two" instead of "ok", "health" has a HEALTHCHECK."""


def server_program() -> Path:
    """The static program, built once; raises ServerUnavailable when it cannot be compiled."""
    compiler = find("cc")

    def make(target: Path) -> None:
        run_step("compile the test image", [compiler, "-static", "-O1", "-o", target, _SOURCE])

    return make_once(cache_dir() / f"image-{digest([_SOURCE])}" / "server", make)


def image_tar(program: Path) -> bytes:
    """A root file system with the program as /server."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("server")
        data = program.read_bytes()
        entry.mode, entry.size = 0o755, len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def import_images(docker: Path, environment: dict[str, str]) -> None:
    """Import every tag into the Engine that `environment` names; raises CalledProcessError."""
    tar = image_tar(server_program())
    for tag, changes in TAGS.items():
        command = [str(docker), "import", "--change", 'ENTRYPOINT ["/server"]']
        for change in changes:
            command += ["--change", change]
        subprocess.run([*command, "-", f"{NAME}:{tag}"], input=tar, env=environment, check=True, capture_output=True)
