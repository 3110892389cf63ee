"""Reading of secrets from separate files, named by keys that end in _file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.channels.base import ChannelSection
from config.channels.registration import CHANNEL_TYPES
from config.document import Document, KeyPath
from config.environment import Problems
from config.masking import Secret

_SUFFIX = "_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class _SecretFileReference:
    holder: dict[str, Any]
    path: KeyPath
    key: str
    keeps_file_key: bool


def read_secret_files(document: Document) -> Problems:
    """Replace each secret file key by the content of the file. Modifies the document's values.

    Returns:
        The problems, each with its key path.
    """
    problems: Problems = []
    for reference in list(_find_references(document.values)):
        problem = _resolve_reference(reference, document)
        if problem is not None:
            problems.append(((*reference.path, reference.key + _SUFFIX), problem))
    return problems


def _find_references(values: dict[str, Any]) -> Iterator[_SecretFileReference]:
    database = _get_mapping(values, "database")
    if "url_file" in database:
        yield _SecretFileReference(holder=database, path=("database",), key="url", keeps_file_key=True)
    channels = _get_mapping(values, "notify", "channels")
    for name in channels:
        channel = _get_mapping(channels, name)
        kind = CHANNEL_TYPES.get(str(channel.get("type")), ChannelSection)
        path: KeyPath = ("notify", "channels", name)
        for key in kind.secret_keys:
            if key + _SUFFIX in channel:
                yield _SecretFileReference(holder=channel, path=path, key=key, keeps_file_key=True)
        for key in kind.secret_mappings:
            yield from _find_free_references(_get_mapping(channel, key), (*path, key))
    heartbeats = _get_mapping(values, "notify").get("heartbeats")
    yield from _find_list_references(heartbeats, ("notify", "heartbeats"), "url")
    server = _get_mapping(values, "server")
    if "link_secret_file" in server:
        yield _SecretFileReference(holder=server, path=("server",), key="link_secret", keeps_file_key=True)
    yield from _find_list_references(server.get("tokens"), ("server", "tokens"), "token")
    # The client's own options ssl_cafile, ssl_certfile, ssl_keyfile and ssl_crlfile do not end in _file.
    yield from _find_free_references(_get_mapping(values, "kafka", "client"), ("kafka", "client"))


def _find_list_references(entries: Any, path: KeyPath, key: str) -> Iterator[_SecretFileReference]:
    """Yield the secret files of the sections of a list."""
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and key + _SUFFIX in entry:
            yield _SecretFileReference(holder=entry, path=(*path, number), key=key, keeps_file_key=True)


def _find_free_references(holder: dict[str, Any], path: KeyPath) -> Iterator[_SecretFileReference]:
    """Yield the secret files of a section with arbitrary keys."""
    for name in list(holder):
        if name.endswith(_SUFFIX) and name != _SUFFIX:
            yield _SecretFileReference(holder=holder, path=path, key=name.removesuffix(_SUFFIX), keeps_file_key=False)


def _get_mapping(values: Any, *path: str) -> dict[str, Any]:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def _resolve_reference(reference: _SecretFileReference, document: Document) -> str | None:
    """Read one secret into its key. Return the problem, or None."""
    holder, key = reference.holder, reference.key
    name = holder[key + _SUFFIX]
    if not reference.keeps_file_key:
        del holder[key + _SUFFIX]
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        return "must be the path of a file that holds the secret"
    if holder.get(key) is not None:
        plain_wins = _environment_overrides(document, (*reference.path, key), (*reference.path, key + _SUFFIX))
        if plain_wins is not False:
            return None if plain_wins else f"is given together with {key}; leave one of them out"
    secret, problem = _read_secret(name)
    if problem is None:
        holder[key] = secret
        document.places[*reference.path, key] = f"secret file {name}"
    return problem


def _read_secret(name: str) -> tuple[Secret, str | None]:
    secret = ""
    try:
        secret = Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        problem: str | None = f"{name} cannot be read: {error.strerror}; name a file that this user may read"
    except UnicodeDecodeError:
        problem = f"{name} is not UTF-8 text; save the secret as text"
    else:
        problem = None if secret else f"{name} is empty; write the secret into it"
    return Secret(secret), problem


def _environment_overrides(document: Document, plain: KeyPath, file: KeyPath) -> bool | None:
    """Return True if only the plain key is set by the environment, False if only the file key, otherwise None."""
    plain_set, file_set = (_is_from_environment(document, path) for path in (plain, file))
    return None if plain_set == file_set else plain_set


def _is_from_environment(document: Document, path: KeyPath) -> bool:
    prefixes = (path[:length] for length in range(len(path), -1, -1))
    places = (document.places[key] for key in prefixes if key in document.places)
    return next(places, "").startswith("environment variable")
