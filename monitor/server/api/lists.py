"""Pages of the rows of a view, as the resources of the API answer them."""

from typing import Any

from monitor.server.api.parameters import PageParameters, TimePageParameters, resolve_time
from monitor.server.context import ServerContext
from monitor.server.paging import decode_cursor, encode_cursor
from monitor.server.problems import ApiError
from storage.queries.history_views import HistoryView
from storage.queries.streams import find_stream_id
from storage.queries.view_pages import PageRequest, read_latest_us, read_view_page

_TEXT_KEYS = frozenset({"notification_history"})
"""Views whose last key column is a text."""


def read_list(
    context: ServerContext, view: HistoryView, parameters: PageParameters, *, stream: str | None = None
) -> dict[str, Any]:
    """Return a page of a view.

    Args:
        context: The shared values.
        view: The view.
        parameters: Limit, cursor and times; each other parameter is the value of the column with its name.
        stream: The stream of the path; it must exist.

    Raises:
        ApiError: The stream does not exist (404), or the cursor is not valid (422).
    """
    paging = set(TimePageParameters.model_fields)
    equals = parameters.model_dump(exclude=paging, exclude_none=True)
    if stream is not None:
        equals["stream"] = stream
    after = None if parameters.cursor is None else decode_cursor(parameters.cursor, _key_types(view))
    if stream is not None:
        require_stored(context, stream)
    with context.reads.read() as connection:
        request = PageRequest(view=view, equals=equals)
        since_us = until_us = None
        if isinstance(parameters, TimePageParameters):
            has_duration = isinstance(parameters.since, str) or isinstance(parameters.until, str)
            latest_us = read_latest_us(connection, request) if has_duration else None
            since_us = resolve_time(parameters.since, latest_us)
            until_us = resolve_time(parameters.until, latest_us)
        page = read_view_page(
            connection,
            PageRequest(
                view=view, equals=equals, since_us=since_us, until_us=until_us, after=after, limit=parameters.limit
            ),
        )
    return {"items": page.rows, "next": None if page.next_key is None else encode_cursor(page.next_key)}


def require_stored(context: ServerContext, stream: str) -> int:
    """Return the id of a stream.

    Raises:
        ApiError: It does not exist (404).
    """
    with context.reads.read() as connection:
        stream_id = find_stream_id(connection, stream)
    if stream_id is None:
        raise ApiError(404, f"there is no stream {stream!r}; GET /api/v1/streams lists them")
    return stream_id


def _key_types(view: HistoryView) -> list[type]:
    types: list[type] = [int] * len(view.key_columns)
    if view.name in _TEXT_KEYS:
        types[-1] = str
    return types
