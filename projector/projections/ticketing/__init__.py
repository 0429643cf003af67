"""The views of ticketing, one file per view."""

from projector.projections.ticketing import availability, booking, show, waiting_list

PROJECTIONS = (
    show.SHOWS,
    availability.AVAILABILITIES,
    booking.BOOKINGS,
    waiting_list.WAITING_LISTS,
)
