"""The operations server checks the health of servers by TLS, and of the others without it."""

from pathlib import Path
from typing import Any

from operations.processes import COMMAND_SERVER, QUERY_SERVER, RELAY
from operations_server.status.health_checks import HealthChecks
from runtime.grpc import server
from runtime.process.settings import Settings
from runtime.tls.client_tls import open_client_tls
from tests.support.harness import toy_server
from tests.support.harness.authority import Authority
from tests.support.harness.callers import Issuer
from tests.support.harness.waiting import until


async def test_processes_are_asked_by_tls_where_calls_are_taken_by_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    jwks = str(Issuer(tmp_path / "jwks.json").path)
    asked: dict[str, Any] = {"tls_client_ca": str(authority.path), "tls_client_certificates": "required"}
    serving = Settings(jwks=jwks, stop_grace=1.0, **authority.settings(), **asked)
    servers = {
        "query_address": server.build(
            serving, toy_server.services(), address="127.0.0.1:0", probe=toy_server.ready
        ),
        "relay_address": server.build(serving, address="127.0.0.1:0", probe=toy_server.ready),
        "command_probe_address": server.build(serving, address="127.0.0.1:0", probe=toy_server.ready),
    }
    for each in servers.values():
        await each.start()
        each.health.set_serving(True)
    addresses: dict[str, Any] = {name: f"127.0.0.1:{each.port}" for name, each in servers.items()}
    settings = Settings(**addresses, tls_ca=str(authority.path), **authority.settings("operations"))
    tls = open_client_tls(settings)
    assert tls is not None
    checks = HealthChecks(settings, (QUERY_SERVER, RELAY, COMMAND_SERVER), tls)

    async def all_serve() -> bool:
        return {each.health for each in await checks.check(2)} == {"SERVING"}

    await until(all_serve)
    before = set(checks._channels.values())
    authority.write("operations")
    await tls.reload()
    await until(all_serve)
    assert not before & set(checks._channels.values())
    await checks.close()
    plain = HealthChecks(settings, (QUERY_SERVER,), None)
    (health,) = await plain.check(2)
    assert health.health == "UNAVAILABLE"
    await plain.close()
    for each in servers.values():
        await each.stop()
