"""Requests for the publication of all earlier events, without any server."""

from command_server.relay.publication_requests import MAX_BOUND, PublicationRequests


def receive(*replies: str) -> PublicationRequests:
    requests = PublicationRequests()
    for reply in replies:
        requests.receive(reply)
    return requests


def test_a_read_that_returns_all_pending_events_fulfils_the_requests_before_it() -> None:
    requests = receive("a", "b")
    requests.begin_read()
    requests.receive("c")  # its events may have been committed after the read began
    assert requests.take_fulfilled(None) == ["a", "b"]
    assert requests.take_fulfilled(None) == []
    requests.begin_read()
    assert requests.take_fulfilled(None) == ["c"]


def test_a_full_read_fulfils_nothing_by_itself() -> None:
    requests = receive("a")
    requests.begin_read()
    assert requests.take_fulfilled(9) == []
    assert requests.has_unbound


def test_a_request_is_fulfilled_once_a_later_read_has_reached_its_position() -> None:
    requests = receive("a")
    requests.begin_read()
    assert requests.take_fulfilled(9) == []
    requests.bind(20)
    assert not requests.has_unbound
    requests.receive("b")
    requests.begin_read()
    assert requests.take_fulfilled(19) == []
    requests.bind(30)
    requests.begin_read()
    assert requests.take_fulfilled(20) == ["a"]
    requests.begin_read()
    assert requests.take_fulfilled(None) == ["b"]


def test_the_number_of_waiting_requests_is_bounded() -> None:
    requests = receive(*map(str, range(MAX_BOUND + 5)))
    requests.begin_read()
    requests.bind(20)
    requests.begin_read()
    assert len(requests.take_fulfilled(20)) == MAX_BOUND
