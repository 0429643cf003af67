"""The steps of a saga's reactions."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from process_manager.dispatch.step_requests import method_of, path_of, serialize_with_id
from process_manager.groups.cause import Cause
from process_manager.saga import Saga, Send

REQUEST_ID_NAMESPACE = UUID("2a9c1f0e-7c58-5d0b-8a55-0d2f6e0c3b71")


@dataclass(frozen=True, slots=True)
class Step:
    """A request, to be sent until it is answered."""

    step: str
    attempt: int
    number: int
    method: str
    request: bytes
    request_id: UUID
    cause: Cause


def derive_request_id(saga: str, id_: str, step: str, attempt: int) -> UUID:
    return uuid5(REQUEST_ID_NAMESPACE, f"{saga}/{id_}/{step}/{attempt}")


def create_step(saga: Saga[Any], id_: str, send: Send, attempt: int, number: int, cause: Cause) -> Step:
    """Return an attempt of a step.

    Raises:
        ValueError: the saga does not declare the request.
    """
    if type(send.request) not in saga.requests:
        type_name = send.request.DESCRIPTOR.full_name
        raise ValueError(f"{send.step}: {saga.name} does not declare {type_name} in its requests")
    request_id = derive_request_id(saga.name, id_, send.step, attempt)
    return Step(
        send.step,
        attempt,
        number,
        path_of(method_of(send.request)),
        serialize_with_id(send.request, request_id),
        request_id,
        cause,
    )
