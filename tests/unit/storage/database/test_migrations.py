"""The list of revisions that a check knows without importing Alembic."""

from pathlib import Path

from alembic.script import ScriptDirectory

from storage.database import migrations
from storage.database.revisions import KNOWN_REVISIONS


def test_the_known_revisions_are_those_of_the_scripts_from_the_first_to_the_last() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == KNOWN_REVISIONS
