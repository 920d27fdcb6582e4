"""Certificate authorities and TLS contexts, so that clients can use verify-full."""

import ssl
from collections.abc import Callable
from typing import Any

import trustme

# The name with which PostgreSQL's protocol is registered for ALPN.
ALPN_PROTOCOL = "postgresql"


class CertificateAuthority:
    """
    A new certificate authority; *root_pem* is the certificate that clients trust.

    As on the internet, an intermediate authority issues the certificates of servers,
    and a server sends its own certificate and that of the intermediate authority.
    """

    def __init__(self) -> None:
        root = trustme.CA(organization_name="django_lakebase local")
        self.root_pem = root.cert_pem.bytes()
        self._intermediate = root.create_child_ca()

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return a server's TLS context with a certificate for the hosts *names*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._intermediate.issue_cert(*names).configure_cert(context)
        return context


class GatewayContexts:
    """
    The TLS contexts of the gateway for the hosts *names*.

    Faults switch to the certificate of *new_authority*, and to contexts without ALPN.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        new_authority: CertificateAuthority,
        *names: str,
    ) -> None:
        self._contexts = {
            (is_new, has_alpn): issuer.server_context(*names)
            for is_new, issuer in ((False, authority), (True, new_authority))
            for has_alpn in (False, True)
        }
        for (_, has_alpn), context in self._contexts.items():
            if has_alpn:
                context.set_alpn_protocols([ALPN_PROTOCOL])

    def set_sni_callback(self, callback: Callable[..., Any]) -> None:
        """Have all contexts call *callback* with the host name of a handshake."""
        for context in self._contexts.values():
            context.sni_callback = callback

    def get(self, *, is_new_authority: bool, has_alpn: bool = True) -> ssl.SSLContext:
        """Return the context for a handshake."""
        return self._contexts[is_new_authority, has_alpn]
