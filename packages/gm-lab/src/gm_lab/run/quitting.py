"""A user's module or estimator that ends the program from inside is a fault with a reason, never success."""

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator

from gm_lab.run.errors import BadInput

exit_now = os._exit
# ours, Python's exit(), and what W&B puts in the place of sys.exit
NOT_THE_CULPRIT = (
    __file__, "_sitebuiltins.py>", "_sitebuiltins.py", "<frozen _sitebuiltins>", "wandb/sdk/lib/exit_hooks.py",
)  # fmt: skip


@contextlib.contextmanager
def refused(signalled: Callable[[], bool]) -> Iterator[None]:
    """Turns sys.exit, os._exit and, unless a signal came, KeyboardInterrupt inside the block into BadInput."""
    process = os.getpid()

    def leave(status: int) -> None:
        if os.getpid() != process:  # a forked one, which may end as it likes
            exit_now(status)
        raise SystemExit(status)

    os._exit = leave  # type: ignore[assignment]
    try:
        yield
    except SystemExit as stop:
        raise BadInput(
            f"expected modules that come to their end, got an exit with status {stop.code!r} from {place(stop)}"
        ) from stop
    except KeyboardInterrupt as error:
        if signalled():
            raise
        raise BadInput(
            f"expected modules that come to their end, got a KeyboardInterrupt from {place(error)}"
        ) from error
    finally:
        os._exit = exit_now


def place(error: BaseException) -> str:
    """Where an exception was raised: file and line."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.endswith(NOT_THE_CULPRIT)
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "an unknown place"
