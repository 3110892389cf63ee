"""A slow rise through the real control plane on both databases: the judge state survives restarts."""

from storage.database.engine import Database
from tests.integration.control.simulation import SimulatedWriter, SimulationSettings, make_control_plane
from tests.integration.control.test_replay import SCENES
from tests.integration.control.worker_bench import fetch_rows, open_stream

SCENE: SimulationSettings = SCENES["a slow rise"]


def test_a_slow_rise_is_found_although_a_new_process_judges_every_window(db: Database) -> None:
    stream_id = open_stream(db, 1, SCENE.rules)
    writer = SimulatedWriter(db, stream_id, SCENE, 0)
    while not writer.ended:
        writer.commit(20)
        make_control_plane(db, stream_id, SCENE).run_due()
    make_control_plane(db, stream_id, SCENE).run_due()
    (incident,) = fetch_rows(db, "SELECT window_start_us, details FROM incidents WHERE kind = 'slow_rise'")
    assert '"since": "2026-01-01T00:0' in str(incident[1])
    raised = [row for row in fetch_rows(db, "SELECT details FROM windows") if "slow_rise" in str(row[0])]
    assert len(raised) > 1
    ((realised,),) = fetch_rows(db, "SELECT max(realised_per_week) FROM calibrations")
    assert float(str(realised)) > 0, "a slow rise counts against the false-alarm budget"
