"""The real helm and kubectl, pointed at the in-repo API server and at nothing of this machine's user."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.chart.helm import binary

SMALL = Path(__file__).parents[1] / "apiserver" / "small"


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Shell:
    kubeconfig: Path
    home: Path

    def try_helm(self, *arguments: str) -> Done:
        return self._run(binary(), arguments)

    def helm(self, *arguments: str) -> str:
        return _good(self.try_helm(*arguments))

    def try_kubectl(self, *arguments: str, said: str = "") -> Done:
        return self._run(str(Path(binary()).with_name("kubectl")), arguments, said)

    def kubectl(self, *arguments: str, said: str = "") -> str:
        return _good(self.try_kubectl(*arguments, said=said))

    def _run(self, program: str, arguments: tuple[str, ...], said: str = "") -> Done:
        env = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.home), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [program, *arguments], env=env, input=said, capture_output=True, text=True, timeout=60
        )
        return Done(done.returncode, done.stdout, done.stderr)


def _good(done: Done) -> str:
    assert done.code == 0, done.err + done.out
    return done.out
