"""Executes the requests of sagas in memory: commands by the contexts, queries by answers of the test."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from diptych.consistency.v1.consistency_pb2 import Receipt
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from protovalidate import Validator

from command_server.kernel.context import CommandType, Context, command_types
from command_server.kernel.decider import Rejected
from command_server.service import generate_id
from contracts.streams import aggregate_id
from diptych_testing.world import World
from process_manager.groups.step import Step
from process_manager.saga import StepRejected, StepSucceeded
from runtime.codec import message_class

CALLER = "process-manager"
"""The subject of the process manager's token."""
Answers = Mapping[type[Message], Callable[[Any], Message]]
"""For each type of query, a function from the request to the response."""

_VALIDATOR = Validator()


class RequestExecutor:
    """Executes requests as the servers would, but each time that it is called.

    Args:
        world: the streams.
        contexts: the contexts whose commands it executes.
        answers: answers queries.
    """

    def __init__(self, world: World, contexts: Sequence[Context], answers: Answers) -> None:
        self._world = world
        self._answers = answers
        self._commands = _build_command_types(tuple(contexts))

    def execute(self, step: Step) -> StepSucceeded | StepRejected:
        """Execute a step's request and return its reply.

        Raises:
            AssertionError: the request is invalid, or no context and no answer is for it.
        """
        method = _find_method(step.method)
        request: Any = message_class(method.input_type).FromString(step.request)
        violations = _VALIDATOR.collect_violations(request)
        assert not violations, f"{step.step} is invalid: {'; '.join(str(each.proto) for each in violations)}"
        if answer := self._answers.get(type(request)):
            return StepSucceeded(step.step, answer(request), self._world.now)
        assert method.full_name in self._commands, f"{step.step}: nothing executes {method.full_name}"
        try:
            receipt = self._execute_command(self._commands[method.full_name], request)
        except Rejected as error:
            return StepRejected(step.step, error.reason, error.details, self._world.now)
        response: Any = message_class(method.output_type)
        return StepSucceeded(step.step, response(receipt=receipt), self._world.now)

    def _execute_command(self, type_: CommandType, request: Any) -> Receipt:
        """Execute a command and return its receipt, without a token.

        Raises:
            Rejected: a rule or the expected version forbids it.
        """
        if not getattr(request, type_.decider.key):
            setattr(request, type_.decider.key, generate_id(CALLER, request.request_id))
        command = type_.decode(request, CALLER)
        stream = next(iter(type_.decider.streams(command)))
        actual = self._world.version(stream)
        expects = "expected_version" in type_.request_fields and request.HasField("expected_version")
        if expects and request.expected_version != actual:
            raise Rejected("VERSION_MISMATCH", actual_version=actual)
        self._world.execute(command)
        return Receipt(aggregate_id=aggregate_id(stream), version=self._world.version(stream))


@cache  # codecs take a while to build, and many simulations run on the same contexts
def _build_command_types(contexts: Sequence[Context]) -> Mapping[str, CommandType]:
    """Return the command types by the full names of their methods."""
    return {name: type_ for context in contexts for name, type_ in command_types(context).items()}


def _find_method(path: str) -> MethodDescriptor:
    service, _, name = path[1:].partition("/")
    return Default().FindServiceByName(service).methods_by_name[name]
