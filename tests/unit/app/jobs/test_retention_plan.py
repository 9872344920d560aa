from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from app.jobs.records.retaining import KeptResults, KeptStudy
from app.jobs.retention_plan import STAYS, Plan, Refused, Room, SizedResults, make_plan
from app.settings_retention import RetentionSettings

_DAY = 86_400.0
_RULES = RetentionSettings(spool_days=30, results_days=90, quarantine_days=7, least_seconds=600)
_ROOM = Room(free_bytes=1000, least_free_bytes=100, spool_bytes=500)


def _study(number: int, days: float, needed_by: str = "", size_bytes: int = 100) -> KeptStudy:
    return KeptStudy(f"1.{number}", 2, size_bytes, days * _DAY, needed_by)


def _results(number: int, days: float, needed_by: str = "") -> SizedResults:
    return SizedResults(KeptResults(uuid.UUID(int=number), f"1.{number}", days * _DAY, needed_by), 3, 10)


def _gone(plan: Plan) -> list[tuple[str, str, str]]:
    return [(one.what, one.study_instance_uid or one.names[0], one.why) for one in plan.removals]


def test_what_is_too_old_goes() -> None:
    plan = make_plan(
        _RULES,
        _ROOM,
        [_study(1, 40), _study(2, 20)],
        [_results(1, 100), _results(2, 40)],
        [Refused("a", 5, 8 * _DAY), Refused("b", 5, 6 * _DAY)],
    )
    assert _gone(plan) == [("quarantine", "a", "age"), ("instances", "1.1", "age"), ("results", "1.1", "age")]
    assert plan.stays == {"quarantine": {"young": 5}, "instances": {"young": 100}, "results": {"young": 10}}
    assert plan.lacking_bytes == 0


def test_what_is_needed_stays_whatever_its_age_and_the_room() -> None:
    needs = [need for need in STAYS if need != "young"]
    studies = [_study(number, 1000, need) for number, need in enumerate(needs)]
    results = [_results(number, 1000, need) for number, need in enumerate(needs)]
    plan = make_plan(_RULES, Room(0, 10_000, 500), studies, results, [])
    assert plan.removals == ()
    assert set(plan.stays["instances"]) == set(plan.stays["results"]) == set(needs)
    assert plan.lacking_bytes == 10_000


def test_for_room_the_oldest_goes_first_and_no_more_than_is_wanted() -> None:
    studies = [_study(1, 3), _study(2, 2), _study(3, 1)]
    plan = make_plan(_RULES, Room(50, 200, 300), studies, [_results(1, 3)], [])
    assert _gone(plan) == [("instances", "1.1", "space"), ("instances", "1.2", "space")]
    assert plan.stays == {"instances": {"young": 100}, "results": {"young": 10}}
    assert plan.lacking_bytes == 0


def test_for_room_refused_objects_go_before_studies_and_results_last() -> None:
    plan = make_plan(_RULES, Room(0, 115, 100), [_study(1, 1)], [_results(1, 1)], [Refused("a", 5, _DAY)])
    assert _gone(plan) == [("quarantine", "a", "space"), ("instances", "1.1", "space"), ("results", "1.1", "space")]


def test_a_spool_that_is_too_large_shrinks_to_its_bound() -> None:
    rules = _RULES.model_copy(update={"largest_spool_bytes": 150})
    plan = make_plan(rules, Room(10_000, 100, 300), [_study(1, 3), _study(2, 2), _study(3, 1)], [_results(1, 3)], [])
    assert _gone(plan) == [("instances", "1.1", "space"), ("instances", "1.2", "space")]


def test_what_was_touched_just_now_stays_though_room_is_wanted() -> None:
    plan = make_plan(_RULES, Room(0, 1000, 100), [_study(1, 599 / _DAY), _study(2, 601 / _DAY)], [], [])
    assert _gone(plan) == [("instances", "1.2", "space")]
    assert plan.lacking_bytes == 900


_KEPT = st.tuples(st.floats(0, 200), st.sampled_from(["", *STAYS]), st.integers(0, 1000))


@given(kept=st.lists(_KEPT, max_size=8), free=st.integers(0, 5000), least=st.integers(0, 5000))
def test_every_byte_goes_or_stays_and_nothing_needed_goes(
    kept: list[tuple[float, str, int]], free: int, least: int
) -> None:
    needs = ["" if need == "young" else need for _, need, _ in kept]
    studies = [_study(number, kept[number][0], needs[number], kept[number][2]) for number in range(len(kept))]
    studies.sort(key=lambda one: -one.idle_seconds)
    total = sum(one.bytes for one in studies)
    plan = make_plan(_RULES, Room(free, least, total), studies, [], [])
    gone = {one.study_instance_uid for one in plan.removals}
    assert sum(one.bytes for one in plan.removals) + sum(plan.stays.get("instances", {}).values()) == total
    assert not gone & {one.study_instance_uid for one in studies if one.needed_by}
    left = [one for one in studies if one.study_instance_uid not in gone and not one.needed_by]
    if plan.lacking_bytes:
        assert all(one.idle_seconds < _RULES.least_seconds for one in left)
    spaced = [one for one in studies if one.study_instance_uid in gone and one.idle_seconds < 30 * _DAY]
    waiting = [one for one in left if one.idle_seconds >= _RULES.least_seconds]
    assert not spaced or not waiting or spaced[-1].idle_seconds >= waiting[0].idle_seconds
