"""The address of a storage, as `runtime.storage` has it: checked without a look at the place."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipeline.errors import ParamsError, StorageError, redacted, shown, storage_error

VARIABLE = "EARLY_EXIT_STORAGE"
OPTIONS = ("region", "scheme", "endpoint_override")
"""Options of pyarrow's file systems that an address may set after a question mark."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
FORWARDED = (*ENDPOINTS, *REGIONS)
"""Variables that say where a store is, which workers on other nodes get; keys they have of their own."""
KEYS = "keys come from the environment (AWS_ACCESS_KEY_ID, a profile, or the machine's role), never from the address"


@dataclass(frozen=True)
class Address:
    """A storage's place.

    Attributes:
        scheme: "s3", "gs" or "file".
        place: bucket and prefix, or the folder's absolute path.
        options: of pyarrow's file system, from the address and the environment.
        anonymous: without keys, from a public bucket of Google's.
        text: the address itself, which a worker on another node opens.
    """

    scheme: str
    place: str
    options: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    text: str = ""

    def __str__(self) -> str:
        return self.place if self.scheme == "file" else f"{self.scheme}://{self.place}"

    def open(self, attempts: int) -> tuple[Any, str]:
        """pyarrow's file system, and the path of the prefix in it.

        Args:
            attempts: how often a store is asked, after ever longer pauses, before it counts as away.
        """
        from pyarrow import fs

        options = dict(self.options)
        if self.scheme == "file":
            return fs.LocalFileSystem(), self.place
        if self.scheme == "gs":
            limit = timedelta(seconds=10 * attempts)
            return fs.GcsFileSystem(anonymous=self.anonymous, retry_time_limit=limit, **options), self.place
        if "region" not in options:
            options["region"] = fs.resolve_s3_region(self.place.partition("/")[0])
        retry = fs.AwsStandardS3RetryStrategy(max_attempts=attempts)
        return fs.S3FileSystem(connect_timeout=10, request_timeout=60, retry_strategy=retry, **options), self.place

    def refused(self, error: Exception) -> StorageError:
        """The error of a store that does not serve, in one line with its remedy."""
        if self.scheme == "file" and isinstance(error, OSError) and (known := storage_error(error)) is not None:
            return known
        reason = " ".join(str(error).split())
        reason = re.sub(r"^When .*?: AWS Error|\s*\(Request ID.*?\)", "", reason).strip()[:300]
        remedy = next((text for sign, text in REMEDIES if re.search(sign, str(error))), "check the address and keys")
        at = f" at {self.options['endpoint_override']}" if "endpoint_override" in self.options else ""
        text = f"{self}{at} does not serve ({reason}); {remedy}"
        return StorageError(redacted(text))  # the endpoint may have a password


REMEDIES = (
    (
        "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|EXPIRED|UNRECOGNIZED_CLIENT|MISSING_AUTH|[Cc]redential|FORBIDDEN",
        "set keys that may read and write there (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role)",
    ),
    ("NO_SUCH_BUCKET|NOT_FOUND|does not exist", "make the bucket, or name another in runtime.storage"),
    ("NETWORK_CONNECTION|resolve|[Cc]onnect|timed? ?out|curlCode", "check the network and AWS_ENDPOINT_URL"),
)


def parse_address(value: str) -> Address:
    """Read an address: a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, with options after a question mark.

    Raises:
        ParamsError: another scheme, no bucket, an unknown option, or a key within the address, which is not repeated.

    >>> parse_address("s3://bucket/study?region=eu-west-1").place
    'bucket/study'
    """
    if "://" not in value:
        place = str(Path(value).expanduser().absolute())
        return Address("file", place, text=place)
    parts = urlsplit(value)
    anonymous = parts.scheme == "gs" and parts.username == "anonymous" and parts.password is None
    if "@" in parts.netloc and not anonymous:
        raise ParamsError(f"runtime.storage: the address holds a user or a key; {KEYS}")
    if parts.scheme == "file":
        return Address("file", parts.path, text=parts.path)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in ("s3", "gs"):
        raise ParamsError(
            f"runtime.storage: {shown(parts.scheme)} is no kind of storage; give a folder, s3://BUCKET/PREFIX or "
            "gs://BUCKET/PREFIX"
        )
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise ParamsError(f"runtime.storage: unknown option {unknown[0]!r} (known: {', '.join(OPTIONS)}); {KEYS}")
    bucket = parts.hostname
    prefix = parts.path.strip("/")
    if not bucket or ".." in prefix.split("/"):
        raise ParamsError(f"runtime.storage: {shown(value)} names no bucket; give {parts.scheme}://BUCKET/PREFIX")
    if parts.scheme == "s3":
        options = _environment() | options
        if "endpoint_override" in options:
            options.setdefault("region", "us-east-1")
    return Address(parts.scheme, f"{bucket}/{prefix}".rstrip("/"), options, anonymous, value)


def _environment() -> dict[str, str]:
    """What AWS's variables say of the place, which pyarrow reads in part only."""
    found = {}
    for option, names in (("endpoint_override", ENDPOINTS), ("region", REGIONS)):
        value = next((os.environ[name] for name in names if os.environ.get(name)), None)
        if value is not None:
            found[option] = value
    return found
