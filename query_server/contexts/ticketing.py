"""Queries of ticketing: shows with their seats, lists of shows, bookings and tickets."""

from diptych.ticketing.v1 import query_service_pb2 as protocol
from diptych.ticketing.v1.types_pb2 import Availability, Booking, Show, WaitingList

from contracts.view_layout import View
from query_server import list_pages, watches
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.timestamps import read_period
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view

SHOWS, AVAILABILITIES, BOOKINGS = View.of(Show), View.of(Availability), View.of(Booking)
SHOW_NOT_FOUND = NotFound("ticketing", "SHOW_NOT_FOUND", ("show_id",))
WAITING_LISTS = View.of(WaitingList)
WAITING_LIST_NOT_FOUND = NotFound("ticketing", "WAITING_LIST_NOT_FOUND", ("show_id", "section_id"))
BOOKING_NOT_FOUND = NotFound("ticketing", "BOOKING_NOT_FOUND", ("booking_id",))


async def get_show(shows: FreshReader, request: protocol.GetShowRequest) -> bytes:
    return encode_view(await shows.get(request.show_id, SHOW_NOT_FOUND))


async def list_shows(shows: FreshReader, request: protocol.ListShowsRequest) -> bytes:
    values = ("place", request.place_id) if request.place_id else ("all",)
    window = Window.of_period(shows.view.index(*values), read_period(request, "doors_from", "doors_before"))
    return (await list_pages.read_page(shows, window, request)).encode()


async def get_booking(bookings: FreshReader, request: protocol.GetBookingRequest) -> bytes:
    return encode_view(await bookings.get(request.booking_id, BOOKING_NOT_FOUND))


async def list_tickets(bookings: FreshReader, request: protocol.ListTicketsRequest) -> bytes:
    window = Window(_select_index(bookings.view, request.buyer_id, request.show_id))
    return (await list_pages.read_page(bookings, window, request)).encode()


def _select_index(view: View, buyer_id: str, show_id: str) -> str:
    match buyer_id, show_id:
        case "", "":
            return view.index("all")
        case _, "":
            return view.index("buyer", buyer_id)
        case "", _:
            return view.index("show", show_id)
        case _:
            return view.index("buyer_show", buyer_id, show_id)


async def get_waiting_list(lists: FreshReader, request: protocol.GetWaitingListRequest) -> bytes:
    section = (request.show_id, request.section_id)
    views = await list_pages.read_all(lists, lists.view.index("section", *section), 1)
    if not views:
        raise WAITING_LIST_NOT_FOUND.error(*section)
    return encode_view(views[0])


def watch_availability(watch: Watch, request: protocol.WatchAvailabilityRequest) -> WatchResponses:
    return watches.watch_view(watch, request.show_id, SHOW_NOT_FOUND)


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetShow": Query(SHOWS, get_show),
        "ListShows": Query(AVAILABILITIES, list_shows),
        "GetBooking": Query(BOOKINGS, get_booking),
        "ListTickets": Query(BOOKINGS, list_tickets),
        "GetWaitingList": Query(WAITING_LISTS, get_waiting_list),
    },
    {"WatchAvailability": WatchQuery(AVAILABILITIES, watch_availability)},
)
