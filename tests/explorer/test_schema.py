"""The OpenAPI schema is what the server does: requests made from it get answers that it describes."""

import json
import urllib.request

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install 'mirage-world[test]'")

VERBS = ["about", "begin", "begin_from_picture", "state", "leave", "move", "generate", "plan_path", "undo", "branch"]
VERBS += ["read", "points", "thumbnail", "save", "video"]


@pytest.fixture(scope="module")
def schema(server):
    return schemathesis.openapi.from_url(f"{server.base}/api/openapi.json")


def test_the_schema_names_every_verb(schema):
    found = [operation.ok().definition.raw["operationId"] for operation in schema.get_all_operations()]
    assert sorted(found) == sorted([*VERBS, "open"])  # a zip of noise says little: see test_api


@pytest.mark.parametrize("verb", VERBS)
def test_answers_are_as_the_schema_says(schema, server, verb):
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    world = server.begin("garden")

    @settings(
        max_examples=4,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schema.find_operation_by_id(verb).as_strategy(), st.booleans())
    def ask(case, known):
        if known and "name" in case.path_parameters:
            case.path_parameters["name"] = world.name
        case.call_and_validate(excluded_checks=[positive_data_acceptance])  # well-formed, and yet impossible

    ask()


def test_the_schema_describes_the_websocket_too(server):
    with urllib.request.urlopen(f"{server.base}/api/openapi.json", timeout=30) as answer:
        schema = json.load(answer)
    live = schema["x-websocket"]["/api/sessions/{name}/live"]
    for side in ("send", "receive"):
        for reference in live[side]["oneOf"]:
            name = reference["$ref"].rpartition("/")[2]
            assert "type" in schema["components"]["schemas"][name]["properties"], name
