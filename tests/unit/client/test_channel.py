"""The channel of a connection: TLS, and options of the caller's own."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import diptych_client
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from diptych_client import Rejection, aio
from diptych_client.channel_options import build_options, find_credentials

from tests.support.harness.waiting import until
from tests.support.ledger.stubs import queries, queries_grpc

GET, FOUND = queries.GetChequeRequest(cheque_id="c-1"), queries.GetChequeResponse()


def get_cheque(channel: Any) -> Any:
    return queries_grpc.QueryServiceStub(channel).GetCheque


def make_certificate() -> tuple[bytes, bytes]:
    """Return the key and certificate of `commands.internal`, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "commands.internal")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("commands.internal")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return pem, certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def tls_server() -> Iterator[Any]:
    """A server with TLS whose GetCheque has an empty response; its target, and the options to trust it."""
    key, certificate = make_certificate()
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", 100)])
    get: Any = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: FOUND,
        response_serializer=queries.GetChequeResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler("acme.ledger.v1.QueryService", {"GetCheque": get})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    yield {
        "target": f"localhost:{port}",
        "tls": grpc.ssl_channel_credentials(certificate),
        "options": [("grpc.ssl_target_name_override", "commands.internal")],
    }
    server.stop(None)


def test_a_connection_uses_the_given_tls_credentials_and_options(tls_server: Any) -> None:
    with diptych_client.connect(**tls_server) as read:
        assert read.query(get_cheque(read.channel), GET) == FOUND


async def test_a_connection_with_asyncio_uses_them_too(tls_server: Any) -> None:
    async with aio.connect(**tls_server) as read:
        assert await read.query(get_cheque(read.channel), GET) == FOUND


def test_a_server_that_cannot_be_trusted_gets_no_request(tls_server: Any) -> None:
    with diptych_client.connect(**tls_server | {"tls": True}) as read, pytest.raises(Rejection):
        read.query(get_cheque(read.channel), GET, timeout=0.3)


def test_a_message_above_its_limit_is_rejected_at_once(tls_server: Any) -> None:
    with diptych_client.connect(**tls_server) as read, pytest.raises(Rejection, match="RESOURCE_EXHAUSTED"):
        started = time.monotonic()
        read.query(
            get_cheque(read.channel),
            queries.GetChequeRequest(cheque_id="c" * 101),
        )
    assert time.monotonic() - started < 5


def test_plaintext_is_the_default() -> None:
    assert find_credentials(tls=False) is None


def test_an_option_of_the_callers_own_comes_last() -> None:
    options = build_options("localhost:1", [("grpc.keepalive_time_ms", 60_000)])
    assert options[-1] == ("grpc.keepalive_time_ms", 60_000)


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        ("ipv4:10.0.0.1:50051,10.0.0.2:50051", "10.0.0.1:50051"),
        ("ipv6:[::1]:50051,[::2]:50051", "[::1]:50051"),
        ("dns:///commands.internal:50051", None),
        ("localhost:50051", None),
    ],
)
def test_a_target_with_several_addresses_has_one_authority(target: str, authority: str | None) -> None:
    assert dict(build_options(target, ())).get("grpc.default_authority") == authority


async def test_a_call_waits_for_a_server_that_starts_later() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with diptych_client.connect(address) as connection:
        call: Any = get_cheque(connection.channel).future(GET, timeout=30)
        server = grpc.server(ThreadPoolExecutor(1))
        get: Any = grpc.unary_unary_rpc_method_handler(
            lambda _request, _context: FOUND, response_serializer=queries.GetChequeResponse.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler("acme.ledger.v1.QueryService", {"GetCheque": get})
        server.add_generic_rpc_handlers((handler,))
        channel_states: list[Any] = []
        connection.channel.subscribe(channel_states.append, try_to_connect=True)
        await until(lambda: grpc.ChannelConnectivity.TRANSIENT_FAILURE in channel_states)
        server.add_insecure_port(address)
        server.start()
        assert call.result() == FOUND
        server.stop(None)
