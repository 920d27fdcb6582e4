"""A certificate authority, so that clients can connect with verify-full."""

import ssl
from pathlib import Path

import trustme


class CertificateAuthority:
    """A new certificate authority; its certificate is written to *ca_file*."""

    def __init__(self, ca_file: Path) -> None:
        self._authority = trustme.CA(organization_name="django_lakebase local")
        self._authority.cert_pem.write_to_path(str(ca_file))

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return a server's TLS context with a certificate for the hosts *names*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._authority.issue_cert(*names).configure_cert(context)
        return context
