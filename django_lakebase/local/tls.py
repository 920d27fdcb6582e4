"""A certificate authority of our own, so that verify-full can be used as is."""

import ssl
from pathlib import Path

import trustme


def server_context(host: str, ca_file: Path) -> ssl.SSLContext:
    """Return the gateway's TLS context; the authority's certificate is in *ca_file*."""
    authority = trustme.CA(organization_name="django_lakebase local")
    _, _, domain = host.partition(".")
    certificate = authority.issue_cert(host, f"*.{domain}")
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate.configure_cert(context)
    return context
