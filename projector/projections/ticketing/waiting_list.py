"""The view of a waiting list: every field of `diptych.ticketing.v1.WaitingList`."""

from diptych.ticketing.v1 import events_pb2 as events
from diptych.ticketing.v1 import types_pb2 as views

from contracts.events.ticketing import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.WaitingList)


def index_entries(waiting_list: views.WaitingList) -> list[Entry]:
    """List the one waiting list of a section."""
    section = VIEW.index("section", waiting_list.show_id, waiting_list.section_id)
    return [(section, index_member(0, waiting_list.waiting_list_id))]


WAITING_LISTS = Projection[views.WaitingList](
    VIEW, events=EVENTS, columns=("show_id", "section_id"), indexes=index_entries
)


@WAITING_LISTS.on(events.WaitingListJoined)
def joined(waiting_list: views.WaitingList, event: events.WaitingListJoined) -> None:
    waiting_list.waiting_list_id = event.waiting_list_id
    waiting_list.show_id = event.show_id
    waiting_list.section_id = event.section_id
    waiting_list.entries.add(
        booking_id=event.booking_id,
        buyer_id=event.buyer_id,
        count=event.count,
        join_time=event.joined_at,
    )


@WAITING_LISTS.on(events.WaitingListLeft)
def left(waiting_list: views.WaitingList, event: events.WaitingListLeft) -> None:
    _remove(waiting_list, event.booking_id)


@WAITING_LISTS.on(events.SeatsOffered)
def offered(waiting_list: views.WaitingList, event: events.SeatsOffered) -> None:
    _remove(waiting_list, event.booking_id)


def _remove(waiting_list: views.WaitingList, booking_id: str) -> None:
    for position, entry in enumerate(waiting_list.entries):
        if entry.booking_id == booking_id:
            del waiting_list.entries[position]
            return
    raise LookupError(f"nobody waits for the booking {booking_id}")
