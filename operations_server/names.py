"""Names as operators write them."""


def shorten_name(full_name: str) -> str:
    """Return the last part of a name: of `diptych.ordering.v1.CancelOrder`, `CancelOrder`."""
    return full_name.rpartition(".")[2]
