"""Whether W&B can be reached, found out without waiting for W&B to find out."""

import contextlib
import netrc
import os
import socket
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

PROBE_SECONDS = 2.0


def destination(app: str, run_id: str, **chosen: str | None) -> dict[str, str | None]:
    """Where runs go: what flags have chosen, else WANDB_PROJECT and its like, else app, its run and W&B's choice."""
    usual = {"project": app, "group": f"{app}-{run_id}", "entity": None}
    names = {"project": "WANDB_PROJECT", "group": "WANDB_RUN_GROUP", "entity": "WANDB_ENTITY"}
    return {part: chosen.get(part) or os.environ.get(name) or usual[part] for part, name in names.items()}


def chosen_mode(wish: str, base_url: str, warn: Callable[[str], None]) -> Literal["online", "offline"]:
    """Returns offline unless W&B can be online, as it would wait and then fail; `warn` hears why "online" can't be."""
    if wish not in ("auto", "online"):
        return "offline"
    key = has_key(base_url)
    ready = key and reachable(base_url)
    if wish == "online" and not ready:
        reason = "is not reachable" if key else "has no API key configured (run `wandb login`)"
        warn(f"--wandb online: {urlsplit(base_url).hostname} {reason}; logging offline")
    return "online" if ready else "offline"


def has_key(base_url: str) -> bool:
    """Whether an API key is configured, by environment or netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(base_url).hostname or "") is not None
    return False


def reachable(base_url: str) -> bool:
    """Whether the server, or the proxy on the way to it, accepts a connection within two seconds."""
    url = urlsplit(base_url)
    url = urlsplit(getproxies().get(url.scheme, base_url))
    try:
        with socket.create_connection((url.hostname, url.port or {"http": 80}.get(url.scheme, 443)), PROBE_SECONDS):
            return True
    except OSError:
        return False
