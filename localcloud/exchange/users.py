"""Users of the brokerage: passwords (scrypt), trading mode, second factor, and who may log in."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any

# OWASP's first choice for scrypt is N=2^17; 2^14 keeps a login of a paper account in the milliseconds.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1


class LoginFailed(Exception):
    """A login was refused. `reason`: credentials, second_factor, mode or competing."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"login failed: {reason}")
        self.reason = reason


def hash_password(password: str) -> str:
    """A salted scrypt hash, hexadecimal, `salt$digest`."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_digest(password, salt).hex()}"


def password_matches(password: str, stored: str) -> bool:
    """Whether `password` is what `stored` was made from."""
    salt, _, digest = stored.partition("$")
    return hmac.compare_digest(_digest(password, bytes.fromhex(salt)), bytes.fromhex(digest))


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)


@dataclass
class User:
    """One user. `approved`: a person has confirmed the second factor for the next login."""

    name: str
    password_hash: str
    mode: str
    accounts: list[str]
    second_factor: bool = False
    approved: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)
    waiting: int = field(default=0, compare=False)

    def as_row(self) -> dict[str, Any]:
        """What is stored of a user."""
        stored = ("name", "password_hash", "mode", "accounts", "second_factor")
        return {name: getattr(self, name) for name in stored}

    async def pass_second_factor(self, wait: float) -> None:
        """Waits up to `wait` seconds for a person's approval; each one serves a single login.

        Raises LoginFailed with reason second_factor.
        """
        if not self.second_factor:
            return
        self.waiting += 1
        try:
            if not self.approved.is_set():
                await asyncio.wait_for(self.approved.wait(), wait)
        except TimeoutError:
            raise LoginFailed("second_factor") from None
        finally:
            self.waiting -= 1
        self.approved.clear()
