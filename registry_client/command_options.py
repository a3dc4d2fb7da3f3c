"""The arguments of `python -m registry_client` and its environment, and the backend that they mean. Connects nothing.

A token or a password comes from a file or from the environment, never from an argument: everybody on the host can
read those.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

from .backend import Backend
from .client import DEFAULT_TTL_SECONDS, open_backend
from .errors import BadOption, Unsupported
from .options import Secret, Tls

ENVIRONMENT_PREFIX = "UNITD_REGISTRY_"

_FROM_ENVIRONMENT = (
    "backend", "url", "user", "token_file", "password_file", "ca", "cert", "key", "server_name", "prefix", "timeout"
)  # fmt: skip
_SECRETS = ("token", "password")
_EPILOG = """\
exit codes:
  0  found, or done; also when the reader of the output had enough
  1  not there
  2  wrong usage, or options that the backend cannot use
  4  the registry refuses: no permission, or it is no registry at that url
  69 the registry does not answer
  130 Ctrl-C

environment:
  UNITD_REGISTRY_URL and so on for BACKEND, TOKEN_FILE, USER, PASSWORD_FILE, CA, CERT, KEY, SERVER_NAME, PREFIX and
  TIMEOUT, where there is no such option; UNITD_REGISTRY_TOKEN and UNITD_REGISTRY_PASSWORD hold the secret itself.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser: `action` and what belongs to it, and the options that were really given."""
    parser = argparse.ArgumentParser(
        prog="python -m registry_client",
        description="Print what a service registry holds.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_shared_options("options")],
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("list", "all instances of a service, or of all"),
        ("watch", "the same, then every change, until Ctrl-C"),
        ("get", "one instance with all of its fields"),
        ("inspect", "what the registry says about itself, and would grant"),
    ):
        shared = [_shared_options("more_options")]
        action = actions.add_parser(name, help=text, description=text, parents=shared, allow_abbrev=False)
        if name in ("list", "watch"):
            action.add_argument("service", nargs="?", metavar="SERVICE", help="its name (default: all services)")
        elif name == "get":
            action.add_argument("service", metavar="SERVICE", help="the name of the service")
            action.add_argument("instance", metavar="INSTANCE", help="the name of the instance, such as web-7/cart:0")
        else:
            text = f"the ttl to ask about (default: {DEFAULT_TTL_SECONDS:g})"
            action.add_argument("--ttl", type=_seconds, default=DEFAULT_TTL_SECONDS, metavar="SECONDS", help=text)
    return parser


def _shared_options(own: str) -> argparse.ArgumentParser:
    """Options that may stand before and after the action; `own` is where the backend's own ones go.

    They are absent unless they were given, so that the ones after the action do not undo those before it.
    """
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    add = shared.add_argument
    add(
        "--backend", metavar="NAME", help="http (the default), consul, etcd, zookeeper, redis, or another installed one"
    )
    add("--url", help="where the registry is")
    add("--prefix", help="what the registry's keys begin with")
    add("--user", metavar="NAME", help="who asks")
    add("--password-file", metavar="FILE", help="a file with the user's password")
    add("--token-file", metavar="FILE", help="a file with a token")
    add("--ca", metavar="FILE", help="whom to trust (default: whom the system trusts)")
    add("--cert", metavar="FILE", help="our own certificate")
    add("--key", metavar="FILE", help="its key (default: in the same file)")
    add("--server-name", metavar="NAME", help="the name that the certificate must be for")
    add("--insecure", action="store_true", help="take any certificate")
    add("--timeout", type=_seconds, metavar="SECONDS", help="how long to wait for an answer")
    text = "an option that only this backend has; VALUE is JSON, or else text; may be given again"
    add("--option", action="append", type=_option, dest=own, metavar="NAME=VALUE", help=text)
    add("-o", "--output", choices=("text", "json"), help="text (the default), or one JSON value a line")
    return shared


def open_chosen(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Backend:
    """The backend that was asked for. Raises Unsupported (BadOption too), whose message tells what to change."""
    given = _from_environment(environment) | vars(arguments)
    backend = given.get("backend", "http")
    if backend == "embedded":
        raise Unsupported("cannot read an embedded registry from another process: ask its daemon, with --backend http")
    options: dict[str, Any] = {name: given[name] for name in ("url", "prefix", "user") if name in given}
    if "timeout" in given:
        options["timeout_seconds"] = given["timeout"]
    for name in _SECRETS:
        if (secret := _secret(backend, name, given, environment)) is not None:
            options[name] = secret
    if (tls := _tls(backend, given)) is not None:
        options["tls"] = tls
    own = [*given.get("options", ()), *given.get("more_options", ())]
    return open_backend(backend, **options | dict(own))


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _FROM_ENVIRONMENT:
        value = environment.get(ENVIRONMENT_PREFIX + name.upper())
        if value:
            found[name] = value
    if "timeout" in found:
        try:
            found["timeout"] = _seconds(found["timeout"])
        except argparse.ArgumentTypeError as error:
            raise Unsupported(f"cannot use {ENVIRONMENT_PREFIX}TIMEOUT: {error}") from error
    return found


def _secret(backend: str, name: str, given: Mapping[str, Any], environment: Mapping[str, str]) -> Secret | None:
    path, value = given.get(f"{name}_file"), environment.get(ENVIRONMENT_PREFIX + name.upper())
    if path is None:
        return Secret(value) if value else None
    secret = Secret(path=path)
    try:  # a daemon would wait for the file, a person has mistyped it
        secret.read()
    except OSError as error:
        raise BadOption(backend, f"{name}-file", f"cannot read {path}: {(error.strerror or '').lower()}") from error
    except ValueError as error:
        raise BadOption(backend, f"{name}-file", str(error)) from error
    return secret


def _tls(backend: str, given: Mapping[str, Any]) -> Tls | None:
    files = {name: given.get(name) for name in ("ca", "cert", "key", "server_name")}
    if not any(files.values()) and not given.get("insecure"):
        return None
    if files["key"] is not None and files["cert"] is None:
        raise BadOption(backend, "key", "of no use without a certificate (--cert)")
    tls = Tls(verify=not given.get("insecure"), **files)
    tls.context(backend)  # complains about files that cannot be used before anything else is tried
    return tls


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be like NAME=VALUE, not {text!r}")
    if name in _SECRETS:
        raise argparse.ArgumentTypeError(f"a {name} does not belong on a command line: use --{name}-file")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
