"""The driver: order of calls, poisoning, limits, laziness."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from protocols.errors import LocalError, PeerError, ProtocolError
from protocols.machine import MAX_MESSAGE, Done, Machine, Step, pump


@dataclass(frozen=True)
class Echo:
    """Answers each message with itself, `left` times."""

    left: int

    def receive(self, message: bytes) -> Step[str]:
        if message == b"peer's fault":
            raise PeerError("protocol.malformed", "as told")
        if message == b"bug":
            raise ZeroDivisionError
        then = Done("end") if self.left == 1 else Echo(self.left - 1)
        return Step([message], then, (1, self.left))


def echo(times: int = 2, opening: tuple[bytes, ...] = ()) -> Machine[str]:
    return Machine(Step(opening, Echo(times)))


def started(machine: Machine[str]) -> Machine[str]:
    list(machine.start())
    return machine


def assert_poisoned(machine: Machine[str]) -> None:
    assert not machine.finished
    with pytest.raises(LocalError, match=r"protocol\.poisoned"):
        list(machine.receive(b"x"))
    with pytest.raises(LocalError):
        list(machine.start())
    with pytest.raises(LocalError, match=r"protocol\.state"):
        _ = machine.result


def test_a_run_to_the_end() -> None:
    machine = echo(opening=(b"hello",))
    assert list(machine.start()) == [b"hello"]
    assert list(machine.receive(b"1")) == [b"1"]
    assert (machine.finished, machine.progress) == (False, (1, 2))
    assert list(machine.receive(b"2")) == [b"2"]
    assert machine.finished
    assert machine.result == "end"


def test_the_result_waits_for_the_last_message_to_be_taken() -> None:
    machine = started(echo(1))
    last = machine.receive(b"1")
    assert not machine.finished
    with pytest.raises(LocalError):
        _ = machine.result
    assert list(last) == [b"1"]
    assert machine.result == "end"


@pytest.mark.parametrize("message", [b"peer's fault", b"bug"])
def test_an_error_in_a_state_poisons(message: bytes) -> None:
    machine = started(echo())
    with pytest.raises((PeerError, ZeroDivisionError)):
        machine.receive(message)
    assert_poisoned(machine)


def test_an_error_while_sending_poisons() -> None:
    def lazy():
        yield b"first"
        raise PeerError("protocol.malformed", "found late")

    machine: Machine[str] = Machine(Step(lazy(), Done("end")))
    sending = machine.start()
    assert next(sending) == b"first"
    with pytest.raises(PeerError):
        next(sending)
    assert_poisoned(machine)


def test_leaving_messages_untaken_poisons() -> None:
    machine = echo(opening=(b"a", b"b"))
    sending = machine.start()
    next(sending)
    sending.close()
    assert_poisoned(machine)


def test_receive_before_the_messages_are_taken() -> None:
    machine = echo(opening=(b"a",))
    machine.start()
    with pytest.raises(LocalError, match=r"protocol\.state"):
        machine.receive(b"x")
    assert_poisoned(machine)


def test_receive_before_start_poisons_and_then_start_sends_nothing() -> None:
    machine = echo(opening=(b"secret",))
    with pytest.raises(LocalError, match=r"protocol\.state"):
        machine.receive(b"x")
    with pytest.raises(LocalError, match=r"protocol\.poisoned"):
        machine.start()


def test_start_twice() -> None:
    machine = started(echo())
    with pytest.raises(LocalError, match=r"protocol\.state"):
        machine.start()
    assert_poisoned(machine)


def test_a_message_after_the_end_is_the_peers_fault() -> None:
    machine = started(echo(1))
    list(machine.receive(b"1"))
    with pytest.raises(PeerError, match=r"protocol\.unexpected"):
        machine.receive(b"2")
    assert_poisoned(machine)


def test_size_limit_in_both_directions() -> None:
    assert list(started(echo()).receive(bytes(MAX_MESSAGE))) == [bytes(MAX_MESSAGE)]
    machine = started(echo())
    with pytest.raises(PeerError, match=r"protocol\.too_large"):
        machine.receive(bytes(MAX_MESSAGE + 1))
    assert_poisoned(machine)
    machine = echo(opening=(bytes(MAX_MESSAGE + 1),))
    with pytest.raises(LocalError, match=r"protocol\.too_large"):
        list(machine.start())
    assert_poisoned(machine)


def test_messages_are_made_one_by_one() -> None:
    made = []

    def lazy():
        for i in range(3):
            made.append(i)
            yield bytes([i])

    sending = Machine(Step(lazy(), Done(None))).start()
    assert made == []
    next(sending)
    assert made == [0]


def test_progress_may_go_on_while_messages_are_made() -> None:
    done = [0]

    def lazy():
        for i in (1, 2):
            done[0] = i
            yield b"x"

    machine = Machine(Step(lazy(), Done(None), lambda: (done[0], 2)))
    assert machine.progress == (0, 0)
    sending = machine.start()
    assert machine.progress == (0, 2)
    next(sending)
    assert machine.progress == (1, 2)


def test_pump() -> None:
    left, right = echo(3, (b"ball",)), echo(3)
    with pytest.raises(PeerError, match=r"protocol\.unexpected"):
        pump(left, right)  # the last echo comes to a machine that has ended
    with pytest.raises(LocalError, match="both sides wait"):
        pump(echo(), echo())
    with pytest.raises(LocalError, match="no end after"):
        pump(echo(9, (b"ball",)), echo(9), limit=3)


def test_errors_need_a_registered_code() -> None:
    with pytest.raises(KeyError):
        ProtocolError("no.such_code", "x")
    error = PeerError("protocol.binding", "why")
    assert (error.code, error.detail, str(error)) == ("protocol.binding", "why", "protocol.binding: why")
