"""Streams: their health, and their models."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from monitor.health.stream_health import StreamHealth, judge_streams
from monitor.server.access.person import Reader
from monitor.server.api.lists import require_stored
from monitor.server.api.parameters import StreamName
from monitor.server.context import Context, ServerContext
from monitor.server.etag import CachedRoute
from storage.queries.health import read_health_facts
from storage.queries.model_facts import ModelFacts, read_models

router = APIRouter(tags=["streams"], route_class=CachedRoute)


class StreamItem(BaseModel):
    """A stream with its health. Times are in microseconds since 1970 (UTC)."""

    name: str = Field(description="Name of the stream.")
    configured: bool = Field(description="Whether the configuration of this server has the stream.")
    health: StreamHealth


class StreamList(BaseModel):
    """The streams of the database."""

    items: list[StreamItem] = Field(description="The streams by name.")


class ModelList(BaseModel):
    """The models of a stream. Times are in microseconds since 1970 (UTC)."""

    items: list[ModelFacts] = Field(description="The models, newest version first.")


@router.get("/streams")
def list_streams(context: Context, _person: Reader) -> StreamList:
    """List the streams that the database knows, with their health."""
    found = judge_streams(read_health_facts(context.reads))
    return StreamList(items=[_to_item(context, health) for health in found.values()])


@router.get("/streams/{name}")
def show_stream(context: Context, _person: Reader, name: StreamName) -> StreamItem:
    """Show one stream with its health."""
    return _to_item(context, _judge(context, name))


@router.get("/streams/{name}/health")
def show_health(context: Context, _person: Reader, name: StreamName) -> StreamHealth:
    """Show the health of a stream: its state with the times that prove it. Without a proof it is `unknown`."""
    return _judge(context, name)


@router.get("/health")
def list_health(context: Context, _person: Reader) -> list[StreamHealth]:
    """List the health of all streams."""
    return list(judge_streams(read_health_facts(context.reads)).values())


@router.get("/streams/{name}/models")
def list_models(context: Context, _person: Reader, name: StreamName) -> ModelList:
    """List the models of a stream with their figures, and the agreement of a shadow model with the active one."""
    stream_id = require_stored(context, name)
    with context.reads.read() as connection:
        return ModelList(items=read_models(connection, stream_id))


def _judge(context: ServerContext, name: str) -> StreamHealth:
    require_stored(context, name)
    return judge_streams(read_health_facts(context.reads, [name]))[name]


def _to_item(context: ServerContext, health: StreamHealth) -> StreamItem:
    return StreamItem(name=health.stream, configured=health.stream in context.settings.streams, health=health)
