"""PostgreSQL of our own, for the tracking server: on a Unix socket that only its user can open, never on a port."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.errors import TrackingError

LONGEST = 107
"""Characters of a Unix socket's path."""
SOCKET = ".s.PGSQL.5432"
USERS = ("postgres", "nobody")
"""Who may run it where we are root, under whom PostgreSQL does not start."""


@dataclass(frozen=True)
class Postgres:
    """A database cluster in a folder, which also holds its socket.

    Attributes:
        folder: made at the first start.
        programs: folder of initdb and pg_ctl.
        user: who runs it; None: who we are.
    """

    folder: Path
    programs: Path
    user: str | None

    @property
    def uri(self) -> str:
        """SQLAlchemy's address of its database; there is no password in it."""
        return f"postgresql+psycopg2://mlflow@/postgres?host={quote(str(self.folder))}"

    def start(self) -> None:
        """Start it, after a crash too; does nothing where it runs.

        Raises:
            TrackingError: it does not start.
        """
        data = self.folder / "data"
        if self.runs():
            return
        if not (data / "PG_VERSION").is_file():
            shutil.rmtree(data, ignore_errors=True)  # an initdb that was stopped
            self._run("initdb", "-U", "mlflow", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-instructions")
        settings = f"-c listen_addresses='' -c unix_socket_permissions=0700 -k '{self.folder}'"
        self._run("pg_ctl", "start", "--wait", "--silent", "-l", str(self.folder / "server.log"), "-o", settings)

    def runs(self) -> bool:
        """Whether its server process is there."""
        return self._call("pg_ctl", "status").returncode == 0

    def stop(self) -> None:
        """End it; clients are cut off, transactions rolled back."""
        self._call("pg_ctl", "stop", "--wait", "--silent", "--mode=fast")

    def _call(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        plain = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TZ", "TMPDIR")}
        options: dict[str, Any] = {"cwd": self.folder, "env": plain, "text": True}
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with self._said.open("w") as said:  # no pipe: the server inherits it
            return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **options)

    @property
    def _said(self) -> Path:
        return self.folder / "last-command.log"

    def _run(self, program: str, *arguments: str) -> None:
        try:
            code = self._call(program, *arguments).returncode
        except OSError as error:
            raise TrackingError(
                f"{self.programs / program}: {error.strerror}; mend PostgreSQL's installation"
            ) from None
        if code:
            said = " ".join(self._said.read_text(encoding="utf-8", errors="replace").split())[-200:]
            raise TrackingError(f"PostgreSQL does not start ({program}: {said}); see {self.folder / 'server.log'}")


def postgres_in(folder: Path) -> Postgres:
    """A database cluster in a folder, which is made.

    Raises:
        TrackingError: PostgreSQL is not installed, the path is too long for a socket, or its user cannot reach it.
    """
    programs = _programs()
    folder = folder.absolute()
    if len(str(folder / SOCKET)) > LONGEST or "'" in str(folder):
        raise TrackingError(f"{folder}: PostgreSQL's socket does not fit there; give a shorter --folder without quotes")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = _user() if os.geteuid() == 0 else None
    if user is not None:
        closed = next((place for place in folder.parents if not place.stat().st_mode & 0o001), None)
        if closed is not None:
            raise TrackingError(
                f"{closed}: closed to the user {user!r}, who runs PostgreSQL where we are root; give another --folder"
            )
        shutil.chown(folder, user)
    return Postgres(folder, programs, user)


def _programs() -> Path:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if all((place / program).is_file() for program in ("initdb", "pg_ctl", "postgres")):
            return place
    raise TrackingError("PostgreSQL is not installed; install it (Debian: postgresql), or leave --postgres out")


def _user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = next((name for name in USERS if name in names), None)
    if user is None:
        raise TrackingError(
            f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}; run as another"
        )
    return user
