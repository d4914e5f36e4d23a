"""A small run of the campaign that kills tuning processes, and of that which has
several tune at once."""

from tests.stress import endurance


def test_a_killed_tuning_goes_on():
    """A tuning that is killed goes on where it was."""
    figures = endurance.kills(count=2, problems=2)
    assert figures["unreadable"] == []
    assert figures["finished_passes_lost"] == 0
    assert figures["finished_passes_measured_twice"] == 0
    assert figures["exit_status_at_the_end"] == 0
    assert figures["passes_decided_at_the_end"] == figures["passes"] == 6
    assert figures["files_left_an_hour_later"] == 0


def test_processes_decide_each_problem_once():
    """Processes that tune the same problems decide each of them once."""
    figures = endurance.processes(count=2, problems_each=2)
    assert figures["exit_statuses"] == [0, 0]
    assert figures["unreadable"] == []
    assert figures["passes_decided"] == figures["passes"] == 9
    assert figures["measured_more_than_once"] == 0
