"""A certificate authority of our own, so that verify-full can be used as is."""

import ssl
from pathlib import Path

import trustme


class CertificateAuthority:
    """An authority whose certificate is written to *ca_file*."""

    def __init__(self, ca_file: Path) -> None:
        self._authority = trustme.CA(organization_name="django_lakebase local")
        self._authority.cert_pem.write_to_path(str(ca_file))

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return the TLS context of a server with these host names or addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._authority.issue_cert(*names).configure_cert(context)
        return context
