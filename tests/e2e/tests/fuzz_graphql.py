"""What schemathesis is told of the schema: values of its own scalars, identifiers that exist, and what an answer may be."""

import json
import os

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes


def scalar(name, values, node=nodes.String):
    schemathesis.graphql.scalar(name, st.sampled_from(values).map(node))


scalar("Currency", ["EUR", "USD", "eur", "", "\x00"])
scalar("E164", ["+43720123456", "+1", "43720123456", ""])
scalar("Timestamp", ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00+01:00", "9999-12-31T23:59:59Z", "now"])
scalar("Permission", ["audit:read", "provisioning:write", "nothing"])
scalar("Decimal", ["0", "1.5", "-1", "0.0000000001", "999999999999999999999", "1e9"])
scalar("Long", [0, 1, -1, 9007199254740993], nodes.Int)
scalar("ID", json.loads(os.environ["IDENTIFIERS"]) + ["", "nonsense"])

# What a request may be to blame for. Anything else is a defect, or a store that is away.
CODES = {"BAD_REQUEST", "FORBIDDEN"}


@schemathesis.check
def errors_have_a_reason(ctx, response, case):
    assert response.status_code == 200, f"status {response.status_code}: {response.text[:300]}"
    codes = {error.get("extensions", {}).get("code") for error in response.json().get("errors", [])}
    assert codes <= CODES, response.text[:1000]
