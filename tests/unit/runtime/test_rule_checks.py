"""The checks of rules agree with protovalidate on variants of every request of every service."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from diptych_testing.request_variants import TYPICAL, build_valid, vary, violations_of
from runtime.grpc.cel_source import NotCovered, compile_pattern, translate
from runtime.grpc.rule_checks import build_check
from tests.support.harness.contexts import CONTEXTS, QUERY_CONTEXTS
from tests.support.ledger import rules as ledger
from tests.support.ledger.stubs import queries

SERVICES = [service for context in (*CONTEXTS, ledger.CONTEXT) for service in context.services]
SERVICES += [context.service for context in QUERY_CONTEXTS]
SERVICES.append(queries.DESCRIPTOR.services_by_name["QueryService"])
REQUESTS: dict[str, Descriptor] = {
    method.input_type.full_name: method.input_type for service in SERVICES for method in service.methods
}
EXAMPLES = TYPICAL | {"day": "2026-02-28", "month": "2026-02", "address_digests": "a" * 24}
MUTATIONS = 300


def list_messages(request: Descriptor, seed: int) -> Iterator[Any]:
    """Yield a valid request, variants of each field, and what random changes of its bytes decode to."""
    valid = build_valid(request, EXAMPLES)
    yield valid
    yield from (variant for _, variant in vary(valid, lambda message: not violations_of(message)))
    random_numbers = random.Random(seed)
    original = valid.SerializeToString()
    for _ in range(MUTATIONS if original else 0):
        content = bytearray(original)
        for _ in range(random_numbers.randint(1, 3)):
            place = random_numbers.randrange(len(content))
            content[place : place + random_numbers.randint(0, 2)] = random_numbers.randbytes(
                random_numbers.randint(0, 2)
            )
            content = content or bytearray(original)
        try:
            yield type(valid).FromString(bytes(content))
        except DecodeError:
            continue


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_check_finds_valid_what_protovalidate_finds_valid(name: str) -> None:
    check = build_check(REQUESTS[name])
    assert check is not None, "all rules in use are covered"
    seed = random.randrange(10**9)
    print("seed", seed)
    answers = set()
    for message in list_messages(REQUESTS[name], seed):
        answers.add(check(message))
        assert check(message) == (not violations_of(message)), message
    assert True in answers


def test_each_kind_of_answer_was_compared() -> None:
    invalid = 0
    for request in REQUESTS.values():
        check = build_check(request)
        assert check is not None
        invalid += sum(not check(message) for message in list_messages(request, 1))
    assert invalid > 1_000


@pytest.mark.parametrize(
    "expression",
    [
        "this.a.matches('x$') && this.b > 0",  # not anchored
        "this.a.size() > 3",
        "this.a == this.b",
        "this.a < 1.5",
        "this.a == true",
        "this.lines.all(line, line.a > 0)",
        "!has(this.a)",
        "this.a > 0 ? true : false",
        "has(other.a)",
        "now",
    ],
)
def test_a_rule_that_python_might_read_differently_is_left_to_protovalidate(expression: str) -> None:
    with pytest.raises(NotCovered):
        translate(expression, lambda pattern: repr(compile_pattern(pattern)))


@pytest.mark.parametrize(
    "pattern", ["a", "^a", "^\\d$", "^.$", "^[^a]$", "^a\\.b$", "^(?i)a$", "^a++$", "^a{,3}$"]
)
def test_a_pattern_that_python_might_read_differently_is_left_to_protovalidate(pattern: str) -> None:
    with pytest.raises(NotCovered):
        compile_pattern(pattern)
