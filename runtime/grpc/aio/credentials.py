"""The credentials of a grpc.aio server, which follow the files of its certificate."""

import grpc

from runtime.tls.server_tls import ServerCertificates, ServerTls


def create_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials whose certificates are the current ones for each new connection."""
    used = tls.files.content

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates if they have changed; gRPC calls this in a thread of its own."""
        nonlocal used
        current = tls.files.content
        if current is used:
            return None
        used = current
        return _configure(current)

    is_required = tls.client_certificates == "required"
    return grpc.dynamic_ssl_server_credentials(_configure(used), fetch, is_required)  # type: ignore[arg-type] # the stub forgets None


def _configure(certificates: ServerCertificates) -> grpc.ServerCertificateConfiguration:
    pair = certificates.own.key, certificates.own.certificate
    return grpc.ssl_server_certificate_configuration([pair], certificates.client_authorities or None)
