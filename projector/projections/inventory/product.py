"""The view of a product: every field of `diptych.inventory.v1.Product`."""

from diptych.inventory.v1 import events_pb2 as events
from diptych.inventory.v1 import types_pb2 as views

from contracts.events.inventory import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.Product)


def index_entries(product: views.Product) -> list[Entry]:
    member = index_member(product.register_time.ToMicroseconds(), product.product_id)
    return [(VIEW.index("sku", product.sku), member)]


PRODUCTS = Projection[views.Product](VIEW, events=EVENTS, columns=("sku", "title"), indexes=index_entries)


@PRODUCTS.on(events.ProductRegistered)
def registered(product: views.Product, event: events.ProductRegistered) -> None:
    product.product_id = event.product_id
    product.sku = event.sku
    product.title = event.title
    product.reorder_point = event.reorder_point
    product.register_time.CopyFrom(event.registered_at)


@PRODUCTS.on(events.WarehouseStocked)
def stocked(product: views.Product, event: events.WarehouseStocked) -> None:
    product.warehouse_ids.append(event.warehouse_id)


@PRODUCTS.on(events.ProductDiscontinued)
def discontinued(product: views.Product, event: events.ProductDiscontinued) -> None:
    product.discontinue_time.CopyFrom(event.discontinued_at)
