"""The account: balance, usage and bills, for clients that look at them. Nothing is billed here."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from enlarger.api.auth import Caller
from enlarger.api.context import UseContext
from enlarger.api.envelopes import PROBLEMS, Envelope, asked, body_of, success
from enlarger.errors import InvalidOption
from enlarger.jobs.history import Used

router = APIRouter(tags=["account"], responses=PROBLEMS)

BALANCE = 1_000_000.0
"""Nothing is billed, yet clients warn at a small balance, or refuse to work."""
MAX_USAGE_DAYS = 31


class Balance(BaseModel):
    balance: float = Field(description="US dollars; a constant.")


class AccountBalance(Balance):
    currency: str


class UsageAsked(BaseModel):
    """A span of at most 31 days."""

    model_config = ConfigDict(protected_namespaces=())

    start_time: datetime = Field(description="ISO 8601; UTC when it names no zone.")
    end_time: datetime = Field(description="ISO 8601; UTC when it names no zone.")
    model_uuid: str = Field("", description="Only this model.")


class ModelUsage(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_uuid: str
    model_type: str
    unit_price: float
    total_cost: float
    total_count: int


class DailyUsage(BaseModel):
    date: str
    amount: float
    count: int


class UsageSummary(BaseModel):
    total_cost: float
    total_requests: int
    success_requests: int


class Usage(BaseModel):
    """Predictions counted by the day, UTC, on which they ended."""

    per_model_usage: list[ModelUsage]
    daily_usage: list[DailyUsage]
    summary: UsageSummary


class BillsAsked(BaseModel):
    """A page of bills."""

    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(20, ge=1, le=100)


class Bills(BaseModel):
    """There are none."""

    page: int
    total: int
    has_more: bool
    items: list[dict[str, Any]]


@router.get("/balance", summary="The balance", response_model=Envelope[Balance])
async def balance(_: Caller) -> dict[str, Any]:
    return success({"balance": BALANCE})


@router.get(
    "/account/balance", summary="The balance and its currency", response_model=Envelope[AccountBalance]
)
async def account_balance(_: Caller) -> dict[str, Any]:
    return success({"balance": BALANCE, "currency": "USD"})


@router.post(
    "/user/usage_stats",
    summary="How many predictions a key had",
    response_model=Envelope[Usage],
    openapi_extra=body_of(UsageAsked),
)
async def usage_stats(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    wanted = await asked(request, UsageAsked)
    start, end = seconds_of(wanted.start_time), seconds_of(wanted.end_time)
    if not 0 <= end - start <= timedelta(days=MAX_USAGE_DAYS).total_seconds():
        raise InvalidOption(
            f"end_time must lie after start_time, by at most {MAX_USAGE_DAYS} days", "end_time"
        )
    used = [
        row for row in await context.service.usage(key, start, end) if wanted.model_uuid in ("", row.model)
    ]
    return success(_told(used))


@router.post(
    "/billings/search",
    summary="The bills, of which there are none",
    response_model=Envelope[Bills],
    openapi_extra=body_of(BillsAsked),
)
async def billings(request: Request, _: Caller) -> dict[str, Any]:
    wanted = await asked(request, BillsAsked)
    return success({"page": wanted.page, "total": 0, "has_more": False, "items": []})


def _told(used: list[Used]) -> dict[str, Any]:
    by_model: Counter[str] = Counter()
    by_day: Counter[int] = Counter()
    for row in used:
        count = row.completed + row.failed + row.cancelled
        by_model[row.model] += count
        by_day[row.day] += count
    return {
        "per_model_usage": [
            {
                "model_uuid": model,
                "model_type": "image-to-image",
                "unit_price": 0.0,
                "total_cost": 0.0,
                "total_count": count,
            }
            for model, count in sorted(by_model.items())
        ],
        "daily_usage": [
            {"date": (date(1970, 1, 1) + timedelta(days=day)).isoformat(), "amount": 0.0, "count": count}
            for day, count in sorted(by_day.items())
        ],
        "summary": {
            "total_cost": 0.0,
            "total_requests": by_day.total(),
            "success_requests": sum(row.completed for row in used),
        },
    }


def seconds_of(moment: datetime) -> float:
    """Unix seconds; a time without a zone is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
