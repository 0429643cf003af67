# ruff: noqa: E501 - rows of a table
"""330 products of a shop, and 50 searches with what a person would want to see first.

A product's words come from what it is (`Item`). The judgement looks at that alone, never at the texts, so it
does not depend on where the words are. Descriptions name other kinds of things, as those of shops do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product as combine

from diptych.catalogue.v1.types_pb2 import Product

from tests.support.builders.shop_views import make_product


@dataclass(frozen=True)
class Kind:
    """A kind of thing."""

    name: str
    title: str
    """With `{material}`, `{colour}` and `{size}`."""
    brands: tuple[str, ...]
    description: str
    materials: tuple[str, ...] = ("",)
    colours: tuple[str, ...] = ("",)
    sizes: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Item:
    """What a product is."""

    kind: str
    brand: str
    material: str
    colour: str
    size: str


WOOD, STEEL, GLASS = ("Oak", "Walnut", "Beech"), ("Steel",), ("Glass",)
FURNITURE, LIGHTS = ("Nordwald", "Holm & Sons", "Arbol"), ("Lumo", "Helio")
KITCHEN, TEXTILES = ("Cucina", "Brasa"), ("Lana", "Weft & Warp")
SPORT, OFFICE, SOUND = ("Alpina", "Trailhead"), ("Papyr", "Scriba"), ("Sonora", "Kvint")

KINDS = (
    Kind("desk", "{material} Desk {size}", FURNITURE, "Has room for a lamp and a monitor.", WOOD, sizes=("120 cm", "160 cm")),
    Kind("standing desk", "Standing Desk {material}", FURNITURE, "Moves up at the push of a button.", WOOD),
    Kind("desk lamp", "{colour} Desk Lamp", LIGHTS, "For every office.", colours=("Black", "White", "Brass")),
    Kind("floor lamp", "{colour} Floor Lamp", LIGHTS, "Stands beside any sofa or armchair.", colours=("Black", "White")),
    Kind("pendant lamp", "Pendant Lamp {colour}", LIGHTS, "Hangs above the dining table.", colours=("Copper", "White")),
    Kind("bulb", "LED Bulb {size}", LIGHTS, "Fits desk lamps and floor lamps.", sizes=("E14", "E27")),
    Kind("office chair", "Office Chair {colour}", FURNITURE, "Goes with all our desks.", colours=("Black", "Grey", "Red")),
    Kind("dining chair", "{material} Dining Chair", FURNITURE, "Comes in sets with a dining table.", WOOD),
    Kind("armchair", "{colour} Armchair", FURNITURE, "To read in, beside a floor lamp.", colours=("Green", "Grey", "Blue")),
    Kind("dining table", "{material} Dining Table {size}", FURNITURE, "Seats six chairs.", WOOD, sizes=("180 cm", "220 cm")),
    Kind("coffee table", "{material} Coffee Table", FURNITURE, "A low table for the sofa.", (*WOOD, *GLASS)),
    Kind("bookcase", "{material} Bookcase", FURNITURE, "Five shelves for books.", WOOD),
    Kind("wall shelf", "{material} Wall Shelf {size}", FURNITURE, "Screws are included.", WOOD, sizes=("60 cm", "90 cm")),
    Kind("bed", "{material} Bed {size}", FURNITURE, "Without mattress.", WOOD, sizes=("140 x 200", "180 x 200")),
    Kind("mattress", "Mattress {size}", TEXTILES, "For our beds.", sizes=("140 x 200", "180 x 200")),
    Kind("sofa", "{colour} Sofa", FURNITURE, "Three seats, with two cushions.", colours=("Green", "Grey", "Blue")),
    Kind("cushion", "{material} Cushion {colour}", TEXTILES, "For sofa and armchair.", ("Linen", "Wool"), ("Green", "Red", "White")),
    Kind("blanket", "{material} Blanket {colour}", TEXTILES, "Warm on every bed.", ("Wool", "Cotton"), ("Grey", "Red", "Blue")),
    Kind("curtain", "{material} Curtains {colour}", TEXTILES, "A pair, 250 cm long.", ("Linen", "Cotton"), ("White", "Grey")),
    Kind("rug", "{material} Rug {size}", TEXTILES, "For below the coffee table.", ("Wool", "Jute"), sizes=("80 x 150", "160 x 230")),
    Kind("towel", "Bath Towel {colour}", TEXTILES, "Pure cotton.", ("Cotton",), ("White", "Blue", "Green")),
    Kind("frying pan", "{material} Frying Pan {size}", KITCHEN, "For gas and induction.", ("Iron", "Steel"), sizes=("24 cm", "28 cm")),
    Kind("saucepan", "{material} Saucepan", KITCHEN, "With a glass lid.", ("Steel", "Copper")),
    Kind("kettle", "Electric Kettle {colour}", KITCHEN, "Boils water for tea in two minutes.", colours=("Black", "White", "Red")),
    Kind("teapot", "{material} Teapot", KITCHEN, "With a strainer.", ("Glass", "Porcelain", "Iron")),
    Kind("coffee maker", "Coffee Maker {colour}", KITCHEN, "Filter coffee for ten cups.", colours=("Black", "Steel")),
    Kind("espresso machine", "Espresso Machine {colour}", KITCHEN, "Grinds the coffee beans itself.", colours=("Black", "Red")),
    Kind("coffee grinder", "Coffee Grinder", KITCHEN, "For espresso and filter coffee."),
    Kind("mug", "{material} Mug {colour}", KITCHEN, "For coffee or tea.", ("Porcelain",), ("White", "Blue", "Green")),
    Kind("knife", "Chef's Knife {size}", KITCHEN, "Forged steel, oak handle.", STEEL, sizes=("16 cm", "20 cm")),
    Kind("cutting board", "{material} Cutting Board", KITCHEN, "Kind to every knife.", WOOD),
    Kind("wine glass", "Wine Glasses {size}", KITCHEN, "Dishwasher safe.", GLASS, sizes=("set of 4", "set of 6")),
    Kind("notebook", "Notebook {size} {colour}", OFFICE, "Ruled, for pens and pencils.", colours=("Black", "Red"), sizes=("A4", "A5")),
    Kind("fountain pen", "Fountain Pen {colour}", OFFICE, "With a bottle of ink.", colours=("Black", "Blue")),
    Kind("pencil", "Pencils {size}", OFFICE, "Cedar wood.", sizes=("HB", "2B")),
    Kind("desk organiser", "{material} Desk Organiser", OFFICE, "For pens and a notebook.", WOOD),
    Kind("tent", "Tent {size} {colour}", SPORT, "Weighs two kilos, with a bag.", colours=("Green", "Orange"), sizes=("2 persons", "4 persons")),
    Kind("sleeping bag", "Sleeping Bag {colour}", SPORT, "Warm in any tent.", ("Down",), ("Blue", "Green")),
    Kind("backpack", "Backpack {size} {colour}", SPORT, "With a pocket for a bottle.", colours=("Black", "Green"), sizes=("20 l", "45 l")),
    Kind("water bottle", "Water Bottle {material} {size}", SPORT, "Fits any backpack.", STEEL, sizes=("0.5 l", "1 l")),
    Kind("hiking boots", "Hiking Boots {size}", SPORT, "For men and women.", ("Leather",), sizes=("39", "42", "45")),
    Kind("head torch", "Head Torch", SPORT, "A lamp for tent and trail."),
    Kind("headphones", "{size} Headphones {colour}", SOUND, "With a case.", colours=("Black", "White"), sizes=("Wireless", "Studio")),
    Kind("speaker", "Wireless Speaker {colour}", SOUND, "Plays for ten hours.", colours=("Black", "Blue")),
    Kind("record player", "Record Player {material}", SOUND, "With a speaker output.", ("Walnut", "Black")),
)  # fmt: skip


def make_items() -> Mapping[str, tuple[Item, Product]]:
    """Return the products by sku."""
    items = dict[str, tuple[Item, Product]]()
    for kind in KINDS:
        for brand, material, colour, size in combine(kind.brands, kind.materials, kind.colours, kind.sizes):
            sku = f"sku-{len(items):03}"
            title = " ".join(kind.title.format(material=material, colour=colour, size=size).split())
            values = {"material": material, "colour": colour, "size": size}
            attributes = {name: value for name, value in values.items() if value}
            product = make_product(
                sku,
                title,
                brand=brand,
                description=kind.description,
                attributes=attributes,
                number=len(items),
            )
            items[sku] = Item(kind.name, brand, material, colour, size), product
    return items


Judge = Callable[[Item], int]
"""Returns the grade of an item for a search: 3 what was wanted, 2 nearly, 1 of some use, 0 of none."""


def wants(kind: str, nearly: tuple[str, ...] = (), **values: str) -> Judge:
    """Return the judge of someone who wants a kind of thing, with certain values.

    Args:
        kind: what is wanted.
        nearly: kinds that would do.
        values: of the fields of `Item`.
    """

    def judge(item: Item) -> int:
        fitting = all(getattr(item, name) == value for name, value in values.items())
        if item.kind == kind:
            return 3 if fitting else 1
        return 2 if item.kind in nearly and fitting else 0

    return judge


TABLES, LAMPS = ("coffee table",), ("desk lamp", "floor lamp", "pendant lamp")
SEARCHES: Mapping[str, Judge] = {
    "desk": wants("desk", ("standing desk",)),
    "oak desk": wants("desk", ("standing desk",), material="Oak"),
    "walnut desk 160 cm": wants("desk", material="Walnut", size="160 cm"),
    "standing desk": wants("standing desk"),
    "desk lamp": wants("desk lamp"),
    "desk lamps": wants("desk lamp"),
    "black desk lamp": wants("desk lamp", colour="Black"),
    "lumo desk lamp": wants("desk lamp", brand="Lumo"),
    "lamp": lambda item: 3 if item.kind in LAMPS else 0,
    "floor lamp white": wants("floor lamp", colour="White"),
    "pendant lamp": wants("pendant lamp"),
    "led bulb e27": wants("bulb", size="E27"),
    "office chair": wants("office chair"),
    "red office chair": wants("office chair", colour="Red"),
    "chairs": lambda item: 3 if item.kind in {"office chair", "dining chair"} else 0,
    "beech dining chair": wants("dining chair", material="Beech"),
    "green armchair": wants("armchair", colour="Green"),
    "dining table oak": wants("dining table", material="Oak"),
    "table": lambda item: 3 if item.kind in {"dining table", "coffee table"} else 0,
    "glass coffee table": wants("coffee table", material="Glass"),
    "coffee": lambda item: 3 if item.kind in {"coffee maker", "coffee grinder", "coffee table"} else 0,
    "coffee mak": wants("coffee maker"),
    "bookcases": wants("bookcase"),
    "wall shelf 90 cm": wants("wall shelf", size="90 cm"),
    "nordwald bed": wants("bed", brand="Nordwald"),
    "bed 180 x 200": wants("bed", size="180 x 200"),
    "mattress 140": wants("mattress", size="140 x 200"),
    "grey sofa": wants("sofa", colour="Grey"),
    "linen cushion": wants("cushion", material="Linen"),
    "wool blanket": wants("blanket", material="Wool"),
    "white curtains": wants("curtain", colour="White"),
    "jute rug": wants("rug", material="Jute"),
    "towels blue": wants("towel", colour="Blue"),
    "iron frying pan": wants("frying pan", material="Iron"),
    "fryin pan 28": wants("frying pan", size="28 cm"),
    "copper saucepan": wants("saucepan", material="Copper"),
    "kettle": wants("kettle"),
    "eletric kettle": wants("kettle"),
    "tea": lambda item: {"teapot": 3, "kettle": 1, "mug": 1}.get(item.kind, 0),
    "espresso machine red": wants("espresso machine", colour="Red"),
    "chef's knife": wants("knife"),
    "wine glasses": wants("wine glass"),
    "notebook a5": wants("notebook", size="A5"),
    "founten pen": wants("fountain pen"),
    "pen": wants("fountain pen", ("pencil",)),
    "tent for 4 persons": wants("tent", size="4 persons"),
    "sleeping bag": wants("sleeping bag"),
    "trailhead backpack": wants("backpack", brand="Trailhead"),
    "wireless headphones": wants("headphones", size="Wireless"),
    "sonora speaker": wants("speaker", brand="Sonora"),
}
