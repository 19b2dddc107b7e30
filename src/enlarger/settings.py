"""Settings: every knob of the service, with its unit, default and range.

`read_settings()` reads each field, once, from the environment variable `ENLARGER_` + its name in capitals, or from
the file that the variable of the same name with `_FILE` at its end names.
The library (`enlarger.upscale`) reads none of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from enlarger.errors import InvalidOption
from enlarger.setting_forms import Mirrors, Networks, Pauses, Pools, Ports, Sizes, Words

PREFIX = "ENLARGER_"
_ADDRESS = r"^(https?://[^/\s?#]+/?)?$"


class Settings(BaseSettings):
    """The configuration of one service. Frozen; lists are written with commas."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Path = Field(
        Path("~/.local/share/enlarger"),
        description="Folder of the database, the pictures and the first API key. One server at a time.",
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 is every network of the machine."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 lets the system choose.")
    first_key: SecretStr | None = Field(
        None,
        min_length=20,
        description="Secret of the first API key, at least 20 characters; without it one is made at the first "
        "start and kept in the data folder.",
    )
    public_base_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Address clients reach the server under, e.g. https://up.example.org; "
        "empty takes it from each request.",
    )

    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL of a service on many machines, postgresql://user:password@host/name, with the extra "
        "distributed; without it the jobs are in SQLite in the data folder.",
    )
    database_listen_url: SecretStr | None = Field(
        None,
        description="The same database past a pooler such as pgbouncer, for what has to listen to it and "
        "for migrate; database_url when not given.",
    )
    database_prepares: bool = Field(
        True,
        description="Whether statements are prepared; false behind a pooler that gives each transaction another "
        "connection.",
    )
    database_connections: int = Field(
        8, ge=2, le=200, description="Most connections of a process to PostgreSQL, besides two for the queue."
    )
    blob_url: str = Field(
        "",
        pattern=r"^(file:///\S+|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?)?$",
        description="Where pictures are kept: file:///folder, or s3://bucket/prefix with the extra "
        "distributed; empty is the folder blobs of the data folder.",
    )
    blob_links: Literal["api", "presigned"] = Field(
        "api",
        description="How clients reach files in S3: through the API, or by a redirect to a presigned URL, so that "
        "they have to reach s3_endpoint.",
    )
    direct_upload_bytes: int = Field(
        20_000_000,
        ge=0,
        description="With blob_links=presigned, size from which on uploads go straight to S3, bytes.",
    )
    s3_endpoint: str = Field(
        "",
        pattern=_ADDRESS,
        description="Address of the S3 API, e.g. http://10.0.0.5:8333; empty is Amazon's.",
    )
    s3_public_endpoint: str = Field(
        "",
        pattern=_ADDRESS,
        description="Address that clients reach the S3 API under, when it is not s3_endpoint.",
    )
    s3_region: str = Field(
        "us-east-1", pattern=r"^[A-Za-z0-9-]+$", description="Region that requests to S3 are signed for."
    )
    s3_access_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="Access key of S3; without it that of the machine's role or AWS_ variables is used.",
    )
    s3_secret_key: SecretStr | None = Field(None, min_length=1, description="Secret key of S3.")
    s3_seconds: float = Field(
        5.0,
        gt=0,
        le=60,
        description="How long S3 may be silent, and a failed request is repeated; ten times as long for bodies "
        "above 1 MB, seconds.",
    )

    max_input_bytes: int = Field(
        200_000_000, ge=1, description="Largest picture file fetched from a URL, bytes."
    )
    max_inline_bytes: int = Field(
        64_000_000, ge=1, description="Largest picture inside a request as base64, bytes after decoding."
    )
    max_input_megapixels: float = Field(64.0, gt=0, description="Largest picture accepted, million pixels.")
    max_output_megapixels: float = Field(400.0, gt=0, description="Largest result made, million pixels.")

    max_upload_bytes: int = Field(209_715_200, ge=1, description="Largest picture file uploaded, bytes.")
    upload_seconds: float = Field(3600.0, gt=0, description="Life of the ticket to an upload, seconds.")
    min_free_bytes: int = Field(
        1_000_000_000,
        ge=0,
        description="Free disk space below which submits and uploads are refused, bytes.",
    )

    body_grace_seconds: float = Field(
        20.0,
        gt=0,
        description="Time a client may keep the server waiting for the body of a request, beside what "
        "min_body_bytes_per_second allows, seconds.",
    )
    min_body_bytes_per_second: float = Field(
        10_000.0,
        gt=0,
        description="Rate at which the body of a request must come on the whole, bytes a second.",
    )

    max_job_seconds: float = Field(3600.0, gt=0, description="Longest computation of one picture, seconds.")
    max_backlog_jobs: int = Field(5000, ge=1, description="Unfinished jobs held before new ones are refused.")
    max_backlog_seconds: float = Field(
        86_400.0, gt=0, description="Estimated work held before new jobs are refused, seconds."
    )
    lease_seconds: float = Field(
        30.0,
        ge=2,
        le=3600,
        description="With database_url, how long a worker may be silent until its jobs go to others, seconds.",
    )
    reuse_results: bool = Field(
        True,
        description="Whether a job gets the result that its key has of the same picture with the same options, if "
        "it would be computed the same.",
    )
    checkpoint_megapixels: float = Field(
        4.0,
        ge=0,
        description="Pictures from this size on keep finished bands in the store, so that another attempt goes on "
        "with them; 0 is never, million pixels.",
    )
    large_megapixels: float = Field(
        16.0, gt=0, description="Pictures from this size on are large: worker_sizes says who takes them."
    )
    pools: Pools = Field(
        {},
        description="Pools of workers that take the jobs of a model, e.g. realesrgan-x4plus=gpu,my-model=lab; all "
        "others go to any.",
    )
    worker_pools: Words = Field(
        (), description="Pools that this worker serves besides any and the kind of its devices, cpu or gpu."
    )
    worker_sizes: Sizes = Field(
        ("small", "large"),
        min_length=1,
        description="Sizes of pictures that this worker takes: small, large.",
    )
    prefetch_jobs: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Pictures made ready for each device while it computes; 3 on one machine, 2 with database_url "
        "when not given.",
    )
    sync_wait_seconds: float = Field(
        90.0, ge=0, le=600, description="Longest wait of a request with enable_sync_mode, seconds."
    )
    drain_seconds: float = Field(
        5.0,
        ge=0,
        description="At shutdown, time for running jobs to end before they are left for the next start.",
    )
    retention_days: int = Field(
        7, ge=1, le=3650, description="Life of predictions, results, uploads and links to them, days."
    )
    sweep_seconds: float = Field(
        600.0, gt=0, description="Time between two removals of what is past retention, seconds."
    )

    viewer_cache_bytes: int = Field(
        2_000_000_000,
        ge=0,
        description="Disk space for pictures prepared for zooming; those not looked at for longest go first, the "
        "newest stays, bytes.",
    )

    fetch_seconds: float = Field(60.0, gt=0, description="Longest download of one picture URL, seconds.")
    allow_private_networks: Networks = Field(
        (),
        description="Networks that are not public and that picture and webhook URLs may lead to all the same, "
        "e.g. 127.0.0.0/8,192.168.1.0/24.",
    )
    allow_ports: Ports = Field(
        (), description="Ports that picture and webhook URLs may name besides 80 and 443, e.g. 8080,9000."
    )

    webhook_signature: Literal["wavespeed", "standard"] = Field(
        "wavespeed",
        description="How webhooks are signed: wavespeed (v3, hex) or standard (Standard Webhooks: v1, base64).",
    )
    webhook_seconds: float = Field(
        15.0, gt=0, le=300, description="Time a webhook receiver has to answer, seconds."
    )
    webhook_retry_seconds: Pauses = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        description="Pauses before the second, third … attempt at a webhook, each ±20 %, seconds.",
    )
    webhook_requests_per_host: int = Field(
        4, ge=1, le=32, description="Webhook requests under way to one host at a time."
    )

    nsfw_threshold: float = Field(
        0.8,
        ge=0,
        le=1,
        description="NSFW score from which has_nsfw_contents is true; needs the extra safety.",
    )
    nsfw_refuse: bool = Field(
        False, description="Whether a job whose result reaches the threshold fails instead, code 1200."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written."
    )
    log_json: bool = Field(
        False, description="Whether log lines are JSON objects instead of text for people."
    )

    weights_dir: Path | None = Field(
        None, description="Folder of pulled and imported models; `~/.cache/enlarger/weights` when not given."
    )
    auto_download: bool = Field(
        False,
        description="Whether weights that a job needs and this machine has not are downloaded; without, such a job "
        "fails with the command that brings them. `make serve` turns it on.",
    )
    download_timeout_seconds: float = Field(
        900.0, gt=0, description="Longest wait of one job for weights being downloaded, seconds."
    )
    weights_mirrors: Mirrors = Field(
        (), description="Base URLs asked for weights before the official address, separated by spaces."
    )
    device: str = Field(
        "auto",
        pattern=r"^[a-z]+(:\d+)?(,[a-z]+(:\d+)?)*$",
        description="Devices to compute on: auto, cpu or names from `enlarger doctor`, e.g. cuda:0,cuda:1.",
    )
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of the computation; 0 lets the runtime choose."
    )

    @field_validator("data_dir", "weights_dir")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("public_base_url", "s3_endpoint", "s3_public_endpoint")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")


def read_settings(**overrides: Any) -> Settings:
    """Settings from the environment and the files it names; `overrides` win over both.

    Raises InvalidOption that names every variable with a bad value, its value and its limit. No secret is shown.
    """
    try:
        return Settings(**{**_from_files(os.environ), **overrides})
    except ValidationError as error:
        problems = [
            f"{_variable('.'.join(map(str, problem['loc'])))}={_shown(problem)}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise InvalidOption("; ".join(problems), str(error.errors()[0]["loc"][0])) from error


def _from_files(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        path = environment.get(f"{_variable(name)}_FILE", "")
        if not path:
            continue
        if environment.get(_variable(name)):
            raise InvalidOption(f"{_variable(name)} and {_variable(name)}_FILE are both set: keep one", name)
        try:
            found[name] = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidOption(f"{_variable(name)}_FILE={path} cannot be read: {error}", name) from error
    return found


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _shown(problem: ErrorDetails) -> Any:
    field = Settings.model_fields.get(str(problem["loc"][0]))
    secret = field is not None and field.annotation == SecretStr | None
    return "(secret)" if secret else problem["input"]
