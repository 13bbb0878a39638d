"""Signatures of a condensed set, by the OpenSSF package `model-signing` and a key on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rdmdc.errors import InputError
from rdmdc.owndata import opening

SIGNATURE = "set.sig"


class SignatureError(InputError):
    """A set cannot be signed, or its signature does not hold; the message says which."""


def sign(folder: Path, key: Path) -> Path:
    """Sign every file of the folder by a private elliptic-curve key in PEM; returns the signature.

    An earlier signature is replaced. Raises SignatureError.
    """
    check(folder, key)
    signature = folder.resolve() / SIGNATURE
    with _faults(f"{folder} cannot be signed by {key}"):
        signer = _package().signing.Config().use_elliptic_key_signer(private_key=key)
        signer.set_hashing_config(_hashing(signature)).sign(folder.resolve(), signature)
    return folder / SIGNATURE


def verify(folder: Path, key: Path) -> None:
    """Raise SignatureError where a file was changed, added or removed, or the key is another."""
    check(folder, key)
    signature = folder.resolve() / SIGNATURE
    if not signature.is_file():
        raise SignatureError(f"{signature}: no such file; the set is not signed (rdmdc sign)")
    with _faults(f"{folder}: not what was signed"):
        verifier = _package().verifying.Config().use_elliptic_key_verifier(public_key=key)
        verifier.set_hashing_config(_hashing(signature)).verify(folder.resolve(), signature)


def check(folder: Path, key: Path) -> None:
    """Raise SetError or SignatureError where one of them is not there."""
    opening.check(folder)
    if not key.is_file():
        raise SignatureError(f"{key}: no such file; make a key by openssl ecparam -genkey")


def _package() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise SignatureError(
            "model-signing is not installed; pip install rdmdc[publish]"
        ) from error
    return model_signing


def _hashing(signature: Path) -> Any:
    config = _package().hashing.Config()
    return config.set_ignored_paths(paths=[signature], ignore_git_paths=False)


@contextmanager
def _faults(what: str) -> Iterator[None]:
    """Turn what the package raises into one line."""
    try:
        yield
    except SignatureError:
        raise
    except Exception as error:  # of keys, of JSON, of certificates
        raise SignatureError(f"{what}: {str(error) or type(error).__name__}") from error
