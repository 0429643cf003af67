"""A model of an order for stateful tests: a transition table and a dictionary of shipping groups.

The model does not use the code under test. Commands are a name and fields as JSON. `OrderMachine` generates
commands for one order; its subclasses execute them.
"""

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

ROWS = """
                      PLACED      HELD      CONFIRMED   SHIPPED     DELIVERED RETURNED REJECTED CANCELLED
AddOrderLine          edit        held      already     already     already   already  already  already
RemoveOrderLine       edit        held      already     already     already   already  already  already
ChangeShippingAddress edit        held      already     already     already   already  already  already
HoldOrder             HELD        same      already     already     already   already  already  already
ApproveOrder          same        PLACED    approve     approve     approve   approve  already  already
RejectOrder           REJECTED    REJECTED  already     already     already   already  same     already
ConfirmOrder          CONFIRMED   held      same        already     already   already  already  already
ShipOrder             unconfirmed held      SHIPPED     same        already   already  already  already
DeliverOrder          unshipped   held      unshipped   DELIVERED   same      already  already  already
ReturnOrder           undelivered held      undelivered undelivered RETURNED  same     already  already
CancelOrder           CANCELLED   CANCELLED CANCELLED   already     already   already  already  same
"""
STATUSES, *_CELLS = [line.split() for line in ROWS.strip().splitlines()]
TABLE = {name: dict(zip(STATUSES, cells, strict=True)) for name, *cells in _CELLS}
"""The outcome of each command in each status: the next status in capitals, or a word for no transition."""
REASONS = {
    "held": "ORDER_HELD",
    "unconfirmed": "ORDER_NOT_CONFIRMED",
    "unshipped": "ORDER_NOT_SHIPPED",
    "undelivered": "ORDER_NOT_DELIVERED",
}
NANOS = 10**9
JSON = dict[str, Any]


class OrderModel:
    """The expected state of the order after all commands so far."""

    def __init__(self) -> None:
        self.status = "NONE"
        self.version = 0
        self.approved = False
        self.groups: dict[str, JSON] = {}

    def send(self, name: str, fields: JSON) -> str:
        """Apply a command and return the reason of its rejection, or an empty string."""
        if name == "PlaceOrder":
            return self._place(fields)
        if self.status == "NONE":
            return "ORDER_NOT_FOUND"
        outcome = TABLE[name][self.status]
        if outcome == "same":
            return ""
        if outcome == "edit":
            return self._edit(name, fields)
        if outcome == "approve":
            self.version += not self.approved
            self.approved = True
            return ""
        if outcome == outcome.upper():
            self.approved = self.approved or name == "ApproveOrder"
            self.status = outcome
            self.version += 1
            return ""
        return REASONS.get(outcome, f"ORDER_ALREADY_{self.status}")

    def total(self) -> int:
        """Return the sum over all lines in billionths of a unit."""
        lines = [line for group in self.groups.values() for line in group["lines"]]
        return sum(line["quantity"] * _nanos(line["unit_price"]) for line in lines)

    def _place(self, fields: JSON) -> str:
        if self.status != "NONE":
            return "ORDER_EXISTS"
        groups = fields["shipping_groups"]
        if len({group["shipping_group_id"] for group in groups}) < len(groups):
            return "SHIPPING_GROUP_REPEATED"
        if any(len({line["sku"] for line in group["lines"]}) < len(group["lines"]) for group in groups):
            return "ORDER_LINE_REPEATED"
        if len({line["unit_price"]["currency_code"] for group in groups for line in group["lines"]}) > 1:
            return "ORDER_CURRENCY_MIXED"
        self.groups = {group["shipping_group_id"]: deepcopy(group) for group in groups}
        self.status, self.version = "PLACED", 1
        return ""

    def _edit(self, name: str, fields: JSON) -> str:
        before = deepcopy(self.groups)
        group_id = fields["shipping_group_id"]
        if not group_id and len(self.groups) == 1:
            (group_id,) = self.groups
        if group_id not in self.groups:
            return "SHIPPING_GROUP_NOT_FOUND"
        reason = getattr(self, f"_{name}")(self.groups[group_id], fields)
        changed = self.groups != before
        self.version += changed
        self.approved = self.approved and not changed
        return str(reason)

    def _AddOrderLine(self, group: JSON, fields: JSON) -> str:  # noqa: N802 - the command's name
        line = fields["line"]
        if line in group["lines"]:
            return ""
        if line["sku"] in [existing["sku"] for existing in group["lines"]]:
            return "ORDER_LINE_EXISTS"
        currency = next(iter(self.groups.values()))["lines"][0]["unit_price"]["currency_code"]
        if line["unit_price"]["currency_code"] != currency:
            return "ORDER_CURRENCY_MIXED"
        group["lines"].append(deepcopy(line))
        return ""

    def _RemoveOrderLine(self, group: JSON, fields: JSON) -> str:  # noqa: N802 - the command's name
        remaining = [line for line in group["lines"] if line["sku"] != fields["sku"]]
        if len(remaining) == len(group["lines"]):
            return "ORDER_LINE_NOT_FOUND"
        if not remaining:
            return "ORDER_LINE_LAST"
        group["lines"] = remaining
        return ""

    def _ChangeShippingAddress(self, group: JSON, fields: JSON) -> str:  # noqa: N802 - the command's name
        group["shipping_address"] = deepcopy(fields["shipping_address"])
        return ""


def _nanos(money: JSON) -> int:
    return int(money["units"]) * NANOS + int(money["nanos"])


def prices(currencies: st.SearchStrategy[str]) -> st.SearchStrategy[JSON]:
    amounts = {"units": st.integers(0, 10**6), "nanos": st.integers(0, NANOS - 1)}
    return st.fixed_dictionaries({"currency_code": currencies, **amounts})


def lines_of(price: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    skus = st.sampled_from(["lamp", "desk", "chair", "book"])
    fields = {"sku": skus, "title": st.just("A thing"), "quantity": st.integers(1, 10_000)}
    return st.fixed_dictionaries({**fields, "unit_price": price})


def groups_of(lines: st.SearchStrategy[list[JSON]]) -> st.SearchStrategy[JSON]:
    named = {"shipping_group_id": st.sampled_from(["main", "gift"]), "lines": lines}
    return st.fixed_dictionaries({**named, "shipping_address": addresses, "warehouse_id": st.just("w-1")})


addresses = st.builds(
    lambda street: {
        "recipient": "Ada",
        "address_lines": [street],
        "postal_code": "",
        "locality": "Town",
        "region_code": "DE",
    },
    st.sampled_from(["Main Street 1", "Side Street 2"]),
)
lines = lines_of(prices(st.sampled_from(["EUR"] * 9 + ["USD"])))
orders = st.lists(groups_of(st.lists(lines, min_size=1, max_size=3)), min_size=1, max_size=2)
euro_lines = st.lists(
    lines_of(prices(st.just("EUR"))), min_size=1, max_size=3, unique_by=lambda line: str(line["sku"])
)
valid_orders = st.lists(
    groups_of(euro_lines), min_size=1, max_size=2, unique_by=lambda group: str(group["shipping_group_id"])
)
named_groups = st.sampled_from(["", "main", "main", "gift"])
texts = st.sampled_from(["a reason", "another"])
STATUS_COMMANDS = [name for name, outcomes in TABLE.items() if "edit" not in outcomes.values()]
FIELDS = {
    "ApproveOrder": (),
    "ConfirmOrder": (),
    "DeliverOrder": (),
    "ShipOrder": ("carrier", "tracking_code"),
}
END_STATUSES = ("REJECTED", "CANCELLED")


class OrderMachine(RuleBasedStateMachine):
    """Sends generated commands to one order and to its model, and compares the outcomes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = OrderModel()

    def execute(self, name: str, fields: JSON) -> str:
        """Execute a command on the tested order; return the reason of its rejection or an empty string."""
        raise NotImplementedError

    def compare(self) -> None:
        """Assert that the tested order equals the model."""
        raise NotImplementedError

    def send(self, name: str, fields: JSON) -> None:
        expected = self.model.send(name, fields)
        assert (name, self.execute(name, fields)) == (name, expected)
        self.compare()

    @initialize(first=valid_orders)
    def begin(self, first: list[JSON]) -> None:
        self.place(first)

    @rule(groups=orders)
    def place(self, groups: list[JSON]) -> None:
        self.send("PlaceOrder", {"customer_id": "c-1", "shipping_groups": groups, "account_id": "a-1"})

    @rule(group=named_groups, line=lines)
    def add_line(self, group: str, line: JSON) -> None:
        self.send("AddOrderLine", {"shipping_group_id": group, "line": line})

    @rule(data=st.data(), group=named_groups)
    def remove_line(self, data: st.DataObject, group: str) -> None:
        skus = {line["sku"] for each in self.model.groups.values() for line in each["lines"]}
        sku = data.draw(st.sampled_from(sorted(skus | {"book"})))
        self.send("RemoveOrderLine", {"shipping_group_id": group, "sku": sku})

    @rule(group=named_groups, address=addresses)
    def change_address(self, group: str, address: JSON) -> None:
        self.send("ChangeShippingAddress", {"shipping_group_id": group, "shipping_address": address})

    @rule(name=st.sampled_from(STATUS_COMMANDS), text=texts, draw=st.integers(0, 9))
    def change_status(self, name: str, text: str, draw: int) -> None:
        outcome = TABLE[name].get(self.model.status, "")
        if outcome not in END_STATUSES or draw == 0:  # rarely, so that most orders reach later statuses
            self.send(name, dict.fromkeys(FIELDS.get(name, ("reason",)), text))

    @precondition(lambda machine: machine.model.status in STATUSES)
    @rule(data=st.data(), text=texts)
    def advance(self, data: st.DataObject, text: str) -> None:
        status = self.model.status
        outcomes = {name: TABLE[name][status] for name in STATUS_COMMANDS}
        names = [name for name, next_ in outcomes.items() if next_.isupper() and next_ not in END_STATUSES]
        name = data.draw(st.sampled_from(names or STATUS_COMMANDS))
        self.send(name, dict.fromkeys(FIELDS.get(name, ("reason",)), text))
