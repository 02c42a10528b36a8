"""apt through the pair to a package archive on a real nginx: as its mirror, and as its proxy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.clients.curl import Curl
from tests.clients.site import Site, run_client
from tests.support.contents import body_of
from tests.support.programs import require_program

CONTROL = """Package: gft-sample
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Description: a package for a test
"""


def make_archive(site: Site, folder: str, work: Path) -> bytes:
    """A package, and a flat archive around it, below nginx; returns the package."""
    tree = work / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(CONTROL)
    (tree / "bulk").write_bytes(body_of("bulk", 1_500_000))
    run_client(
        [require_program("dpkg-deb"), "--build", "--root-owner-group", str(tree), str(work / "sample.deb")], work
    )
    package = site.add(f"/{folder}/sample.deb", (work / "sample.deb").read_bytes())
    listed = f"{CONTROL}Filename: ./sample.deb\nSize: {len(package)}\nSHA256: {_digest(package)}\n\n".encode()
    site.add(f"/{folder}/Packages", listed)
    release = f"Origin: tests\nArchitectures: all\nSHA256:\n {_digest(listed)} {len(listed)} Packages\n"
    site.add(f"/{folder}/Release", release.encode())
    return package


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Machine:
    """One installation of apt, in a folder of its own, that knows one archive and none of this machine's."""

    def __init__(self, home: Path, url: str, proxy: str | None) -> None:
        self._home = home
        for folder in ("state/lists/partial", "cache/archives/partial", "etc"):
            (home / folder).mkdir(parents=True)
        (home / "state" / "status").touch()
        (home / "etc" / "sources.list").write_text(f"deb [trusted=yes] {url} ./\n")
        settings = {
            "Dir::State": home / "state",
            "Dir::State::status": home / "state" / "status",
            "Dir::Cache": home / "cache",
            "Dir::Etc": home / "etc",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Log": home,
            "APT::Sandbox::User": "root",  # which is no sandbox: whoever runs it reads the archive
            "Acquire::Languages": "none",
            "Acquire::http::Proxy": proxy or "DIRECT",
        }
        lines = [f'{name} "{value}";\n' for name, value in settings.items()]
        (home / "apt.conf").write_text("".join(lines))

    def get(self, *words: str) -> None:
        """Run apt-get."""
        command = ["env", f"APT_CONFIG={self._home / 'apt.conf'}", require_program("apt-get"), "-q", *words]
        run_client(command, self._home)


@pytest.mark.parametrize("as_proxy", [False, True], ids=["mirror", "proxy"])
def test_two_machines_update_and_download(site: Site, tmp_path: Path, as_proxy: bool) -> None:
    folder = f"debian-{as_proxy}"
    require_program("apt-get")
    package = make_archive(site, folder, tmp_path)
    base = site.nginx.url if as_proxy else site.url
    for name in ("first", "second"):
        machine = Machine(tmp_path / name, f"{base}/{folder}", site.url if as_proxy else None)
        machine.get("update")
        machine.get("download", "gft-sample")
        assert (tmp_path / name / "gft-sample_1.0_all.deb").read_bytes() == package
    assert site.nginx.count(f"/{folder}/./sample.deb") + site.nginx.count(f"/{folder}/sample.deb") == {200: 1}


def test_an_archive_by_curl(site: Site, curl: Curl, tmp_path: Path) -> None:
    """A mirror script's requests, and a resumed download."""
    package = make_archive(site, "mirrored", tmp_path)
    for is_hit in (False, True):
        for name in ("Release", "Packages", "sample.deb"):
            answer = curl(f"{site.url}/mirrored/{name}")
            assert (answer.status, answer.is_hit) == (200, is_hit)
            assert answer.body == (site.files / "mirrored" / name).read_bytes()
    (tmp_path / "half.deb").write_bytes(package[:700_000])
    curl.run("-C", "-", "-o", "half.deb", f"{site.url}/mirrored/sample.deb")
    assert (tmp_path / "half.deb").read_bytes() == package
    assert site.nginx.count("/mirrored/sample.deb") == {200: 1}
