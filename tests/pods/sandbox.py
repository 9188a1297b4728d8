"""Containers without a container engine: each has a network, a mount and a process namespace of its own.

What a pod's security context promises holds here too: its user, no capabilities, a root that cannot be written. The
"image" is this machine's own root under an overlay that is thrown away, with this checkout in it.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support import two_nodes
from tests.support.two_nodes import ROOT, ip, wired

# Folders of an image that hold nothing of the machine.
BARE = ("/tmp", "/run", "/home", "/models", "/etc/headrace")
IMAGE_PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Failed(Exception):
    """A container did not do what it is for; the message has its output."""


@dataclass(frozen=True, slots=True)
class Mount:
    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """What a kubelet would start. `user` None: as the image says, which is root here."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    mounts: Sequence[Mount] = ()
    user: int | None = None
    read_only_root: bool = False
    shm_bytes: int = 64 << 20  # what a container gets without a volume of its own there


@dataclass(slots=True)
class Running:
    """`outer` is ours; `main` is the container's first process, which gets the signals."""

    outer: "subprocess.Popen[bytes]"
    log: Path

    @property
    def main(self) -> psutil.Process:
        """unshare's child. Raises NoSuchProcess when the container has ended."""
        below = psutil.Process(self.outer.pid).children()
        if not below:
            raise psutil.NoSuchProcess(self.outer.pid)
        return below[0]

    def terminate(self, seconds: float) -> int:
        """SIGTERM, as a kubelet sends it; the exit code. Raises TimeoutExpired after having killed it."""
        with suppress(psutil.NoSuchProcess):
            self.main.send_signal(signal.SIGTERM)
        try:
            return self.outer.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """The first process, which takes all of its namespace with it. unshare's --kill-child would not do: the kernel
        forgets that wish when a process changes its user."""
        if self.outer.poll() is None:
            # unshare ends with its child, and has it waited for.
            for each in psutil.Process(self.outer.pid).children() or [self.outer]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            self.outer.wait()


@dataclass(slots=True)
class Sandbox:
    """The network of one pod, which all its containers share. `hosts` is filled in when all addresses are known."""

    name: str
    address: str
    folder: Path
    hosts: Path
    running: list[Running] = field(default_factory=list)

    def run(self, container: Container, seconds: float = 180) -> str:
        """To its end, as an init container; its output. Raises Failed with it."""
        running = self.start(container)
        try:
            code = running.outer.wait(seconds)
        finally:
            running.kill()
        said = running.log.read_text(errors="replace")
        if code != 0:
            raise Failed(f"{container.name} ended with {code}: {said}")
        return said

    def start(self, container: Container) -> Running:
        log = self.folder / f"{container.name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self._argv(container), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        running = Running(process, log)
        self.running.append(running)
        return running

    def _argv(self, container: Container) -> list[str]:
        script = self.folder / f"{container.name}.sh"
        script.write_text(self._script(container))
        namespaces = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork"]
        return ["nsenter", f"--net=/run/netns/{self.name}", *namespaces, "bash", str(script)]

    def _script(self, container: Container) -> str:
        scratch = self.folder / f"{container.name}.root"
        scratch.mkdir(exist_ok=True)
        root = f"{scratch}/root"
        lines = [
            "set -e",
            f"hostname {self.name}",
            "mount --make-rprivate /",
            f"mount -t tmpfs tmpfs {scratch}",
            f"mkdir {scratch}/upper {scratch}/work {root}",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work {root}",
            # The interpreter may live under /root, where a container's user could not look.
            f"chmod 755 {root}/root",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /sys {root}/sys",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs -o size={container.shm_bytes} tmpfs {root}/dev/shm",
            # As in an image: what the machine has there is none of the container's.
            f"for folder in {' '.join(BARE)}; do mkdir -p {root}$folder; "
            f"mount -t tmpfs -o mode=1777 tmpfs {root}$folder; done",
            f"mount --bind {self.hosts} {root}/etc/hosts",
            # All names are in that file; asked for others, this is refused at once where the world would not answer.
            f"rm -f {root}/etc/resolv.conf && echo nameserver 127.0.0.1 >{root}/etc/resolv.conf",
        ]
        code = [Mount(place, str(place), read_only=True) for place in covered()]
        for mount in (*container.mounts, *code):
            target = shlex.quote(f"{root}{mount.target}")
            lines.append(f"mkdir -p {target} && mount --bind {shlex.quote(str(mount.source))} {target}")
            lines += [f"mount -o remount,bind,ro {target}"] if mount.read_only else []
        written = {mount.target for mount in container.mounts}
        if container.read_only_root:
            bare = [f"{root}/{name}" for name in ("run", "home") if f"/{name}" not in written]
            bare += [f"{root}/tmp"] if "/tmp" not in written else []
            lines += [f"mount -o remount,ro {place}" for place in (*bare, root)]
        argv = ["chroot", root, *self._rights(container), "env", "-i", *self._environment(container)]
        # env(1) changes folder after the chroot: the code lies in the image.
        argv += [f"--chdir={ROOT}", *container.argv]
        lines.append("exec " + " ".join(map(shlex.quote, argv)))
        return "\n".join(lines) + "\n"

    def _rights(self, container: Container) -> list[str]:
        if container.user is None:
            return []
        user = str(container.user)
        return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
                "--bounding-set=-all", "--inh-caps=-all"]  # fmt: skip

    def _environment(self, container: Container) -> list[str]:
        image = {"PATH": IMAGE_PATH, "PYTHONPATH": str(ROOT), "HOME": "/tmp", "HOSTNAME": self.name}
        return [f"{name}={value}" for name, value in {**image, **container.env}.items()]

    def stop(self) -> None:
        for each in reversed(self.running):
            each.kill()


def covered() -> list[Path]:
    """The code and its interpreter, where they lie in a folder that is bare in an image, such as somebody's home."""
    places = dict.fromkeys((ROOT, Path(sys.prefix), Path(sys.base_prefix)))
    return [place for place in places if any(place.is_relative_to(folder) for folder in BARE)]


@contextmanager
def sandboxes(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Sandbox] | None]:
    """A pod's network for each name, on one bridge; None where this user may not make namespaces."""
    bridge, net = f"hp{os.getpid()}", f"198.19.{os.getpid() % 256}"
    with ExitStack() as undo:
        try:
            two_nodes.bridge(undo, bridge, f"{net}.1")
            made = {
                name: _sandbox(undo, bridge, name, f"{bridge}{n}", f"{net}.{n + 2}", folder)
                for n, name in enumerate(names)
            }
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        yield made


def _sandbox(undo: ExitStack, bridge: str, name: str, namespace: str, address: str, folder: Path) -> Sandbox:
    wired(undo, bridge, namespace, address)
    # Nothing answers there; Ray finds its own address by asking for the way to the world.
    ip("-n", namespace, "route", "add", "default", "dev", "eth0")
    own = folder / name
    own.mkdir()
    undo.callback(shutil.rmtree, own, ignore_errors=True)
    hosts = folder / "hosts"
    hosts.touch()
    sandbox = Sandbox(namespace, address, own, hosts)
    undo.callback(sandbox.stop)
    return sandbox
