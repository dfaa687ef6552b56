"""``ghostify`` and ``python -m ghostify`` as a process of their own."""

from __future__ import annotations

import gc
import sys

from ghostify.cli import interrupt

__all__ = ["entry"]

_INTERRUPTED = 130


def entry() -> int:
    """Run the command line.

    Importing torch makes objects by the hundred thousand that live until the end; a collector
    that goes through them every few hundred allocations, and once more at exit, takes a third
    of the time of a conversion. So it runs rarely, and not on the way out.
    """
    gc.set_threshold(100_000, 50, 100)
    try:
        interrupt.install()
        with interrupt.deferred():
            from ghostify.cli.app import main  # in here, so that Ctrl-C is caught from the start

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing half-written is left\n")
        return interrupt.exit_code() or _INTERRUPTED
    finally:
        interrupt.ignore()
        gc.freeze()


if __name__ == "__main__":
    sys.exit(entry())
