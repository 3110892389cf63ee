"""`/api/v1/streams`: the streams of the database."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from monitor.server.access.person import Reader
from monitor.server.context import Context
from storage.queries.streams import read_stream_names

router = APIRouter(tags=["streams"])


class StreamList(BaseModel):
    """The names of the streams."""

    streams: list[str] = Field(description="Names, sorted.")


@router.get("/streams")
def list_streams(context: Context, _person: Reader) -> StreamList:
    """List the streams that the database knows."""
    with context.reads.read() as connection:
        return StreamList(streams=read_stream_names(connection))
