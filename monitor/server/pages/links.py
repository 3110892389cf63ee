"""`/links/{token}`: a signed link of a mail. GET shows the incident and a button, POST acts.

The token is the right to act: no login and no form token is needed. Programs that check mails open every link, so that
GET and HEAD change nothing. The page shows no keys, no features and no summary, which may name them.
"""

from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from config.errors import ConfigError
from monitor.control_plane.verbs import act
from monitor.daemon.rules import build_stream_rules
from monitor.daemon.stored_sizes import follow_stored_sizes
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb
from monitor.notify.signed_links import LinkClaim, LinkRefused, read_link
from monitor.server.context import Context, ServerContext
from monitor.server.pages.render import PageFrame, render_page
from storage.control.database_id import DatabaseId
from storage.control.used_links import LinkUse, is_link_used
from storage.control.verbs import VerbFacts, VerbStore
from storage.database.engine import Database

router = APIRouter()

Outcome = Literal["confirm", "done", "unchanged", "refused", "used", "expired", "forged"]

_STATUSES: dict[Outcome, int] = {"refused": 409, "used": 410, "expired": 410, "forged": 404}
_HEADERS = {"Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPage:
    """The content of the page of a link.

    Attributes:
        outcome: The state of the link, or the result of its verb.
        claim: The permission of the link; None if it is not valid.
        facts: The incident; None if the link is not valid.
        reason: The reason of a refusal.
    """

    outcome: Outcome
    claim: LinkClaim | None = None
    facts: VerbFacts | None = None
    reason: str = ""


@router.api_route("/links/{token}", methods=["GET", "HEAD"])
async def show_link(token: str, context: Context) -> Response:
    """Show the incident of a link and its button; nothing changes."""
    return _render(await run_in_threadpool(look_at_link, context, token))


@router.post("/links/{token}")
async def use_link(token: str, context: Context) -> Response:
    """Apply the verb of a link, once."""
    return _render(await run_in_threadpool(act_on_link, context, token))


def look_at_link(context: ServerContext, token: str) -> LinkPage:
    """Return the page of a link without a change."""
    page = _read_link(context, context.reads, token)
    if page.claim is not None and page.outcome == "confirm" and is_link_used(context.reads, page.claim.id):
        return LinkPage(outcome="used", claim=page.claim, facts=page.facts)
    return page


def act_on_link(context: ServerContext, token: str) -> LinkPage:
    """Apply the verb of a link; the transaction of the verb records that the link has acted."""
    page = _read_link(context, context.reads, token)
    claim, facts = page.claim, page.facts
    if page.outcome != "confirm" or claim is None or facts is None:
        return page
    db = context.writes
    request = VerbRequest(verb=Verb(claim.verb), who=claim.who, note=None)
    use = LinkUse(id=claim.id, expires_at_us=claim.expires_at_us)
    try:
        rules = build_stream_rules(follow_stored_sizes(db, context.settings), facts.stream)
        result = act(db, claim.incident_id, request, rules, now_us=db.now_us(), link=use)
    except ConfigError as error:
        return LinkPage(outcome="refused", claim=claim, facts=facts, reason=str(error))
    outcome: Outcome = "used" if result.outcome == "used" else "done" if result.outcome == "done" else "unchanged"
    return LinkPage(outcome=outcome, claim=claim, facts=VerbStore(db).facts(claim.incident_id))


def _read_link(context: ServerContext, db: Database, token: str) -> LinkPage:
    """Return the permission of a link and its incident, or why there is none."""
    try:
        claim = read_link(token, context.server.link_secrets, now_us=db.now_us())
    except LinkRefused as error:
        return LinkPage(outcome=error.reason)
    facts = VerbStore(db).facts(claim.incident_id)
    if facts is None or DatabaseId(db).read() != claim.database_id:
        return LinkPage(outcome="forged")
    if facts.stream not in context.settings.streams:
        reason = f"the stream {facts.stream} is not in the configuration of this server any more"
        return LinkPage(outcome="refused", claim=claim, facts=facts, reason=reason)
    return LinkPage(outcome="confirm", claim=claim, facts=facts)


def _render(page: LinkPage) -> Response:
    answer = render_page(
        "link.html",
        PageFrame(),
        view="link",
        title="Link of a mail",
        status=_STATUSES.get(page.outcome, 200),
        outcome=page.outcome,
        verb=None if page.claim is None else page.claim.verb,
        who=None if page.claim is None else page.claim.who,
        expires_at_us=None if page.claim is None else page.claim.expires_at_us,
        incident=None if page.facts is None else page.facts.incident,
        stream=None if page.facts is None else page.facts.stream,
        reason=page.reason,
    )
    answer.headers.update(_HEADERS)
    return answer
