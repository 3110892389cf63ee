"""Drift of the features of a stream: all statistics of the tested horizons, and histograms before and after."""

import math
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from config.time_format import DAY_US
from monitor.models.feature_histograms import load_feature_histograms
from monitor.server.access.person import Reader
from monitor.server.api.lists import require_stored
from monitor.server.api.parameters import BigInt, StreamName, TimeOrDuration, resolve_time
from monitor.server.api.rows import Time
from monitor.server.context import Context
from monitor.server.etag import CachedRoute
from monitor.server.problems import ApiError
from monitor.statistics.feature_histograms import FeatureHistogram
from storage.queries.drift_cells import Float16, list_horizons, read_drift_cells
from storage.queries.streams import read_judged_until

router = APIRouter(prefix="/streams/{name}", tags=["streams"], route_class=CachedRoute)

_MAX_RANGE_US = 31 * DAY_US
_MAX_HORIZONS = 500
Numbers = list[float | None]


class HorizonList(BaseModel):
    """The lengths of the tested horizons."""

    horizons_us: list[int] = Field(description="Lengths in microseconds, ascending.")


class DriftCellParameters(BaseModel):
    """The horizons to show."""

    model_config = ConfigDict(extra="forbid")

    horizon_us: BigInt = Field(description="Length of the horizon, one of `horizons`.")
    since: TimeOrDuration | None = Field(default=None, description="Horizons that end later. Default: the last 7 days.")
    until: TimeOrDuration | None = Field(default=None, description="Horizons that end at this time or before.")
    limit: int = Field(default=200, ge=1, le=_MAX_HORIZONS, description="The most horizons, the last ones.")


class DriftCellRow(BaseModel):
    """The J statistics of one tested horizon, to three digits."""

    window_start: Time
    window_end: Time
    model_version: int
    limit: float = Field(description="The value that |z| must exceed.")
    statistics: list[str] = Field(description="Name of each statistic, (J,).")
    features: list[str] = Field(description="Feature of each statistic, (J,); empty for the whole stream.")
    z: Numbers = Field(description="Change in units of its standard error, (J,).")
    effect: Numbers = Field(description="Change in units of the training deviation, (J,).")
    before: Numbers = Field(description="Mean over the baseline, (J,).")
    after: Numbers = Field(description="Mean over the horizon, (J,).")


class DriftCellList(BaseModel):
    """All statistics of the tested horizons of one length, oldest first."""

    horizon_us: int
    items: list[DriftCellRow]


class HistogramParameters(BaseModel):
    """The interval whose events are compared."""

    model_config = ConfigDict(extra="forbid")

    since: TimeOrDuration = Field(description="Start of the interval: a time, or a duration before its end.")
    until: TimeOrDuration | None = Field(default=None, description="End of the interval. Default: the last window.")
    horizon_us: BigInt | None = Field(
        default=None, description="Length of a tested horizon, whose base is then `before`."
    )


class HistogramList(BaseModel):
    """The histogram of each feature in training, before and in the interval; empty without sampled windows."""

    since: Time
    until: Time
    items: list[FeatureHistogram]


@router.get("/horizons")
def show_horizons(context: Context, _person: Reader, name: StreamName) -> HorizonList:
    """List the lengths of the tested horizons."""
    stream_id = require_stored(context, name)
    with context.reads.read() as connection:
        return HorizonList(horizons_us=list_horizons(connection, stream_id))


@router.get("/drift-cells")
def list_drift_cells(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[DriftCellParameters, Query()]
) -> DriftCellList:
    """List all drift statistics of the tested horizons of one length, at most 31 days."""
    stream_id = require_stored(context, name)
    with context.reads.read() as connection:
        since_us, until_us = _resolve_range(
            read_judged_until(connection, stream_id), parameters.since or "7d", parameters.until
        )
        found = read_drift_cells(
            connection,
            stream_id,
            horizon_us=parameters.horizon_us,
            from_us=since_us,
            until_us=until_us,
            limit=parameters.limit,
        )
    return DriftCellList(
        horizon_us=parameters.horizon_us,
        items=[
            DriftCellRow(
                window_start=each.window_start_us,
                window_end=each.window_end_us,
                model_version=each.model_version,
                limit=each.limit,
                statistics=[statistic for statistic, _ in each.names],
                features=[feature for _, feature in each.names],
                z=_to_numbers(each.z),
                effect=_to_numbers(each.effect),
                before=_to_numbers(each.before),
                after=_to_numbers(each.after),
            )
            for each in found
        ],
    )


@router.get("/histograms")
def list_histograms(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[HistogramParameters, Query()]
) -> HistogramList:
    """Compare the features of an interval of at most 31 days with the time before and with the training events."""
    stream_id = require_stored(context, name)
    with context.reads.read() as connection:
        since_us, until_us = _resolve_range(
            read_judged_until(connection, stream_id), parameters.since, parameters.until
        )
    items = load_feature_histograms(
        context.reads, stream_id, from_us=since_us, until_us=until_us, horizon_us=parameters.horizon_us
    )
    return HistogramList(since=since_us, until=until_us, items=items)


def _resolve_range(latest_us: int | None, since: TimeOrDuration, until: TimeOrDuration | None) -> tuple[int, int]:
    """Return a range of event time.

    Raises:
        ApiError: The range is longer than 31 days or empty (422).
    """
    last_us = latest_us or 0
    until_us = min(resolve_time(until, last_us) or last_us, max(last_us, 0))
    since_us = max(resolve_time(since, until_us) or 0, 0)
    if until_us - since_us > _MAX_RANGE_US:
        raise ApiError(422, "since, until: the range is longer than 31 days; ask for less")
    return min(since_us, until_us), until_us


def _to_numbers(values: Float16) -> Numbers:
    rounded = np.round(values.astype(np.float64), 5).tolist()
    return [value if math.isfinite(value) else None for value in rounded]
