import json

from operations.rehearse.report import MAX_EXAMPLES, Difference, Report


def create_report(number: int) -> Report:
    report = Report()
    for version in range(number):
        report.add(Difference("states", "a.b.status", f"a.b.1 version {version}", "status X -> Y"))
    return report


def test_reports_of_parts_add_up() -> None:
    report = create_report(7)
    report.merge(create_report(8))
    assert report.differences == {("states", "a.b.status"): 15}
    assert len(report.examples["states", "a.b.status"]) == MAX_EXAMPLES


def test_only_fields_that_are_not_accepted_count() -> None:
    report = create_report(1)
    report.add(Difference("views", "a.b.total", "a.b 1 version 1", "total 1 -> 2"))
    assert report.find_unaccepted(["a.b.status"]) == [("views", "a.b.total")]
    assert report.find_unaccepted(["a.b.status", "a.b.total"]) == []
    assert json.loads(report.to_json(["a.b.status", "a.b.total"]))["equal"]


def test_the_text_has_counts_and_examples() -> None:
    report = create_report(2)
    report.counts.update(states=1_200, events=3, streams=2)
    lines = report.to_text(["a.b.status"]).splitlines()
    assert "states         1,200 snapshots: 2 differences" in lines
    assert "states a.b.status: 2 (accepted)" in lines
    assert lines[-2:] == ["  a.b.1 version 0: status X -> Y", "  a.b.1 version 1: status X -> Y"]
