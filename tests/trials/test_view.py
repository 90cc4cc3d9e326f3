from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isolation_helpers import tree

from gradwise.trials import effects, view
from gradwise.trials.files import copy_file, exchange, remove_tree
from gradwise.trials.view import OutsideError, View


@pytest.fixture
def original(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "deep" / "x").write_text("x")
    (folder / "data" / "y").write_text("y")
    (folder / "train.py").write_text("pass")
    (folder / ".gradwise").mkdir()
    (folder / "latest").symlink_to("data/y")
    (folder / "absolute").symlink_to(folder / "data")
    (folder / "dangling").symlink_to(folder / "nothing")
    return folder


@pytest.fixture
def mirror(tmp_path: Path, original: Path) -> Iterator[View]:
    top = tmp_path / "scratch"
    top.mkdir()
    before = tree(original)
    yield View.make(str(top / "root"), str(top / "making"))
    remove_tree(str(top))
    assert not top.exists()
    assert tree(original) == before  # whatever a test does


def test_everything_can_be_read_before_anything_is_claimed(mirror: View, original: Path) -> None:
    assert Path(mirror.inside(str(original / "data" / "deep" / "x"))).read_text() == "x"
    assert Path(mirror.inside("/"), "etc").exists()


@pytest.mark.parametrize(
    "name", ["data/y", "latest", "absolute/y", "absolute/../latest", "./data//y", "data/deep/../y"]
)
def test_what_is_claimed_can_be_written_by_whatever_way(mirror: View, original: Path, name: str) -> None:
    claimed = mirror.claim(mirror.inside(f"{original}/{name}"))
    assert claimed == mirror.inside(str(original / "data" / "y"))
    Path(claimed).write_text("changed")
    assert Path(mirror.inside(str(original)), "latest").read_text() == "changed"
    assert Path(mirror.inside(str(original)), "absolute", "y").read_text() == "changed"


def test_a_new_file_through_a_dangling_link_stays_in_the_view(mirror: View, original: Path) -> None:
    claimed = mirror.claim(mirror.inside(str(original / "dangling")))
    Path(claimed).write_text("new")
    assert Path(mirror.inside(str(original / "nothing"))).read_text() == "new"


def test_replacing_needs_no_content_but_keeps_the_mode(mirror: View, original: Path) -> None:
    os.chmod(original / "train.py", 0o755)
    claimed = Path(mirror.claim(mirror.inside(str(original / "train.py")), effects.REPLACE))
    os.chmod(original / "train.py", 0o644)
    assert claimed.read_text() == ""
    assert claimed.stat().st_mode & 0o777 == 0o755


def test_names_are_taken_away_without_touching_what_they_stand_for(mirror: View, original: Path) -> None:
    for name in ("data", "latest", "train.py"):
        os.unlink(mirror.claim(mirror.inside(str(original / name)), effects.REMOVE))
    assert set(os.listdir(mirror.inside(str(original)))) == {"absolute", "dangling"}


def test_recordings_are_hidden(mirror: View, original: Path) -> None:
    mirror.claim(mirror.inside(str(original)), effects.TREE)
    assert ".gradwise" not in os.listdir(mirror.inside(str(original)))


def test_nothing_leads_out_by_climbing(mirror: View) -> None:
    with pytest.raises(OutsideError):
        mirror.claim(mirror.inside("/") + "/../../x")


def test_loops_of_links_end(mirror: View, original: Path) -> None:
    folder = mirror.claim(mirror.inside(str(original)), effects.TREE)
    os.symlink("b", folder + "/a"), os.symlink("a", folder + "/b")
    with pytest.raises(OSError, match="symbolic links"):
        mirror.claim(folder + "/a")


def test_huge_folders_are_refused_or_shown_in_part(
    mirror: View, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.claim(mirror.inside(str(original)), effects.TREE)
    monkeypatch.setattr(view, "_MOST_ENTRIES", 1)
    with pytest.raises(OSError, match="more than 1 entries"):
        mirror.claim(mirror.inside(str(original / "data" / "new")))
    mirror.claim(mirror.inside(str(original / "data" / "deep" / "x")), sparse=True)
    assert os.listdir(mirror.inside(str(original / "data"))) == ["deep"]


def test_workers_may_claim_the_same_at_once(mirror: View, original: Path) -> None:
    for n in range(200):
        (original / "data" / str(n)).write_text("x")
    before = tree(original)
    ready, go = os.pipe()
    workers = []
    for _ in range(6):
        if not (pid := os.fork()):
            try:
                os.close(go), os.read(ready, 1)
                for n in range(0, 200, 20):
                    mirror.claim(mirror.inside(str(original / "data" / str(n))))
                os._exit(0)
            finally:
                os._exit(1)
        workers.append(pid)
    os.close(go), os.close(ready)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0] * 6
    assert len(os.listdir(mirror.inside(str(original / "data")))) == 202
    assert tree(original) == before
    for n in range(200):
        (original / "data" / str(n)).unlink()


NAMES = st.sampled_from(["data", "deep", "x", "y", "latest", "absolute", "dangling", "new", "..", "."])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=5), st.sampled_from(["write", "replace", "remove"]))))
def test_random_deeds_never_reach_the_original(
    mirror: View, original: Path, deeds: list[tuple[list[str], str]]
) -> None:
    before = tree(original)
    for parts, verb in deeds:
        path = "/".join([mirror.inside(str(original)), *parts])
        try:
            mirror.claim(path, verb)
            if verb == "remove":
                os.unlink(path)
            else:
                Path(path).write_text("changed")
        except (OSError, OutsideError):
            continue
    assert tree(original) == before


def test_copies_keep_mode_and_times(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 100_000)
    source.chmod(0o440)
    os.utime(source, ns=(1_000_000_007, 2_000_000_009))
    copy_file(str(source), str(target))
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mtime_ns == 2_000_000_009
    assert target.stat().st_mode & 0o777 == 0o640
    with pytest.raises(FileExistsError):
        copy_file(str(source), str(target))


def test_exchange_swaps_whatever_there_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("nowhere")
    exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").is_dir()
    assert os.readlink(tmp_path / "a") == "nowhere"


def test_trees_are_removed_without_following_links(tmp_path: Path) -> None:
    keep, gone = tmp_path / "keep", tmp_path / "gone"
    (keep / "sub").mkdir(parents=True)
    (keep / "file").write_text("x")
    os.chmod(keep / "file", 0o400)
    (gone / "locked").mkdir(parents=True)
    (gone / "locked" / "file").write_text("x")
    (gone / "locked" / "link").symlink_to(keep)
    (gone / "link").symlink_to(keep / "file")
    os.chmod(gone / "locked" / "file", 0o000)
    os.chmod(gone / "locked", 0o000)
    before = tree(keep)
    remove_tree(str(gone))
    assert not gone.exists()
    assert tree(keep) == before
