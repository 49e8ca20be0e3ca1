"""Far data sets through the cache: the same samples, each shard fetched once, bounded, resumable, and clear about what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from manifests import sources

from shards.errors import DataError
from shards.pack.options import PackOptions
from shards.read import cached_set, remote
from shards.read.cache import Cache
from shards.read.dataset import Dataset
from tests.shards.builders import dataset
from tests.shards.servers import FileServer, http_server, s3_server

ROOT = Path(__file__).parent.parent.parent
EVERYTHING = 10**9
FIELDS = ["image", "patches", "report", "meta"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("far") / "set"
    dataset(path).close()
    return path


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.02)
    with http_server(folder.parent) as server:
        yield server


def content(data: Dataset) -> list[tuple[str, list[bytes]]]:
    return [(key, data.raw(i, FIELDS)) for i, key in enumerate(data.keys_of(np.arange(len(data))))]


def shards(cache: Cache) -> list[str]:
    """Whole shards, longest unused first."""
    return [e.path.name for e in cache.entries() if not e.part]


def sizes(folder: Path) -> list[int]:
    return [p.stat().st_size for p in sorted(folder.glob("*.tar"))]


# ------------------------------------------------------------------------------------------------------------ the same


def test_the_same_samples_over_http_each_shard_once(folder: Path, server: FileServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", EVERYTHING)
    with Dataset.open(folder) as near, Dataset.open(f"{server.url}/set", cache=cache) as far:
        assert content(far) == content(near)
        assert content(far) == content(near)
        assert far.fingerprint == near.fingerprint
        assert far.vocabulary("rna") == near.vocabulary("rna")
        assert far.stats().keys() == near.stats().keys()
    with Dataset.open(f"{server.url}/set", cache=Cache(tmp_path / "cache", EVERYTHING)) as again:
        content(again)
    for path in folder.glob("*.tar"):
        assert server.sent[path.name] == path.stat().st_size, path.name
        assert (cache.folder / again.path / path.name).read_bytes() == path.read_bytes()


def test_the_same_samples_from_an_object_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, sizes_asked = pytest.importorskip("s3fs").S3FileSystem, []
    size_of = client._size
    monkeypatch.setattr(client, "_size", lambda self, path: (sizes_asked.append(path), size_of(self, path))[1])
    with s3_server(folder, "bucket"):
        cache = Cache(tmp_path / "cache", EVERYTHING)
        with Dataset.open(folder) as near, Dataset.open("s3://bucket/set", cache=cache) as far:
            assert content(far) == content(near)
        assert sizes_asked, "of side files, which may be large"
        assert not [path for path in sizes_asked if path.endswith((".idx.npy", ".tar"))], "one request an index"
        for where, words in (("s3://bucket/nothing", "not there"), ("s3://nobucket/set", "not there")):
            with pytest.raises(DataError, match=words) as e:
                Dataset.open(where, cache=cache)
            assert where in str(e.value)


def test_a_folder_of_a_network_file_system(folder: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", EVERYTHING)
    with Dataset.open(folder) as near, Dataset.open(folder, cache=cache) as far:
        assert content(far) == content(near)
    assert shards(cache) == [p.name for p in sorted(folder.glob("*.tar"))]


def test_a_data_set_that_was_sealed_anew_is_another_one(tmp_path: Path) -> None:
    cache, far = Cache(tmp_path / "cache", EVERYTHING), tmp_path / "set"
    dataset(far).close()
    with Dataset.open(far, cache=cache) as old:
        keys = old.keys_of(np.arange(5))
        first = old.raw(0, FIELDS)
        dataset(far, prefix="t").close()
        assert old.raw(0, FIELDS) == first
        with pytest.raises(DataError, match=r"another hash than dataset.json says"):
            old.raw(7, FIELDS)
    with Dataset.open(far, cache=cache) as new:
        assert new.path != old.path
        assert new.keys_of(np.arange(5)) != keys
        content(new)


# --------------------------------------------------------------------------------------------------------------- room


def test_the_bound_holds_and_the_longest_unused_goes_first(folder: Path, tmp_path: Path) -> None:
    three = sum(sizes(folder)[:3])
    cache = Cache(tmp_path / "cache", three)
    names = [p.name for p in sorted(folder.glob("*.tar"))]

    def use(data: Dataset, shard: int) -> None:
        data.raw(7 * shard, FIELDS)
        data.close()
        assert cache.bytes <= three

    with Dataset.open(folder, cache=cache) as data:
        for shard in (0, 1, 2):
            use(data, shard)
        use(data, 0)
        use(data, 3)
        assert shards(cache) == [names[2], names[0], names[3]], "1 was the longest unused"
        use(data, 1)
        assert shards(cache) == [names[0], names[3], names[1]]
        assert len(list(data.path.glob("*.idx.npy"))) == 3, "an index goes with its shard"


def test_a_shard_in_use_stays_and_the_number_to_raise_is_named(folder: Path, tmp_path: Path) -> None:
    two = sum(sizes(folder)[:2])
    mine = Cache(tmp_path / "cache", two, patience=0.5)
    with Dataset.open(folder, cache=mine) as data:
        held = [data._cached.hold(data.info.shards[k]) for k in (0, 1)]  # type: ignore[union-attr]
        with pytest.raises(DataError, match=r"raise data.cache_gb to") as e:
            data.raw(14, FIELDS)
        assert "2 shards in use" in str(e.value)
        assert shards(mine) == ["shard-000000.tar", "shard-000001.tar"]
        for fd in held:
            os.close(fd)
        data.raw(14, FIELDS)
        assert shards(mine) == ["shard-000001.tar", "shard-000002.tar"]
    with pytest.raises(DataError, match="the largest shard of"):
        Dataset.open(folder, cache=Cache(tmp_path / "cache", 1000))


def test_another_process_lets_go_of_what_it_does_not_use(folder: Path, tmp_path: Path) -> None:
    """It has both shards that fit open, and does nothing."""
    two = sum(sizes(folder)[:2])
    idle = _process(
        f"Dataset.open({str(folder)!r}, cache=Cache({str(tmp_path / 'cache')!r}, {two}))",
        "[data.raw(i, F) for i in (0, 7)]",
    )
    try:
        assert idle.stdout is not None
        assert idle.stdout.readline() == "done\n"
        with Dataset.open(folder, cache=Cache(tmp_path / "cache", two)) as data:
            content(data)
            assert data._cached is not None
            assert data._cached.cache.bytes <= two
    finally:
        idle.kill()
        idle.communicate()


def test_many_threads_with_room_for_one_shard_each(folder: Path, tmp_path: Path) -> None:
    """Evictions all the time, by threads that read: every sample is right."""
    cache = Cache(tmp_path / "cache", sum(sizes(folder)[:3]))
    with Dataset.open(folder) as near:
        expected = content(near)
    wrong: list[object] = []
    with Dataset.open(folder, cache=cache) as data:

        def work(k: int) -> None:
            try:
                wrong.extend(i for i in range(k, 40, 3) if data.raw(i, FIELDS) != expected[i][1])
            except Exception as e:
                wrong.append(e)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert wrong == []
    assert cache.bytes <= cache.limit
    still_open = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert not [p for p in still_open if str(cache.folder) in p and not p.endswith(".npy")]


# --------------------------------------------------------------------------------------------------- several processes


def _process(opened: str, action: str, before: str = "") -> subprocess.Popen[str]:
    """Opens a data set, says `done` after the action, and stays until its input closes."""
    code = (
        "import sys, threading\nfrom shards.read import cached_set as c, remote\nfrom shards.read.cache import Cache\n"
        "from shards.read.dataset import Dataset\n"
        f"F = {FIELDS}\n{before}\nsys.stdin.readline()\ndata = {opened}\n{action}\nprint('done', flush=True)\nsys.stdin.readline()\n"
    )
    p = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert p.stdin is not None
    p.stdin.write("go\n")
    p.stdin.flush()
    return p


def test_processes_that_start_together_fetch_each_shard_once(folder: Path, server: FileServer, tmp_path: Path) -> None:
    """The first shard is sent only when both have asked for data, so that they meet at it."""
    gate = server.gate["shard-000000.tar"] = threading.Event()
    opened = f"Dataset.open('{server.url}/set', cache=Cache({str(tmp_path / 'cache')!r}, {EVERYTHING}))"
    two = [_process(opened, "print('open', flush=True)\n[data.raw(i, F) for i in range(len(data))]") for _ in range(2)]
    try:
        for p in two:
            assert p.stdout is not None
            assert p.stdout.readline() == "open\n"
        assert server.waiting.wait(60)
        gate.set()
        for p in two:
            assert p.stdout is not None
            assert p.stdout.readline() == "done\n"
    finally:
        for p in two:
            p.kill()
            p.communicate()
    for path in folder.glob("*.tar"):
        assert server.sent[path.name] == path.stat().st_size, path.name


HELD_BACK = """
get, asked = remote.Remote.range, []
def five(self, name, start, end):
    asked.append(name)
    if len(asked) > 5:
        print('held', flush=True)
        threading.Event().wait()
    return get(self, name, start, end)
remote.Remote.range = five
"""


def test_a_killed_download_goes_on_where_it_was(folder: Path, server: FileServer, tmp_path: Path) -> None:
    name, size, chunk = "shard-000000.tar", sizes(folder)[0], 1000
    opened = f"Dataset.open('{server.url}/set', cache=Cache({str(tmp_path / 'cache')!r}, {EVERYTHING}))"
    p = _process(opened, "data.raw(0, F)", f"c.CHUNK = {chunk}\n{HELD_BACK}")
    assert p.stdout is not None
    assert p.stdout.readline() == "held\n"
    p.send_signal(signal.SIGKILL)
    p.communicate()
    assert server.sent[name] == 5 * chunk
    cache = Cache(tmp_path / "cache", EVERYTHING)
    assert [(e.part, e.bytes) for e in cache.entries()] == [(True, size)], "it counts with its whole size"
    with Dataset.open(folder) as near, Dataset.open(f"{server.url}/set", cache=cache) as far:
        assert far.raw(0, FIELDS) == near.raw(0, FIELDS)
    assert server.sent[name] == size, "no byte twice"
    assert not list(cache.folder.glob("*/.*.part"))


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_lost_connection_is_tried_again_and_a_dead_one_named(
    folder: Path, server: FileServer, tmp_path: Path
) -> None:
    cache, name = Cache(tmp_path / "cache", EVERYTHING), "shard-000001.tar"
    with Dataset.open(folder) as near, Dataset.open(f"{server.url}/set", cache=cache) as far:
        server.cut[name] = [100, 200]
        assert far.raw(7, FIELDS) == near.raw(7, FIELDS)
        assert server.gets[name] == 3
        server.status["shard-000002.tar"] = 503
        with pytest.raises(DataError, match=r"connection lost, 8 tries .503") as e:
            far.raw(14, FIELDS)
        assert f"{server.url}/set/shard-000002.tar" in str(e.value)
        del server.status["shard-000002.tar"]
        assert far.raw(14, FIELDS) == near.raw(14, FIELDS), "it can go on"


def test_nobody_answers(folder: Path, server: FileServer, tmp_path: Path) -> None:
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="connection lost, 8 tries"):
        Dataset.open(f"{url}/set", cache=Cache(tmp_path, EVERYTHING))


def test_a_damaged_shard_is_fetched_once_more_and_then_refused(
    folder: Path, server: FileServer, tmp_path: Path
) -> None:
    cache, name = Cache(tmp_path / "cache", EVERYTHING), "shard-000000.tar"
    with Dataset.open(folder) as near, Dataset.open(f"{server.url}/set", cache=cache) as far:
        server.damage[name] = 1
        assert far.raw(0, FIELDS) == near.raw(0, FIELDS)
        assert server.gets[name] == 2
        server.damage["shard-000001.tar"] = 9
        with pytest.raises(DataError, match="came twice with another hash") as e:
            far.raw(7, FIELDS)
        assert f"{server.url}/set/shard-000001.tar" in str(e.value)
        assert server.gets["shard-000001.tar"] == 2
        far.close()
        path = far.path / name
        path.write_bytes(path.read_bytes()[:-1])  # cut where it lies
        assert far.raw(0, FIELDS) == near.raw(0, FIELDS)


@pytest.mark.parametrize(("status", "words"), [(404, "not there"), (403, "may not be read")])
def test_what_the_server_refuses_is_named_at_once(server: FileServer, tmp_path: Path, status: int, words: str) -> None:
    cache = Cache(tmp_path, EVERYTHING)
    server.status["dataset.json"] = status
    with pytest.raises(DataError, match=words) as e:
        Dataset.open(f"{server.url}/set", cache=cache)
    assert f"{server.url}/set/dataset.json" in str(e.value)
    assert server.gets["dataset.json"] == 0, "asked once"


def test_a_server_that_comes_back_is_waited_for_and_the_tries_are_told(
    folder: Path, server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "shard-000001.tar"
    server.cut[name] = [10] * 7
    with Dataset.open(folder) as near, Dataset.open(f"{server.url}/set", cache=Cache(tmp_path, EVERYTHING)) as far:
        assert far.raw(7, FIELDS) == near.raw(7, FIELDS)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 5
    assert all(line.startswith(f"{server.url}/set/{name}: try {n} of 8 failed") for n, line in enumerate(said, 3))


def test_a_server_that_falls_silent_is_left(
    folder: Path, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SILENCE", 0.05)
    monkeypatch.setattr(remote, "TRIES", 2)
    server.gate["shard-000001.tar"] = threading.Event()
    far, words = Dataset.open(f"{server.url}/set", cache=Cache(tmp_path, EVERYTHING)), "2 tries .nothing came for"
    with far, pytest.raises(DataError, match=words):
        far.raw(7, FIELDS)


def test_a_shorter_shard_a_page_and_an_endless_redirect_are_named_at_once(
    folder: Path, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_set, "CHUNK", 10_000)
    size, url = sizes(folder)[0], f"{server.url}/set"
    server.short = {"shard-000000.tar": size - 1, "shard-000001.tar": 5_000, "shard-000002.tar": 10_000}
    server.page = {"shard-000003.tar"}
    server.moved = {"shard-000004.tar": f"{url}/shard-000004.tar"}
    server.status = {"shard-000005.tar": 400}
    words = ["has 51,199 bytes", "has 5,000 bytes", "has 10,000 bytes", "a web page comes", "without end", "refused"]
    assert size == 51_200
    with Dataset.open(url, cache=Cache(tmp_path, EVERYTHING)) as far:
        for k, said in enumerate(words):
            with pytest.raises(DataError, match=said) as e:
                far.raw(7 * k, FIELDS)
            assert f"{url}/shard-00000{k}.tar" in str(e.value)


def test_a_dataset_json_that_is_none_leaves_nothing_in_the_cache(server: FileServer, tmp_path: Path) -> None:
    for fault, said in ((server.page, "a web page comes"), (None, "Invalid JSON")):
        server.page, server.short = fault or set(), {"dataset.json": 100}
        server.page |= {"dataset.json"} if fault is not None else set()
        with pytest.raises(DataError, match=said) as e:
            Dataset.open(f"{server.url}/set", cache=Cache(tmp_path / "cache", EVERYTHING))
        assert f"{server.url}/set/dataset.json" in str(e.value)
    assert not [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_a_redirect_a_proxy_and_a_login_of_the_environment_are_used(
    folder: Path, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As curl would: the host has no address but by the proxy."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine data.invalid login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    far = Dataset.open("http://data.invalid/set", cache=Cache(tmp_path / "cache", EVERYTHING))
    with Dataset.open(folder) as near, far:
        assert far.raw(0, FIELDS) == near.raw(0, FIELDS)
        assert server.logins == {"Basic bWU6c2VjcmV0"}
        server.moved = {"shard-000001.tar": f"{server.url}/set/shard-000001.tar?signature=x"}
        assert far.raw(7, FIELDS) == near.raw(7, FIELDS)
    assert server.logins == {"Basic bWU6c2VjcmV0", None}, "a login goes to its host alone"


def test_a_changed_side_file_is_refused(tmp_path: Path) -> None:
    far = tmp_path / "set"
    dataset(far).close()
    (far / "splits.csv").write_text("sample,patient,split\n")
    with pytest.raises(DataError, match=r"another hash than dataset.json says"):
        Dataset.open(far, cache=Cache(tmp_path / "cache", EVERYTHING))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data.cache=.*file/cache: cannot be written"):
        Cache(tmp_path / "file" / "cache", EVERYTHING)


def test_secrets_in_an_address_are_refused_and_not_repeated() -> None:
    for url in ("https://me:hunter2@host/set", "https://host/set?token=hunter2", "s3://key:hunter2@bucket/set"):
        with pytest.raises(DataError) as e:
            Dataset.open(url)
        assert "hunter2" not in str(e.value)
    with pytest.raises(DataError, match="not a known protocol"):
        Dataset.open("ftp://host/set")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import fsspec.registry  # noqa: F401

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(DataError, match=r"pip install 'medpair\[s3\]'"):
        Dataset.open("s3://bucket/set", cache=Cache(tmp_path, EVERYTHING))


def test_commands_on_folders_refuse_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    from shards.__main__ import main

    assert main(["lint", "s3://bucket/set"]) == 2
    assert "works on a folder" in capsys.readouterr().err


def test_an_index_that_was_damaged_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    folder = sources(tmp_path / "in").pack(tmp_path / "sealed", PackOptions(shard_samples=5))
    cache = Cache(tmp_path / "cache", 10**9)
    with Dataset.open(folder, cache=cache) as data:
        want = data[0].read("report")
        place = data.path
    index = place / "shard-000000.idx.npy"
    whole = index.read_bytes()
    for damaged in (whole[:-1] + b"x", b""):
        index.write_bytes(damaged)
        with Dataset.open(folder, cache=cache) as data:
            assert data[0].read("report") == want
        assert index.read_bytes() == whole
        index.write_bytes(damaged)
        with Dataset.open(folder, cache=cache) as data:
            assert len(list(data.indexes())) == len(data.info.shards)
        assert index.read_bytes() == whole


def test_what_a_killed_process_left_in_the_cache_is_removed(folder: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**9)
    with Dataset.open(folder, cache=cache) as data:
        place = data.path
    for name in (".dataset.json.a1b2c3d4", ".shard-000000.idx.npy.abcd_123", ".address.zzzzzzzz"):
        (place / name).write_bytes(b"half")
    kept = place / ".shard-000001.tar.12345678.part"
    kept.write_bytes(b"on its way")
    Dataset.open(folder, cache=cache).close()
    assert not [
        p.name for p in place.iterdir() if p.name.startswith(".") and p != kept and not p.name.endswith(".lock")
    ]
    assert kept.exists()
