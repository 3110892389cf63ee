"""Promotion and roll-back of models."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from config.errors import ConfigError, ModelError
from monitor.daemon.model_changes import UnknownModel, promote_version, roll_back
from monitor.server.access.person import Promoter
from monitor.server.api.lists import require_stored
from monitor.server.api.parameters import ModelVersion, StreamName
from monitor.server.api.rows import Time
from monitor.server.context import Context, ServerContext
from monitor.server.problems import ApiError
from storage.control.models import ModelRecord

router = APIRouter(prefix="/streams/{name}/models", tags=["models"])


class PromoteBody(BaseModel):
    """The body of a promotion."""

    model_config = ConfigDict(extra="forbid")

    force: bool = Field(default=False, description="Promote the model without a passed gate.")


class ActiveModel(BaseModel):
    """The active model after a promotion or a roll-back."""

    version: int
    kind: str
    valid_from: Time | None = Field(description="The first window that it scores.")


@router.post("/rollback")
def roll_back_model(context: Context, _person: Promoter, name: StreamName) -> ActiveModel:
    """Make the previously active model active again. 409 if there is none."""
    _require_stream(context, name)
    try:
        return _to_answer(roll_back(context.writes, context.settings, name))
    except (ConfigError, ModelError) as error:
        raise ApiError(409, str(error)) from None


@router.post("/{version}/promote")
def promote_model(
    context: Context, _person: Promoter, name: StreamName, version: ModelVersion, body: PromoteBody | None = None
) -> ActiveModel:
    """Make a model active. 409 if it is active already, has other features, or does not pass the gate."""
    _require_stream(context, name)
    force = body is not None and body.force
    try:
        return _to_answer(promote_version(context.writes, context.settings, name, version, force=force))
    except UnknownModel as error:
        raise ApiError(404, str(error)) from None
    except (ConfigError, ModelError) as error:
        raise ApiError(409, str(error)) from None


def _require_stream(context: ServerContext, name: str) -> None:
    require_stored(context, name)
    if name not in context.settings.streams:
        raise ApiError(409, f"stream {name} is not in the configuration of this server; add it to change its models")


def _to_answer(model: ModelRecord) -> ActiveModel:
    return ActiveModel(version=model.version, kind=model.kind, valid_from=model.valid_from_us)
