"""The list of known revisions, which is used without importing Alembic."""

from pathlib import Path

from alembic.script import ScriptDirectory

from storage.database import migrations
from storage.database.revisions import KNOWN_REVISIONS


def test_known_revisions_are_those_of_the_migration_scripts_in_order() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == KNOWN_REVISIONS
