"""A peer's process: started once, asked one point at a time, stopped while others are asked."""
import ctypes
import json
import os
import signal
import subprocess
import tempfile
import threading

PR_SET_PDEATHSIG = 1


def die_with_parent():
    """A stopped process would otherwise outlive a driver that was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Dead(Exception):
    """The process ended or took too long; the message says which."""


class Worker:
    def __init__(self, peer, command, environment, start_seconds=180):
        self.peer, self.command, self.environment = peer, [str(part) for part in command], environment
        self.start_seconds, self.process, self.library = start_seconds, None, None

    def start(self):
        self.stderr = tempfile.TemporaryFile("w+", errors="replace")
        try:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=self.stderr, text=True, env=os.environ | self.environment,
                                            preexec_fn=die_with_parent)
        except OSError as error:
            raise Dead(str(error)) from None
        self.library = self.answer(self.start_seconds)["library"]
        self.pause()

    def answer(self, seconds):
        """The next line, or Dead."""
        late, process = threading.Event(), self.process

        def end():
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return json.loads(line)
        code = process.wait()
        self.process = None
        if late.is_set():
            raise Dead(f"no answer after {seconds:g} s")
        self.stderr.seek(0)
        said = [text for text in self.stderr.read().splitlines() if text.strip()]
        if code > 0 and said:
            raise Dead(said[-1][:300])
        raise Dead(f"ended by signal {-code}" if code < 0 else f"ended with {code}")

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, point, seconds):
        """The row of a point; a process that died is started anew."""
        if self.process is None:
            self.start()
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps(point.fields()) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        row = self.answer(seconds)
        self.pause()
        return row

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
