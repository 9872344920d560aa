import pytest

from operators.errors import SeriesRefused
from operators.gate.policies import CHECKS, GatePolicies, policy_problems


def test_every_check_may_do_what_it_does_by_default() -> None:
    assert [one.code for one in CHECKS.values() if one.default not in one.allowed] == []
    assert [code for code, one in CHECKS.items() if code != one.code] == []
    assert [one.code for one in CHECKS.values() if ("repair" in one.allowed) and not one.repair] == []


@pytest.mark.parametrize("code", ["slice-missing", "uneven-spacing", "gantry-tilt", "mixed-patient", "mixed-matrix"])
def test_what_has_no_exact_remedy_is_always_refused(code: str) -> None:
    for policy in ("warn", "repair"):
        assert list(policy_problems({code: policy})) == [
            f"the check '{code}' can't be set to '{policy}', only to refuse"
        ]


def test_an_unknown_code_is_told_with_those_that_can_be_chosen() -> None:
    (problem,) = policy_problems({"lossy": "warn"})
    assert problem.startswith("there is no check 'lossy'; those with a choice are wrong-modality, ")
    assert "lossy-compression" in problem
    assert "slice-missing" not in problem


def test_choices_that_can_be_made_are_no_problem() -> None:
    assert list(policy_problems({code: one.default for code, one in CHECKS.items()})) == []


def test_what_is_refused_is_raised_and_all_else_noted() -> None:
    policies = GatePolicies({"lossy-compression": "refuse", "wrong-modality": "warn"})
    with pytest.raises(SeriesRefused, match="lost") as caught:
        policies.settle("lossy-compression", "lost")
    assert caught.value.code == "lossy-compression"
    note = policies.settle("wrong-modality", "other")
    assert (note.code, note.policy, note.message) == ("wrong-modality", "warn", "other")
    assert note.of_channel("T1").message == "channel T1: other"
