"""A reader of pickles that can build dictionaries, lists, tuples, numbers, texts and descriptions of tensors,
and nothing else.

A pickle is a program for a small stack machine, and Python's own machine calls whatever the program names.
This one has no call: a global is a piece of text, looked up in the two tables of pickled_tensors.py, and an
instruction that is not in STEPS is refused by its name. Neither `pickle` nor torch is imported.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import IO, cast

from enlarger.engine.networks.pickled_tensors import (
    CALLS,
    STORAGES,
    Global,
    Storage,
    fill,
    kind_of,
    storage_from_id,
)
from enlarger.errors import WeightsCorrupt

MAX_INSTRUCTIONS = 500_000
"""x4plus takes 24,000."""

_MAX_INTEGER = 2**127
_MAX_NAME_BYTES = 1000
_BY_CODE = {opcode.code: opcode for opcode in pickletools.opcodes}


def read_pickle(stream: IO[bytes], storages: dict[str, Storage]) -> object:
    """The value of the pickle at the position of `stream`, which is left behind it.

    It consists of None, bool, int, float, str, bytes, tuple, list, dict (keys are str or int) and TensorView.
    Lists and dicts may contain themselves. The storages it mentions are added to `storages` by key. Raises
    WeightsCorrupt, naming the instruction or global that is not allowed.
    """
    machine = _Machine(storages)
    try:
        for name, argument in _instructions(stream):
            if name == "STOP":
                break
            STEPS[name](machine, argument)
    # What the readers of arguments raise on damaged input: short reads, bad UTF-8.
    except (ValueError, OverflowError) as error:
        raise WeightsCorrupt(f"the pickle is damaged: {error}") from error
    return machine.pop()


def _instructions(stream: IO[bytes]) -> Iterator[tuple[str, object]]:
    """Name and argument of each instruction, STOP the last; not even the argument is read of one refused."""
    for _ in range(MAX_INSTRUCTIONS):
        code = stream.read(1)
        opcode = _BY_CODE.get(code.decode("latin-1"))
        if opcode is None:
            raise WeightsCorrupt(f"the pickle is damaged: {code!r} is no instruction")
        name = opcode.name
        if name not in STEPS and name != "STOP":
            raise WeightsCorrupt(
                f"the pickle holds the instruction {name}, which weights do not need; nothing of it was executed"
            )
        if name == "GLOBAL":
            yield name, _global_name(stream)
        else:
            yield name, opcode.arg.reader(stream) if opcode.arg else None
        if name == "STOP":
            return
    raise WeightsCorrupt(f"the pickle has more than {MAX_INSTRUCTIONS:,} instructions")


def _global_name(stream: IO[bytes]) -> str:
    """`module name`. Read here, as `pickletools` would interpret escapes in it."""
    lines = [stream.readline(_MAX_NAME_BYTES) for _ in range(2)]
    if not all(line.endswith(b"\n") for line in lines):
        raise WeightsCorrupt("the pickle is damaged: a global has no end")
    return " ".join(line[:-1].decode() for line in lines)


class _Machine:
    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def pop(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise WeightsCorrupt("the pickle is damaged: it takes a value that is not there")
        return self.stack.pop()

    def top(self) -> object:
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise WeightsCorrupt("the pickle is damaged: it returns to a mark that is not there")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def pop_list(self) -> list[object]:
        value = self.pop()
        if not isinstance(value, list):
            raise WeightsCorrupt(f"the pickle appends to a {kind_of(value)}")
        self.stack.append(cast("list[object]", value))
        return cast("list[object]", value)

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise WeightsCorrupt("the pickle is damaged: it recalls a value that it did not store")
        self.stack.append(self.memo[index])

    def set_items(self, pairs: list[object]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise WeightsCorrupt(f"the pickle sets items of a {kind_of(target)}")
        fill(cast("dict[object, object]", target), pairs)

    def push_global(self, name: object) -> None:
        if name not in STORAGES and name not in CALLS:
            shown = str(name)[:100].replace(" ", ".", 1)
            raise WeightsCorrupt(
                f"the file asks for {shown!r}, which weights do not need; nothing of it was executed; "
                "if you trust the file, save its tensors alone, as safetensors, and import that"
            )
        self.stack.append(Global(str(name)))

    def push_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise WeightsCorrupt("the pickle is damaged: a global has no name")
        self.push_global(f"{module} {name}")

    def reduce(self) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Global) or called.name not in CALLS:
            raise WeightsCorrupt(f"the pickle calls a {kind_of(called)}; nothing of it was executed")
        if not isinstance(arguments, tuple):
            raise WeightsCorrupt(f"the pickle calls {called.name} with a {kind_of(arguments)}")
        self.stack.append(CALLS[called.name](cast("tuple[object, ...]", arguments)))

    def build(self) -> None:
        """Attributes of a state dict (`_metadata`) are dropped; nothing else has any."""
        state, target = self.pop(), self.top()
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise WeightsCorrupt(f"the pickle sets the inside of a {kind_of(cast(object, target))}")

    def push_storage(self) -> None:
        storage = storage_from_id(self.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise WeightsCorrupt(f"storage {storage.key!r} is described in two ways")
        self.stack.append(storage)


Step = Callable[[_Machine, object], None]


def _push(machine: _Machine, argument: object) -> None:
    if isinstance(argument, int) and abs(argument) >= _MAX_INTEGER:
        raise WeightsCorrupt("the pickle holds an integer of more than 127 bits")
    machine.stack.append(argument)


def _pushes(make: Callable[[], object]) -> Step:
    return lambda machine, argument: machine.stack.append(make())


def _tuple_of(count: int) -> Step:
    def step(machine: _Machine, argument: object) -> None:
        del argument
        machine.stack.append(tuple(reversed([machine.pop() for _ in range(count)])))

    return step


def _drop(machine: _Machine, argument: object) -> None:
    del argument
    machine.pop()


def _dict_to_mark(machine: _Machine, argument: object) -> None:
    del argument
    pairs = machine.pop_to_mark()
    machine.stack.append({})
    machine.set_items(pairs)


def _append(machine: _Machine, argument: object) -> None:
    del argument
    value = machine.pop()
    machine.pop_list().append(value)


def _set_item(machine: _Machine, argument: object) -> None:
    del argument
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _extend(machine: _Machine, argument: object) -> None:
    del argument
    values = machine.pop_to_mark()
    machine.pop_list().extend(values)


# Of protocols 2 to 5, which is what torch has always written; the text forms of protocol 0 are not needed.
_PUSHED = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)

STEPS: Mapping[str, Step] = {
    **dict.fromkeys(_PUSHED, _push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    "NONE": _pushes(lambda: None),
    "NEWTRUE": _pushes(lambda: True),
    "NEWFALSE": _pushes(lambda: False),
    "EMPTY_TUPLE": _pushes(tuple),
    "EMPTY_LIST": _pushes(list),
    "EMPTY_DICT": _pushes(dict),
    "MARK": lambda machine, argument: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, argument: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda machine, argument: machine.stack.append(machine.pop_to_mark()),
    "DICT": _dict_to_mark,
    "APPEND": _append,
    "APPENDS": _extend,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, argument: machine.set_items(machine.pop_to_mark()),
    "POP": _drop,
    "DUP": lambda machine, argument: machine.stack.append(machine.top()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, index: machine.put(cast(int, index))),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine.get(cast(int, index))),
    "MEMOIZE": lambda machine, argument: machine.put(len(machine.memo)),
    "GLOBAL": lambda machine, name: machine.push_global(name),
    "STACK_GLOBAL": lambda machine, argument: machine.push_stack_global(),
    "REDUCE": lambda machine, argument: machine.reduce(),
    "BUILD": lambda machine, argument: machine.build(),
    "BINPERSID": lambda machine, argument: machine.push_storage(),
}
"""What the machine does, by the name `pickletools` gives the instruction."""
