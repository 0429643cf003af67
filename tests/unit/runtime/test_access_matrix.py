"""Who may call what, for every method of every process: its answers to all kinds of callers at the edge.

The cases are made from the descriptors. What happens where only the object knows its owner is tried in
tests/unit/commands/test_owned_commands.py and tests/integration/query/test_owners.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from time import time
from typing import Any

import pytest
from diptych.access.v1 import access_pb2
from google.protobuf.descriptor import MethodDescriptor

from contracts.manifest import context_of
from runtime.codec import message_class
from runtime.grpc import authentication
from runtime.grpc.access import scopes_of
from runtime.grpc.authentication import Identity, TokenVerifier
from runtime.grpc.caller import Caller
from runtime.grpc.jwks import KeySet
from runtime.grpc.method import Handler, Method
from runtime.grpc.owners import check_owner
from runtime.grpc.routes import Routes, Service
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.stream_lifetimes import StreamLifetimes
from tests.support.harness.all_services import list_services
from tests.support.harness.callers import AUDIENCE, ISSUER, Issuer, bearer, ed25519

ADA, EVE = "ada", "eve"
OBJECTS = {"own": ADA, "foreign": EVE, "nobody's": ""}


async def reached(_request: object, _context: object) -> str:
    return "REACHED"


SERVICES = list_services(reached)


@dataclass(frozen=True)
class Rule:
    """What the descriptor of a method says, read for the test alone."""

    method: MethodDescriptor
    compares_owner: bool

    @property
    def option(self) -> Any:
        return self.method.GetOptions().Extensions[access_pb2.rule]

    @property
    def context(self) -> str:
        return context_of(self.method.containing_service.full_name)

    @property
    def names_owner(self) -> bool:
        return bool(self.option.owner) and self.option.owner in self.method.input_type.fields_by_name

    def expect(self, scope: str, reach: set[str], object_: str) -> str:
        """Return what a caller gets whose token is valid."""
        context = self.context
        if scope != "right":
            return f"SCOPE_MISSING {self.option.scope}"
        if self.option.any_object or "all" in reach:
            return "REACHED"
        if not (self.names_owner or self.compares_owner):
            return f"SCOPE_MISSING {context}.all"
        if "own" not in reach:
            return f"SCOPE_MISSING {context}.own"
        return f"NOT_THE_OWNER {context}.all" if self.names_owner and object_ != "own" else "REACHED"


def list_rules() -> Iterator[Rule]:
    for service in SERVICES:
        for method in service.descriptor.methods:
            yield Rule(method, method.name in service.compares_owners)


RULES = list(list_rules())
PROOF: Any = None


def list_rules_of(service: Service) -> list[Rule]:
    name = service.descriptor.full_name
    return [rule for rule in RULES if rule.method.containing_service.full_name == name]


each_service = pytest.mark.parametrize(
    "rules",
    [list_rules_of(service) for service in SERVICES],
    ids=[service.descriptor.full_name for service in SERVICES],
)


def test_every_method_is_here_once() -> None:
    assert len({rule.method.full_name for rule in RULES}) == len(RULES) >= 160
    assert sum(len(list_rules_of(service)) for service in SERVICES) == len(RULES)


def test_owners_are_in_the_request_or_compared_with_those_of_objects() -> None:
    owned = [rule for rule in RULES if rule.option.owner]
    assert [rule.method.name for rule in owned if not rule.names_owner and not rule.compares_owner] == []


def decode(method: Method, handler: Handler) -> Handler:
    """Decode requests without validating them: no rule of a field matters here."""

    async def handle(request: bytes, context: Any) -> object:
        return await handler(method.request.FromString(request), context)

    return handle


class GivenCallers(TokenVerifier):
    """Knows the callers of tokens without verifying them: that is a matter of the other cases."""

    def __init__(self) -> None:
        self.callers: dict[str, Caller] = {}

    def find_cached(self, token: str) -> Identity | None:
        return Identity(self.callers[token], PROOF)


class Edge:
    """The interceptors that admit callers, before handlers that all answer the same."""

    def __init__(self, tokens: TokenVerifier, keys: KeySet) -> None:
        interceptors = [
            authentication.identify(tokens),
            authentication.admit(StreamLifetimes(keys)),
            decode,
            check_owner,
        ]
        nothing: Any = None
        self._routes = Routes(SERVICES, interceptors, nothing)

    async def call(self, rule: Rule, token: str | None, object_: str = "own") -> str:
        """Return the answer: `REACHED`, or the reason of an error with the scope that it names."""
        method = rule.method
        request = message_class(method.input_type)()
        if rule.names_owner:
            setattr(request, rule.option.owner, OBJECTS[object_])
        path = f"/{method.containing_service.full_name}/{method.name}"
        route = self._routes.enter(path, bearer(token) if token else ())
        context: Any = None
        try:
            return str(await route.handler(request.SerializeToString(), context))
        except RpcError as error:
            return f"{error.reason} {error.metadata.get('scope', '')}".strip()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("jwks") / "jwks.json")


@pytest.fixture(scope="module")
def keys(issuer: Issuer) -> KeySet:
    return KeySet(str(issuer.path))


@pytest.fixture(scope="module")
def given(keys: KeySet) -> tuple[Edge, dict[str, Caller]]:
    callers = GivenCallers()
    return Edge(callers, keys), callers.callers


REACHES: list[set[str]] = [set(), {"own"}, {"all"}, {"own", "all"}]


@each_service
async def test_scope_and_reach_decide_with_the_owner(
    rules: Sequence[Rule], given: tuple[Edge, dict[str, Caller]]
) -> None:
    edge, callers = given
    for rule, scope, reach in product(rules, ("none", "wrong", "right"), REACHES):
        context, right = rule.context, rule.option.scope
        scopes = {"right": {right}, "wrong": {f"{context}.elsewhere", f"{right}.x", "*"}, "none": set()}[
            scope
        ]
        callers["token"] = Caller(ADA, frozenset(scopes | {f"{context}.{each}" for each in reach}))
        for object_ in OBJECTS:
            case = (rule.method.full_name, scope, reach, object_)
            assert (case, await edge.call(rule, "token", object_)) == (
                case,
                rule.expect(scope, reach, object_),
            )


@each_service
async def test_who_acts_for_a_person_needs_the_scope_for_it(
    rules: Sequence[Rule], given: tuple[Edge, dict[str, Caller]]
) -> None:
    edge, callers = given
    for rule in rules:
        name, scopes = rule.method.full_name, {rule.option.scope, f"{rule.context}.own"}
        for reach in ("own", "all"):
            callers["token"] = Caller("shop", frozenset({*scopes, f"{rule.context}.{reach}"}), ADA)
            assert (name, await edge.call(rule, "token")) == (name, "SCOPE_MISSING act.on-behalf")
        callers["token"] = Caller("shop", frozenset({*scopes, "act.on-behalf"}), ADA)
        for object_ in OBJECTS:
            expected = rule.expect("right", {"own"}, object_)
            assert (name, await edge.call(rule, "token", object_)) == (name, expected)


async def test_without_a_valid_token_nobody_reaches_anything(issuer: Issuer, keys: KeySet) -> None:
    edge = Edge(TokenVerifier(keys, ISSUER, AUDIENCE), keys)
    scopes = {scope for rule in RULES for scope in scopes_of(rule.method)}
    claims: Any = {"sub": ADA, "scope": " ".join(sorted(scopes))}
    tokens = {
        "missing": None,
        "expired": issuer.token(**claims, iat=time() - 120, exp=time() - 60),
        "of another key": issuer.token(**claims, key=ed25519()),
        "of another issuer": issuer.token(**claims, iss="elsewhere"),
    }
    valid = issuer.token(**claims)
    for rule in RULES:
        name = rule.method.full_name
        assert (name, await edge.call(rule, valid)) == (name, "REACHED")
        for state, token in tokens.items():
            assert (name, state, await edge.call(rule, token)) == (name, state, "UNAUTHENTICATED")
