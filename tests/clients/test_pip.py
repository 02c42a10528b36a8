"""pip through the pair to a simple index on a real nginx: a package comes once, the index is validated each time."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import zipfile
from pathlib import Path

from tests.clients.site import Site, run_client
from tests.support.contents import body_of
from tests.support.programs import require_module

NAME = "gft_sample"


def make_wheel(version: str) -> bytes:
    """A wheel with one module and some bulk, made as the format wants it."""
    about = f"{NAME}-{version}.dist-info"
    files = {
        f"{NAME}/__init__.py": b"",
        f"{NAME}/bulk": body_of(version, 2_000_000),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return whole.getvalue()


def publish(site: Site, *versions: str) -> dict[str, bytes]:
    """Put wheels and their index page below nginx; returns the wheels by file name."""
    wheels = {f"{NAME}-{version}-py3-none-any.whl": make_wheel(version) for version in versions}
    links = ""
    for name, wheel in wheels.items():
        site.add(f"/wheels/{name}", wheel)
        digest = hashlib.sha256(wheel).hexdigest()
        links += f'<a href="../../wheels/{name}#sha256={digest}">{name}</a><br>\n'
    site.add("/simple/gft-sample/index.html", f"<!DOCTYPE html><html><body>\n{links}</body></html>".encode())
    return wheels


def pip_download(site: Site, home: Path, to: str, *requirements: str) -> None:
    """Download from the index through the proxy, with nothing of this machine's settings, caches or networks."""
    words = ["--isolated", "--disable-pip-version-check", "--no-cache-dir", "--no-input", "--retries", "0"]
    where = ["--no-deps", "--index-url", f"{site.url}/simple/", "--dest", to]
    run_client([sys.executable, "-m", require_module("pip"), "download", *words, *where, *requirements], home)


def test_two_machines_download_a_package(site: Site, tmp_path: Path) -> None:
    (name, wheel), *_ = publish(site, "1.0").items()
    for machine in ("first", "second"):
        pip_download(site, tmp_path, machine, "gft-sample==1.0")
        assert (tmp_path / machine / name).read_bytes() == wheel
    assert site.nginx.count(f"/wheels/{name}") == {200: 1}
    assert site.nginx.count("/simple/gft-sample/") == {200: 1, 304: 1}, "pip wants its index validated"
    (newer, wheel) = list(publish(site, "1.0", "1.1").items())[1]
    pip_download(site, tmp_path, "third", "gft-sample")
    assert (tmp_path / "third" / newer).read_bytes() == wheel, "the index has changed, and the change was seen"
