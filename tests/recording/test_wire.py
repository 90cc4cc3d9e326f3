"""The spool must hand on what it was given, whatever happens to the process that writes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwise.recording.frames import Declaration, Frame, Message, Points
from gradwise.recording.wire import SpoolError, SpoolReader, SpoolSink


def points(sink: SpoolSink, series: int, steps: list[int], values: list[float]) -> None:
    sink.points(series, array("q", steps), array("d", values))


def same(a: Frame, b: Frame) -> bool:
    if isinstance(a, Points) and isinstance(b, Points):
        return (
            a.series == b.series
            and np.array_equal(a.steps, b.steps)
            and a.values.shape == b.values.shape
            and np.array_equal(a.values, b.values, equal_nan=True)
        )
    return a == b


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.spool"


def write_some(path: Path) -> SpoolSink:
    sink = SpoolSink(path)
    sink.message("run", {"script": "träin.py", "argv": ["--lr", "5"]})
    loss = sink.series("loss/train", 0)
    lr = sink.series("lr", 1, ["0", "1"])
    points(sink, loss, [0, 1], [2.5, float("nan")])
    points(sink, lr, [0], [0.1, float("inf")])
    sink.message("end", {"status": "finished"})
    sink.flush()
    return sink


def test_frames_come_back_as_they_went(path: Path) -> None:
    write_some(path)
    expected: list[Frame] = [
        Message("run", {"script": "träin.py", "argv": ["--lr", "5"]}),
        Declaration(0, "loss/train", 0, ()),
        Declaration(1, "lr", 1, ("0", "1")),
        Points(0, np.array([0, 1]), np.array([2.5, np.nan])),
        Points(1, np.array([0]), np.array([[0.1, np.inf]])),
        Message("end", {"status": "finished"}),
    ]
    frames = SpoolReader(path).read()
    assert len(frames) == len(expected)
    assert all(map(same, frames, expected))


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_file_read_in_any_pieces_gives_the_same_frames(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = tmp_path_factory.getbasetemp() / "whole.spool"
    if not whole.exists():
        write_some(whole)
    content = whole.read_bytes()
    growing = whole.with_name("growing.spool")
    growing.unlink(missing_ok=True)
    reader = SpoolReader(growing)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    frames: list[Frame] = []
    for cut in [*cuts, len(content)]:
        growing.write_bytes(content[:cut])
        frames += reader.read()
    expected = SpoolReader(whole).read()
    assert len(frames) == len(expected)
    assert all(map(same, frames, expected))
    assert reader.read() == []


def test_a_reader_may_be_there_first(path: Path) -> None:
    reader = SpoolReader(path)
    assert reader.read() == []
    write_some(path)
    assert len(reader.read()) == 6


def test_points_are_copied(path: Path) -> None:
    sink = SpoolSink(path)
    series = sink.series("loss/train", 0)
    steps, values = array("q", [0]), array("d", [1.0])
    sink.points(series, steps, values)
    values[0] = 7.0
    sink.flush()
    frame = SpoolReader(path).read()[-1]
    assert isinstance(frame, Points)
    assert frame.values.tolist() == [1.0]


def test_nothing_is_written_before_a_flush_and_all_after(path: Path) -> None:
    sink = SpoolSink(path)
    sink.message("facts", {"a": 1})
    assert SpoolReader(path).read() == []
    sink.close()
    assert SpoolReader(path).read() == [Message("facts", {"a": 1})]
    sink.message("facts", {"a": 2})
    sink.flush()
    assert len(SpoolReader(path).read()) == 1


def test_much_is_written_without_a_flush(path: Path) -> None:
    sink = SpoolSink(path)
    series = sink.series("loss/train", 0)
    for _ in range(100):
        points(sink, series, list(range(1000)), [0.0] * 1000)
    assert path.stat().st_size > 1_000_000


def test_a_second_sink_goes_on_where_the_first_ended(path: Path) -> None:
    write_some(path)
    write_some(path)
    assert len(SpoolReader(path).read()) == 12


@pytest.mark.parametrize(
    ("steps", "values"),
    [(array("q", [1]), array("d", [1.0])), (array("i", [1]), array("d", [1.0, 2.0]))],
    ids=["too few values", "wrong type"],
)
def test_points_that_do_not_fit_are_dropped_and_named(path: Path, steps: array[int], values: array[float]) -> None:
    sink = SpoolSink(path)
    series = sink.series("lr", 0, ["0", "1"])
    sink.points(series, steps, values)
    sink.points(99, steps, values)
    assert "do not fit" in str(sink.error)
    points(sink, series, [2], [1.0, 2.0])
    sink.flush()
    assert len(SpoolReader(path).read()) == 2


def test_a_message_of_anything_is_written(path: Path) -> None:
    sink = SpoolSink(path)
    circle: dict[str, object] = {}
    circle["self"] = circle
    sink.message("facts", circle)
    assert sink.error is not None
    sink.message("facts", {"rate": np.float32(0.5), "kind": int, "z": 1j, "nan": float("nan")})
    sink.flush()
    (frame,) = SpoolReader(path).read()
    assert isinstance(frame, Message)
    assert frame.data["rate"] == 0.5
    assert frame.data["kind"] == "<class 'int'>"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_silences_the_sink() -> None:
    sink = SpoolSink("/dev/full")
    sink.message("facts", {})
    sink.flush()
    assert isinstance(sink.error, OSError)
    sink.message("facts", {})
    points(sink, sink.series("loss/train", 0), [0], [1.0])
    sink.close()


def test_a_path_that_cannot_be_written_silences_the_sink(tmp_path: Path) -> None:
    sink = SpoolSink(tmp_path / "no" / "such" / "folder")
    sink.message("facts", {})
    sink.close()
    assert isinstance(sink.error, FileNotFoundError)


def test_a_descriptor_reused_by_the_script_is_left_alone(path: Path, tmp_path: Path) -> None:
    sink = SpoolSink(path)
    theirs = os.open(tmp_path / "results.txt", os.O_RDWR | os.O_CREAT)
    os.dup2(theirs, sink._fd)
    sink.message("facts", {})
    sink.close()
    assert (tmp_path / "results.txt").read_bytes() == b""
    assert isinstance(sink.error, OSError)


def test_a_forked_child_writes_nothing(path: Path) -> None:
    sink = SpoolSink(path)
    series = sink.series("loss/train", 0)
    sink.flush()
    child = os.fork()
    if child == 0:
        sink.message("facts", {"from": "child"})
        points(sink, series, [0], [1.0])
        sink.flush()
        sink.close()
        os._exit(0)
    os.waitpid(child, 0)
    points(sink, series, [1], [2.0])
    sink.close()
    declared, point = SpoolReader(path).read()
    assert isinstance(declared, Declaration)
    assert isinstance(point, Points)
    assert point.steps.tolist() == [1]


def test_threads_do_not_mix_their_frames(path: Path) -> None:
    sink = SpoolSink(path)

    def work(number: int) -> None:
        for i in range(300):
            points(sink, number, [i], [float(number)])
            sink.flush()

    threads = [threading.Thread(target=work, args=(sink.series("loss/train", k),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    got: dict[int, list[int]] = {}
    for frame in SpoolReader(path).read():
        if isinstance(frame, Points):
            assert frame.values.tolist() == [float(frame.series)]
            got.setdefault(frame.series, []).extend(frame.steps.tolist())
    assert got == {k: list(range(300)) for k in range(4)}


WRITER = """
import sys
from array import array
from gradwise.recording.wire import SpoolSink
assert "numpy" not in sys.modules and "sqlalchemy" not in sys.modules
sink = SpoolSink(sys.argv[1])
series = sink.series("loss/train", 0)
step = 0
while True:
    sink.points(series, array("q", range(step, step + 100)), array("d", [0.5] * 100))
    sink.flush()
    step += 100
    if step == 1000:
        print("ready", flush=True)
"""


def test_a_killed_writer_leaves_every_whole_frame(path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    steps = [s for f in SpoolReader(path).read() if isinstance(f, Points) for s in f.steps.tolist()]
    assert len(steps) >= 1000
    assert steps == list(range(len(steps)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG rather", "not a spool"),
        (b"gradwise spool 1\n\x09\x00\x00\x00\x00", "damaged at byte 17: no frame is of kind 9"),
        (b"gradwise spool 1\n\x01\x02\x00\x00\x00{]", "damaged at byte 17"),
        (b"gradwise spool 1\n\x03\x01\x00\x00\x00\x00", "damaged at byte 17"),
        (b"gradwise spool 1\n\x03\x08\x00\x00\x00" + bytes(8), "damaged at byte 17"),
    ],
)
def test_what_is_no_spool_is_named(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(SpoolError, match=message) as caught:
        SpoolReader(path).read()
    assert str(path) in str(caught.value)


def test_a_folder_is_no_spool(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="Is a directory"):
        SpoolReader(tmp_path).read()
