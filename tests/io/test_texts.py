"""Reports are written with what they are about: there are all of them, or none."""

import json
import resource

import pytest

from onnxfuse import io
from onnxfuse.errors import ModelError
from onnxfuse.pipeline import OptimizeResult
from tests.io.building import conv, no_leftovers

TEXTS = {"report.json": "{}\n", "page.html": "<p>\n"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(conv().SerializeToString())
    return tmp_path


@pytest.fixture
def paths(folder):
    return {folder / name: text for name, text in TEXTS.items()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# In Python ---------------------------------------------------------------------------------------


def test_texts_appear_behind_what_they_are_about(folder, paths):
    with io.texts_behind(paths):
        assert not any(path.exists() for path in paths)
        (folder / "out.onnx").write_bytes(b"model")
    assert {path: path.read_text() for path in paths} == paths
    assert no_leftovers(folder)


@pytest.mark.parametrize("error", [ModelError, OSError, KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize("old", [None, b"an older text"])
def test_no_text_appears_where_that_fails(folder, paths, error, old):
    for path in paths:
        if old is not None:
            path.write_bytes(old)
    before = contents(folder)
    with pytest.raises(error), io.texts_behind(paths):
        raise error
    assert contents(folder) == before


def test_a_text_that_cannot_be_written_is_told_before_anything_is_done(folder, paths):
    before = contents(folder)
    bad = {**paths, folder / ("n" * 300): "text"}
    with pytest.raises(ModelError, match="cannot be written"), io.texts_behind(bad):
        pytest.fail("it should not come so far")
    assert contents(folder) == before
    with pytest.raises(ModelError, match="input file"), io.texts_behind(paths, *paths):
        pytest.fail("it should not come so far")
    assert contents(folder) == before


def test_a_text_keeps_the_permissions_of_an_older_one(paths):
    first = next(iter(paths))
    first.write_text("old")
    first.chmod(0o640)
    with io.texts_behind(paths):
        pass
    assert first.stat().st_mode & 0o777 == 0o640


def test_without_texts_nothing_is_done_but_what_is_between(folder):
    before = contents(folder)
    with io.texts_behind({}):
        pass
    assert contents(folder) == before


@pytest.mark.parametrize("write", [io.write_text, lambda text, path: io.write(conv(), path)])
def test_a_name_with_a_zero_in_it_is_no_file(folder, write):
    before = contents(folder)
    with pytest.raises(ModelError, match="is no name of a file") as error:
        write("text", folder / "a\0b")
    assert str(error.value).isprintable()
    assert contents(folder) == before


# On the command line -----------------------------------------------------------------------------

OPTIMIZE = ["optimize", "net.onnx", "-q", "-o", "out.onnx"]
REPORTS = ["--json", "report.json", "--report", "page.html"]


def test_the_model_and_its_reports_are_all_there(folder, call):
    assert call(*OPTIMIZE, *REPORTS) == (0, "", "")
    assert sorted(contents(folder)) == ["net.onnx", "out.onnx", "page.html", "report.json"]
    assert "folds" in json.loads((folder / "report.json").read_text())
    assert (folder / "page.html").read_text().startswith("<!doctype html>")


@pytest.fixture(params=[None, b"from an earlier run"], ids=["new", "old"])
def before(request, folder):
    """What is in the folder; with or without results of an earlier run."""
    if request.param is not None:
        for name in ("out.onnx", *TEXTS):
            (folder / name).write_bytes(request.param)
    return contents(folder)


def test_no_report_is_of_a_model_that_could_not_be_written(folder, call, monkeypatch, before):
    def fail(*_):
        raise ModelError("out.onnx: cannot be written: No space left on device")

    monkeypatch.setattr(OptimizeResult, "save", fail)
    said = "onnxfuse: out.onnx: cannot be written: No space left on device\n"
    assert call(*OPTIMIZE, *REPORTS) == (2, "", said)
    assert contents(folder) == before


def test_no_report_is_of_a_model_that_is_too_large(folder, call, before):
    """The reports fit under the limit, the model does not."""
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE), 1500
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))
        result = call(*OPTIMIZE, "--json", "report.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert result == (2, "", "onnxfuse: out.onnx: cannot be written: File too large\n")
    assert contents(folder) == before


def test_no_model_is_written_where_a_report_cannot_be(folder, call, monkeypatch, before):
    """The page's folder is gone once the page is made."""
    (folder / "sub").mkdir()

    def page(*_):
        (folder / "sub").rmdir()
        return "<p>"

    monkeypatch.setattr("onnxfuse.report.html.optimize_page", page)
    code, out, err = call(*OPTIMIZE, "--json", "report.json", "--report", "sub/page.html")
    assert (code, out) == (2, "")
    assert err.startswith("onnxfuse: sub/page.html: there is no folder ")
    assert contents(folder) == before
