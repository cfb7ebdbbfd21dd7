"""Fresh processes for tests, at once: copies of one that has imported what takes seconds, and has computed nothing.

Where it matters how a process starts (its environment, what it imports, how it ends), use `subprocess` instead.
"""

import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
import traceback

if "forkserver" in multiprocessing.get_all_start_methods():
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["pytest", "sktransfer._classifier", "sktransfer._features", "sktransfer._persistence"]
    )
else:  # on Windows each process imports everything again
    server = multiprocessing.get_context("spawn")


def fresh(code, *arguments, cwd=".", check=True, timeout=240):
    """Run code as the main program of a fresh process, and return its exit code and what it wrote.

    Parameters
    ----------
    code : str
    *arguments : object
        Turned into text, they are ``sys.argv[1:]``.
    cwd : path
    check : bool
        Raise an AssertionError unless the exit code is 0.
    timeout : float
        In seconds.
    """
    receiver, sender = server.Pipe(duplex=False)
    process = server.Process(target=_main, args=(code, list(map(str, arguments)), os.fspath(cwd), sender))
    process.start()
    sender.close()
    try:
        done = receiver.recv() if receiver.poll(timeout) else ("still busy", "", "")
    except EOFError:
        done = ("killed", "", "")
    process.kill()
    process.join()
    if check:
        assert done[0] == 0, "\n".join(map(str, done))
    return subprocess.CompletedProcess(code, *done)


def start_as_new():
    """Forget that this process is a copy: its parent has started no threads, so it may use as many as any other."""
    from sktransfer import _registry

    _registry._forked = False


def _main(code, arguments, cwd, sender):
    start_as_new()
    os.chdir(cwd)
    sys.argv = ["-c", *arguments]
    out, err, returncode = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exec(compile(code, "<fresh process>", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            returncode = end.code or 0
        except BaseException:
            traceback.print_exc()
            returncode = 1
    sender.send((returncode, out.getvalue(), err.getvalue()))
