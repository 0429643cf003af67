"""Where in the code an error was raised, as operators need it."""

import re
from traceback import walk_tb

_APPENDED = re.compile(r"(.*) \[(\S+\.py:\d+ in [^\]\s]+)\]", re.DOTALL)


def find_place(error: BaseException, caller: str) -> str:
    """Return where an error was raised, for instance `ledger/accounts.py:12 in paid`, or an empty text.

    It is in the code that a module has called, and not in a library that this code has called.

    Args:
        error: as it was caught.
        caller: the module, for instance `projector.projection`.
    """
    frames = [
        (str(frame.f_globals.get("__name__", "")), frame, line)
        for frame, line in walk_tb(error.__traceback__)
    ]
    calls = [number for number, (module, _, _) in enumerate(frames) if module == caller]
    called = frames[calls[-1] + 1 :] if calls else frames
    package = called[0][0].partition(".")[0] if called else ""
    own = [each for each in called if each[0].partition(".")[0] == package] or frames[-1:]
    if not own:
        return ""
    module, frame, line = own[-1]
    return f"{module.replace('.', '/')}.py:{line} in {frame.f_code.co_name.strip('<>')}"


def append_place(text: str, place: str) -> str:
    """Return an error's text with its place, which `split_place` finds."""
    return f"{text} [{place}]" if place else text


def split_place(text: str) -> tuple[str, str]:
    """Return the error and the place of a text of `append_place`; the place is empty if there is none."""
    match = _APPENDED.fullmatch(text)
    return (match[1], match[2]) if match else (text, "")
