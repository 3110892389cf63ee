"""Lists of one stream: windows, thresholds, drift, calibration and outliers."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from monitor.server.access.person import Reader
from monitor.server.api import rows
from monitor.server.api.lists import read_list
from monitor.server.api.parameters import PlainText, StreamName, TimePageParameters
from monitor.server.context import Context
from monitor.server.etag import CachedRoute

router = APIRouter(prefix="/streams/{name}", tags=["streams"], route_class=CachedRoute)

WindowPage = rows.build_list_model("Window", rows.WINDOWS)
ThresholdPage = rows.build_list_model("Threshold", rows.THRESHOLDS)
DriftPage = rows.build_list_model("DriftStatistic", rows.DRIFT)
CalibrationPage = rows.build_list_model("Calibration", rows.CALIBRATION)
OutlierPage = rows.build_list_model("Outlier", rows.OUTLIERS)


class DriftParameters(TimePageParameters):
    """The parameters of the list of drift statistics."""

    horizon: PlainText | None = Field(default=None, description="Only this horizon, as configured, such as 1h.")
    statistic: PlainText | None = Field(default=None, description="Only this statistic, such as rank.")
    feature: PlainText | None = Field(default=None, description="Only this feature.")
    drifted: bool | None = Field(default=None, description="Only statistics that have drifted, or have not.")


class OutlierParameters(TimePageParameters):
    """The parameters of the list of outliers."""

    key: PlainText | None = Field(default=None, description="Only outliers of this key.")


@router.get("/windows", response_model=WindowPage)
def list_windows(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[TimePageParameters, Query()]
) -> dict[str, Any]:
    """List the judged windows."""
    return read_list(context, rows.WINDOWS, parameters, stream=name)


@router.get("/thresholds", response_model=ThresholdPage)
def list_thresholds(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[TimePageParameters, Query()]
) -> dict[str, Any]:
    """List the thresholds by the time from which they are valid."""
    return read_list(context, rows.THRESHOLDS, parameters, stream=name)


@router.get("/drift", response_model=DriftPage)
def list_drift(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[DriftParameters, Query()]
) -> dict[str, Any]:
    """List the strongest drift statistics of the tested horizons."""
    return read_list(context, rows.DRIFT, parameters, stream=name)


@router.get("/calibration", response_model=CalibrationPage)
def list_calibration(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[TimePageParameters, Query()]
) -> dict[str, Any]:
    """List the state of the calibration at each tick: promised and realised false alarms, and measured precision."""
    return read_list(context, rows.CALIBRATION, parameters, stream=name)


@router.get("/outliers", response_model=OutlierPage)
def list_outliers(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[OutlierParameters, Query()]
) -> dict[str, Any]:
    """List the outliers with their features."""
    return read_list(context, rows.OUTLIERS, parameters, stream=name)
