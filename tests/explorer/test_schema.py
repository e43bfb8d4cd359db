"""The OpenAPI schema is what the server does: requests made from it get answers that it describes."""

import json
import urllib.request

import pytest
from hypothesis import HealthCheck, Phase, settings

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install 'mirage-world[test]'")

VERBS = [
    "about",
    "begin",
    "state",
    "move",
    "plan_path",
    "undo",
    "branch",
    "read",
    "points",
    "thumbnail",
    "video",
    "leave",
]


@pytest.fixture(scope="module")
def schema(server):
    return schemathesis.openapi.from_url(f"{server.base}/api/openapi.json")


lazy = schemathesis.pytest.from_fixture("schema")


@lazy.parametrize()
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_the_schema_says(case):
    case.call_and_validate()


def test_the_schema_describes_the_websocket_too(server):
    with urllib.request.urlopen(f"{server.base}/api/openapi.json", timeout=30) as answer:
        schema = json.load(answer)
    live = schema["x-websocket"]["/api/sessions/{name}/live"]
    for side in ("send", "receive"):
        for reference in live[side]["oneOf"]:
            name = reference["$ref"].rpartition("/")[2]
            assert "type" in schema["components"]["schemas"][name]["properties"], name
