"""Errors that a run ends with; each is one clear line for the person at the terminal."""


class BadInput(Exception):  # noqa: N818 - named for what it tells, not for the mechanism
    """Something the person running the app can put right; the message is the one line they read (exit status 2)."""


class CellFailed(Exception):  # noqa: N818
    """A cell raised or its worker was killed (exit status 1); `details` is the traceback for log.txt, if any."""

    def __init__(self, summary: str, details: str = "") -> None:
        super().__init__(summary)
        self.details = details


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived; not an `Exception`, so that no cell swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number
