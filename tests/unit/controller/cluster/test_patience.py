"""How long a write may take: ten seconds, and longer for what was late the last time."""

from onnx_operator.controller.cluster.patience import MAX_SLOW, PATIENT_SECONDS, WRITE_SECONDS, Patience


def test_what_was_late_gets_longer_until_it_comes_in_time():
    patience = Patience()
    assert patience.seconds("/a") == WRITE_SECONDS == 10
    patience.late("/a")
    assert (patience.seconds("/a"), patience.seconds("/b")) == (PATIENT_SECONDS, WRITE_SECONDS)
    patience.done("/a", WRITE_SECONDS + 1)
    assert patience.seconds("/a") == PATIENT_SECONDS, "it would be given up every other time otherwise"
    patience.done("/a", 0.1)
    assert patience.seconds("/a") == WRITE_SECONDS


def test_however_many_are_late_little_is_remembered():
    patience = Patience()
    for number in range(MAX_SLOW + 5):
        patience.late(str(number))
    assert patience.seconds("0") == WRITE_SECONDS
    assert patience.seconds(str(MAX_SLOW)) == PATIENT_SECONDS
