"""Write the dumps of a replay: `python -m tests.replay FOLDER [--golden]`, before and after a change, and compare."""

import sys
from pathlib import Path

from tests.replay.golden import write_golden
from tests.replay.run import replay_on_both


def main() -> None:
    """Replay on SQLite and PostgreSQL; write `sqlite.txt` and `postgresql.txt`."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in replay_on_both(folder).items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(lines)} lines")
        if name == "sqlite" and "--golden" in sys.argv[2:]:
            write_golden(lines)


if __name__ == "__main__":
    main()
