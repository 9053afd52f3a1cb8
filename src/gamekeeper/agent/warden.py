"""The warden: one small parent process for one attempt, which outlives the agent.

It starts the job in a session and process group of its own, keeps the head and the tail of its output, ends it when it
is told to (SIGTERM to the warden), when its time limit passes or when the deadline passes that the agent
keeps moving forward, and records how it ended. The agent may die meanwhile: a later one finds the files.

Files in the attempt's folder:
    lock           held (flock) by this process from before it started: whoever can take it knows the warden is gone
    deadline       written by the agent: see `parse_deadline`
    identity.json  boot id, pid and start ticks of warden and job, once the job runs
    exit.json      how it ended, written once, atomically, when nothing of the job is left
    stdout, stderr the first bytes of the job's output; `.tail` and `.older` hold the last ones
    job/           the folder the job sees; `job/stop` asks it to finish early

Standard library only, and of that only what starts fast: neither json, typing nor subprocess. For the same reason the
boot clock is read from /proc/uptime (seconds since boot, suspended time included, to 10 ms), not through
`gamekeeper.core.clock`, whose imports take longer than everything here together.
"""

# ruff: noqa: SIM105 - contextlib takes longer to import than the job takes to start
from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

TICK_S = 0.5
ASK_S = 2.0
ASK_SHARE = 0.25
VANISH_S = 10.0
READ_BYTES = 1 << 16
PIPE_BYTES = 1 << 18
_F_SETPIPE_SZ = 1031
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def boot_clock() -> float:
    """Seconds since boot, suspended time included."""
    with open("/proc/uptime", "rb") as file:
        return float(file.read().split()[0])


def parse_deadline(text: bytes) -> tuple[float, float] | None:
    """(stop_at, gone_by) in boot seconds, or `None` when the record is torn.

    The agent overwrites the record in place, which needs no free disk block; both numbers stand in it twice, so
    that a reader can tell a half-written one.
    """
    parts = text.split()
    if len(parts) != 4 or parts[:2] != parts[2:]:
        return None
    try:
        return float(parts[0]), float(parts[1])
    except ValueError:
        return None


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks after boot."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _plain(text: str) -> str:
    """`text` made safe to stand between JSON quotes."""
    return "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "?" for letter in text)[:400]


class Stream:
    """One output of the job: keeps its first `head` bytes and between one and two times `tail` of its last."""

    __slots__ = ("_file", "_room", "_stem", "_tail", "_tailing", "dropped", "fd")

    def __init__(self, fd: int, stem: str, head: int, tail: int) -> None:
        self.fd = fd
        self.dropped = 0
        self._stem = stem
        self._tail = tail
        self._tailing = False
        self._room = head
        self._file = os.open(stem, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.set_blocking(fd, False)

    def pump(self) -> bool:
        """Move what is there; `False` once the last writer is gone."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return True
        while data:
            if self._room == 0:
                self._next_segment()
            piece, data = data[: self._room], data[self._room :]
            self._room -= len(piece)
            self._keep(piece)
            if not data:
                return True
        return False

    def drain(self) -> None:
        """Move what is left, without waiting for more."""
        for _ in range(4 * PIPE_BYTES // READ_BYTES):
            if not self.pump():
                return

    def _keep(self, piece: bytes) -> None:
        try:
            while piece:
                piece = piece[os.write(self._file, piece) :]
        except OSError:  # the disk is full: the job goes on, its output is lost
            self.dropped += len(piece)

    def _next_segment(self) -> None:
        path = f"{self._stem}.tail"
        try:
            if self._tailing:
                os.replace(path, f"{self._stem}.older")
            segment = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
        else:
            os.close(self._file)
            self._file = segment
        self._tailing = True
        self._room = self._tail


class Warden:
    """One job and what is done to it. All times are boot seconds."""

    def __init__(
        self,
        folder: str,
        command: list[str],
        *,
        grace_s: float,
        time_limit_s: float | None,
        head: int,
        tail: int,
    ) -> None:
        self.folder = folder
        self.command = command
        self.grace_s = grace_s
        self.time_limit_s = time_limit_s
        self.pid = os.getpid()
        self.job = 0
        self.cause = "exited"
        self.detail = ""
        self.asked = False
        self.term_at = self.kill_at = float("inf")
        self.termed = self.killed = False
        self.leftovers = self.survivors = 0
        self.stop_at = self.gone_by = float("inf")
        self._told = False
        self._head, self._tail = head, tail
        self._streams: list[Stream] = []
        self._poller = select.poll()
        self._exit_file = os.open(self._path("exit.json.part"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:  # so that the end can be recorded on a disk that has filled up by then
            os.posix_fallocate(self._exit_file, 0, 4096)
        except OSError:
            pass
        self._wake, told = os.pipe()
        for fd in (self._wake, told):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._tell)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        self._poller.register(self._wake, select.POLLIN)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _tell(self, *_: object) -> None:
        self._told = True

    def start(self) -> bool:
        """Start the job and write identity.json. `False`, with the reason in `detail`, when it cannot start."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        output, errors, said = os.pipe(), os.pipe(), os.pipe()
        self.started_at = boot_clock()
        self.job = os.fork()
        if self.job == 0:
            self._become_job(output[1], errors[1], said[1])
        for fd in (output[1], errors[1], said[1]):
            os.close(fd)
        for fd, name in ((output[0], "stdout"), (errors[0], "stderr")):
            self._open_stream(fd, name)
        problem = os.read(said[0], 16)
        os.close(said[0])
        if problem:
            reason = os.strerror(int(problem)) if problem.isdigit() else "the warden died meanwhile"
            self.cause, self.detail = "cannot-start", f"{self.command[0]}: {reason}"
            return False
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot_id = file.read().decode().strip()
        record = (
            f'{{"boot_id": "{boot_id}", "warden": {{"pid": {self.pid}, "start_ticks": {start_ticks(self.pid)}}}, '
            f'"job": {{"pid": {self.job}, "start_ticks": {start_ticks(self.job)}}}, '
            f'"started_at": {self.started_at:.2f}}}\n'
        )
        with open(self._path("identity.json.part"), "w") as part:
            part.write(record)
        os.replace(self._path("identity.json.part"), self._path("identity.json"))
        return True

    def _open_stream(self, fd: int, name: str) -> None:
        import fcntl

        try:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass
        self._streams.append(Stream(fd, self._path(name), self._head, self._tail))
        self._poller.register(fd, select.POLLIN)

    def _become_job(self, output: int, errors: int, said: int) -> None:
        """In the child: become the job, or say why not. Never returns."""
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self.pid:  # the warden died before the line above took effect
                os.write(said, b"gone")
                os._exit(126)
            null = os.open("/dev/null", os.O_RDONLY)
            for source, target in ((null, 0), (output, 1), (errors, 2)):
                os.dup2(source, target)
            os.chdir(self._path("job"))
            signal.set_wakeup_fd(-1)
            for number in (
                signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD,
                signal.SIGXFSZ,
            ):  # fmt: skip
                signal.signal(number, signal.SIG_DFL)
            os.execvp(self.command[0], self.command)  # noqa: S606 - an argument list, no shell
        except OSError as error:
            os.write(said, str(error.errno).encode())
        finally:  # whatever happened, the warden's own code must not run twice
            os._exit(127)

    def watch(self) -> None:
        """Keep the job until its leader is dead."""
        while not self._leader_dead():
            now = boot_clock()
            self._read_deadline()
            self._look(now)
            due = min(now + TICK_S, self.term_at, self.kill_at, self.stop_at, self._limit_at())
            for fd, _ in self._poller.poll(max(0.0, due - now) * 1000 + 1):
                self._serve(fd)

    def _serve(self, fd: int) -> None:
        if fd == self._wake:
            try:
                os.read(self._wake, 512)
            except BlockingIOError:
                pass
            return
        for stream in self._streams:
            if stream.fd == fd and not stream.pump():
                self._poller.unregister(fd)

    def _limit_at(self) -> float:
        if self.time_limit_s is None or self.asked:
            return float("inf")
        return self.started_at + self.time_limit_s

    def _look(self, now: float) -> None:
        """One step of the ladder: ask, SIGTERM, SIGKILL."""
        if not self.asked:
            if self._told:
                self._ask(now, "stopped")
            elif now >= self.stop_at:
                self._ask(now, "deadline")
            elif now >= self._limit_at():
                self._ask(now, "time-limit")
        if self.asked:
            if not self.killed:
                self.kill_at = min(self.kill_at, max(self.gone_by, now))
            self.stop_at = float("inf")
        if now >= self.term_at:
            self.termed, self.term_at = True, float("inf")
            self._signal_group(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)
        if now >= self.kill_at:
            self.killed, self.kill_at = True, now + TICK_S
            self._signal_group(signal.SIGKILL)

    def _ask(self, now: float, cause: str) -> None:
        self.asked, self.cause = True, cause
        self.kill_at = min(now + self.grace_s, max(self.gone_by, now))
        self.term_at = now + min(ASK_S, ASK_SHARE * (self.kill_at - now))
        try:
            os.close(os.open(self._path("job/stop"), os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError:  # no room for the file: SIGTERM follows
            self.term_at = now

    def _signal_group(self, number: int) -> None:
        """Signal the job's group. Its leader is our child and not reaped yet, so the number is still its own."""
        try:
            os.killpg(self.job, number)
        except ProcessLookupError:
            pass

    def _read_deadline(self) -> None:
        if self.asked and self.cause == "deadline":
            return
        try:
            fd = os.open(self._path("deadline"), os.O_RDONLY)
        except OSError:
            return
        try:
            found = parse_deadline(os.read(fd, 256))
        finally:
            os.close(fd)
        if found:
            self.stop_at, self.gone_by = found

    def _leader_dead(self) -> bool:
        """Reap the dead children that were adopted; the leader stays unreaped, which keeps its number reserved."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
            if found is None:
                return False
            if found.si_pid == self.job:
                return True
            os.waitpid(found.si_pid, os.WNOHANG)

    def _children(self) -> dict[int, bool]:
        """All children but the leader, and whether each is alive.

        They are ours and unreaped, so their numbers cannot be anyone else's.
        """
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != self.job:
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:
                        fields = file.read().rpartition(b")")[2].split()
                    if int(fields[1]) == self.pid:
                        found[int(name)] = fields[0] not in b"ZX"
                except (OSError, ValueError, IndexError):
                    continue
        return found

    def end_leftovers(self) -> None:
        """End everything that outlived the leader, in its group or not; orphans become our children one by one."""
        give_up = boot_clock() + VANISH_S
        self._signal_group(signal.SIGKILL)
        seen: set[int] = set()
        while children := self._children():
            if boot_clock() > give_up:
                self.survivors = len(children)
                break
            seen.update(pid for pid, alive in children.items() if alive)
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            for fd, _ in self._poller.poll(5):
                self._serve(fd)
        self.leftovers = len(seen)

    def record_exit(self) -> None:
        """Reap the leader and write exit.json."""
        for stream in self._streams:
            stream.drain()
        _, status, usage = os.wait4(self.job, 0)
        code = os.waitstatus_to_exitcode(status)
        exited = code >= 0 and self.cause != "cannot-start"
        fields = {
            "cause": f'"{self.cause}"',
            "exit_code": str(code) if exited else "null",
            "signal": str(-code) if code < 0 else "null",
            "detail": f'"{_plain(self.detail)}"',
            "termed": str(self.termed).lower(),
            "killed": str(self.killed).lower(),
            "leftovers": str(self.leftovers),
            "survivors": str(self.survivors),
            "started_at": f"{self.started_at:.2f}",
            "ended_at": f"{boot_clock():.2f}",
            "cpu_s": f"{usage.ru_utime + usage.ru_stime:.3f}",
            "max_rss_bytes": str(usage.ru_maxrss * 1024),
            "output_dropped": str(sum(stream.dropped for stream in self._streams)),
        }
        text = ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}\n").encode()
        os.pwrite(self._exit_file, text, 0)
        os.ftruncate(self._exit_file, len(text))
        os.fsync(self._exit_file)
        os.replace(self._path("exit.json.part"), self._path("exit.json"))


def main() -> None:
    """Arguments: FOLDER LOCK_FD READY_FD GRACE_S TIME_LIMIT_S|- HEAD_BYTES TAIL_BYTES COMMAND..."""
    folder, lock, ready, grace, limit, head, tail = sys.argv[1:8]
    for fd in (int(lock), int(ready)):
        os.set_inheritable(fd, False)
    warden = Warden(
        folder,
        sys.argv[8:],
        grace_s=float(grace),
        time_limit_s=None if limit == "-" else float(limit),
        head=int(head),
        tail=int(tail),
    )
    started = warden.start()
    os.write(int(ready), b"1" if started else b"0")
    os.close(int(ready))
    if started:
        warden.watch()
    warden.end_leftovers()
    warden.record_exit()
    os._exit(0)
