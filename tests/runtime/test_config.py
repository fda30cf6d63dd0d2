"""Entries of the configuration of sessions: how they are written, and which are taken."""

import re

import pytest

from onnxfuse import ModelError
from onnxfuse.runtime.config import parse_config, session_config


def test_keys_and_values():
    texts = ["session.disable_quant_qdq=1", " session.log_id = a=b ", "ep.context_file_path="]
    assert parse_config(texts) == {
        "session.disable_quant_qdq": "1",
        "session.log_id": "a=b",
        "ep.context_file_path": "",
    }
    assert parse_config([]) == {}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["session.disable_quant_qdq"], "'session.disable_quant_qdq' is not written as KEY=VALUE"),
        (["=1"], "'=1' is not written as KEY=VALUE"),
        (["session.a=1", "session.a=2"], "session.a is given twice"),
    ],
)
def test_texts_of_another_form(texts, said):
    with pytest.raises(ModelError, match=re.escape(said)):
        parse_config(texts)


def test_what_sessions_take():
    given = {"session.disable_quant_qdq": "1", "mlas.disable_kleidiai": "0"}
    assert session_config(given) == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sesion.disable_quant_qdq": "1"}, "keys begin with one of ep., "),
        ({"": "1"}, "keys begin with one of ep., "),
        ({"session.disable_quant_qdq": 1}, "both have to be text"),
        ({3: "1"}, "both have to be text"),
        ({"session.force_spinning_stop": "0"}, "bench sets it"),
        ([("session.disable_quant_qdq", "1")], "takes a mapping"),
    ],
)
def test_refuses_what_would_be_passed_over_or_cannot_be_set(given, said):
    with pytest.raises(ModelError, match=re.escape(said)):
        session_config(given)
