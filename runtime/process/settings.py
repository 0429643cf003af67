"""The settings of all processes: environment variables `DIPTYCH_*`, read once at start."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, NonNegativeInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime.process.retention import MAX_RETENTION, Retention
from runtime.process.setting_types import (
    Address,
    DatabaseUrl,
    KeySource,
    NatsUrl,
    OptionalAddress,
    OptionalText,
    Percent,
    PositiveSeconds,
    RedisUrl,
    Seconds,
    Targets,
    Text,
    TokenEndpoint,
)


class Settings(BaseSettings):
    """All settings. The defaults are those of the local stack (`make up`)."""

    model_config = SettingsConfigDict(env_prefix="DIPTYCH_", frozen=True)

    contexts: str = ""
    """The contexts of all processes and of `diptych`, separated by commas; empty for all installed ones. A
    process's own `--contexts` takes precedence."""

    database_url: DatabaseUrl = (
        "postgresql://diptych@127.0.0.1:5433/diptych?passfile=.diptych/postgres/pgpass"
    )
    """PostgreSQL, as `postgresql://user[:password]@host:port/database`, with the options of DATABASE_OPTIONS,
    for instance `?sslmode=verify-full`. The file that `passfile` names is read for each connection."""
    allow_privileged_database_user: bool = False
    """Whether a process starts with a database user that owns the tables or has other rights beyond its role,
    with a warning; for development."""
    nats_url: NatsUrl = "nats://127.0.0.1:4223?nkey=.diptych/nats-users/administrator.nk"
    """NATS, as `nats://[user:password@]host:port`; several servers separated by commas. The option `nkey`
    names the file of the user's key. With the scheme `tls` there are the options of NATS_TLS_OPTIONS, too,
    for instance `?ca=/etc/diptych/ca.pem`."""
    redis_url: RedisUrl = (
        "redis://administrator@127.0.0.1:6380/0?password_file=.diptych/redis-users/administrator.password"
    )
    """Redis, as `redis://[user:password@]host:port/database`, with the options of REDIS_OPTIONS, for instance
    `?password_file=/etc/diptych/projector.password`."""

    command_address: Address = "127.0.0.1:50051"
    """`host:port` at which the command server listens and at which the process manager calls it."""
    query_address: Address = "127.0.0.1:50052"
    """`host:port` at which the query server listens."""
    command_probe_address: OptionalAddress = ""
    """`host:port` at which the command server answers health checks only; empty for none. At
    `command_address` a health check queues with the calls and can be shed with them under overload."""
    query_probe_address: OptionalAddress = ""
    """`host:port` at which the query server answers health checks only; empty for none."""
    relay_address: Address = "127.0.0.1:50053"
    """`host:port` at which the relay answers health checks; it serves nothing else."""
    projector_address: Address = "127.0.0.1:50054"
    """`host:port` at which the projector answers health checks; it serves nothing else."""
    process_manager_address: Address = "127.0.0.1:50055"
    """`host:port` at which the process manager answers health checks and queries about sagas."""
    operations_address: Address = "127.0.0.1:50056"
    """`host:port` at which the operations server answers operators, and at which `diptych` calls it."""
    operations_token: Text = ".diptych/operations.token"  # noqa: S105 - the name of a file
    """File with the token that `diptych` sends to the operations server."""
    command_targets: Targets = ""
    """Command servers of single contexts, for the process manager's calls, for instance
    `inventory=host:port,banking=host:port`. It calls all other contexts at `command_address`."""
    process_manager_token: Text = ".diptych/process-manager.token"  # noqa: S105 - the name of a file
    """File with the token that the process manager sends with its calls. The process manager reads the file
    before each call."""
    token_endpoint: TokenEndpoint = ""
    """The https URL at which the process manager gets its token by OAuth 2.0 client credentials; empty for
    the token in the file."""
    token_client_id: OptionalText = ""
    """The process manager's client id at `token_endpoint`."""
    token_client_secret: OptionalText = ""
    """File with the process manager's client secret. It is read for each request."""
    token_client_scope: OptionalText = ""
    """The `scope` to ask `token_endpoint` for, for instance what `diptych sagas scopes` prints; empty for
    none."""
    token_client_audience: OptionalText = ""
    """The `audience` to ask `token_endpoint` for; empty for none."""

    jwks: KeySource = ".diptych/jwks.json"
    """The public keys that verify callers' tokens: a JSON Web Key Set, as a file or an https URL."""
    jwks_max_age: PositiveSeconds = 3_600.0
    """Seconds that the keys are used after they were last read, while they cannot be read again."""
    jwks_allow_http: bool = False
    """Whether `jwks` may be a URL of another host without TLS."""
    token_issuer: Text = "diptych-local"  # noqa: S105 - the name of an issuer, not a secret
    """The issuer (`iss`) that every token must have."""
    token_audience: Text = "diptych"  # noqa: S105 - the name of an audience, not a secret
    """The audience (`aud`) that every token must include."""
    max_token_lifetime: Retention = timedelta(days=1)
    """The longest time between the issue (`iat`) and the expiry (`exp`) of a token, as `24h`; `unlimited` for
    no limit."""

    tls_certificate: OptionalText = ""
    """PEM file with the certificate of this process, followed by those of intermediate authorities; empty to
    serve without TLS. Clients inside the system present it, too."""
    tls_key: OptionalText = ""
    """PEM file with the key of `tls_certificate`, not encrypted."""
    tls_client_ca: OptionalText = ""
    """PEM file with the authorities that sign the certificates of clients."""
    tls_client_certificates: Literal["none", "optional", "required"] = "none"
    """Whether clients present a certificate. `optional` needs h2corn."""
    tls_ca: OptionalText = ""
    """PEM file with the authorities that sign the certificates of this system's servers; empty for calls
    without TLS."""
    tls_callers: OptionalText = ""
    """JSON file with the scopes of callers whom certificates identify, by SPIFFE id or subject; empty for
    callers with tokens alone."""
    insecure: bool = False
    """Whether calls may be served, and stores reached, at addresses of other machines without TLS."""

    keys: Text = ".diptych/keys.json"
    """The key ring: a JSON file with the secret keys that sign consistency, page and resume tokens (`diptych
    keys`). Command servers, query servers and process managers need the same one, and read it again when it
    changes."""

    max_wait: PositiveSeconds = 5.0
    """Seconds after which a query with `at_least_as_fresh` stops waiting and answers VIEW_BEHIND."""
    max_calls_per_caller: NonNegativeInt = 0
    """Calls of one caller that one process executes at the same time, watches excepted; 0 for any number.
    The others wait for a second, then they are refused."""
    max_waits: NonNegativeInt = 1_000
    """Queries with `at_least_as_fresh` that may wait in one process at the same time; 0 for any number."""
    max_waits_per_caller: NonNegativeInt = 250
    """Those of one caller; 0 for any number."""
    max_watches: NonNegativeInt = 10_000
    """Watches that one query server may serve at the same time; 0 for any number."""
    max_watches_per_caller: NonNegativeInt = 5_000
    """Those of one caller; 0 for any number."""

    min_command_success_rate: Percent = 99.9
    """Percentage of commands that have to be accepted, or rejected by a rule, in the last five minutes. This
    and the next four are the limits of the health figures that the operations server answers."""
    max_query_response_time: PositiveSeconds = 0.1
    """Seconds that 99 % of the `Get` queries of the last five minutes may take at most."""
    max_event_processing_lag: PositiveSeconds = 1.0
    """Seconds within which 99 % of the events of the last five minutes have to be in the views."""
    max_failed_events: NonNegativeInt = 0
    """Failed attempts to apply an event in the last five minutes."""
    max_read_model_staleness: PositiveSeconds = 5.0
    """Seconds by which the views of a projection may be behind."""

    search_folder: OptionalText = ""
    """Folder in which query servers keep their search indexes between two starts; empty to fill them anew at
    each start. Several processes may share it."""

    reuse_port: bool = False
    """Whether several processes may listen at one address (SO_REUSEPORT). `--workers` sets it for workers."""
    grpc_server: Literal["grpc.aio", "h2corn"] = "grpc.aio"
    """What takes calls: `grpc.aio`, or `h2corn`, which is faster and an extra of the package
    (`diptych[h2corn]`)."""
    reflection: bool = False
    """Whether gRPC reflection describes the services, without authentication."""
    metrics_address: OptionalAddress = ""
    """`host:port` at which the process answers `GET /metrics` in Prometheus's format; empty for none. Each
    process on a host needs its own; the parent of workers answers for them."""
    environment: OptionalText = ""
    """The deployment, for instance `production`: the attribute `deployment.environment.name` of telemetry."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level of the lines that are logged."""
    log_format: Literal["json", "console"] = "json"
    """`json` for machines, `console` for coloured lines."""
    stall_report: PositiveSeconds = 10.0
    """Seconds that the event loop may stand still before the log shows where."""
    stall_exit: Seconds = 60.0
    """Seconds that the event loop may stand still before the process ends (exit code 70); 0 for any time."""
    stop_grace: Seconds = 10.0
    """Seconds that calls in progress get to finish after SIGTERM."""
    keep_requests: Retention = timedelta(days=30)
    """How long the answers to repeated requests are kept, as `30d`; `unlimited` for no limit. Command servers
    refuse older request ids, `diptych housekeeping` removes older answers."""
    keep_audit: Retention = None
    """How long the audit of commands is kept; whole months are dropped. Operators' acts are kept as long."""
    keep_refused_calls: Retention = timedelta(days=400)
    """How long the record of refused calls is kept; whole months are dropped."""
    keep_reads: Retention = None
    """How long the record of reads is kept; whole months are dropped."""
    keep_sagas: Retention = timedelta(days=400)
    """How long the steps of a saga are kept after its end. Its own row stays."""
    keep_stream: Retention = None
    """How long messages are kept in the JetStream stream. A follower that needs older ones, for instance a
    rebuild of a projection, has the relay recreate the stream from PostgreSQL."""
    keep_views: Retention = None
    """How long the view of an aggregate is kept in Redis after the aggregate has ended. Its counters stay,
    and a later event restores it from the stream."""
    keep_history: Retention = None
    """How long the entries of histories, ledgers and statements are kept in Redis, from the event on."""
    verify_rate: float = Field(default=100.0, gt=0, allow_inf_nan=False)
    """Streams a second that the verifier (`python -m operations.verify`) compares with their views."""
    outbox_retention: float = Field(
        default=86_400.0, gt=0, le=MAX_RETENTION.total_seconds(), allow_inf_nan=False
    )
    """Seconds before published outbox rows are deleted. Until then the relay can republish events that
    JetStream loses."""
