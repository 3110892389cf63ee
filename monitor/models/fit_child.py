"""The child process of a fit: `python -m monitor.models.fit_child FOLDER MAX_MEMORY_BYTES`.

It lowers its priority, limits its memory, and asks the kernel to be killed with its parent before it imports anything
large. It has no access to the database: it reads and writes files of the folder.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from pathlib import Path

NICENESS = 10
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Fit, and write the result; return the exit code."""
    folder, max_memory_bytes = Path(sys.argv[1]), int(sys.argv[2])
    die_with_parent()
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, max_memory_bytes))
    # The imports take seconds of a processor: they come after the priority and the limits are set.
    from config.errors import ModelError  # noqa: PLC0415
    from monitor.models.refit_fit import fit_refit, read_request, write_result  # noqa: PLC0415

    training, settings = read_request(folder)
    try:
        result = fit_refit(training, settings)
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except MemoryError:
        sys.stderr.write(f"the fit needs more than {max_memory_bytes / 2**30:g} GiB of memory\n")
        return 1
    write_result(folder, result)
    return 0


def die_with_parent() -> None:
    """End this process when its parent ends: by a signal of the kernel, and when the pipe to the parent closes.

    The pipe covers systems without the signal, and a parent that ended before this call.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_pipe, name="parent", daemon=True).start()


def _end_with_pipe() -> None:
    with contextlib.suppress(OSError):
        os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
