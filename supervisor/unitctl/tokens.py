"""`new-token`: a credential for [http.access.NAME]."""

from __future__ import annotations

import os

import click

from ..core.access import token_hash
from ..errors import SupervisorError
from .codes import DONE
from .session import Session, command

BITS = 256


@command("new-token")
@click.option("--file", "path", metavar="FILE", type=click.Path(), help="Write the token there (mode 0600), not here.")
def new_token_command(session: Session, path: str | None) -> int:
    """Make a random token, and the hash of it that a configuration holds.

    Needs no running unitd. The token goes to whoever is to use the API, the hash into token_sha256 of their
    [http.access.NAME] table.
    """
    from secrets import token_urlsafe

    token = token_urlsafe(BITS // 8)
    if path is not None:
        _write(path, token)
    digest = token_hash(token)
    if session.json:
        session.out_json({"token": token if path is None else None, "file": path, "token_sha256": digest})
    else:
        session.out(f"token: {token}\n" if path is None else f"token: in {path}\n")
        session.out(f'token_sha256 = "{digest}"\n')
    return DONE


def _write(path: str, token: str) -> None:
    """Nobody else may read it, not even for a moment; a token that is there already may be in use."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SupervisorError(f"cannot write {path}: it exists; move it away, or name another file") from None
    except OSError as error:
        raise SupervisorError(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(file, "w") as opened:
        os.fchmod(opened.fileno(), 0o600)  # whatever the umask
        opened.write(token + "\n")
