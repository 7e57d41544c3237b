"""Webhooks, verified: what is signed are the bytes as they came.

A body that was parsed and written again cannot be verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from .errors import OncewardError
from .shapes import Advice

#: How far a time of signing may be from now, in seconds.
TOLERANCE = 300.0

#: Signatures that are tried, and secrets, at most.
_TRIED_MAX = 16

#: From this number on a timestamp is in milliseconds: as seconds it would be in the year 5138.
_MILLISECONDS_FROM = 100_000_000_000

#: How a provider signs.
Scheme = Literal["standard-webhooks", "svix", "stripe", "github", "slack", "shopify"]

Reason = Literal[
    "header_missing",
    "header_unreadable",
    "too_old",
    "too_new",
    "too_many_signatures",
    "signature_mismatch",
]

#: Headers as frameworks have them.
Headers = Mapping[str, str] | Iterable[tuple[str, str] | tuple[bytes, bytes]]


class WebhookRejectedError(OncewardError):
    """Why a webhook was refused; `reason` is a word that stays."""

    advice: Advice = "fix-request"

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Verified:
    """A webhook that its provider signed."""

    #: Its id, where the scheme has one in a header: the key to make nothing of a second arrival.
    #: GitHub and Shopify do not sign theirs: whoever has a webhook of theirs can send it again
    #: under another.
    id: str | None
    #: When it was signed, where the scheme says.
    signed_at: datetime | None
    #: Which secret fitted, counted from 0.
    secret: int


@dataclass(frozen=True)
class _Said:
    """What a webhook says of its signing, read and not believed yet."""

    #: Decoded, with whether each is verified with a public key.
    signatures: list[tuple[bool, bytes]]
    signed: bytes
    signed_at: float | None
    id: str | None


def verify_webhook(
    payload: bytes | bytearray | memoryview | str,
    headers: Headers,
    secrets: str | Sequence[str],
    *,
    scheme: Scheme = "standard-webhooks",
    tolerance: float = TOLERANCE,
    now: datetime | None = None,
) -> Verified:
    """Verifies that `payload` is what its provider signed, not long ago, with one of `secrets`.

    `payload` is the raw body, not what a parser made of it; `secrets` is one, or several while they
    are rotated; `tolerance`, in seconds, is how far the time of signing may be from now.

    Raises `WebhookRejectedError` where it is not, `TypeError` where the body was parsed, and
    `ValueError` where a secret cannot be one.
    """
    body = _raw(payload)
    every = [secrets] if isinstance(secrets, str) else list(secrets)
    if not 1 <= len(every) <= _TRIED_MAX or "" in every:
        raise ValueError(f"there are 1 to {_TRIED_MAX} secrets, and none is empty")
    keys = [_key(scheme, secret) for secret in every]
    said = _READ[scheme](_lines(headers), body)
    if len(said.signatures) > _TRIED_MAX:
        raise WebhookRejectedError(
            "too_many_signatures", f"it has more than {_TRIED_MAX} signatures"
        )
    _check_time(said.signed_at, (now or datetime.now(UTC)).timestamp(), tolerance)
    for place, (is_public, fits) in enumerate(keys):
        of_its_kind = [signature for of, signature in said.signatures if of == is_public]
        if fits(of_its_kind, said.signed):
            at = None if said.signed_at is None else datetime.fromtimestamp(said.signed_at, UTC)
            return Verified(said.id, at, place)
    raise WebhookRejectedError(
        "signature_mismatch",
        f"none of {len(said.signatures)} signatures fits any of {len(keys)} secrets: is the body as"
        " it came, byte by byte?",
    )


def _raw(payload: object) -> bytes:
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    raise TypeError(
        f"a webhook is verified by its raw body, and this is a parsed {type(payload).__name__}:"
        " take the bytes before any parser, as with `await request.body()` or `request.get_data()`"
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _lines(headers: Headers) -> dict[str, str]:
    """One line for each name, in lower case."""
    found: dict[str, str] = {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in pairs:
        lower = _text(name).lower()
        if lower in found:
            raise WebhookRejectedError("header_unreadable", f"more than one line of {lower}")
        found[lower] = _text(value).strip()
    return found


def _header(headers: dict[str, str], *names: str) -> tuple[str, str]:
    for name in names:
        if name in headers:
            return name, headers[name]
    raise WebhookRejectedError("header_missing", f"there is no header {' or '.join(names)}")


def _unreadable(name: str, wanted: str) -> WebhookRejectedError:
    return WebhookRejectedError("header_unreadable", f"the header {name} is not {wanted}")


def _time(name: str, text: str) -> float:
    """A time in digits alone: what is signed is their text, so that no other way fits."""
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise _unreadable(name, "seconds since 1970, in digits")
    number = int(text)
    return number / 1000 if number >= _MILLISECONDS_FROM else float(number)


def _check_time(signed_at: float | None, now: float, tolerance: float) -> None:
    if signed_at is None:
        return
    age = now - signed_at
    if age > tolerance:
        raise WebhookRejectedError("too_old", f"it was signed {age:.0f} s ago")
    if -age > tolerance:
        raise WebhookRejectedError("too_new", f"it was signed {-age:.0f} s ahead of our clock")


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _hex(text: str) -> bytes | None:
    return bytes.fromhex(text) if re.fullmatch(r"([0-9a-fA-F]{2})+", text) else None


def _one(signature: bytes | None, name: str, wanted: str) -> list[tuple[bool, bytes]]:
    if not signature:
        raise _unreadable(name, wanted)
    return [(False, signature)]


def _standard(*beginnings: str) -> Callable[[dict[str, str], bytes], _Said]:
    def read(headers: dict[str, str], body: bytes) -> _Said:
        def of(name: str) -> tuple[str, str]:
            return _header(headers, *(begin + name for begin in beginnings))

        (_, event), (time_name, time), (name, text) = of("id"), of("timestamp"), of("signature")
        signatures = []
        for word in text.split(" "):
            version, _, coded = word.partition(",")
            signature = _base64(coded)
            if version in ("v1", "v1a") and signature:
                signatures.append((version == "v1a", signature))
        if not signatures:
            raise _unreadable(name, "`v1,` and base64")
        signed = f"{event}.{time}.".encode() + body
        return _Said(signatures, signed, _time(time_name, time), event)

    return read


def _stripe(headers: dict[str, str], body: bytes) -> _Said:
    name, text = _header(headers, "stripe-signature")
    wanted = "`t=` and seconds, `v1=` and hexadecimal digits"
    fields = [tuple(part.strip().partition("=")[::2]) for part in text.split(",")]
    times = [value for word, value in fields if word == "t"]
    if len(times) != 1:
        raise _unreadable(name, wanted)
    # Only `v1` counts: `v0` is of test events.
    read = [_hex(value) for word, value in fields if word == "v1"]
    signatures = [(False, signature) for signature in read if signature]
    if not signatures:
        raise _unreadable(name, wanted)
    return _Said(signatures, f"{times[0]}.".encode() + body, _time(name, times[0]), None)


def _github(headers: dict[str, str], body: bytes) -> _Said:
    name, text = _header(headers, "x-hub-signature-256")
    signature = _hex(text.removeprefix("sha256=")) if text.startswith("sha256=") else None
    signatures = _one(signature, name, "`sha256=` and hexadecimal digits")
    return _Said(signatures, body, None, headers.get("x-github-delivery"))


def _slack(headers: dict[str, str], body: bytes) -> _Said:
    time_name, time = _header(headers, "x-slack-request-timestamp")
    name, text = _header(headers, "x-slack-signature")
    signature = _hex(text.removeprefix("v0=")) if text.startswith("v0=") else None
    signatures = _one(signature, name, "`v0=` and hexadecimal digits")
    return _Said(signatures, f"v0:{time}:".encode() + body, _time(time_name, time), None)


def _shopify(headers: dict[str, str], body: bytes) -> _Said:
    name, text = _header(headers, "x-shopify-hmac-sha256", "shopify-hmac-sha256")
    signatures = _one(_base64(text), name, "a digest in base64")
    return _Said(signatures, body, None, headers.get("x-shopify-webhook-id"))


#: What each provider signs, and where it says so.
_READ: dict[Scheme, Callable[[dict[str, str], bytes], _Said]] = {
    "standard-webhooks": _standard("webhook-"),
    "svix": _standard("svix-", "webhook-"),
    "stripe": _stripe,
    "github": _github,
    "slack": _slack,
    "shopify": _shopify,
}

#: Whether one of these signatures is that of what was signed.
_Fits = Callable[[list[bytes], bytes], bool]


def _shared(secret: bytes) -> tuple[bool, _Fits]:
    def fits(signatures: list[bytes], signed: bytes) -> bool:
        # One pass over the body, however many signatures a stranger sends.
        wanted = hmac.digest(secret, signed, hashlib.sha256)
        # In constant time, and the whole of it.
        return any(hmac.compare_digest(wanted, signature) for signature in signatures)

    return False, fits


def _key(scheme: Scheme, secret: str) -> tuple[bool, _Fits]:
    """A secret as the scheme writes it: whether it is a public key, and what it verifies."""
    if scheme not in ("standard-webhooks", "svix"):
        return _shared(secret.encode())
    if secret.startswith("whsk_"):
        raise ValueError("that is the sender's private key: a receiver has `whpk_…`")
    if secret.startswith("whpk_"):
        return _public(_base64(secret.removeprefix("whpk_")))
    key = _base64(secret.removeprefix("whsec_"))
    if key is None or not 16 <= len(key) <= 128:
        raise ValueError("the secret is not `whsec_` and the base64 of 24 to 64 bytes")
    return _shared(key)


def _public(key: bytes | None) -> tuple[bool, _Fits]:
    if key is None or len(key) != 32:
        raise ValueError("`whpk_` stands before the base64 of 32 bytes")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        why = "`whpk_` is a key of ed25519, which needs the extra: pip install onceward[ed25519]"
        raise ValueError(why) from error
    public = Ed25519PublicKey.from_public_bytes(key)

    def is_its(signature: bytes, signed: bytes) -> bool:
        try:
            public.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    def fits(signatures: list[bytes], signed: bytes) -> bool:
        return any(is_its(signature, signed) for signature in signatures)

    return True, fits
