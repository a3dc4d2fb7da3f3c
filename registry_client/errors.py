"""Every error of this package; each class answers who must act.

Facts are attributes, messages are for people: "cannot <verb> <thing>: <reason>".
"""

from __future__ import annotations


class RegistryError(Exception):
    """Base of the package's errors; never raised itself."""


class RegistryUnavailable(RegistryError):
    """The registry gave no answer, or none that makes sense: try again later.

    `may_have_counted` is False when the call certainly changed nothing, because it was never sent.
    """

    def __init__(self, message: str, *, may_have_counted: bool = True) -> None:
        self.may_have_counted = may_have_counted
        super().__init__(message)


class RegistryRejected(RegistryError):
    """The call is wrong and stays wrong: do not repeat it as it is.

    `code` is for programs: `stale_generation` (then `held_generation` is the one in the registry), `bad_entry`
    (then `key` is the field to blame), `bad_ttl`, `permission_denied`, `bad_request`, `closed`, `answer_too_large`,
    `http_<status>`, or what only one backend knows.
    """

    def __init__(self, message: str, *, code: str, key: str = "", held_generation: int | None = None) -> None:
        self.code, self.key, self.held_generation = code, key, held_generation
        super().__init__(message)


class LeaseLost(RegistryError):
    """The entry is not in the registry (any more), or not in this generation: register it again."""


class Unsupported(RegistryError):
    """This backend cannot do that, now or later: configure another one. Raised at construction."""


class BadOption(Unsupported):
    """A backend cannot be made with this option: `option` names it (`url`, `token`, ...), `reason` is what is wrong."""

    def __init__(self, backend: str, option: str, reason: str) -> None:
        self.option, self.reason = option, reason
        super().__init__(f"cannot use the registry backend {backend}: {option}: {reason}")
