"""``ghostify`` and ``python -m ghostify`` as a process of their own."""

from __future__ import annotations

import gc
import sys

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
        from ghostify.cli.app import main  # in here, so that Ctrl-C is caught from the start

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was written\n")
        return _INTERRUPTED
    finally:
        gc.freeze()


if __name__ == "__main__":
    sys.exit(entry())
