"""The loop: promises, routines, timers, children."""

from __future__ import annotations

import os

import pytest

from pydock_shim import loop, wire


@pytest.fixture
def main():
    made = loop.Loop(lambda line: None)
    yield made
    made.close()


def test_a_routine_is_resumed_with_values_and_errors(main):
    first, second = loop.Promise(), loop.Promise()

    def routine():
        value = yield first
        try:
            yield second
        except loop.RpcError as error:
            return value, error.code
        return None

    result = main.start(routine())
    assert not result.done
    first.resolve(4)
    second.fail(loop.RpcError(5, "gone"))
    assert result.value == (4, 5)


def test_an_os_error_in_a_routine_becomes_one_the_caller_can_be_told(main):
    def routine():
        yield main.sleep(0)
        os.open("/no/such/file", os.O_RDONLY)

    result = main.start(routine())
    while not result.done:
        main.turn(1.0)
    assert isinstance(result.error, loop.RpcError)
    assert (result.error.code, result.error.message) == (wire.UNKNOWN, "/no/such/file: No such file or directory")


def test_a_promise_is_settled_once(main):
    promise = loop.Promise()
    promise.resolve(1)
    promise.resolve(2)
    promise.fail(ValueError())
    assert (promise.value, promise.error) == (1, None)


def test_a_lock_lets_in_one_after_the_other(main):
    lock, order = loop.Lock(), []

    def routine(name, gate):
        yield lock.enter()
        order.append(name)
        yield gate
        lock.leave()

    gates = [loop.Promise() for _ in range(3)]
    for number, gate in enumerate(gates):
        main.start(routine(number, gate))
    assert order == [0]
    for gate in gates:
        gate.resolve()
    assert order == [0, 1, 2]


def test_what_takes_too_long_is_told_apart(main):
    never, soon = loop.Promise(), main.sleep(0.001)
    late, timely = main.within(0.01, never), main.within(10, soon)
    while not (late.done and timely.done):
        main.turn(1.0)
    assert (late.value, timely.value) == (False, True)
    assert not main.busy


def test_an_end_that_comes_before_it_is_asked_for_is_kept_while_a_call_is_under_way(main):
    main.expect()
    main.ended(loop.Exit(77, 3, 1))
    gone = main.child(77)
    assert gone.value.status == 3
    main.expected()
    main.ended(loop.Exit(78, 3, 1))
    assert not main.child(78).done


def test_descriptors_are_watched_changed_and_forgotten(main):
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    seen = []
    main.watch(reader, loop.IN, lambda events: seen.append(os.read(reader, 10)))
    os.write(writer, b"x")
    main.turn(1.0)
    main.forget(reader)
    main.forget(reader)
    os.write(writer, b"y")
    main.turn(0)
    assert seen == [b"x"]
    os.close(reader)
    os.close(writer)
