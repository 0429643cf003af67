"""What an operator can set: environment variables `DIPTYCH_*`, read once when a process starts."""

from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting with its default; the defaults are those of the local stack (`make up`)."""

    model_config = SettingsConfigDict(env_prefix="DIPTYCH_", frozen=True)

    database_url: str = "postgresql://diptych@127.0.0.1:5433/diptych"
    nats_url: str = "nats://127.0.0.1:4223"
    redis_url: str = "redis://127.0.0.1:6380/0"

    command_address: str = "127.0.0.1:50051"
    query_address: str = "127.0.0.1:50052"
    command_probe_address: str = ""
    """Where the command server answers health checks and nothing else; empty for at its own address only.
    There they wait among the calls, or are turned away with them when there are too many."""
    query_probe_address: str = ""
    """The same of the query server."""
    relay_address: str = "127.0.0.1:50053"
    """Where the relay answers gRPC health checks, and nothing else."""
    projector_address: str = "127.0.0.1:50054"
    """Where the projector answers gRPC health checks, and nothing else."""
    process_manager_address: str = "127.0.0.1:50055"
    """Where the process manager answers queries about sagas, and health checks."""
    command_targets: str = ""
    """Where the process manager finds contexts that have command servers of their own, for instance
    `inventory=host:port,banking=host:port`; the others are at `command_address`."""
    process_manager_token: str = ".diptych/process-manager.token"  # noqa: S105 - the name of a file
    """The file with the token that the process manager calls with; it is read again for each call."""

    jwks: str = ".diptych/jwks.json"
    """The keys that callers' tokens are signed with: a file, or an http(s) address."""
    token_issuer: str = "diptych-local"  # noqa: S105 - the name of an issuer, not a secret
    token_audience: str = "diptych"  # noqa: S105 - the name of an audience, not a secret

    reuse_port: bool = False
    """Whether several processes may listen at one address; `--workers` sets it for its children."""
    reflection: bool = False
    """Whether gRPC reflection describes the services to anybody who asks."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    stop_grace: float = 10.0
    """Seconds that requests under way get to finish after SIGTERM."""
    outbox_retention: float = 86_400.0
    """Seconds that a published outbox row is kept, so that what JetStream loses can be published again."""
