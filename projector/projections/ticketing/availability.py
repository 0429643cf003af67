"""What is left of a show by section, for lists and watches.

Its message is `diptych.ticketing.v1.Availability`.
"""

from diptych.ticketing.v1 import events_pb2 as events
from diptych.ticketing.v1 import types_pb2 as views

from contracts.events.ticketing import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.Availability)


def index_entries(show: views.Availability) -> list[Entry]:
    """List shows all together and by place, sorted by the time of their doors."""
    member = index_member(show.doors_time.ToMicroseconds(), show.show_id)
    return [(VIEW.index("all"), member), (VIEW.index("place", show.place_id), member)]


AVAILABILITIES = Projection[views.Availability](
    VIEW, events=EVENTS, columns=("state", "place_id"), indexes=index_entries
)


@AVAILABILITIES.on(events.ShowScheduled)
def scheduled(show: views.Availability, event: events.ShowScheduled) -> None:
    show.show_id = event.show_id
    show.state = views.Show.STATE_SCHEDULED
    show.title = event.title
    show.venue = event.venue
    show.place_id = event.place_id
    show.doors_time.CopyFrom(event.doors_at)
    for section in event.sections:
        capacity = section.capacity or sum(row.seats for row in section.rows)
        show.sections.add(
            section_id=section.section_id, price=section.price, capacity=capacity, available=capacity
        )


Change = events.SeatsHeld | events.SeatsReleased | events.SeatsReturned


def changed(show: views.Availability, event: Change) -> None:
    """Each of these events carries the number of available seats after it."""
    for section in show.sections:
        if section.section_id == event.section_id:
            section.available = event.available


for change in Change.__args__:
    AVAILABILITIES.on(change)(changed)


@AVAILABILITIES.on(events.WaitingBegan)
def waiting_began(show: views.Availability, event: events.WaitingBegan) -> None:
    for section in show.sections:
        section.waiting |= section.section_id == event.section_id


@AVAILABILITIES.on(events.WaitingEnded)
def waiting_ended(show: views.Availability, event: events.WaitingEnded) -> None:
    for section in show.sections:
        section.waiting &= section.section_id != event.section_id


@AVAILABILITIES.on(events.ShowCancelled)
def cancelled(show: views.Availability, _: events.ShowCancelled) -> None:
    show.state = views.Show.STATE_CANCELLED


@AVAILABILITIES.on(events.ShowSettled)
def settled(show: views.Availability, _: events.ShowSettled) -> None:
    show.state = views.Show.STATE_SETTLED
