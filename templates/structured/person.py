"""What is read out of a text. Edit this type: prompt, grammar and check follow it."""

from dataclasses import dataclass, fields


@dataclass
class Person:
    """A field with a default may be left out by the model."""

    name: str
    age: int | None = None
    city: str | None = None

    def made_up(self, text: str) -> list[str]:
        """The fields whose values do not stand in the text. A grammar keeps to the form; only this sees the content."""
        said = text.casefold()
        values = {name: getattr(self, name) for name in NAMES}
        return [name for name, value in values.items() if value is not None and str(value).casefold() not in said]


NAMES = [field.name for field in fields(Person)]
