"""Kernels that begin with the libraries loaded: each is forked from a server that imported them once.

A notebook spends seconds on imports before its first line. The server (`multiprocessing`'s) imports while the first notebook, whose
kernel starts as Jupyter starts one, is at work, unless no other is to follow. It loads libraries alone and no module of this package,
so that a change of these is seen by the next kernel.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

LIBRARIES = (
    *("ipykernel.kernelapp", "ipykernel.debugger", "IPython.core.completerlib", "IPython.extensions.storemagic"),
    *("numpy", "pandas", "pyarrow.parquet", "scipy.sparse", "scipy.stats", "matplotlib.pyplot", "seaborn"),
    *("sklearn.neighbors", "numba", "duckdb", "ibis", "lightgbm", "openTSNE", "faiss", "h5py", "tensorflow"),
)
MODULE = "ipykernel_launcher"

_server = threading.Lock()  # of what follows: whether the server was asked for, and the module that it must not take for its own
_asked = False


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
    """Whether a kernel can be forked; as long as it cannot, the server may be started."""
    global _asked
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    with _server:
        if not _asked and start:
            multiprocessing.set_forkserver_preload(list(LIBRARIES))
            with _no_main():
                forkserver.ensure_running()
            _asked = True
            return False
        return _asked


class _Forked:
    """A kernel in a process of the server, as jupyter_client asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: Mapping[str, str], folder: str):
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_be_a_kernel, args=(arguments, dict(environment), folder))
        with _server, _no_main():
            self._process.start()
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


class _no_main:
    """While a process is started, the program has no main module, which `multiprocessing` would else run again in it."""

    def __enter__(self) -> None:
        self.main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")

    def __exit__(self, *_) -> None:
        sys.modules["__main__"] = self.main


def _be_a_kernel(arguments: list[str], environment: Mapping[str, str], folder: str) -> None:
    """What runs in the forked process."""
    from ipykernel import kernelapp

    gc.freeze()  # what the libraries made stays, so that no collection goes through it again
    os.setsid()  # as Jupyter does, so that Ctrl-C in the terminal reaches the run alone
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
