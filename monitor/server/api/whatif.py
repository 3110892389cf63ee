"""`whatif`: the back-test of stored windows under other thresholds and budgets."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from config.units import parse_rate
from monitor.backtest import Outcome
from monitor.backtest.run import DEFAULT_FALSE_ALARMS, DEFAULT_PERCENTILES
from monitor.server.access.person import Reader
from monitor.server.api.parameters import StreamName, TimeOrDuration
from monitor.server.api.rows import Time
from monitor.server.context import Context, ServerContext
from monitor.server.etag import CachedRoute
from monitor.server.problems import ApiError
from monitor.server.trials import TrialRequest
from storage.queries.streams import read_basis

router = APIRouter(tags=["streams"], route_class=CachedRoute)

_MAX_VALUES = 16
_MAX_CELLS = 64
_RATE = r"^[1-9][0-9]{0,5}/(hour|day|week|month|year)$"

Percentile = Annotated[float, Field(ge=50, lt=100)]
Budget = Annotated[str, Field(pattern=_RATE)]


class WhatIfParameters(BaseModel):
    """The grid of a back-test."""

    model_config = ConfigDict(extra="forbid")

    percentile: Annotated[list[Percentile], Field(max_length=_MAX_VALUES)] = Field(
        default=[], description="Percentiles; by default 99, 99.5, 99.9 and that of the stream."
    )
    false_alarms: Annotated[list[Budget], Field(max_length=_MAX_VALUES)] = Field(
        default=[], description="Budgets such as 1/week; by default 1/day, 1/week and that of the stream."
    )
    since: TimeOrDuration | None = Field(
        default=None, description="The first window: a time, or a duration back from the latest one."
    )


class WhatIfResult(BaseModel):
    """The outcomes of the cells; percentiles vary slowest."""

    stream: str
    begin: Time = Field(description="Start of the first judged window.")
    end: Time = Field(description="End of the last judged window.")
    tick: Time | None = Field(description="The last tick of the stream that the outcomes are of.")
    revision: int = Field(description="A number that grows with each change of the calibration or the models.")
    cells: list[Outcome]


class WhatIfProgress(BaseModel):
    """The progress of a back-test that goes on."""

    done: int = Field(description="Number of windows that were replayed.")
    total: int = Field(description="Their total number; 0 before the first one.")


@router.get("/streams/{name}/whatif", responses={202: {"model": WhatIfProgress}}, response_model=WhatIfResult)
def whatif(
    context: Context, _person: Reader, name: StreamName, parameters: Annotated[WhatIfParameters, Query()]
) -> WhatIfResult | JSONResponse:
    """Replay the stored windows under other percentiles and budgets, as `outrider backtest` does.

    202 with the progress if it takes longer than 20 s: ask again. The result is kept until the next tick. 409 without
    windows to replay; 429 if many other back-tests wait.
    """
    request = _build_request(context, name, parameters)
    with context.one_of_few_waits() as may_wait:
        trial = context.trials.wait(request, context.trial_wait_s if may_wait else 0.0)
    if trial.is_running:
        progress = WhatIfProgress(done=trial.done, total=trial.total)
        return JSONResponse(progress.model_dump(), status_code=202, headers={"Retry-After": "2"})
    if trial.error is not None:
        if trial.is_refused:
            raise ApiError(429, trial.error, headers={"Retry-After": "60"})
        raise ApiError(409, trial.error)
    tick_us, revision = request.basis
    return WhatIfResult(
        stream=name,
        begin=trial.begin_us,
        end=trial.end_us,
        tick=tick_us,
        revision=revision,
        cells=[cell.outcome for cell in trial.cells],
    )


def _build_request(context: ServerContext, name: str, parameters: WhatIfParameters) -> TrialRequest:
    """Return the back-test, with the defaults of `outrider backtest`."""
    stream = context.settings.streams.get(name)
    if stream is None:
        raise ApiError(404, f"there is no stream {name!r} in the configuration of this server")
    with context.reads.read() as connection:
        basis = read_basis(connection, name)
    if basis is None:
        raise ApiError(404, f"there is no stream {name!r}; GET /api/v1/streams lists them")
    percentiles = parameters.percentile or sorted({*DEFAULT_PERCENTILES, stream.threshold.percentile})
    budgets = parameters.false_alarms or list(DEFAULT_FALSE_ALARMS)
    own = stream.alerts.false_alarms
    if not parameters.false_alarms and own.per_week not in {parse_rate(each).per_week for each in budgets}:
        budgets.append(str(own))
    if len(percentiles) * len(budgets) > _MAX_CELLS:
        raise ApiError(422, f"percentile, false_alarms: more than {_MAX_CELLS} pairs; ask for fewer")
    since = parameters.since
    return TrialRequest(
        stream=name,
        since=since if since is None or isinstance(since, str) else since.isoformat(),
        percentiles=tuple(dict.fromkeys(percentiles)),
        false_alarms=tuple(dict.fromkeys(budgets)),
        basis=basis,
    )
