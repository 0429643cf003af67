"""The views of ticketing, one file per view."""

from projector.projections.ticketing import availability, booking, show

PROJECTIONS = (show.SHOWS, availability.AVAILABILITIES, booking.BOOKINGS)
