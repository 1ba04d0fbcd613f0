import threading
import time

import pytest

from seenet.prediction.prefetch import prefetch


def test_order_values_and_errors_are_kept():
    def read(item):
        if item == 3:
            raise ValueError("three")
        return item * 10

    seen = []
    for item, value in prefetch(range(5), read):
        if item == 3:
            with pytest.raises(ValueError, match="three"):
                value.result()
        else:
            seen.append((item, value.result()))
    assert seen == [(0, 0), (1, 10), (2, 20), (4, 40)]


def test_reads_one_ahead_and_no_more():
    started = []
    for item, value in prefetch(range(6), lambda item: started.append(item)):
        value.result()
        time.sleep(0.02)
        assert max(started) <= item + 1
    assert started == list(range(6))


def test_stopping_early_leaves_no_thread():
    before = threading.active_count()
    reads = prefetch(range(100), lambda item: item)
    next(reads)
    reads.close()
    assert threading.active_count() == before


def test_nothing_to_read():
    assert list(prefetch([], str)) == []
