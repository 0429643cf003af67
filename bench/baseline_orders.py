"""Changes orders with `eventsourcing`, as its documentation shows.

Run as `python -m bench.baseline_orders THREADS ORDERS`, with the library's POSTGRES_* variables. Orders are
placed first; then each thread loads an order, changes it and saves it. Prints the changed orders per second.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class Order(Aggregate):
    """An order of three lines."""

    @event("Placed")
    def __init__(self, order_id: str, customer_id: str) -> None:
        self.order_id = order_id
        self.customer_id = customer_id
        self.lines: list[dict[str, str | int]] = []
        self.address: dict[str, str] = {}

    @event("ContentsSet")
    def set_contents(self, lines: list[dict[str, str | int]], address: dict[str, str]) -> None:
        self.lines, self.address = lines, address


LINES = [
    {"sku": f"sku-{n}", "title": "A thing of some use", "quantity": 1 + n, "price": "19.99 EUR"}
    for n in range(3)
]
ADDRESS = {
    "recipient": "Erika Mustermann",
    "street": "Heidestraße 17",
    "locality": "51147 Köln",
    "region": "DE",
}


class Shop(Application[UUID]):
    """The library's application, with one use case."""

    def change(self, order_id: UUID) -> None:
        """Load an order, change it and save it."""
        order: Order = self.repository.get(order_id)
        order.set_contents(LINES, ADDRESS)
        self.save(order)


def main(threads: int, count: int) -> float:
    """Return how many orders per second are loaded, changed and saved."""
    shop = Shop()
    orders = [Order(order_id=str(uuid4()), customer_id="customer-1") for _ in range(count)]
    for start in range(0, count, 200):
        shop.save(*orders[start : start + 200])
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(shop.change, [order.id for order in orders[:threads]]))  # connects every thread
        begin = perf_counter()
        list(pool.map(shop.change, [order.id for order in orders[threads:]]))
        return (count - threads) / (perf_counter() - begin)


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2])))
