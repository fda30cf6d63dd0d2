"""Ratios that are kept from one run to the next."""

import json

import numpy as np
import pytest

from onnxfuse.benchmark.result import Interval
from onnxfuse.tuning.cache import Cache, folder

MACHINE = ("1.32.0", "some processor", "cpu", "1")
RATIOS = [Interval(1.0, 1.0, 1.0), Interval(1.5, 1.4, 1.6)]


def test_gives_back_what_was_put_in(cache_folder):
    first = Cache(MACHINE)
    key = first.key(["Conv", "1x3x8x8"])
    assert first.get(key) is None
    first.put(key, RATIOS)
    first.save()
    assert Cache(MACHINE).get(key) == RATIOS
    assert [path.name for path in cache_folder.iterdir()] == ["tune.json"]


def test_nothing_new_is_not_written(cache_folder):
    Cache(MACHINE).save()
    assert not cache_folder.exists()


def test_two_at_once_keep_both():
    one, other = Cache(MACHINE), Cache(MACHINE)
    one.put("a", RATIOS)
    other.put("b", RATIOS)
    one.save()
    other.save()
    assert Cache(MACHINE).get("a") == Cache(MACHINE).get("b") == RATIOS


@pytest.mark.parametrize("position", range(len(MACHINE)))
def test_numbers_of_other_machines_do_not_count(position):
    other = list(MACHINE)
    other[position] = "another"
    assert Cache(MACHINE).key(["Conv"]) != Cache(other).key(["Conv"])
    assert Cache(MACHINE).key(["Conv"]) != Cache(MACHINE).key(["Gemm"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"k": 1}',
        '{"k": [1]}',
        '{"k": [{"value": 1.0}]}',
        "\udc80",
        '{"k": []}',
        "[" * 100_000,
    ]
    + [
        json.dumps({"k": [{"value": bad, "low": 1.0, "high": 1.0}]})
        for bad in ("1", None, True, np.inf)
    ],
)
def test_a_damaged_file_counts_as_nothing(cache_folder, content):
    cache_folder.mkdir()
    (cache_folder / "tune.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    cache = Cache(MACHINE)
    assert cache.get("k") is None
    cache.put("k", RATIOS)
    cache.save()
    assert Cache(MACHINE).get("k") == RATIOS


def test_what_is_no_file_is_not_read(cache_folder):
    (cache_folder / "tune.json").mkdir(parents=True)
    assert Cache(MACHINE).get("k") is None


def test_nobodys_home(monkeypatch):
    def home():
        raise RuntimeError("nobody knows")

    for name in ("ONNXFUSE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", home)
    cache = Cache(MACHINE)
    cache.put("k", RATIOS)
    cache.save()
    assert cache.get("k") == RATIOS


def test_no_place_for_it(cache_folder):
    cache_folder.write_text("a file")
    cache = Cache(MACHINE)
    cache.put("k", RATIOS)
    cache.save()
    assert cache.get("k") == RATIOS
    assert cache_folder.read_text() == "a file"


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("ONNXFUSE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder() == tmp_path / "onnxfuse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "onnxfuse"
    monkeypatch.setattr("sys.platform", "darwin")
    assert folder() == tmp_path / "Library" / "Caches" / "onnxfuse"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert folder() == tmp_path / "local" / "onnxfuse"
