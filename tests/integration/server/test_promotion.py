"""The promotion of a shadow model by the API. It changes the database, so no other test shares it."""

from storage.control.models import ModelStore, NewModel
from storage.control.shadows import NewShadow, ShadowStore
from storage.database.engine import Database
from tests.integration.server.conftest import Served

MODELS = "/api/v1/streams/payments/models"


def test_a_model_is_promoted_and_rolled_back(served: Served) -> None:
    client = served.client()
    store_shadow(served)
    versions = [row["version"] for row in client.get(MODELS).json()["items"] if row["state"] == "shadow"]
    refused = client.post(f"{MODELS}/{versions[0]}/promote")
    assert (refused.status_code, "stays the shadow model" in refused.json()["detail"]) == (409, True)
    promoted = client.post(f"{MODELS}/{versions[0]}/promote", json={"force": True})
    assert (promoted.status_code, promoted.json()["version"]) == (200, versions[0])
    states = {row["version"]: row["state"] for row in client.get(MODELS).json()["items"]}
    assert (states[versions[0]], states[1]) == ("active", "retired")
    back = client.post(f"{MODELS}/rollback")
    assert (back.status_code, back.json()["version"]) == (200, 1)


def store_shadow(served: Served) -> None:
    """Store a copy of the active model as a shadow, as a refit does."""
    with Database(served.settings.database.url) as db:
        active = next(iter(ModelStore(db).list(1)))
        model = NewModel(
            kind=active.kind,
            artefact=ModelStore(db).artefact(active.id),
            feature_names=active.feature_names,
            summary=active.summary,
        )
        ShadowStore(db).start(1, model, NewShadow(percentile=99.0, threshold=9.0, due_after_us=None))
