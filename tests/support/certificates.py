"""An authority of the test's own, made with the openssl program, and server certificates that it has signed."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program to make certificates")


class Authority:
    """A CA in a folder of the test's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca_file = str(folder / "ca.pem")
        self._key = str(folder / "ca.key")
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.ca_file, "-days", "2", "-subj", "/CN=ca")

    def server_context(self, name: str = "IP:127.0.0.1", protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
        """The TLS context of a server whose certificate is for `name` and which speaks these protocols (ALPN)."""
        key, request, certificate = (str(self._folder / f"server.{kind}") for kind in ("key", "csr", "pem"))
        names = self._folder / "names"
        names.write_text(f"subjectAltName={name}\n")
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", "/CN=server")
        signing = ("-CA", self.ca_file, "-CAkey", self._key, "-CAcreateserial", "-extfile", str(names))
        _openssl("x509", "-req", "-in", request, "-out", certificate, "-days", "2", *signing)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
