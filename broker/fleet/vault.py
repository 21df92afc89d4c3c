"""Secrets at rest by envelope encryption: a data key per row, wrapped by a key that isn't in the database.

    vault = Vault(LocalKeyWrapper.open(Path("fleet.key")))
    sealed = vault.seal("ib-demo-a1b2c3d4", {"password": "..."})
    vault.unseal("ib-demo-a1b2c3d4", sealed)["password"]

Values are sealed by AES-256-GCM with a fresh nonce each; the owner's id and the column's name are
authenticated with them, so a value that was moved to another row or column doesn't open. A wrapper holds
the wrapping key: a key file in `local`, Cloud KMS elsewhere. Changing the wrapping key touches wrapped data
keys only (`Vault.rewrap`).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12
_KEY_BYTES = 32
_KEY_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):([A-Za-z0-9+/=]{44})")
_KMS_KEY = re.compile(r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+")
_METADATA_TOKEN = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - an address


class VaultError(Exception):
    """A secret can't be sealed or opened: the message says why and never holds the secret.

    Nothing was written. `temporary`: the key service didn't answer, try again later.
    """

    def __init__(self, message: str, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class KeyWrapper(Protocol):
    """Holds the wrapping key."""

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """The name of the wrapping key that was used, and the wrapped key. Raises VaultError."""
        ...

    def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """The key that was wrapped with the same context. Raises VaultError."""
        ...

    def is_current(self, name: str) -> bool:
        """Whether new keys are wrapped by the key of that name. Raises VaultError."""
        ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the database keeps: the wrapped data key, the name of its wrapper's key, and sealed values."""

    key_name: str
    data_key: bytes = field(repr=False)
    values: Mapping[str, bytes] = field(repr=False)


class Vault:
    """Seals and opens the secrets of one owner at a time. Usable from any thread."""

    def __init__(self, wrapper: KeyWrapper) -> None:
        self._wrapper = wrapper

    def seal(self, owner: str, values: Mapping[str, str]) -> Sealed:
        """Seals values by column under a new data key. Raises VaultError."""
        key = secrets.token_bytes(_KEY_BYTES)
        name, wrapped = self._wrapper.wrap(key, owner.encode())
        return Sealed(name, wrapped, {c: _encrypt(key, owner, c, v.encode()) for c, v in values.items()})

    def unseal(self, owner: str, sealed: Sealed) -> dict[str, str]:
        """The values in clear. Raises VaultError for what was altered or moved."""
        key = self._wrapper.unwrap(sealed.key_name, sealed.data_key, owner.encode())
        return {c: _decrypt(key, owner, c, v).decode() for c, v in sealed.values.items()}

    def rewrap(self, owner: str, key_name: str, data_key: bytes) -> tuple[str, bytes] | None:
        """The data key wrapped by the current key, or None if it is already. Raises VaultError."""
        if self._wrapper.is_current(key_name):
            return None
        key = self._wrapper.unwrap(key_name, data_key, owner.encode())
        return self._wrapper.wrap(key, owner.encode())


def _encrypt(key: bytes, owner: str, column: str, value: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, value, f"{owner}\0{column}".encode())


def _decrypt(key: bytes, owner: str, column: str, sealed: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], f"{owner}\0{column}".encode())
    except (InvalidTag, ValueError):
        raise VaultError(
            f"{column} of {owner} doesn't open: it was altered, or belongs to another row"
        ) from None


class LocalKeyWrapper:
    """Wrapping keys in a file, `name:base64 of 32 bytes` a line, the current one first."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys`: by name, the current one first."""
        self._keys = dict(keys)
        self._current = next(iter(self._keys))

    @classmethod
    def open(cls, path: Path) -> LocalKeyWrapper:
        """Reads a key file. Raises VaultError that names the line, never its content."""
        try:
            lines = path.read_text("ascii").split()
        except (OSError, UnicodeDecodeError) as error:
            raise VaultError(f"key file {path} can't be read: {type(error).__name__}") from None
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            match = _KEY_LINE.fullmatch(line)
            try:
                key = base64.b64decode(match[2], validate=True) if match else b""
            except binascii.Error:
                key = b""
            if not match or len(key) != _KEY_BYTES:
                raise VaultError(f"key file {path}, line {number}: write name:base64 of {_KEY_BYTES} bytes")
            if match[1] in keys:
                raise VaultError(f"key file {path}, line {number}: a name twice, give each key its own")
            keys[match[1]] = key
        if not keys:
            raise VaultError(f"key file {path} is empty: `python -m broker.fleet new-key` writes a key")
        return cls(keys)

    @staticmethod
    def add_key(path: Path) -> str:
        """Puts a new key before the others of a file, which is made if needed (0600); its name."""
        name = f"k{secrets.token_hex(4)}"
        line = f"{name}:{base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}\n"
        old = path.read_text("ascii") if path.exists() else ""
        written = path.with_name(path.name + ".new")
        with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 - a descriptor
            file.write(line + old)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        return name

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """See KeyWrapper."""
        nonce = os.urandom(_NONCE)
        return self._current, nonce + AESGCM(self._keys[self._current]).encrypt(nonce, key, context)

    def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """See KeyWrapper."""
        if name not in self._keys:
            raise VaultError(f"wrapping key {name} isn't in the key file: put it back behind the current one")
        try:
            return AESGCM(self._keys[name]).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], context)
        except (InvalidTag, ValueError):
            raise VaultError(
                f"a data key doesn't open with wrapping key {name}: one of them was altered"
            ) from None

    def is_current(self, name: str) -> bool:
        """See KeyWrapper."""
        return name == self._current


class KmsWrapper:
    """A key of Cloud KMS, which never leaves it; the REST API, as the machine's own service account."""

    def __init__(
        self,
        key: str,
        client: httpx.Client | None = None,
        endpoint: str = "https://cloudkms.googleapis.com",
        token_url: str = _METADATA_TOKEN,
    ) -> None:
        """`key`: `projects/P/locations/L/keyRings/R/cryptoKeys/K`. Raises VaultError for another form."""
        if not _KMS_KEY.fullmatch(key):
            raise VaultError(f"KMS key {key!r} must look like projects/P/locations/L/keyRings/R/cryptoKeys/K")
        self._key = key
        self._client = client or httpx.Client(timeout=10, follow_redirects=False)
        self._endpoint = endpoint
        self._token_url = token_url
        self._lock = threading.Lock()
        self._token, self._expires = "", 0.0

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """See KeyWrapper; the name is that of the key's version."""
        found = self._call(
            f"{self._key}:encrypt", plaintext=_b64(key), additionalAuthenticatedData=_b64(context)
        )
        return str(found["name"]), base64.b64decode(found["ciphertext"])

    def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """See KeyWrapper. KMS finds the version by itself."""
        found = self._call(
            f"{self._key}:decrypt", ciphertext=_b64(wrapped), additionalAuthenticatedData=_b64(context)
        )
        return base64.b64decode(found["plaintext"])

    def is_current(self, name: str) -> bool:
        """See KeyWrapper."""
        return str(self._call(self._key)["primary"]["name"]) == name

    def _call(self, path: str, **body: str) -> dict[str, Any]:
        url, headers = f"{self._endpoint}/v1/{path}", {"authorization": f"Bearer {self._bearer()}"}
        try:
            answer = (
                self._client.post(url, headers=headers, json=body)
                if body
                else self._client.get(url, headers=headers)
            )
        except httpx.HTTPError as error:
            raise VaultError(f"Cloud KMS doesn't answer: {type(error).__name__}", temporary=True) from None
        if answer.status_code != 200:
            raise VaultError(
                f"Cloud KMS answers {answer.status_code} to {path.rpartition(':')[2]}: "
                "give the service account cloudkms.cryptoKeyEncrypterDecrypter and cloudkms.viewer on it",
                temporary=answer.status_code == 429 or answer.status_code >= 500,
            )
        found: dict[str, Any] = answer.json()
        return found

    def _bearer(self) -> str:
        with self._lock:
            if time.monotonic() >= self._expires:
                try:
                    answer = self._client.get(self._token_url, headers={"metadata-flavor": "Google"})
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    raise VaultError(
                        f"no access token from the metadata server: {type(error).__name__}", temporary=True
                    ) from None
                found = answer.json()
                self._token = str(found["access_token"])
                self._expires = time.monotonic() + max(0.0, float(found["expires_in"]) - 60)
            return self._token


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()
