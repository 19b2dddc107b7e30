"""Settings: every knob of the service, with its unit, default and range.

`read_settings()` reads each field, once, from the environment variable `ENLARGER_` + its name in capitals.
The library (`enlarger.upscale`) reads none of them.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from enlarger.errors import InvalidOption

PREFIX = "ENLARGER_"


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
    public_base_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Address clients reach the server under, e.g. https://up.example.org; "
        "empty takes it from each request.",
    )

    max_input_bytes: int = Field(
        200_000_000, ge=1, description="Largest picture file fetched from a URL, bytes."
    )
    max_inline_bytes: int = Field(
        64_000_000, ge=1, description="Largest picture inside a request as base64, bytes after decoding."
    )
    max_input_megapixels: float = Field(64.0, gt=0, description="Largest picture accepted, million pixels.")
    max_output_megapixels: float = Field(400.0, gt=0, description="Largest result made, million pixels.")

    max_job_seconds: float = Field(3600.0, gt=0, description="Longest computation of one picture, seconds.")
    max_backlog_jobs: int = Field(5000, ge=1, description="Unfinished jobs held before new ones are refused.")
    sync_wait_seconds: float = Field(
        90.0, ge=0, le=600, description="Longest wait of a request with enable_sync_mode, seconds."
    )
    drain_seconds: float = Field(
        5.0,
        ge=0,
        description="At shutdown, time for running jobs to end before they are left for the next start.",
    )
    retention_days: int = Field(7, ge=1, le=3650, description="Life of a link to a result, days.")

    fetch_seconds: float = Field(60.0, gt=0, description="Longest download of one picture URL, seconds.")
    allow_private_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (),
        description="Networks that are not public and that picture URLs may lead to all the same, "
        "e.g. 127.0.0.0/8,192.168.1.0/24.",
    )
    allow_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (), description="Ports that picture URLs may name besides 80 and 443, e.g. 8080,9000."
    )

    weights_dir: Path | None = Field(
        None, description="Folder of pulled and imported models; `~/.cache/enlarger/weights` when not given."
    )
    device: str = Field(
        "auto", description="Device to compute on: auto, cpu or a name from `enlarger doctor`."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of the computation; 0 lets the runtime choose."
    )

    @field_validator("data_dir", "weights_dir")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("public_base_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("allow_private_networks", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        return [ip_network(part) for part in _listed(value)]

    @field_validator("allow_ports", mode="before")
    @classmethod
    def _ports(cls, value: Any) -> Any:
        ports = [int(part) for part in _listed(value)]
        for port in ports:
            if not 1 <= port <= 65535:
                raise ValueError(f"{port} is not a port; ports go from 1 to 65535")
        return ports


def _listed(value: Any) -> list[Any]:
    return (
        [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)
    )


def read_settings(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` win over it.

    Raises InvalidOption that names every variable with a bad value, its value and its limit.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = [
            f"{PREFIX}{'.'.join(map(str, problem['loc'])).upper()}={problem['input']}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise InvalidOption("; ".join(problems), str(error.errors()[0]["loc"][0])) from error
