from __future__ import annotations

import asyncio

import pytest

from enlarger.jobs import devices as module
from enlarger.jobs.devices import Device, Devices
from enlarger.jobs.queue import HandBack

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 20


async def nowhere() -> bool:
    return False


async def elsewhere() -> bool:
    return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)


def named(*names: str) -> Devices:
    return Devices(dict.fromkeys(names, None))  # type: ignore[arg-type]


async def test_next_job_goes_to_the_device_with_the_fewest() -> None:
    devices = named("a", "b")
    async with devices.assigned() as first, devices.assigned() as second:
        assert {first.name, second.name} == {"a", "b"}
        assert devices.idle == 0
    assert devices.idle == 2


async def test_device_computes_one_job_at_a_time_in_the_order_they_came() -> None:
    devices = named("a")
    [device] = devices.all
    order: list[int] = []

    async def job(number: int) -> None:
        async with devices.assigned(), devices.turn(device, nowhere):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(job(n) for n in range(4)))
    assert order == [0, 0, 1, 1, 2, 2, 3, 3]


async def holding(devices: Devices, device: Device) -> tuple[asyncio.Task[None], asyncio.Event]:
    """A job that has the turn until the event is set."""
    has, gate = asyncio.Event(), asyncio.Event()

    async def job() -> None:
        device.jobs += 1
        async with devices.turn(device, nowhere):
            has.set()
            await gate.wait()
        device.jobs -= 1

    task = asyncio.create_task(job())
    await asyncio.wait_for(has.wait(), WAIT_SECONDS)
    return task, gate


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_job_that_waits_is_handed_back_when_another_device_is_idle(where: str) -> None:
    devices = named("a", "b") if where == "here" else named("a")
    device = devices.all[0]
    task, gate = await holding(devices, device)
    with pytest.raises(HandBack):
        async with devices.turn(device, nowhere if where == "here" else elsewhere):
            pass
    gate.set()
    await task
    # The place in the line is given up with the job.
    async with asyncio.timeout(WAIT_SECONDS), devices.turn(device, nowhere):
        pass


@pytest.mark.usefixtures("impatient")
async def test_job_waits_on_while_no_device_is_idle() -> None:
    devices = named("a")
    [device] = devices.all
    task, gate = await holding(devices, device)
    asked = 0

    async def ask() -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            gate.set()
        return False

    async with asyncio.timeout(WAIT_SECONDS), devices.turn(device, ask):
        assert asked >= 3
    await task


async def test_cancelled_wait_gives_the_turn_to_the_next() -> None:
    devices = named("a")
    [device] = devices.all
    task, gate = await holding(devices, device)

    async def wait() -> None:
        async with devices.turn(device, nowhere):
            pass

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    gate.set()
    await task
    await asyncio.wait_for(wait(), WAIT_SECONDS)


async def test_gap_counts_only_while_there_is_a_job_to_compute() -> None:
    devices = named("a")
    [device] = devices.all
    async with devices.assigned():
        async with devices.assigned(), devices.turn(device, nowhere):
            pass
        await asyncio.sleep(0.02)
        async with devices.turn(device, nowhere):
            pass
    gap = device.waited_seconds
    assert gap >= 0.02
    await asyncio.sleep(0.02)
    async with devices.assigned(), devices.turn(device, nowhere):
        pass
    assert device.waited_seconds == gap
