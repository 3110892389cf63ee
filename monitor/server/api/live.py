"""`GET /api/v1/live`: server-sent events with the streams that have changed."""

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from monitor.server.access.person import Reader
from monitor.server.context import Context

router = APIRouter(tags=["live"])


@router.get(
    "/live",
    response_class=Response,
    responses={
        200: {
            "description": "Events `revision` with stream and revision, and `heartbeat` every 15 s.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def follow(context: Context, _person: Reader) -> Response:
    """Follow the streams: an event for each stream that has changed, and a heartbeat. 503 with too many viewers."""
    events = await context.live.follow()
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        # nginx holds events back without this header.
        headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
    )
