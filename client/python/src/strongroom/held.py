"""Secrets that stay fresh: one thread follows changes, one renews leases and takes new accounts before one is at its end."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Dict, List, Optional

from .errors import Denied, NotFound, StrongroomError, Unauthenticated
from .values import Delivered, Follow, Want

if TYPE_CHECKING:
    from .client import Client, Watch

_LOG = logging.getLogger("strongroom")

#: Pauses before the daemon is asked again, in seconds; doubled, with jitter.
_RETRY_FIRST = 0.5
_RETRY_MAX = 30.0
#: Leases are renewed at this part of their life, and looked at this often at least.
_RENEW_AT = 2 / 3
_LOOK_EVERY = 1.0


class Secrets:
    """Held secrets and credentials, by their paths. Close it (or leave its ``with``) to revoke what was leased."""

    def __init__(self, client: "Client", wants: List[Want]) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._generation = 0
        self._seen = 0
        self._closed = threading.Event()
        self._watch: "Optional[Watch]" = None
        #: Why the stream of changes is down; ``None`` while it is open.
        self.stale: Optional[StrongroomError] = None
        paths = [want.path for want in wants]
        if len(set(paths)) != len(paths):
            raise ValueError("a path is asked for twice: what is held is known by its path; use fetch instead")
        fetched = client.fetch(wants)
        self._held: Dict[str, Delivered] = {one.path: one for one in fetched}
        followed = [
            Follow(one.path, label=want.label or "", resume=one.resume)
            for want, one in zip(wants, fetched)
            if one.kind != "lease" and want.version is None
        ]
        leased = [want for want, one in zip(wants, fetched) if one.kind == "lease"]
        self._threads: List[threading.Thread] = []
        if followed:
            self._start(self._follow, followed)
        if leased:
            self._start(self._renew, leased)

    def _start(self, run: object, what: object) -> None:
        thread = threading.Thread(target=run, args=(what,), name="strongroom", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def get(self, path: str) -> Delivered:
        """The newest known value, from memory. ``NotFound`` for what was not asked for, or was deleted since."""
        with self._changed:
            if path not in self._held:
                raise NotFound(f"{path} is not held: it was not asked for, or was deleted", "NOT_HELD")
            return self._held[path]

    def wait_for_change(self, timeout: Optional[float] = None) -> bool:
        """Waits until something has changed since the start or the last such call; whether it did."""
        with self._changed:
            changed = self._changed.wait_for(lambda: self._generation > self._seen, timeout)
            self._seen = self._generation
            return changed

    def close(self) -> int:
        """Stops, and revokes what was leased; how many leases are not proven gone."""
        self._closed.set()
        if self._watch is not None:
            self._watch.close()
        for thread in self._threads:
            thread.join(timeout=self._client._timeout)
        left = 0
        for one in self._held.values():
            if one.lease_id is not None:
                try:
                    left += not self._client.revoke(one.lease_id)
                except StrongroomError as error:
                    left += 1
                    _LOG.warning("a lease could not be revoked; it ends at its expiry: %s", error)
        return left

    def __enter__(self) -> "Secrets":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._held)})"

    def _put(self, path: str, one: Optional[Delivered]) -> None:
        with self._changed:
            if one is None:
                self._held.pop(path, None)
            else:
                self._held[path] = one
            self._generation += 1
            self._changed.notify_all()

    def _recover(self, error: StrongroomError, pause: float) -> float:
        """Does what can be done about it here, waits, and returns the next pause."""
        if isinstance(error, Unauthenticated):
            try:
                self._client.reload_token()
            except OSError as unread:
                _LOG.warning("the token could not be read again: %s", unread)
        wait = pause * random.uniform(0.5, 1.0)
        self._closed.wait(_RETRY_MAX if isinstance(error, Denied) else wait)
        return min(pause * 2, _RETRY_MAX)

    def _follow(self, followed: List[Follow]) -> None:
        pause = _RETRY_FIRST
        while not self._closed.is_set():
            watch = self._watch = self._client.watch(followed)
            if self._closed.is_set():
                watch.close()
            try:
                if watch.is_open():
                    self.stale = None
                for event in watch:
                    pause = _RETRY_FIRST
                    if event.error is not None:
                        self._refused(watch, followed[event.item].path, event.error)
                    else:
                        self._put(followed[event.item].path, event.delivered)
            except StrongroomError as error:
                self.stale = error
                _LOG.info("the stream of changes is down; the last known values are held: %s", error)
                pause = self._recover(error, pause)

    def _refused(self, watch: "Watch", path: str, error: StrongroomError) -> None:
        """The last known value is held; all of them are asked for again after a while."""
        _LOG.warning("%s is refused: %s", path, error)
        if self.stale is None:
            again = threading.Timer(_RETRY_MAX, watch.close)
            again.daemon = True
            again.start()
        self.stale = error

    def _renew(self, leased: List[Want]) -> None:
        now = time.monotonic()
        ends = {want.path: now + (self._held[want.path].remaining_secs or 0) for want in leased}
        due = {want.path: self._due(now, ends[want.path]) for want in leased}
        pause = _RETRY_FIRST
        while not self._closed.wait(_LOOK_EVERY):
            for want in leased:
                if time.monotonic() < due[want.path]:
                    continue
                try:
                    ends[want.path] = self._prolong(want, ends[want.path])
                    due[want.path] = self._due(time.monotonic(), ends[want.path])
                    pause = _RETRY_FIRST
                except StrongroomError as error:
                    _LOG.warning("%s was not prolonged: %s", want.path, error)
                    pause = self._recover(error, pause)

    @staticmethod
    def _due(now: float, end: float) -> float:
        return now + (end - now) * _RENEW_AT * random.uniform(0.9, 1.0)

    def _prolong(self, want: Want, end: float) -> float:
        """Renewed, or replaced by another account when that gains nothing; when it ends."""
        lease_id = self._held[want.path].lease_id
        try:
            left, _ = self._client.renew(lease_id or "", ttl_secs=want.ttl_secs)
            if time.monotonic() + left > end + 1:
                return time.monotonic() + left
        except StrongroomError as error:
            _LOG.info("%s is not renewed any more: %s", want.path, error)
        (one,) = self._client.fetch([want])
        self._put(want.path, one)
        return time.monotonic() + (one.remaining_secs or 0)
