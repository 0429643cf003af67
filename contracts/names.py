"""Names of people and companies in one form, so that spellings of a name are equal.

The form has the letters and digits of NFKD alone, without accents and case, in words that are sorted: `Doe,
John` and `JOHN DOE` are equal. It finds no other spellings, such as transliterations of another script.
"""

from unicodedata import category, combining, normalize


def normalize_name(text: str) -> str:
    """Return a name in its one form.

    Raises:
        ValueError: it has no letter or digit, or a hidden character; the message is a code of what is wrong.
    """
    if any(category(each) in ("Cc", "Cf") for each in text):
        raise ValueError("HIDDEN_CHARACTER")
    decomposed = normalize("NFKD", text).casefold()
    letters = (each for each in decomposed if not combining(each))
    words = "".join(each if each.isalnum() else " " for each in letters).split()
    if not words:
        raise ValueError("EMPTY")
    return " ".join(sorted(words))
