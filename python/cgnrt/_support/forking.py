"""Locks that a fork waits for.

A forked child has the parent's memory and one thread. A lock that another thread held stays taken in the child for
ever, and what that thread was changing stays half changed. So a process that uses cgnrt forks only while no other
thread holds a `ForkLock`: the fork waits for them, and takes them all.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_COURTESY_S = 0.05  # how long others let a fork that waits go first
_PATIENCE_S = 60.0  # for one lock; a thread that keeps it for longer probably waits for the thread that forks
_TAKE_LOCKS = ("concurrent.futures.thread", "logging")  # modules that take a lock of theirs before a fork
_imported = -1  # how many of these were imported when this module's functions were registered last


class ForkLock:
    """A reentrant lock, to be used with `with`, that no other thread holds when the process forks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks[id(self._lock)] = self._lock

    def __enter__(self) -> None:
        wait_first()
        held = getattr(_thread, "held", 0)
        if _forking.is_set() and not held:  # a fork waits: it goes first, unless it waits for this thread
            _forked.wait(_COURTESY_S)
        self._lock.acquire()
        _thread.held = held + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _thread.held -= 1
        self._lock.release()


class cached_property(functools.cached_property[T]):  # noqa: N801  as in functools
    """`functools.cached_property`, whose lock (Python 3.11 has one) no other thread holds when the process forks."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        super().__init__(function)
        if hasattr(self, "lock"):
            _locks[id(self.lock)] = self.lock


def wait_first() -> None:
    """Let forks wait for these locks before they take those of modules that were imported since.

    A fork runs what was registered last first. The standard library's executors and logs register a lock each when they
    are imported; a fork that held one of them would wait for a thread that needs it.
    """
    global _imported
    imported = sum(name in sys.modules for name in _TAKE_LOCKS)
    if imported > _imported:
        _imported = imported
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_quiesce, after_in_parent=_go_on, after_in_child=_begin_child)


def before_fork(prepare: Callable[[], None]) -> None:
    """Call a function before every fork, when all locks are held."""
    _preparations.append(prepare)


def never_freed_in_child(thing: T) -> T:
    """Keep an object for ever in forked children: to free it would end threads that exist only in the parent."""
    _kept.add(thing)
    return thing


_locks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # by id
_kept: weakref.WeakSet[Any] = weakref.WeakSet()
_preparations: list[Callable[[], None]] = []
# `held`: how many of the locks a thread holds; `forks`: whether it is about to fork.
_thread = threading.local()
_forking, _forked = threading.Event(), threading.Event()
_turn = threading.RLock()  # of threads that fork
_held: list[Any] = []


def _quiesce() -> None:
    if getattr(_thread, "forks", False):  # registered twice, and called before
        return
    _thread.forks = True
    _turn.acquire()
    _forked.clear()
    _forking.set()
    _acquire_all()
    for prepare in _preparations:
        prepare()


def _acquire_all() -> None:
    """Take every lock. While one is waited for none is held, so that its holder can go on."""
    busy: Any = None
    stuck: list[Any] = []
    while True:
        locks = [lock for lock in _every_lock() if all(lock is not other for other in stuck)]
        for lock in sorted(locks, key=lambda lock: lock is not busy):  # the busy one first
            if not lock.acquire(timeout=_PATIENCE_S if lock is busy else 0):
                if lock is busy:
                    stuck.append(lock)  # the fork goes on without it
                busy = lock
                break
            _held.append(lock)
        else:
            if len(_every_lock()) <= len(locks) + len(stuck):  # none was made meanwhile
                return
        _release()


def _every_lock() -> list[Any]:
    progress = sys.modules.get("tqdm.std")  # its bars have a lock, too
    bars = getattr(getattr(progress, "TqdmDefaultWriteLock", None), "th_lock", None)
    # Other threads may make locks meanwhile: `valuerefs`, other than a loop, copes with that.
    locks = [lock for reference in _locks.valuerefs() if (lock := reference()) is not None]
    return [*locks, *([] if bars is None else [bars])]


def _release() -> None:
    while _held:
        _held.pop().release()


def _go_on() -> None:
    if not getattr(_thread, "forks", False):
        return
    _thread.forks = False
    _release()
    _forking.clear()
    _forked.set()
    _turn.release()


def _begin_child() -> None:
    global _forking, _forked
    if not getattr(_thread, "forks", False):
        return
    _thread.forks = False
    for thing in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))  # also when the interpreter ends
    _release()
    _forking, _forked = threading.Event(), threading.Event()  # their own locks may be taken
    _turn.release()


wait_first()
