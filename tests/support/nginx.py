"""Debian's nginx on loopback with deploy/nginx/wunder.conf, in which only addresses, ports and paths are replaced."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.postgres import free_port

FILE = Path(__file__).parents[2] / "deploy" / "nginx" / "wunder.conf"
PROXY_ADDRESS = "127.0.0.2"
"""From where it speaks to gateways, so that they can tell it from clients on 127.0.0.1."""

_MAIN = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_bind {address};
    include {folder}/wunder.conf;
}}
"""


class Nginx:
    """In front of these gateways; `url` is its TLS side."""

    def __init__(self, folder: Path, *gateways: str) -> None:
        self.folder = folder
        self.url = f"https://127.0.0.1:{free_port()}"
        self.plain_url = f"http://127.0.0.1:{free_port()}"
        self.tls = ssl.create_default_context(cadata=_certificate(folder))
        (folder / "wunder.conf").write_text(self._server_block(FILE.read_text(), gateways))
        user = f"user {_user()};" if os.geteuid() == 0 else ""
        main = _MAIN.format(folder=folder, user=user, address=PROXY_ADDRESS)
        (folder / "nginx.conf").write_text(main)
        self._process: subprocess.Popen[bytes] | None = None

    def _server_block(self, text: str, gateways: tuple[str, ...]) -> str:
        servers = "\n".join(f"    server {urlsplit(url).netloc} max_fails=2 fail_timeout=5s;" for url in gateways)
        text = re.sub(r"^    server 192\.0\.2\.10:.*\n^    server 192\.0\.2\.11:.*$", servers, text, flags=re.MULTILINE)
        replacements = {
            "listen 80;": f"listen {urlsplit(self.plain_url).netloc};",
            "listen 443 ssl http2;": f"listen {urlsplit(self.url).netloc} ssl http2;",
            "/etc/ssl/wunder/fullchain.pem": f"{self.folder}/certificate.pem",
            "/etc/ssl/wunder/key.pem": f"{self.folder}/key.pem",
            "/var/log/nginx/wunder.log": f"{self.folder}/access.log",
        }
        for found, replacement in replacements.items():
            assert text.count(found) == 1, f"{found!r} has to be in {FILE} once"
            text = text.replace(found, replacement)
        assert "192.0.2.1" not in re.sub(r"#.*", "", text)
        return text

    def start(self) -> None:
        """Check the file, start, and wait until it listens."""
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        assert program is not None, "these tests need nginx: apt-get install nginx-light (as .ci/run does)"
        command = [program, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder), "-e", "stderr"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr, checked.stderr
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """End it, its worker too."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def access_log(self) -> str:
        return (self.folder / "access.log").read_text()


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _certificate(folder: Path) -> str:
    """A certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wunder test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    (folder / "certificate.pem").write_text(pem)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(secret)
    return pem
