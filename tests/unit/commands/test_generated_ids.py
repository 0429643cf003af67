"""The ids that the server generates never change: a retry finds its stream by them, also after a release."""

from uuid import uuid4, uuid5

import pytest

from command_server.service import SERVER_ID_NAMESPACE, generate_id


@pytest.mark.parametrize("subject", ["ada", "Zoë/Ünal", "a" * 255])
def test_a_generated_id_is_the_uuid_of_caller_and_request(subject: str) -> None:
    for request_id in [str(uuid4()) for _ in range(200)]:
        assert generate_id(subject, request_id) == str(uuid5(SERVER_ID_NAMESPACE, f"{subject}/{request_id}"))
