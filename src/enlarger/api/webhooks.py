"""Webhooks: the secret they are signed with, and what became of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from enlarger.api.auth import Caller
from enlarger.api.context import UseContext
from enlarger.api.envelopes import PROBLEMS, Envelope, success
from enlarger.api.wavespeed import JobId
from enlarger.jobs.job import Scope
from enlarger.jobs.outbox import Delivery, DeliveryState
from enlarger.jobs.view import rfc3339

router = APIRouter(tags=["webhooks"], responses=PROBLEMS)


class WebhookSecret(BaseModel):
    secret: str = Field(description="`whsec_` and 44 characters; the same for all webhooks of the key.")


class AttemptShown(BaseModel):
    """One request to the receiver."""

    at: str = Field(description="When it began, RFC 3339.")
    duration_ms: int
    status: int = Field(description="HTTP status of the answer; 0 when there was none.")
    error: str = Field(description="What went wrong, empty for a delivery.")


class DeliveryShown(BaseModel):
    """One message to the webhook of a prediction."""

    id: str
    url: str
    status: DeliveryState
    created_at: str = Field(description="RFC 3339.")
    next_attempt_at: str | None = Field(description="RFC 3339; null when there will be none.")
    attempts: list[AttemptShown]


@router.get(
    "/webhook/secret", summary="The secret webhooks are signed with", response_model=Envelope[WebhookSecret]
)
async def secret(context: UseContext, key: Caller) -> dict[str, Any]:
    context.service.require(key, Scope.READ)
    return success({"secret": context.webhooks.secret(key)})


@router.get(
    "/predictions/{id}/deliveries",
    summary="What became of a webhook",
    response_model=Envelope[list[DeliveryShown]],
)
async def deliveries(job_id: JobId, context: UseContext, key: Caller) -> dict[str, Any]:
    context.service.require(key, Scope.READ)
    found = await context.webhooks.deliveries(key, job_id)
    return success([_shown(delivery) for delivery in found])


@router.post(
    "/predictions/{id}/deliveries/{delivery_id}/replay",
    summary="Send a webhook again",
    description="Makes a new delivery of the same message, due now. One that is still pending ends as `replaced`.",
    response_model=Envelope[DeliveryShown],
)
async def replay(job_id: JobId, delivery_id: str, context: UseContext, key: Caller) -> dict[str, Any]:
    context.service.require(key, Scope.SUBMIT)
    return success(_shown(await context.webhooks.replay(key, job_id, delivery_id)))


def _shown(delivery: Delivery) -> dict[str, Any]:
    pending = delivery.state is DeliveryState.PENDING
    return {
        "id": delivery.id,
        "url": delivery.url,
        "status": delivery.state.value,
        "created_at": rfc3339(delivery.created_at),
        "next_attempt_at": rfc3339(delivery.due_at) if pending else None,
        "attempts": [
            {
                "at": rfc3339(attempt.at),
                "duration_ms": attempt.duration_ms,
                "status": attempt.status,
                "error": attempt.error,
            }
            for attempt in delivery.attempts
        ],
    }
