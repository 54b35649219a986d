"""Several processes that decode, each one input at a time, for one model that computes.

A process is a fork of this one, which has everything loaded; it touches neither the model nor the GPU. Where there is no
safe fork (Windows, macOS) a thread does the work.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

HELD_BACK = 8  # inputs begun per process before the first of them has ended: results leave in the order of the inputs


@dataclass
class Decoder:
    """A process, this end of its pipe, and the input that it works on: its place in the order, or None."""

    process: multiprocessing.Process
    pipe: Connection
    place: int | None = None
    audio: Any = None


def can_fork() -> bool:
    """Return whether processes can be forked safely here."""
    return sys.platform == "linux"


def decode_for_ever(windows_of: Callable[[Any], Iterable[dict]], pipe: Connection, parents: Connection) -> None:
    """Send the windows of every input that the pipe brings, until `parents`, the other end, is closed."""
    parents.close()  # this process's copy, which would keep it open
    torch.set_num_threads(1)  # a fork has none of its parent's threads and must not wait for them
    try:
        while True:
            for window in windows_of(pipe.recv()):
                pipe.send(window)
    except (EOFError, OSError, KeyboardInterrupt):  # the parent has ended, or wants to
        return


class Decoders:
    """Processes that decode, each replaced where it dies."""

    def __init__(self, windows_of: Callable[[Any], Iterable[dict]], workers: int) -> None:
        self.windows_of, self.context = windows_of, multiprocessing.get_context("fork")
        self.all = [self.start() for _ in range(workers)]

    def start(self) -> Decoder:
        """Return a new process."""
        here, there = self.context.Pipe()
        process = self.context.Process(target=decode_for_ever, args=(self.windows_of, there, here), daemon=True)
        process.start()
        there.close()
        return Decoder(process, here)

    def give(self, place: int, audio: Any) -> bool:
        """Give an input to a process that has none; return whether there was one."""
        for index, decoder in enumerate(self.all):
            if decoder.place is None:
                if not decoder.process.is_alive():
                    decoder.pipe.close()
                    self.all[index] = decoder = self.start()
                decoder.place, decoder.audio = place, audio
                decoder.pipe.send(audio)
                return True
        return False

    def windows(self) -> Iterator[tuple[Decoder, dict]]:
        """Yield a window of each process that has one, after waiting for the first; an error, where a process has died."""
        busy = {decoder.pipe: decoder for decoder in self.all if decoder.place is not None}
        for pipe in wait(list(busy)):
            try:
                yield busy[pipe], pipe.recv()
            except (EOFError, ConnectionResetError):  # killed for its memory, or by a bug of a C library
                busy[pipe].process.join()
                yield busy[pipe], {"error": f"{busy[pipe].audio} ended the process that decoded it.", "is_last": True}

    def stop(self) -> None:
        """End all processes."""
        for decoder in self.all:
            decoder.process.kill()
            decoder.process.join()
            decoder.pipe.close()


def windows_by_processes(
    inputs: Iterable, windows_of: Callable[[Any], Iterable[dict]], workers: int
) -> Iterator[tuple[int, dict]]:
    """Yield (place of the input, window) of all inputs, those of one input in order and those of several mixed.

    Args:
        windows_of: yields an input's windows; the last one has `is_last`. An error of it must be such a window.
        workers: how many processes.

    An input whose process dies gives {"error", "is_last"}, and another process takes its place. Pipes hold little, so
    that the processes never get far ahead of the reader.
    """
    decoders, todo, ended, oldest = Decoders(windows_of, workers), enumerate(inputs), set(), 0
    try:
        upcoming = next(todo, None)
        while True:
            while upcoming and upcoming[0] < oldest + HELD_BACK * workers and decoders.give(*upcoming):
                upcoming = next(todo, None)
            if all(decoder.place is None for decoder in decoders.all):
                return
            for decoder, window in decoders.windows():
                yield decoder.place, window
                if window["is_last"]:
                    ended.add(decoder.place)
                    decoder.place = None
            while oldest in ended:
                ended.remove(oldest)
                oldest += 1
    finally:
        decoders.stop()
