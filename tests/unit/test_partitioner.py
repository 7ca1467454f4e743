"""Our murmur2 against kafka-python's, and Java's own published examples."""

from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as murmur2_of_kafka_python

from fraudstream.core.partitioner import murmur2, partition_of


@given(st.binary(max_size=80))
def test_every_key_has_the_hash_that_kafka_python_computes(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_kafka_python(key)


def test_javas_examples_hold() -> None:
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2, as unsigned numbers
    examples = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in examples} == {
        key: signed & 0xFFFFFFFF for key, signed in examples.items()
    }


@given(st.binary(max_size=20), st.integers(1, 512))
def test_a_partition_lies_in_its_range(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
