"""The URL of a shared study's database. It may hold a password, which is shown and written nowhere."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

HIDDEN = "***"
SHORT = 4  # characters of a parameter; what is shorter is no secret, and could be part of any word
FLAG = "--storage"


def parse(text: str) -> "URL":
    """Return the URL in its parts. Raises ValueError, which never repeats the text, where it is none or has no driver
    here."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg2")  # SQLAlchemy's own default depends on its version
        dialect: Any = url.get_dialect()
    except (ArgumentError, ValueError):  # an unknown kind of database is an ArgumentError too
        raise ValueError(
            "that is no URL of a database; write postgresql://user:password@host/database or sqlite:///file.db"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("an SQLite database that is shared needs a file: sqlite:///file.db")
    try:
        dialect.import_dbapi()
    except ImportError as error:
        remedy = ": pip install 'pipeline-autotune[postgresql]'" if error.name == "psycopg2" else ""
        raise ValueError(f"{url.drivername} needs {error.name}, which is not installed{remedy}") from None
    return url


def shown(text: str) -> str:
    """Return the URL as it may be shown: without its password, and without its parameters, which may hold another."""
    try:
        url = parse(text)
    except ValueError:
        return HIDDEN
    return url.set(query={}).render_as_string(hide_password=True) + (f"?{HIDDEN}" if url.query else "")


def scrubbed(message: str, text: str) -> str:
    """Return what a driver says, without anything from the URL ``text`` that may be secret, as it is or as the URL has
    it."""
    url = parse(text)
    values = [value for one in url.query.values() for value in ([one] if isinstance(one, str) else one)]
    values += re.findall(r"(?<==)[^&]+", text.partition("?")[2])
    passwords = [str(url.password or ""), *re.findall(r"(?<=:)[^:/?@]+(?=@)", text)]
    secrets = {text, *passwords, *(value for value in values if len(value) >= SHORT)} - {""}
    for secret in sorted(secrets, key=len, reverse=True):
        message = message.replace(secret, HIDDEN)
    return message


def without_credentials(arguments: Iterable[str]) -> list[str]:
    """Return a command's arguments, the URL after --storage as it may be shown."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] == FLAG:
            argument = shown(argument)
        elif argument.startswith(f"{FLAG}="):
            argument = f"{FLAG}={shown(argument.removeprefix(f'{FLAG}='))}"
        found.append(argument)
    return found
