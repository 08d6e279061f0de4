"""Kernels that begin with the libraries loaded: each is forked from a server that imported them once (`shelfspace.run.server`).

A notebook spends seconds on imports before its first line. The server imports while the first notebook, whose kernel starts as
Jupyter starts one, is at work, unless no other is to follow.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from shelfspace.run import server

MODULE = "ipykernel_launcher"

_first = True  # the first kernel does not wait for the server


@dataclass
class Kernel:
    """One kernel, before, while and after it runs.

    Attributes
    ----------
    environment : dict of name to value
        Variables that are this kernel's alone.
    folder : Path
        Where it works.
    pid : int or None
        Of its process, which leads a group of its own; None before it is started.
    exit_code : int or None
        Negative for the signal that ended it; None while it runs, and where it ended as it was told to.
    stopped : bool
        Whether it was stopped from outside.
    last : bool
        Whether no other kernel of this run is to follow, so that no server need be started for it.
    """

    environment: dict[str, str]
    folder: Path
    pid: int | None = None
    exit_code: int | None = None
    stopped: bool = False
    last: bool = False

    def stop(self) -> None:
        """Kill it, or have it killed as soon as it is started."""
        self.stopped = True
        if self.pid is not None:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def manager(self) -> type[AsyncKernelManager]:
        """The class that manages it, for nbclient, which makes its own instance."""
        return type("Manager", (_Manager,), {"kernel": self})


class _Client(AsyncKernelClient):
    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Until the kernel answers on both of its channels; Jupyter's own waits for a fifth of a second of silence after that."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while time.monotonic() < end:
            self.kernel_info()
            with suppress(queue.Empty):
                self._handle_kernel_info_reply(await self.get_shell_msg(timeout=1))
                await self.get_iopub_msg(timeout=0.2)
                return
            if not await self.parent.is_alive():
                raise RuntimeError("the kernel died before it was ready")
        raise RuntimeError(f"the kernel was not ready in {timeout} seconds")


class _Manager(AsyncKernelManager):
    kernel: Kernel
    client_factory = _Client

    async def _async_pre_start_kernel(self, **given):
        given |= {"env": os.environ | self.kernel.environment, "cwd": str(self.kernel.folder)}
        return await super()._async_pre_start_kernel(**given)

    async def _async_launch_kernel(self, kernel_cmd, **given) -> None:
        at = self.provisioner
        if MODULE in kernel_cmd and _is_warm(start=not self.kernel.last):
            at.process = _Forked(kernel_cmd[kernel_cmd.index(MODULE) + 1 :], given["env"], given["cwd"])
            at.pid = at.pgid = at.process.pid
            self._reconcile_connection_info(at.connection_info)
        else:
            await super()._async_launch_kernel(kernel_cmd, **given)
        self.kernel.pid = at.pid
        if self.kernel.stopped:
            self.kernel.stop()

    async def _async_is_alive(self) -> bool:
        code = await self.provisioner.poll() if self.has_kernel else None
        if code is not None and self.kernel.exit_code is None:
            self.kernel.exit_code = code
        return await super()._async_is_alive()

    is_alive = _async_is_alive


def _is_warm(start: bool) -> bool:
    """Whether a kernel is to be forked: not the first, which is begun sooner than the server; without the server, it may be started."""
    global _first
    if start:
        server.start()
    warm, _first = server.is_started() and not _first, False
    return warm


class _Forked:
    """A kernel in a process of the server, as jupyter_client asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: Mapping[str, str], folder: str):
        self._process = server.process(_be_a_kernel, arguments, dict(environment), folder)
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _be_a_kernel(arguments: list[str], environment: Mapping[str, str], folder: str) -> None:
    """What runs in the forked process."""
    from ipykernel import kernelapp

    gc.freeze()  # what the libraries made stays, so that no collection goes through it again
    os.setsid()  # as Jupyter does, so that Ctrl-C in the terminal reaches the run alone
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR is this kernel's own
    multiprocessing.set_start_method(None, force=True)  # and so are processes that it may start, as in any other kernel
    try:
        threading.Thread(target=_end_with_the_run, daemon=True).start()
        kernelapp.launch_new_instance(arguments)
    finally:
        if kernelapp.IPKernelApp.initialized():  # its close may wait for ever, for a thread that sends to one that has ended
            atexit.unregister(kernelapp.IPKernelApp.instance().close)
        atexit._run_exitfuncs()  # which multiprocessing passes over


def _end_with_the_run() -> None:
    """End when the process that asked for this kernel has ended, however it did."""
    multiprocessing.parent_process().join()
    os._exit(1)
