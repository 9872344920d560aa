"""What is asked about each series that comes finds its rows by an index, however many results are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from app.jobs.connections import read_statements
from app.jobs.migrations import migrate
from tests.database_fixture import fresh_database

_JOBS = """
INSERT INTO jobs (id, key, study_instance_uid, series_instance_uid, series_revision, rule, pipeline, model_name,
                  model_version, weights_digest, destinations, state)
SELECT gen_random_uuid(), 'key ' || number, '2.25.' || number, '2.25.' || number, 1, 'rule', 'pipeline', 'model', '1',
       '0', '{archive}', CASE WHEN number % 1000 = 0 THEN 'queued' ELSE 'closed' END
FROM generate_series(1, 50000) AS number
"""
_RESULTS = """
INSERT INTO results (job_id, digest, attempt, path, sop_class_uid, sop_instance_uid, series_instance_uid,
                     transfer_syntax_uid)
SELECT id, md5(key), 1, '/results/' || id || '/specialist-segmentation.dcm', '1.2.840.10008.5.1.4.1.1.66.4',
       study_instance_uid || '.1', study_instance_uid || '.2', '1.2.840.10008.1.2.1'
FROM jobs
"""
_INSTANCES = """
INSERT INTO instances (sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, series_instance_uid,
                       study_instance_uid, size_bytes, calling_ae_title, source_host)
SELECT '2.25.1.' || number, md5(number::text), '1.2', '1.2', '2.25.1.1', '2.25.1', 1000, 'MODALITY', 'host'
FROM generate_series(1, 300) AS number
"""

_SERIES = {"study_instance_uid": "2.25.1", "series_instance_uid": "2.25.1.1"}


@pytest.fixture(scope="module")
def used(postgres: str) -> Iterator[psycopg.Connection]:
    """A database that has been in use for a year or two."""
    with fresh_database(postgres) as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")  # rows that refer to rows that are not there
            for rows in (_JOBS, _RESULTS, _INSTANCES):
                connection.execute(rows)
            connection.execute("ANALYZE")
            yield connection


@pytest.mark.parametrize(
    ("file", "statement", "facts", "table"),
    [
        ("deciding.sql", "has_own_results", _SERIES, "results"),
        ("deciding.sql", "pipelines_of_results", (["2.25.7.1", "2.25.8.1"],), "results"),
        ("receiving.sql", "backlog", (), "jobs"),
    ],
)
def test_what_is_asked_of_each_series_reads_no_whole_table(
    used: psycopg.Connection, file: str, statement: str, facts: Mapping[str, Any] | tuple[Any, ...], table: str
) -> None:
    plan = used.execute("EXPLAIN " + read_statements(file)[statement], facts).fetchall()
    assert not [line for (line,) in plan if f"Seq Scan on {table}" in line], plan
