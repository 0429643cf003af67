"""The times up to which partitions include all committed events, without any server."""

from projector.catch_up import MAX_TARGETS, UNKNOWN, CatchUp


def test_a_partition_gets_the_time_of_the_last_target_that_it_reached() -> None:
    catch_up = CatchUp()
    catch_up.add_target(10, 1_000)
    catch_up.add_target(20, 2_000)
    assert catch_up.reach({0: 9, 1: 10, 2: 19, 3: 25}) == {1: 1_000, 2: 1_000, 3: 2_000}


def test_without_a_target_no_partition_gets_a_time() -> None:
    assert CatchUp().reach({0: 10}) == {}


def test_a_later_target_at_the_same_sequence_replaces_the_earlier_one() -> None:
    catch_up = CatchUp()
    catch_up.add_target(10, 1_000)
    catch_up.add_target(10, 2_000)
    assert catch_up.reach({0: 10}) == {0: 2_000}


def test_a_target_without_a_confirmed_time_hides_no_known_one() -> None:
    catch_up = CatchUp()
    catch_up.add_target(10, UNKNOWN)
    assert catch_up.reach({0: 10}) == {0: UNKNOWN}
    catch_up.add_target(10, 1_000)
    catch_up.add_target(20, UNKNOWN)
    assert catch_up.reach({0: 20}) == {0: 1_000}
    assert catch_up.reach({0: 15}) == {0: 1_000}


def test_a_projector_far_behind_keeps_old_targets_and_the_last_one() -> None:
    catch_up = CatchUp()
    for number in range(1, 10 * MAX_TARGETS):
        catch_up.add_target(number, 1_000 * number)
    assert len(catch_up._targets) <= MAX_TARGETS + 1
    for sequence in (1, MAX_TARGETS, 10 * MAX_TARGETS):
        (time,) = catch_up.reach({0: sequence}).values()
        assert 1_000 <= time <= 1_000 * sequence
    last = 10 * MAX_TARGETS - 1
    assert catch_up.reach({0: last}) == {0: 1_000 * last}
